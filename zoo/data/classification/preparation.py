"""From an image as it is read to one that can be batched: the method's own transform, and random changes in training."""

import warnings
from typing import Any, Literal

import torch
from torchvision.transforms import v2

from zoo.data.base import ZooData
from zoo.errors import ZooWarning
from zoo.image_transform import ImageTransform, resize

Augmentation = bool | Literal["crop", "crop_flip", "large_crop_flip"]
"""Of training images. True shifts, rotates and scales them a little. "crop" takes a random part of 8 to 100% of the area, of
aspect 3:4 to 4:3, as the input; "crop_flip" mirrors half of them too; the part of "large_crop_flip" is 50% at least."""
_DEFAULT_SIDE = 224
"""Side of images for a method without a transform of its own."""
_LEAST_AREA = {"crop": 0.08, "crop_flip": 0.08, "large_crop_flip": 0.5}


class ImagePreparation:
    """Images of one split, prepared: ``image_size`` squashes to a square; then comes ``transform``, the method's own.

    Without either, images become squares of 224 pixels, or stay as they are if ``as_read``.
    """

    def __init__(
        self,
        image_size: int | None,
        augment: Augmentation = False,
        transform: ImageTransform | None = None,
        *,
        as_read: bool = False,
    ) -> None:
        """Set up for one split; only the training split is augmented."""
        self.image_size, self.augment, self.transform, self.as_read = image_size, augment, transform, as_read
        self._affine = v2.RandomAffine(degrees=4, translate=(0.03, 0.03), scale=(0.95, 1.05))

    def without_augmentation(self) -> "ImagePreparation":
        """The same for evaluation."""
        return ImagePreparation(self.image_size, transform=self.transform, as_read=self.as_read)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """An image (1 or 3, height, width) in [0, 1], prepared; with three channels unless ``as_read``."""
        if self.as_read:
            return self._affine(image) if self.augment is True else image
        image = image.expand(3, -1, -1)
        side = self.image_size or (None if self.transform else _DEFAULT_SIDE)
        if side is not None:
            image = v2.functional.resize(image, [side, side], antialias=True).clamp(0, 1)
        if self.augment in _LEAST_AREA:
            return self._random_crop(image, str(self.augment))
        image = image if self.transform is None else self.transform(image)
        return self._affine(image) if self.augment else image

    def _random_crop(self, image: torch.Tensor, name: str) -> torch.Tensor:
        """Torchvision's RandomResizedCrop and RandomHorizontalFlip, resized as Pillow does it."""
        options: dict[str, Any] = {"scale": [_LEAST_AREA[name], 1.0], "ratio": [3 / 4, 4 / 3]}
        top, left, height, width = _crop_parameters(image, **options)
        size = self.transform.size if self.transform else (image.shape[-2], image.shape[-1])
        interpolation = self.transform.interpolation if self.transform else "bicubic"
        image = resize(image[..., top : top + height, left : left + width], size, interpolation)
        return image.flip(-1) if name.endswith("flip") and torch.rand(()) < 0.5 else image


def _crop_parameters(image: torch.Tensor, scale: list[float], ratio: list[float]) -> tuple[int, int, int, int]:
    from torchvision.transforms import RandomResizedCrop

    top, left, height, width = RandomResizedCrop.get_params(image, scale, ratio)
    return top, left, height, width


class PreparedData(ZooData):
    """A dataset of files whose images are prepared by the method's own transform."""

    image_size: int | None
    augment: Augmentation
    image_transform: ImageTransform | None = None

    def preparation(self, split: str) -> ImagePreparation:
        """That of a split; images that the zoo renders have their size."""
        augment = self.augment if split == "train" else False
        return ImagePreparation(self.image_size, augment, self.image_transform, as_read=self.is_rendered)

    def use_image_transform(self, transform: ImageTransform | None) -> None:
        """Prepare images by a method's transform from now on, those of splits that are open too."""
        if transform is not None and transform.resize_mode != "squash" and self.image_size and not self.is_rendered:
            message = (
                f"image_size: {self.image_size} squashes images to squares, in training and evaluation but not in prediction; without "
                f"it they are prepared as the model was trained: {transform.describe()}"
            )
            warnings.warn(message, ZooWarning, stacklevel=2)
        self.image_transform = transform
        for split in self._splits.values():
            split.preparation.transform = transform  # type: ignore[attr-defined]
