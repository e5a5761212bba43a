"""How images of any shape become the square that a mask head sees, and its mask logits become masks of the image.

A model's weights expect the fitting that they were trained with, its padding included.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from zoo.data.io.letterbox import letterbox, letterbox_masks, scaled_size


@dataclass(frozen=True)
class Fitting(ABC):
    """Fits images into a square of ``side`` pixels."""

    side: int

    @abstractmethod
    def fit(self, image: torch.Tensor) -> torch.Tensor:
        """An image (1 or 3, height, width) in [0, 1] to (3, side, side)."""

    @abstractmethod
    def fit_masks(self, masks: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Masks (n, height, width) of 0 and 1 to (n, side, side), and which pixels of that square are the image's (side, side)."""

    @abstractmethod
    def restore(self, logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """Mask logits (n, rows, columns) over the square to those of an image of ``size``: (n, height, width)."""


@dataclass(frozen=True)
class LetterboxFitting(Fitting):
    """The longer side is resized, and the rest padded right and below, as by SAM (Kirillov et al., arXiv 2304.02643).

    ``padding`` is the colour of the padding, in [0, 1].
    """

    padding: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def fit(self, image: torch.Tensor) -> torch.Tensor:
        """See the base class."""
        square = letterbox(image, self.side)
        if any(self.padding):
            height, width = scaled_size(image.shape[-2:], self.side)
            colour = torch.tensor(self.padding, dtype=square.dtype, device=square.device).view(3, 1, 1)
            square[:, height:], square[:, :, width:] = colour, colour
        return square

    def fit_masks(self, masks: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
        """See the base class."""
        height, width = scaled_size(masks.shape[-2:], side)
        inside = torch.zeros(side, side, dtype=torch.bool, device=masks.device)
        inside[:height, :width] = True
        return letterbox_masks(masks, side), inside

    def restore(self, logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """Resized to the padded square first, so that the padding is cut at whole pixels; the order of SAM and LISA."""
        if logits.shape[-1] != self.side:
            logits = _resize(logits, (self.side, self.side))
        height, width = scaled_size(size, self.side)
        return _resize(logits[:, :height, :width], size)


@dataclass(frozen=True)
class SquashFitting(Fitting):
    """Both sides are resized to the square's, whatever the shape, as by SAM 2 (arXiv 2408.00714) and SAM 3."""

    def fit(self, image: torch.Tensor) -> torch.Tensor:
        """See the base class."""
        from torchvision.transforms.v2 import functional as image_functional

        resized = image_functional.resize(image, [self.side, self.side], antialias=True)
        return resized.clamp(0, 1).expand(3, -1, -1)

    def fit_masks(self, masks: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
        """See the base class."""
        resized = functional.interpolate(masks[:, None], size=(side, side), mode="area")[:, 0].round()
        return resized, torch.ones(side, side, dtype=torch.bool, device=masks.device)

    def restore(self, logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """See the base class."""
        return _resize(logits, size)


def _resize(logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return functional.interpolate(logits[:, None], size=tuple(size), mode="bilinear", align_corners=False)[:, 0]
