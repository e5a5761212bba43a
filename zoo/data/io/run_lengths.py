"""Run lengths as text, "start length start length ...", in the variants of public data sets, checked and decoded."""

import numpy as np

from zoo.data.io.images import MAX_PIXELS
from zoo.errors import ZooError


class RunLengthError(ZooError, ValueError):
    """Run lengths that are malformed, or do not fit their image."""


def decode_runs(text: str, size: tuple[int, int], *, relative: bool, column_major: bool, first: int) -> np.ndarray:
    """Decode run lengths to a boolean mask (height, width).

    Args:
        text: pairs of start and length; the mask is empty without any.
        size: height and width of the image.
        relative: each start counts from the end of the run before, as in SIIM-ACR; else from the first pixel.
        column_major: pixels are counted down the columns; else along the rows.
        first: number of the first pixel, 0 or 1.

    Raises:
        RunLengthError: the text is not pairs of whole numbers, or a run leaves the image or overlaps the one before.
    """
    height, width = size
    if not (0 < height * width <= MAX_PIXELS and height > 0):
        raise RunLengthError(f"an image of {height} x {width} pixels is empty or too large")
    starts, lengths = _pairs(text)
    if relative:
        starts = starts + np.concatenate([[0], lengths[:-1]]).astype(np.int64)
        starts = starts.cumsum() - first * np.arange(1, len(starts) + 1)
    else:
        starts = starts - first
    ends = starts + lengths
    if len(starts) and (starts.min() < 0 or ends.max() > height * width):
        raise RunLengthError(
            f"a run ends at pixel {ends.max()} or begins at {starts.min()}, outside {height} x {width} = {height * width}"
        )
    if (starts[1:] < ends[:-1]).any():
        raise RunLengthError("runs overlap or are not in order; are their starts relative, or absolute?")
    steps = np.zeros(height * width + 1, dtype=np.int8)
    np.add.at(steps, starts, 1)
    np.add.at(steps, ends, -1)
    mask = steps[:-1].cumsum(dtype=np.int8).astype(bool)
    return mask.reshape(width, height).T if column_major else mask.reshape(height, width)


def _pairs(text: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        numbers = np.array([int(word) for word in text.split()], dtype=np.int64)
    except (ValueError, OverflowError):
        raise RunLengthError(f"run lengths must be whole numbers, not {text[:40]!r}") from None
    if len(numbers) % 2:
        raise RunLengthError(f"run lengths must be pairs of start and length; there are {len(numbers)} numbers")
    if len(numbers) and (numbers.min() < 0 or numbers.max() > MAX_PIXELS):
        raise RunLengthError(f"run lengths go from {numbers.min()} to {numbers.max()}; no image has such pixels")
    return numbers[::2], numbers[1::2]
