"""PNG, JPEG, JPEG 2000, TIFF and whatever else Pillow reads, turned as their EXIF orientation says."""

import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.io.pixels import ImageError, check_pixel_count, chosen, to_unit
from zoo.errors import ZooWarning

_ORIENTATION, _BITS_PER_SAMPLE = 0x0112, 258
"""Tags of EXIF and TIFF."""
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[..., ::-1],
    3: lambda pixels: pixels[..., ::-1, ::-1],
    4: lambda pixels: pixels[..., ::-1, :],
    5: lambda pixels: pixels.swapaxes(-1, -2),
    6: lambda pixels: pixels.swapaxes(-1, -2)[..., ::-1],
    7: lambda pixels: pixels[..., ::-1, ::-1].swapaxes(-1, -2),
    8: lambda pixels: pixels.swapaxes(-1, -2)[..., ::-1, :],
}
"""What each EXIF orientation does to stored pixels (..., rows, columns)."""
_GREY = ("1", "L", "LA", "La")
_DEPTHS = (8, 10, 12, 14, 16)
"""Bits that detectors have."""
_warned: set[tuple[Path, int]] = set()


def read_raster(path: Path, frame: int | None = None, bits: int | None = None) -> np.ndarray:
    """Read an image as float32 (1 or 3, height, width): 8 bits by 255, 16 by the bits in use, others by their extremes.

    Args:
        path: the file.
        frame: of a file with several pages or frames.
        bits: in use of a 16-bit file; as many as its largest value needs if None, with a warning where those are not 16.

    Raises:
        ImageError: there is no such frame, several and none is chosen, or a value that needs more bits.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked here, before decoding
        # from an open file: by name, Pillow maps a plain TIFF into memory with sides that a turned one does not have
        with path.open("rb") as file, Image.open(file) as image:
            check_pixel_count(path, image.width * image.height)
            image.seek(chosen(path, "frame", _frames(image), frame))
            check_pixel_count(path, image.width * image.height)
            image.load()
            pixels = _to_pixels(path, image, bits)
            return _TURNS.get(_orientation(image), np.asarray)(pixels)


def raster_size(path: Path) -> tuple[int, int]:
    """Height and width as shown, from the header.

    Raises:
        OSError, ValueError: Pillow does not support the format, or the file is damaged.
    """
    from PIL import Image

    with Image.open(path) as image:
        turned = image.format != "TIFF" and _orientation(image) >= 5  # Pillow turns a TIFF itself
        return (image.width, image.height) if turned else (image.height, image.width)


def raster_frames(path: Path) -> int:
    """Pages of a TIFF, frames of an animation; 1 for anything else.

    Raises:
        OSError, ValueError: Pillow does not support the format, or the file is damaged.
    """
    from PIL import Image

    with Image.open(path) as image:
        return _frames(image)


def _frames(image: Any) -> int:
    """Pages or frames; the further images of a camera's JPEG (MPO) are previews of the first."""
    return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))


def _orientation(image: Any) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except (SyntaxError, ValueError, TypeError, KeyError, struct.error, OSError):  # a damaged EXIF block says nothing
        return 1


def _to_pixels(path: Path, image: Any, bits: int | None) -> np.ndarray:
    mode = image.mode
    if mode == "F":
        return to_unit(np.asarray(image))[None]
    if mode.startswith("I"):  # 16-bit grey under one of Pillow's names for it, or 32 bits
        values = np.asarray(image).astype(np.int64)[None]
        is_unsigned = values.min() >= 0 and values.max() < 1 << 16
        return _scale_bits(path, values, bits or _declared_bits(image)) if is_unsigned else to_unit(values)
    deep = _read_deep_png(path, image)
    if deep is not None:
        return _scale_bits(path, deep, bits)
    grey = mode in _GREY
    values = np.asarray(image.convert("L" if grey else "RGB"))
    _refuse_shallow_colour(path, image, values)
    pixels = values.astype(np.float32) / 255
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def _declared_bits(image: Any) -> int | None:
    """The bits of a TIFF's samples, if they are fewer than the 16 that they are stored in."""
    declared = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))
    return int(declared[0]) if 8 < declared[0] < 16 else None


def _scale_bits(path: Path, values: np.ndarray, bits: int | None) -> np.ndarray:
    largest = int(values.max())
    used = bits or next(depth for depth in _DEPTHS if largest < 1 << depth)
    if largest >= 1 << used:
        raise ImageError(f"{path}: has the value {largest}, which needs more than bits={used}")
    if bits is None and used < 16 and largest:
        _warn_of_bits(path, largest, used)
    return values.astype(np.float32) / float((1 << used) - 1)


def _warn_of_bits(path: Path, largest: int, bits: int) -> None:
    """Say it once for a folder, whose files are alike."""
    if (path.parent, bits) in _warned:
        return
    _warned.add((path.parent, bits))
    warnings.warn(
        f"{path} has 16 bits, and its largest value, {largest}, needs {bits} of them: it is scaled by {(1 << bits) - 1}. "
        f"Set bits={bits} for files that are all so, or bits=16",
        ZooWarning,
        stacklevel=2,
    )


def _read_deep_png(path: Path, image: Any) -> np.ndarray | None:
    """A PNG with several samples of 16 bits (1 or 3, height, width), of which Pillow keeps the upper 8; None for others."""
    if image.format != "PNG":
        return None
    with path.open("rb") as file:
        header = file.read(26)
    if header[24] != 16:
        return None
    from torchvision.io import ImageReadMode, decode_image, read_file

    samples = decode_image(read_file(str(path)), ImageReadMode.UNCHANGED).numpy()
    return samples[:1] if len(samples) < 3 else samples[:3]  # without alpha


def _refuse_shallow_colour(path: Path, image: Any, values: np.ndarray) -> None:
    """Of a colour TIFF with 16 bits, Pillow keeps the upper 8: nothing is left of one that uses the lower ones."""
    declared = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
    if max(declared) > 8 and values.max() < 64:
        raise ImageError(
            f"{path}: is a colour TIFF of {max(declared)} bits that leaves the upper ones empty; save it as PNG"
        )
