"""Square crops around boxes, at the resolution of the image."""

import torch
from torchvision.transforms.v2 import functional

from zoo.data.traces.records import Box

MARGIN = 0.15
"""Margin on each side of a box, as a share of its longer side."""

_MIN_SIDE = 8


def square_box(box: Box, height: int, width: int) -> Box:
    """The square around a box with :data:`MARGIN` on each side, shifted and shrunk so that it lies inside the image."""
    left, top, right, bottom = box
    side = round(max(right - left, bottom - top, _MIN_SIDE) * (1 + 2 * MARGIN))
    side = min(side, height, width)
    x = min(max((left + right - side) // 2, 0), width - side)
    y = min(max((top + bottom - side) // 2, 0), height - side)
    return x, y, x + side, y + side


def crop(image: torch.Tensor, box: Box, side: int | None = None) -> torch.Tensor:
    """Crop an image (channels, height, width) to the square around a box.

    Args:
        image: with values in [0, 1].
        box: in pixels; one outside the image is shifted inside.
        side: that the crop is resized to; None keeps its size.
    """
    left, top, right, bottom = square_box(box, *image.shape[-2:])
    cropped = image[..., top:bottom, left:right]
    return cropped if side is None else functional.resize(cropped, [side, side], antialias=True).clamp(0, 1)
