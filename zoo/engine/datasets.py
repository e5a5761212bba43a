"""Data sets by name and settings: prepared in the cache, and shown as a contact sheet."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from zoo.config.building import resolve
from zoo.data.base import ZooData


def make_dataset(name: str, settings: Sequence[str]) -> ZooData:
    """Build a dataset from ``key=value`` settings.

    Raises:
        RecipeError: no such dataset or argument.
    """
    arguments: Any = OmegaConf.to_container(OmegaConf.from_dotlist(list(settings)))
    data: ZooData = resolve("dataset", {"name": name, **arguments}, "data", "command line").build()
    return data


@dataclass(frozen=True)
class BuildReport:
    """How many samples each split has, and how long they took."""

    counts: dict[str, int]
    seconds: float

    @property
    def rate(self) -> float:
        """Samples a second."""
        return sum(self.counts.values()) / max(self.seconds, 1e-9)


def build_dataset(name: str, settings: Sequence[str]) -> BuildReport:
    """Prepare a dataset in the cache."""
    data = make_dataset(name, settings)
    start = time.monotonic()
    data.prepare_data()
    counts = {split: len(data.split(split)) for split in ("train", "val", "test")}  # type: ignore[arg-type]
    return BuildReport(counts, time.monotonic() - start)


def plot_dataset(name: str, out: Path, settings: Sequence[str], count: int = 12) -> Path:
    """Plot a contact sheet of the first samples of a dataset, with outlines of the masks of findings if it has them."""
    from zoo.visualization.figures import plot_contact_sheet

    file = out / f"{name}.png"
    images, titles, outlines = zip(*make_dataset(name, settings).example_images(count), strict=True)
    plot_contact_sheet(images, titles, outlines, file)
    return file
