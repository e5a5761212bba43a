"""How an image of any shape becomes an encoder's input: resized and cropped, padded or squashed, as the encoder was trained."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

ResizeMode = Literal["shortest", "longest", "squash"]
Interpolation = Literal["bicubic", "bilinear"]
_SHOWN = {
    "shortest": "the shorter side resized, the centre cropped",
    "longest": "the longer side resized, the rest padded",
    "squash": "resized",
}


@dataclass(frozen=True)
class ImageTransform:
    """open_clip's transform for inference, without the normalisation, on tensors of [0, 1]; always antialiased.

    An image that has the size already stays as it is.

    Attributes:
        size: (height, width) in pixels.
        resize_mode: "shortest" resizes until the shorter side fits and crops the centre, "longest" until the longer side fits
            and pads around the image, "squash" resizes both sides.
        interpolation: of the resizing.
        fill: value in [0, 1] of the padding.
    """

    size: tuple[int, int]
    resize_mode: ResizeMode = "squash"
    interpolation: Interpolation = "bicubic"
    fill: float = 0.0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Images (..., channels, height, width) in [0, 1] to (..., channels, *size)."""
        if tuple(images.shape[-2:]) == tuple(self.size):
            return images
        height, width = self._resized_size(images.shape[-2], images.shape[-1])
        is_square = (
            self.size[0] == self.size[1]
        )  # open_clip passes its interpolation on for squares and whole images only
        bicubic = self.resize_mode == "shortest" and not is_square
        images = resize(images, (height, width), "bicubic" if bicubic else self.interpolation)
        top, left = self._offset(height, self.size[0]), self._offset(width, self.size[1])
        images = images[..., max(top, 0) :, max(left, 0) :][..., : self.size[0], : self.size[1]]
        below, right = (side - have for side, have in zip(self.size, images.shape[-2:], strict=True))
        if below or right:
            padding = (max(-left, 0), right - max(-left, 0), max(-top, 0), below - max(-top, 0))
            images = functional.pad(images, padding, value=self.fill)
        return images

    def box(self, height: int, width: int) -> tuple[float, float, float, float]:
        """The part (left, top, right, bottom) of an image that the input shows, in the image's pixels; with padding, beyond them."""
        if (height, width) == tuple(self.size):
            return (0.0, 0.0, float(width), float(height))
        resized_height, resized_width = self._resized_size(height, width)
        top, left = self._offset(resized_height, self.size[0]), self._offset(resized_width, self.size[1])
        down, across = height / resized_height, width / resized_width
        return (left * across, top * down, (left + self.size[1]) * across, (top + self.size[0]) * down)

    def describe(self) -> str:
        """The transform in words."""
        return f"{_SHOWN[self.resize_mode]} ({self.interpolation}, antialiased)"

    def _resized_size(self, height: int, width: int) -> tuple[int, int]:
        if self.resize_mode == "squash":
            return self.size
        ratios = (height / self.size[0], width / self.size[1])
        if self.resize_mode == "shortest" and self.size[0] == self.size[1]:  # torchvision's, which rounds down
            short, side = min(height, width), self.size[0]
            return (side * height // short, side * width // short)
        ratio = min(ratios) if self.resize_mode == "shortest" else max(ratios)
        return (round(height / ratio), round(width / ratio))

    @staticmethod
    def _offset(have: int, want: int) -> int:
        """Of the crop in the resized side; negative where that is padded."""
        return round((have - want) / 2) if have >= want else -((want - have) // 2)


def resize(images: torch.Tensor, size: tuple[int, int], interpolation: Interpolation) -> torch.Tensor:
    """Images (..., channels, height, width) in [0, 1] resized, antialiased, one side after the other, each time cut to [0, 1].

    In Pillow's order, which shrinks first, or else starts with the width; with 8-bit images it gives the same to within rounding.
    """
    from torchvision.transforms.v2 import functional as image_functional

    mode = image_functional.InterpolationMode(interpolation)
    height, width = images.shape[-2:]
    first = [size[0], width] if height > size[0] and width < size[1] else [height, size[1]]
    for side in (first, list(size)):
        images = image_functional.resize(images, side, interpolation=mode, antialias=True).clamp(0, 1)
    return images
