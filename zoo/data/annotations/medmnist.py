"""MedMNIST (Yang et al., arXiv 2110.14795): images and labels in one npz file, in 28 to 224 pixels."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.data.annotations.base import ABSENT, PRESENT, AnnotatedImage, AnnotationError, AnnotationSource, Problems
from zoo.data.io.tables import SPLITS
from zoo.registry import register

_ORGANS = (
    "bladder, left femur, right femur, heart, left kidney, right kidney, liver, left lung, right lung, pancreas, spleen"
)
NAMES = {
    "pathmnist": "adipose, background, debris, lymphocytes, mucus, smooth muscle, normal colon mucosa, "
    "cancer-associated stroma, colorectal adenocarcinoma epithelium",
    "chestmnist": "atelectasis, cardiomegaly, effusion, infiltration, mass, nodule, pneumonia, pneumothorax, consolidation, "
    "edema, emphysema, fibrosis, pleural thickening, hernia",
    "dermamnist": "actinic keratosis or intraepithelial carcinoma, basal cell carcinoma, benign keratosis-like lesion, "
    "dermatofibroma, melanoma, melanocytic nevus, vascular lesion",
    "octmnist": "choroidal neovascularization, diabetic macular edema, drusen, normal",
    "pneumoniamnist": "normal, pneumonia",
    "retinamnist": "no diabetic retinopathy, mild diabetic retinopathy, moderate diabetic retinopathy, "
    "severe diabetic retinopathy, proliferative diabetic retinopathy",
    "breastmnist": "malignant, normal or benign",
    "bloodmnist": "basophil, eosinophil, erythroblast, immature granulocyte, lymphocyte, monocyte, neutrophil, platelet",
    "tissuemnist": "collecting duct or connecting tubule, distal convoluted tubule, glomerular endothelial cell, "
    "interstitial endothelial cell, leukocyte, podocyte, proximal tubule segment, thick ascending limb",
    "organamnist": _ORGANS,
    "organcmnist": _ORGANS,
    "organsmnist": _ORGANS,
}
"""Classes of the two-dimensional sets in the order of their numbers, worded for prompts; the files have numbers alone."""


@register("annotation_source", "medmnist")
class MedMnist(AnnotationSource):
    """Images with one class each, or, as in ChestMNIST, with several labels."""

    license = "CC BY 4.0; DermaMNIST CC BY-NC 4.0"
    source = "MedMNIST v2, https://medmnist.com"

    def __init__(self, file: str, class_names: list[str] | None = None) -> None:
        """Set the file.

        Args:
            file: as ``pathmnist.npz`` or ``pathmnist_224.npz``, with ``train_images``, ``train_labels`` and the same of val and test.
            class_names: in the order of the labels' numbers; those of the data set that the file is named after if None.

        Raises:
            AnnotationError: the file is named after none of the data sets, and there are no class names.
        """
        known = NAMES.get(Path(file).stem.partition("_")[0])
        if class_names is None and known is None:
            raise AnnotationError(f"{file}: is named after none of {', '.join(NAMES)}; give class_names")
        self.file = Path(file)
        self.label_names = tuple(class_names or str(known).split(", "))

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        try:
            with np.load(self.file, allow_pickle=False) as content:
                return {name: content[name] for split in SPLITS for name in (f"{split}_images", f"{split}_labels")}
        except KeyError as error:
            raise AnnotationError(
                f"{self.file}: has no array {error}; expected train_images, train_labels, ..."
            ) from error
        except (
            Exception
        ) as error:  # of damaged bytes: of zipfile, zlib, and of the tokenizer that reads an array's header
            raise AnnotationError(
                f"{self.file}: is not a readable npz file: {type(error).__name__}: {error}"
            ) from error

    def scan(self, problems: Problems) -> list[AnnotatedImage]:
        """See :meth:`zoo.data.annotations.base.AnnotationSource.scan`; an image is its index over the three splits."""
        images: list[AnnotatedImage] = []
        with problems.at(self.file):
            for split in SPLITS:
                pixels, labels = self._arrays[f"{split}_images"], self._arrays[f"{split}_labels"]
                self._check(split, pixels, labels)
                for row in labels:
                    with problems.at(f"{self.file}: {split}[{len(images)}]"):
                        images.append(AnnotatedImage(len(images), split, labels=self._labels(row)))
        return images

    def _check(self, split: str, pixels: np.ndarray, labels: np.ndarray) -> None:
        if pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[-1] != 3) or pixels.dtype != np.uint8:
            raise AnnotationError(
                f"{split}_images is {pixels.shape} {pixels.dtype}; expected (n, height, width) or (n, height, width, 3) uint8"
            )
        if labels.ndim != 2 or len(labels) != len(pixels) or labels.shape[1] not in (1, len(self.label_names)):
            raise AnnotationError(
                f"{split}_labels is {labels.shape} for {len(pixels)} images and {len(self.label_names)} names"
            )

    def _labels(self, row: Any) -> dict[str, float]:
        names = self.label_names
        if len(row) == len(names) > 1:
            return {name: PRESENT if value else ABSENT for name, value in zip(names, row, strict=True)}
        if not 0 <= int(row[0]) < len(names):
            raise AnnotationError(f"label {int(row[0])} is none of the {len(names)} classes")
        return {name: PRESENT if index == int(row[0]) else ABSENT for index, name in enumerate(names)}

    def read_image(self, image: Path | int) -> torch.Tensor:
        """The image with an index (1 or 3, height, width)."""
        index = int(str(image))
        for split in SPLITS:
            pixels = self._arrays[f"{split}_images"]
            if index < len(pixels):
                picture = torch.from_numpy(pixels[index].astype(np.float32) / 255)
                return picture[None] if picture.ndim == 2 else picture.movedim(-1, 0)
            index -= len(pixels)
        raise AnnotationError(f"{self.file}: has no image {image}")
