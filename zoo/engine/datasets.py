"""Datasets by name and settings: prepared in the cache, and plotted as contact sheets."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.config.building import resolve
from zoo.config.recipe import COMMAND_LINE, parse_overrides
from zoo.data.base import ZooData


def build_dataset(name: str, settings: Sequence[str]) -> ZooData:
    """Build a dataset from ``key=value`` settings.

    Raises:
        RecipeError: unknown dataset or argument.
    """
    node = {"name": name, **parse_overrides(settings)}
    data: ZooData = resolve("dataset", node, "data", COMMAND_LINE).build()
    return data


@dataclass(frozen=True)
class BuildReport:
    """The number of samples of each split, and the time that preparing them took."""

    counts: dict[str, int]
    seconds: float

    @property
    def rate(self) -> float:
        """Samples per second."""
        return sum(self.counts.values()) / max(self.seconds, 1e-9)


def prepare_dataset(name: str, settings: Sequence[str]) -> BuildReport:
    """Prepare a dataset in the cache."""
    data = build_dataset(name, settings)
    start = time.monotonic()
    data.prepare_data()
    counts = {split: len(data.split(split)) for split in ("train", "val", "test")}  # type: ignore[arg-type]
    return BuildReport(counts, time.monotonic() - start)


def plot_dataset(name: str, out: Path, settings: Sequence[str], count: int = 12) -> Path:
    """Plot example images of a dataset as a contact sheet; masks are outlined where it has them."""
    from zoo.visualization.figures import plot_contact_sheet

    file = out / f"{name}.png"
    images, titles, outlines = zip(*build_dataset(name, settings).example_images(count), strict=True)
    plot_contact_sheet(images, titles, outlines, file)
    return file
