"""What the readers of images share: their error, their limits, and scaling to [0, 1]."""

from pathlib import Path

import numpy as np

from zoo.errors import ZooError

MAX_PIXELS = 100_000_000


class ImageError(ZooError, ValueError):
    """A file that is not a readable image, or exceeds a limit."""


def check_pixel_count(path: Path, pixels: int) -> None:
    """Check the number of pixels, before they are decoded.

    Raises:
        ImageError: there are more than :data:`MAX_PIXELS`.
    """
    if pixels > MAX_PIXELS:
        raise ImageError(
            f"{path}: has {pixels / 1e6:.0f} million pixels; the maximum is {MAX_PIXELS / 1e6:.0f} million"
        )


def chosen(path: Path, what: str, count: int, choice: int | None) -> int:
    """The index of one of ``count`` frames or slices: the choice, or 0 if there is only one.

    Args:
        path: of the file, for errors.
        what: "frame", as it is called in the argument that chooses.
        count: how many the file has.
        choice: the index, or None.

    Raises:
        ImageError: there is no such one, or several and none is chosen.
    """
    if choice is None and count > 1:
        raise ImageError(f"{path}: has {count} {what}s; choose one with {what}=0 to {what}={count - 1}")
    if not 0 <= (choice or 0) < count:
        raise ImageError(f"{path}: has no {what} {choice}; there are 0 to {count - 1}")
    return choice or 0


def to_unit(values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Scale to [0, 1] by a range, or by the extremes; a constant image becomes zero. NaN and infinities stay."""
    low = float(np.min(values)) if low is None else low
    high = float(np.max(values)) if high is None else high
    if not np.isfinite([low, high]).all():
        return values.astype(np.float32)
    scaled = (values.astype(np.float64) - low) / max(high - low, 1e-6)
    return np.where(np.isfinite(scaled), np.clip(scaled, 0, 1), scaled).astype(np.float32)
