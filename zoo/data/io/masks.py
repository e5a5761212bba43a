"""Masks as COCO run-length encodings, the format of records and predictions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

RunLength = dict[str, Any]
"""``size`` [height, width] and ``counts`` as text."""


def encode_mask(mask: np.ndarray) -> RunLength:
    """Encode a boolean mask (height, width) as COCO run lengths, the counts as text."""
    from pycocotools import mask as coco

    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}


def decode_masks(masks: Sequence[RunLength], size: tuple[int, int]) -> torch.Tensor:
    """Decode run lengths into masks (n, height, width) float32 of 0 and 1; without any, (0, height, width) of ``size``."""
    from pycocotools import mask as coco

    if not masks:
        return torch.zeros(0, *size)
    return torch.from_numpy(np.stack([coco.decode(mask) for mask in masks])).float()
