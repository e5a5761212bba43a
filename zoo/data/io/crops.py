"""Cutting the evidence of a box out of a film: the true pixels, at the film's own resolution."""

import torch
from torchvision.transforms.v2 import functional

from zoo.data.traces.records import Box

MARGIN = 0.15
_LEAST = 8


def square_around(box: Box, height: int, width: int) -> Box:
    """The square about a box with a margin on each side, moved and shrunk so that it lies in the image."""
    left, top, right, bottom = box
    side = round(max(right - left, bottom - top, _LEAST) * (1 + 2 * MARGIN))
    side = min(side, height, width)
    x = min(max((left + right - side) // 2, 0), width - side)
    y = min(max((top + bottom - side) // 2, 0), height - side)
    return x, y, x + side, y + side


def close_up(film: torch.Tensor, box: Box, side: int | None = None) -> torch.Tensor:
    """The square about a box of a film (channels, height, width), resized to ``side`` if given; a box outside is moved in."""
    x, y, right, bottom = square_around(box, *film.shape[-2:])
    cut = film[..., y:bottom, x:right]
    return cut if side is None else functional.resize(cut, [side, side], antialias=True).clamp(0, 1)
