"""Masks as COCO run-length encoding, which is how records and predictions hold them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

RunLength = dict[str, Any]
"""``size`` [height, width] and ``counts`` as text."""


def encode_mask(mask: np.ndarray) -> RunLength:
    """A boolean mask (height, width) as COCO run-length encoding, its counts as text."""
    from pycocotools import mask as coco

    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}


def decode_masks(masks: Sequence[RunLength], size: tuple[int, int]) -> torch.Tensor:
    """Run lengths to masks (n, height, width) float32 of 0 and 1; ``size`` is that of none."""
    from pycocotools import mask as coco

    if not masks:
        return torch.zeros(0, *size)
    return torch.from_numpy(np.stack([coco.decode(mask) for mask in masks])).float()
