"""Files and folders that a recipe names: absolute once it is read, left out of what is published.

So a run works from any working directory, and a card names no place of the machine that it was trained on.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from zoo.paths import card_folders

DATA_PATHS = (
    "train",
    "val",
    "test",
    "split_file",
    "images",
    "table",
    "folder",
    "instances",
    "referring",
    "ct",
    "labels",
    "annotation",
    "annotations",
    "file",
    "graphs",
    "masks",
    "questions",
    "reports",
    "splits",
)
"""Arguments of data sets that are files or folders."""
SOURCES = ("source", "model", "pretrained", "weights")
"""Arguments of models that are files or folders, or names of published weights."""
LOCAL = "local-dir:"
"""open_clip's prefix of a model in a local folder."""
LEFT_OUT = "<path>"
"""What a published recipe has in the place of a file or folder."""
_SPLITS = ("train", "val", "test")
_RECORD = "README.md"
_METRICS = "method.report_metrics."

Change = Callable[[str, str, str], str]
"""Takes the key of a text in a recipe, the argument's name and the text, and returns it or another."""


def absolute_paths(content: Mapping[str, Any], folder_of: Callable[[str], Path | None]) -> dict[str, Any]:
    """The content of a recipe with relative files and folders made absolute.

    A path is one beside the recipe if there is such a file, else one in the working directory; what exists in neither place is
    left as it is, since it may be the name of published weights, or of data that a recipe is still to be given.

    Args:
        content: of the recipe.
        folder_of: the folder of the recipe that set a key; None for the command line.
    """

    def change(key: str, name: str, value: str) -> str:
        section = key.partition(".")[0]
        if section == "init_from":
            return _absolute_card(value, folder_of(key))
        if not _may_be_path(section, name, value):
            return value
        prefix = LOCAL if value.startswith(LOCAL) else ""
        return prefix + _absolute(value.removeprefix(prefix), folder_of(key))

    return _changed(content, change)


def _may_be_path(section: str, name: str, value: str) -> bool:
    if "/" in value or value.startswith(LOCAL):
        return True
    if section == "data":
        return name in DATA_PATHS
    return name == "source" or (name in SOURCES and bool(Path(value).suffix))


def _absolute(value: str, folder: Path | None) -> str:
    path = Path(value).expanduser()
    for base in (folder, Path()):
        if base is not None and _exists(base / path):
            return os.path.abspath(base / path)
    return value


def _exists(path: Path) -> bool:
    """Whether a file or folder is there, of any split where the split is a part of its name."""
    try:
        return any(Path(str(path).replace("{split}", split)).exists() for split in _SPLITS)
    except (OSError, ValueError):  # a text that is too long for a name, or has a zero byte
        return False


def _absolute_card(name: str, folder: Path | None) -> str:
    """The folder of a card that is not found by its name from everywhere: beside another card, or in the working directory."""
    everywhere = [base for base in card_folders() if base.is_absolute()]
    if Path(name).is_absolute() or any(_is_card(base / name) for base in everywhere):
        return name
    beside = [folder.parent] if folder is not None and _is_card(folder) else []
    candidates = [*beside, *card_folders(), *([folder] if folder is not None else []), Path()]
    return next((os.path.abspath(base / name) for base in candidates if _is_card(base / name)), name)


def _is_card(folder: Path) -> bool:
    try:
        return (folder / _RECORD).is_file()
    except (OSError, ValueError):
        return False


def without_paths(content: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The content of a recipe with :data:`LEFT_OUT` for files and folders, and the name alone of a card; and their keys.

    Args:
        content: of a recipe that was read, so that its paths are absolute where they exist.
    """
    keys: list[str] = []

    def change(key: str, name: str, value: str) -> str:
        section = key.partition(".")[0]
        if section == "init_from":
            return Path(value).name
        path = Path(value.removeprefix(LOCAL))
        if (section == "data" and name in DATA_PATHS) or (path.is_absolute() and _exists(path)):
            keys.append(key)
            return LEFT_OUT
        return value

    return _changed(content, change), keys


def value_at(content: Any, key: str) -> Any:
    """The value under a dotted key; a number counts in a list.

    Example:
        >>> value_at({"data": {"scans": [{"ct": "a.nii"}]}}, "data.scans.0.ct")
        'a.nii'
    """
    for part in key.split("."):
        content = content[int(part)] if isinstance(content, list) else content[part]
    return content


def has_value(content: Any, key: str) -> bool:
    """Whether there is a value under a dotted key."""
    try:
        value_at(content, key)
    except (KeyError, IndexError, TypeError, ValueError):
        return False
    return True


def left_out(content: Mapping[str, Any], section: str) -> Iterator[tuple[str, str]]:
    """Keys in a section of a card's recipe that need a file or folder, each with a message."""
    keys: list[str] = []

    def note(key: str, name: str, value: str) -> str:
        # What metrics need is asked for when reports are measured: a card predicts without.
        keys.extend([key] if value == LEFT_OUT and not key.startswith(_METRICS) else [])
        return value

    _changed({section: content.get(section)}, note)
    yield from ((key, was_left_out(key)) for key in keys)


def was_left_out(key: str) -> str:
    """What to do about a file or folder that a card does not name, as the end of a message."""
    return f"was a file or folder of the machine that trained this card; give yours, as {key}=PATH"


def _changed(content: Mapping[str, Any], change: Change) -> dict[str, Any]:
    """A copy of a recipe's data, method and ``init_from`` with each text changed, and the other sections as they are."""
    sections = ("data", "method", "init_from")
    return {
        key: _changed_value(key, str(key), value, change) if key in sections else value
        for key, value in content.items()
    }


def _changed_value(key: str, name: str, value: Any, change: Change) -> Any:
    if isinstance(value, str):
        return change(key, name, value)
    if isinstance(value, Mapping):
        return {item: _changed_value(f"{key}.{item}", str(item), inner, change) for item, inner in value.items()}
    if isinstance(value, list) and (key == "init_from" or any(isinstance(item, Mapping) for item in value)):
        return [_changed_value(f"{key}.{i}", name, item, change) for i, item in enumerate(value)]
    return value
