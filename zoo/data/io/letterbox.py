"""Images and masks of any shape in a square: the longer side resized, the rest padded, and the way back."""

from collections.abc import Sequence

import torch
from torch.nn import functional


def fitted(image: torch.Tensor, side: int) -> torch.Tensor:
    """An image (1 or 3, height, width), its longer side resized to ``side``, padded right and below: (3, side, side)."""
    from torchvision.transforms.v2 import functional as image_functional

    height, width = scaled_size(image.shape[-2:], side)
    small = image_functional.resize(image, [height, width], antialias=True).clamp(0, 1).expand(3, -1, -1)
    return functional.pad(small, (0, side - width, 0, side - height))


def scaled_size(size: Sequence[int], side: int) -> tuple[int, int]:
    """Height and width of an image of ``size`` inside the square."""
    height, width = size
    scale = side / max(height, width)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def fitted_mask(masks: torch.Tensor, side: int) -> torch.Tensor:
    """Masks (n, height, width) of 0 and 1 over the fitted square: (n, side, side)."""
    height, width = scaled_size(masks.shape[-2:], side)
    small = functional.interpolate(masks[:, None], size=(height, width), mode="area")[:, 0].round()
    return functional.pad(small, (0, side - width, 0, side - height))


def unfitted(logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Mask logits over the fitted square (n, side, side) to those over an image of ``size``: (n, height, width)."""
    side = logits.shape[-1]
    height, width = scaled_size(size, side)
    cut = logits[:, None, :height, :width]
    return functional.interpolate(cut, size=tuple(size), mode="bilinear", align_corners=False)[:, 0]
