"""chest_drr as a few-shot classification task: portable films of findings and severities, one finding an image."""

from typing import Annotated, ClassVar, Literal

import torch

from zoo.data.base import ExampleImage
from zoo.data.chest_drr.datasets.rendered import example_cases
from zoo.data.chest_drr.datasets.reports import as_tensor
from zoo.data.chest_drr.rendering.build import CaseSeries, build_series
from zoo.data.chest_drr.rendering.cases import CaseSpec
from zoo.data.chest_drr.rendering.volume import LICENSE, LIMITATIONS, SOURCE_TEXT
from zoo.data.classification.base import Classes, ClassificationData, Item
from zoo.registry import Injected, register

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
"""Class name to the finding and severity that it shows."""

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
        shots: int | None = 16,
        classes: Classes = "all",
        style: Literal["standard", "portable"] = "portable",
        image_size: int = 128,
        augment: bool = False,
        batch_size: int = 16,
        num_workers: int = 0,
        build_workers: int | None = None,
        seed: Annotated[int, Injected] = 0,
    ) -> None:
        """Choose the protocol.

        Args:
            shots: training images a class; all if None.
            classes: all, or the base or novel half.
            style: of the film.
            image_size: side in pixels.
            augment: whether training images are shifted, turned and scaled a little.
            batch_size: images a step.
            num_workers: loader processes.
            build_workers: rendering processes; all cores if None.
            seed: draws the shots; the images themselves do not depend on it.
        """
        super().__init__(list(CLASSES), shots, classes, None, augment, batch_size, num_workers, seed)
        self.spec = CaseSpec(style=style, image_size=image_size, seed=1, classes=list(CLASSES.values()))
        self.build_workers = build_workers
        self._series: dict[str, CaseSeries] = {}

    def read_items(self) -> dict[str, list[Item]]:
        """Render what the cache lacks; the class of a case is its index modulo the classes."""
        counts = {split: per_class * len(CLASSES) for split, per_class in PER_CLASS.items()}
        self._series = build_series(self.spec, counts, self.build_workers)
        offsets = dict(zip(counts, (0, 1_000_000, 2_000_000), strict=True))
        return {
            split: [Item(offsets[split] + index, index % len(CLASSES)) for index in range(count)]
            for split, count in counts.items()
        }

    def example_images(self, count: int) -> list[ExampleImage]:
        """The first test cases, with their findings outlined."""
        return example_cases(self.spec, count, self.build_workers)

    def read(self, source: int) -> torch.Tensor:
        """An image by its number: a million for each split, and the index in it."""
        split = list(PER_CLASS)[source // 1_000_000]
        return as_tensor(self._series[split].image(source % 1_000_000))
