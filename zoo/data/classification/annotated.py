"""Annotated images of any source as classification: of one class each, or of labels that do not exclude one another."""

from pathlib import Path
from typing import Annotated, Any

import torch
from torch.utils.data import Dataset

from zoo.data.annotations.base import ABSENT, PRESENT, AnnotatedImage, AnnotationError, AnnotationSource, stated_labels
from zoo.data.annotations.datasets import AnnotatedData
from zoo.data.annotations.splits import divide
from zoo.data.base import LoaderSpec, Sample
from zoo.data.classification.balance import ClassLoaderSpec, is_balanced, rarest_labels, sample_weights
from zoo.data.classification.base import Classes, ClassificationData, Item
from zoo.data.classification.multi_label import (
    LabelPolicy,
    MultiLabelImages,
    Uncertain,
    Unstated,
    check_label_names,
)
from zoo.data.classification.preparation import Augmentation, PreparedData
from zoo.ranges import PixelSide, PositiveInt
from zoo.registry import Slot, Unpacked, register


@register("dataset", "annotated_classes")
class AnnotatedClasses(ClassificationData):
    """Images of one class each: the one label that is present; of a source with one label, its absence is a class too."""

    def __init__(
        self,
        annotations: Annotated[AnnotationSource, Slot("annotation_source")],
        shots: PositiveInt | None = None,
        classes: Classes = "all",
        image_size: PixelSide | None = None,
        augment: Augmentation = False,
        loader: Annotated[LoaderSpec, Unpacked] = ClassLoaderSpec(),
    ) -> None:
        """Read the source.

        Args:
            annotations: the files, by the name of their form.
            shots: training images per class; all if None.
            classes: all, or the base or novel half.
            image_size: side in pixels of the squares that images are squashed to; the method's own transform alone if None.
            augment: how training images are changed at random: true shifts, rotates and scales them a little, "crop" and
                "crop_flip" take a part of 8 to 100% of the area, "large_crop_flip" of 50 to 100%.
            loader: how batches are loaded; its seed samples shots, and divides a source without splits.

        Raises:
            AnnotationError: the source has problems, or an image has no label or several.
        """
        self.annotations = annotations
        self._images = annotations.read()
        names = stated_labels(annotations, self._images)
        self._is_binary = len(names) == 1
        self._names = [f"no {names[0]}", names[0]] if self._is_binary else names
        super().__init__(self._names, shots, classes, image_size, augment, loader)
        annotations.read_file = self.read_file
        self.license, self.source, self.limitations = annotations.license, annotations.source, annotations.limitations

    def read_items(self) -> dict[str, list[Item]]:
        """The images with the index of their class."""
        return {
            split: [Item(image.image, self._class_of(image), image.patient) for image in images]
            for split, images in divide(self._images, self.loader.seed).items()
        }

    def _class_of(self, image: AnnotatedImage) -> int:
        present = [name for name, value in image.labels.items() if value == PRESENT]
        if self._is_binary and set(image.labels.values()) in ({PRESENT}, {ABSENT}):
            return len(present)
        if self._is_binary or len(present) != 1:
            stated = ", ".join(present) or "no label that is present"
            raise AnnotationError(
                f"{image.image}: has {stated}; one class each is needed, or the dataset annotated_labels"
            )
        return self._names.index(present[0])

    def read(self, source: Any) -> torch.Tensor:
        """As the source reads images."""
        return self.annotations.read_image(source)


@register("dataset", "annotated_labels")
class AnnotatedLabels(PreparedData, AnnotatedData):
    """Images with any number of labels each."""

    def __init__(
        self,
        annotations: Annotated[AnnotationSource, Slot("annotation_source")],
        labels: list[str] | None = None,
        uncertain: Uncertain = "ignore",
        unstated: Unstated = "absent",
        image_size: PixelSide | None = None,
        augment: Augmentation = False,
        loader: Annotated[LoaderSpec, Unpacked] = ClassLoaderSpec(),
    ) -> None:
        """Set what is read.

        Args:
            annotations: the files, by the name of their form.
            labels: names of the labels in use; all that the source states if None.
            uncertain: what a label of -1 counts as: nothing, absent or present.
            unstated: what a label counts as that an image does not have.
            image_size: side in pixels of the squares that images are squashed to; the method's own transform alone if None.
            augment: how training images are changed at random: true shifts, rotates and scales them a little, "crop" and
                "crop_flip" take a part of 8 to 100% of the area, "large_crop_flip" of 50 to 100%.
            loader: how batches are loaded; its seed divides a source without splits.
        """
        super().__init__(loader)
        self.use_source(annotations)
        self.labels, self.image_size, self.augment = labels or [], image_size, augment
        self.policy = LabelPolicy(uncertain, unstated)

    def open_split(self, name: str) -> Dataset[Sample]:
        """The images of a split with their targets.

        Raises:
            AnnotationError: the source has problems.
        """
        images, names = self.images[name], self.class_names
        rows = [self.policy.targets(image.labels, names) for image in images]
        targets = torch.stack(rows) if rows else torch.zeros(0, len(names))
        sources: list[Path | int] = [image.image for image in images]
        dataset = MultiLabelImages(sources, targets, self.annotations.read_image, self.preparation(name))
        if name == "train" and is_balanced(self.loader):
            dataset.sample_weights = sample_weights(rarest_labels(targets))
        return dataset

    @property
    def class_names(self) -> list[str]:
        """Names of the labels in use."""
        listed = [image for images in self.images.values() for image in images]
        return check_label_names(self.labels, stated_labels(self.annotations, listed))

    def metadata(self) -> dict[str, Any]:
        """``class_names``, those of the labels."""
        return {"class_names": self.class_names}
