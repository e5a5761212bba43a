"""chest_drr as a few-shot classification task: portable radiographs with one finding each, of known severity."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import torch

from zoo.data.base import ExampleImage, LoaderSpec
from zoo.data.chest_drr.datasets.rendered import example_cases
from zoo.data.chest_drr.datasets.reports import as_tensor
from zoo.data.chest_drr.rendering.build import CaseSeries, build_series
from zoo.data.chest_drr.rendering.cases import CaseSpec
from zoo.data.chest_drr.rendering.spec import ImageSpec
from zoo.data.chest_drr.rendering.volume import LICENSE, LIMITATIONS, SOURCE_TEXT
from zoo.data.chest_drr.text.wording import read_wording
from zoo.data.classification.base import Classes, ClassificationData, Item
from zoo.ranges import PositiveInt
from zoo.registry import Unpacked, register

CLASSES: dict[str, tuple[str, str] | None] = {
    "no finding": None,
    "a small pleural effusion": ("pleural effusion", "small"),
    "a large pleural effusion": ("pleural effusion", "large"),
    "dense lobar consolidation": ("consolidation", "dense"),
    "a pulmonary nodule": ("nodule", "large"),
    "a pulmonary mass": ("mass", "large"),
    "a small pneumothorax": ("pneumothorax", "small"),
    "a large pneumothorax": ("pneumothorax", "large"),
    "lobar atelectasis": ("atelectasis", "lobar"),
    "severe cardiomegaly": ("cardiomegaly", "severe"),
}
"""The finding and severity of each class."""

PER_CLASS = {"train": 48, "val": 16, "test": 60}


@register("dataset", "chest_drr_findings")
class ChestDrrFindings(ClassificationData):
    """Ten classes; 48, 16 and 60 images of each for training, validation and test."""

    license: ClassVar[str] = LICENSE
    source: ClassVar[str] = SOURCE_TEXT
    limitations: ClassVar[str] = LIMITATIONS
    template: ClassVar[str] = "a chest radiograph showing {}."

    def __init__(
        self,
        shots: PositiveInt | None = 16,
        classes: Classes = "all",
        augment: bool = False,
        render: Annotated[ImageSpec, Unpacked] = ImageSpec(style="portable", image_size=128),
        loader: Annotated[LoaderSpec, Unpacked] = LoaderSpec(),
    ) -> None:
        """Set the protocol.

        Args:
            shots: training images per class; all if None.
            classes: all, or the base or novel half.
            augment: whether training images are shifted, rotated and scaled a little.
            render: how radiographs are rendered.
            loader: how batches are loaded; its seed samples the shots, and the images do not depend on it.
        """
        super().__init__(list(CLASSES), shots, classes, None, augment, loader)
        self.render = render
        self.spec = CaseSpec(style=render.style, image_size=render.image_size, seed=1, classes=list(CLASSES.values()))
        self._series: dict[str, CaseSeries] = {}

    @property
    def class_texts(self) -> Mapping[str, Sequence[str]]:
        """Six descriptions of each class."""
        return read_wording("classes")

    def read_items(self) -> dict[str, list[Item]]:
        """Render what the cache lacks; the class of a case is its index modulo the number of classes."""
        counts = {split: per_class * len(CLASSES) for split, per_class in PER_CLASS.items()}
        self._series = build_series(self.spec, counts, self.render.render_workers)
        offsets = dict(zip(counts, (0, 1_000_000, 2_000_000), strict=True))
        return {
            split: [Item(offsets[split] + index, index % len(CLASSES)) for index in range(count)]
            for split, count in counts.items()
        }

    def example_images(self, count: int) -> list[ExampleImage]:
        """The first test cases, with their findings outlined."""
        return example_cases(self.spec, count, self.render.render_workers)

    def read(self, source: int) -> torch.Tensor:
        """An image by its source number: a million for each split before its own, plus the index in it."""
        split = list(PER_CLASS)[source // 1_000_000]
        return as_tensor(self._series[split].image(source % 1_000_000))
