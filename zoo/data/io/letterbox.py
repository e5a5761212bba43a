"""Letterboxing: images and masks of any shape resized into a square and padded."""

from collections.abc import Sequence

import torch
from torch.nn import functional


def letterbox(image: torch.Tensor, side: int) -> torch.Tensor:
    """Resize the longer side of an image (1 or 3, height, width) and pad it right and below: (3, side, side)."""
    from torchvision.transforms.v2 import functional as image_functional

    height, width = scaled_size(image.shape[-2:], side)
    resized = image_functional.resize(image, [height, width], antialias=True).clamp(0, 1).expand(3, -1, -1)
    return functional.pad(resized, (0, side - width, 0, side - height))


def scaled_size(size: Sequence[int], side: int) -> tuple[int, int]:
    """Height and width that an image of ``size`` has inside the square."""
    height, width = size
    scale = side / max(height, width)
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)  # rounded as by SAM


def letterbox_masks(masks: torch.Tensor, side: int) -> torch.Tensor:
    """Resize and pad masks (n, height, width) of 0 and 1 as :func:`letterbox` does their image: (n, side, side)."""
    height, width = scaled_size(masks.shape[-2:], side)
    resized = functional.interpolate(masks[:, None], size=(height, width), mode="area")[:, 0].round()
    return functional.pad(resized, (0, side - width, 0, side - height))
