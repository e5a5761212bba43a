"""Masks as COCO run-length encodings, the format of records and predictions.

pycocotools trusts what it is given: a run length that does not sum to the image, a count without its end or a coordinate
that is no number makes it read or write memory that is not its own. Whatever comes from a file goes through
:func:`check_run_length`, :func:`compress_run_lengths` or :func:`encode_polygons` first.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from zoo.data.io.images import MAX_PIXELS
from zoo.errors import ZooError

RunLength = dict[str, Any]
"""``size`` [height, width] and ``counts`` as text."""

_MAX_OUTLINE = 4_000_000
"""Pixels along the outlines of one mask's polygons; pycocotools takes some 60 bytes for each."""
_CHARACTERS = (48, 111)
"""The range of COCO's characters; each holds five bits of a number and whether more follow."""
_MAX_CHARACTERS = 6
"""Of one number: 30 bits, more than any image that is read has pixels."""


class MaskError(ZooError, ValueError):
    """A mask, polygon or run length that is malformed, or does not belong to its image."""


def encode_mask(mask: np.ndarray) -> RunLength:
    """Encode a boolean mask (height, width) as COCO run lengths, the counts as text."""
    from pycocotools import mask as coco

    return _as_text(coco.encode(np.asfortranarray(mask.astype(np.uint8))))


def decode_masks(masks: Sequence[RunLength], size: tuple[int, int]) -> torch.Tensor:
    """Decode run lengths into masks (n, height, width) float32 of 0 and 1; without any, (0, height, width) of ``size``.

    Raises:
        MaskError: a run length is malformed, or not of this size.
    """
    from pycocotools import mask as coco

    if not masks:
        return torch.zeros(0, *size)
    return torch.from_numpy(np.stack([coco.decode(check_run_length(mask, size)) for mask in masks])).float()


def mask_area(mask: RunLength) -> int:
    """Pixels of a run length's mask.

    Raises:
        MaskError: it is malformed.
    """
    return int(_counts(check_run_length(mask)["counts"])[1::2].sum())


def check_run_length(mask: Any, size: Sequence[int] | None = None) -> RunLength:
    """A compressed run length from a file, as it is once it is known that COCO's library can decode it.

    Args:
        mask: ``{"size": [height, width], "counts": text}``.
        size: height and width of its image, where they are known.

    Raises:
        MaskError: it has another form, another size, or counts that are damaged or do not fill the image.
    """
    if not isinstance(mask, Mapping) or not isinstance(mask.get("counts"), str):
        raise MaskError("a mask must be {'size': [height, width], 'counts': text}, COCO's compressed run lengths")
    height, width = _size_of(mask, size)
    counts = _counts(mask["counts"])
    _check_sum(counts, height, width)
    return {**mask, "size": [height, width]}


def compress_run_lengths(mask: Any, size: Sequence[int]) -> RunLength:
    """An uncompressed run length, ``{"size": [height, width], "counts": [number, ...]}``, as a compressed one.

    Raises:
        MaskError: it has another form, another size, or counts that do not fill the image.
    """
    from pycocotools import mask as coco

    if not isinstance(mask, Mapping) or not isinstance(mask.get("counts"), list):
        raise MaskError("a run length must have 'size' [height, width] and 'counts', text or a list of numbers")
    height, width = _size_of(mask, size)
    if not all(type(count) is int and 0 <= count <= height * width for count in mask["counts"]):
        raise MaskError(f"a run length must have whole numbers from 0 to {height * width} as counts")
    _check_sum(np.array(mask["counts"], dtype=np.int64), height, width)
    return _as_text(coco.frPyObjects({"size": [height, width], "counts": mask["counts"]}, height, width))


def encode_polygons(polygons: Any, size: Sequence[int]) -> RunLength:
    """The union of polygons in pixels of an image as a run length; empty without any.

    Args:
        polygons: each a list of points [x, y], or of numbers x, y, x, y, ...
        size: height and width of the image.

    Raises:
        MaskError: a polygon has fewer than three points, a coordinate that is no finite number, or a point that lies further
            outside the image than this is large.
    """
    from pycocotools import mask as coco

    height, width = _checked_size(size)
    if not isinstance(polygons, list):
        raise MaskError(f"polygons must be a list of lists of numbers, not {type(polygons).__name__}")
    flat = [_flat_polygon(polygon, height, width) for polygon in polygons]
    if sum(_outline(points) for points in flat) > _MAX_OUTLINE:
        raise MaskError(f"the outlines of a mask's polygons are longer than {_MAX_OUTLINE} pixels together")
    if not flat:
        return encode_mask(np.zeros((height, width), dtype=bool))
    return _as_text(coco.merge(coco.frPyObjects([points.ravel().tolist() for points in flat], height, width)))


def _flat_polygon(polygon: Any, height: int, width: int) -> np.ndarray:
    """The points (n, 2) of a polygon, checked."""
    try:
        numbers = np.asarray(polygon, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise MaskError("a polygon must be a list of numbers") from None
    if numbers.size % 2 or numbers.size < 6 or numbers.ndim > 2 or (numbers.ndim == 2 and numbers.shape[1] != 2):
        raise MaskError(f"a polygon must have at least three points [x, y]; it has {numbers.size} numbers")
    points = numbers.reshape(-1, 2)
    if not np.isfinite(points).all():
        raise MaskError("a polygon has a coordinate that is not a finite number")
    sides = np.array([width, height])
    if (points < -sides).any() or (points > 2 * sides).any():
        furthest = points[np.abs(points / sides - 0.5).max(axis=1).argmax()]
        raise MaskError(f"a polygon has the point {furthest.tolist()}, far outside its image of {width}x{height}")
    return points


def _outline(points: np.ndarray) -> float:
    """Pixels along a closed polygon (n, 2)."""
    return float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())


def _size_of(mask: Mapping[str, Any], size: Sequence[int] | None) -> tuple[int, int]:
    own = _checked_size(mask.get("size"))
    if size is not None and own != tuple(size):
        raise MaskError(f"a mask has the size {list(own)} and its image {list(size)} (height, width)")
    return own


def _checked_size(size: Any) -> tuple[int, int]:
    is_pair = isinstance(size, list | tuple) and len(size) == 2
    if not is_pair or not all(type(side) is int and side > 0 for side in size) or math.prod(size) > MAX_PIXELS:
        raise MaskError(f"a mask must have a 'size' of [height, width] in pixels, not {size!r}")
    return size[0], size[1]


def _check_sum(counts: np.ndarray, height: int, width: int) -> None:
    if (counts < 0).any() or counts.sum() != height * width:
        raise MaskError(
            f"the run lengths of a mask sum to {counts.sum()} pixels; its size is {height} x {width} = {height * width}"
        )


def _counts(text: str) -> np.ndarray:
    """The numbers of COCO's compressed counts: five bits a character, from the fourth on the difference to the last but one."""
    codes = np.frombuffer(text.encode("ascii") if text.isascii() else b"", dtype=np.uint8).astype(np.int64)
    if not len(codes) or codes.min() < _CHARACTERS[0] or codes.max() > _CHARACTERS[1]:
        raise MaskError("the counts of a mask are no run lengths of COCO: they are empty, or have other characters")
    bits = codes - _CHARACTERS[0]
    ends = np.flatnonzero(bits & 0x20 == 0)
    if not len(ends) or ends[-1] != len(bits) - 1:
        raise MaskError("the counts of a mask break off in the middle of a number")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_CHARACTERS:
        raise MaskError("the counts of a mask have a number that is larger than any image")
    shifts = 5 * (np.arange(len(bits)) - np.repeat(starts, lengths))
    values = np.add.reduceat((bits & 0x1F) << shifts, starts)
    values -= np.where(bits[ends] & 0x10, np.int64(1) << (5 * lengths), 0)
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return values


def _as_text(encoded: Mapping[str, Any]) -> RunLength:
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}
