"""Data sets by name and settings: prepared in the cache, and shown as pictures."""

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


def draw_dataset(name: str, out: Path, settings: Sequence[str], count: int = 12) -> Path:
    """Draw a contact sheet of the first samples of a dataset; masks of findings are outlined where it has them."""
    from zoo.visualization.figures import contact_sheet

    if name in ("chest_drr", "chest_drr_findings"):
        pictures = _chest_drr_pictures(name, settings, count)
    else:
        samples = [make_dataset(name, settings).split("train")[index] for index in range(count)]
        pictures = [(sample["image"][0].numpy(), str(sample.get("label", "")), []) for sample in samples]
    file = out / f"{name}.png"
    images, titles, outlines = zip(*pictures, strict=True)
    contact_sheet(images, titles, outlines, file)
    return file


def _chest_drr_pictures(name: str, settings: Sequence[str], count: int) -> list[tuple[Any, str, list[Any]]]:
    from pycocotools import mask as coco

    from zoo.data.chest_drr.rendering.build import build_series

    spec = make_dataset(name, settings).spec  # type: ignore[attr-defined]
    series = build_series(spec, {"test": count})["test"]
    pictures = []
    for index in range(count):
        findings = series.record(index)["findings"]
        title = "\n".join(_said(finding) for finding in findings) or "no finding"
        masks = [coco.decode(finding["mask"]).astype(bool) for finding in findings]
        pictures.append((series.image(index), title, masks))
    return pictures


def _said(finding: dict[str, str]) -> str:
    parts = (finding["severity"], finding["lobe"] or finding["side"], finding["kind"])
    return " ".join(part for part in parts if part)
