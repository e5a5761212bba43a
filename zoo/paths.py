"""Folders that the zoo reads from and writes to."""

import os
from pathlib import Path

PACKAGE = Path(__file__).parent
CACHE_KINDS = {
    "cards": "cards pulled from the Hub; pulled again",
    "chest_drr": "rendered data sets, and scans as they are read; rendered again",
    "crops": "cut-out evidence of traces; cut again",
    "embeddings": "embeddings of frozen encoders; computed again",
    "hashes": "hashes of large files, as weights; computed again",
    "images": "decoded images of data sets with `cache: true`; decoded again",
    "metrics": "extracted weights of report metrics, and what judges replied; extracted and asked again",
    "tokens": "tokens of images in traces; computed again",
}
"""Folders of the cache, each with what is in it and what happens once it is gone."""


def _shipped(folder: str) -> Path:
    """A folder that stands inside an installed wheel, or beside the package in a source checkout."""
    inside = PACKAGE / folder
    return inside if inside.is_dir() else PACKAGE.parent / folder


def recipes_folder() -> Path:
    """The published recipes, ``METHOD/NAME.yaml``."""
    return _shipped("recipes")


def checkpoints_folder() -> Path:
    """The cards that come with the zoo, ``NAME/``; ``ZOO_CHECKPOINTS`` names another folder.

    A checkout holds them with their weights, an installed wheel without: it has each card's README and recipe.
    """
    return Path(os.environ.get("ZOO_CHECKPOINTS", _shipped("checkpoints")))


def publishing_folder() -> Path:
    """Where new cards are written: ``ZOO_CHECKPOINTS``, else ``checkpoints/`` in the working directory."""
    return Path(os.environ.get("ZOO_CHECKPOINTS", "checkpoints"))


def card_folders() -> list[Path]:
    """Where cards are kept: those that come with the zoo, the user's own, and those pulled into the cache."""
    folders: dict[Path, Path] = {}
    for folder in (checkpoints_folder(), publishing_folder(), pulled_cards_folder()):
        folders.setdefault(folder.resolve(), folder)
    return list(folders.values())


def pulled_cards_folder() -> Path:
    """Cards pulled from the Hugging Face Hub."""
    return cache_folder() / "cards"


def hub_owner() -> str | None:
    """The Hugging Face account that ``zoo pull NAME`` fetches from: ``ZOO_HUB_OWNER``."""
    return os.environ.get("ZOO_HUB_OWNER")


def cache_folder() -> Path:
    """Built data sets and pulled cards; ``ZOO_CACHE`` names another folder."""
    base = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
    return Path(os.environ.get("ZOO_CACHE", Path(base) / "medvl-zoo"))
