"""From images of any size to the square pixel values of an image tokenizer: Chameleon's transform and a simpler one."""

import json
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from zoo.data.traces.records import Box

ImageTransformName = Literal["center_crop", "squash"]
"""``center_crop``: Chameleon's, shortest edge resized with Lanczos, then the centre; ``squash`` (ours): the whole image, bilinear."""


class PixelScale(NamedTuple):
    """Pixel values are ``factor * x - offset`` of 8-bit values x; the default maps them to [-1, 1]."""

    factor: float = 1 / 127.5
    offset: float = 1.0

    @classmethod
    def from_folder(cls, folder: Path) -> "PixelScale":
        """That of a checkpoint's ``preprocessor_config.json``; the default if there is none."""
        file = folder / "preprocessor_config.json"
        if not file.is_file():
            return cls()
        config = json.loads(file.read_text(encoding="utf-8"))
        mean, std = (config.get(key, [1.0])[0] for key in ("image_mean", "image_std"))
        return cls(config.get("rescale_factor", cls().factor) / std, mean / std)


def center_crop(image: torch.Tensor, side: int, scale: PixelScale | None = None) -> torch.Tensor:
    """Pixel values (3, side, side) of the centre of an image (1 or 3, height, width) in [0, 1].

    Pillow resizes 8-bit values, as in the official code: torchvision's Lanczos differs by up to two levels.
    """
    scale = scale or PixelScale()
    values = (image.detach().float().cpu() * 255).round().clamp(0, 255).to(torch.uint8)
    height, width = values.shape[-2:]
    short = min(height, width)
    rows, columns = side * height // short, side * width // short
    top, left = (rows - side) // 2, (columns - side) // 2
    channels = [
        np.asarray(Image.fromarray(channel.numpy()).resize((columns, rows), Image.Resampling.LANCZOS))
        for channel in values
    ]
    pixels = torch.from_numpy(np.stack(channels)[:, top : top + side, left : left + side])
    return pixels.expand(3, -1, -1).float() * scale.factor - scale.offset


def squash(image: torch.Tensor, side: int) -> torch.Tensor:
    """Pixel values (3, side, side) in [-1, 1] of a whole image (1 or 3, height, width) in [0, 1], on its device."""
    resized = functional.resize(image, [side, side], antialias=True).clamp(0, 1)
    return resized.expand(3, -1, -1) * 2 - 1


def visible_box(box: Box, height: int, width: int) -> Box | None:
    """The part of a box inside the centre that :func:`center_crop` keeps, in pixels of the whole image; None if there is none."""
    short = min(height, width)
    left, top = (width - short) // 2, (height - short) // 2
    clipped = max(box[0], left), max(box[1], top), min(box[2], left + short), min(box[3], top + short)
    return clipped if clipped[0] < clipped[2] and clipped[1] < clipped[3] else None
