"""The wording of reports, questions and traces: YAML files beside this module, read once."""

from functools import cache
from importlib.resources import files
from typing import Any


@cache
def read_wording(name: str) -> dict[str, Any]:
    """The content of ``NAME.yaml``: mappings and lists of text. Do not change it; it is shared."""
    import yaml

    content: dict[str, Any] = yaml.safe_load(files(__package__).joinpath(f"{name}.yaml").read_text(encoding="utf-8"))
    return content
