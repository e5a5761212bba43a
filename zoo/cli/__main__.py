"""``python -m zoo.cli``."""

from zoo.cli.app import app

app()
