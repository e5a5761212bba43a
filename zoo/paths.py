"""Where the zoo keeps what it reads and what it makes."""

import os
from pathlib import Path

PACKAGE = Path(__file__).parent


def _shipped(folder: str) -> Path:
    """A folder that stands inside an installed wheel, or beside the package in a source checkout."""
    inside = PACKAGE / folder
    return inside if inside.is_dir() else PACKAGE.parent / folder


def recipes_folder() -> Path:
    """The published recipes, ``METHOD/NAME.yaml``."""
    return _shipped("recipes")


def checkpoints_folder() -> Path:
    """The cards that come with the zoo, ``NAME/``; ``ZOO_CHECKPOINTS`` names another folder."""
    return Path(os.environ.get("ZOO_CHECKPOINTS", _shipped("checkpoints")))


def cache_folder() -> Path:
    """Built data sets and pulled cards; ``ZOO_CACHE`` names another folder."""
    base = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
    return Path(os.environ.get("ZOO_CACHE", Path(base) / "medvl-zoo"))
