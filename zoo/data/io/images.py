"""Readers of medical images: PNG, JPEG, JPEG 2000, TIFF, DICOM and NIfTI slices, with limits and clear errors."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.errors import ZooError

MAX_FILE_BYTES = 1 << 30
MAX_PIXELS = 100_000_000
MIN_SIDE = 8
_NIFTI = (".nii", ".nii.gz")
_DICOM = (".dcm", ".dicom")


class ImageError(ZooError, ValueError):
    """A file that is not a readable image, or exceeds a limit."""


def read_image(
    path: str | Path, *, frame: int | None = None, axis: int | None = None, index: int | None = None
) -> torch.Tensor:
    """Read an image as float32 (channels, height, width) in [0, 1]; channels are 1 or 3.

    8-bit and 16-bit files are scaled by their full range, DICOM by its window (or its extremes), NIfTI by its extremes.

    Args:
        path: the file.
        frame: index of the frame of a multi-frame DICOM; required there, refused elsewhere.
        axis: of a NIfTI volume, perpendicular to the slice; required there.
        index: of the slice of a NIfTI volume; the middle one if None.

    Raises:
        ImageError: the file is missing, damaged, too large, too small, contains NaN, or needs an argument that is missing.
    """
    path = Path(path)
    if path.is_dir():
        raise ImageError(f"{path}: is a folder; name files, as {path}/*.png")
    if not path.is_file():
        raise ImageError(f"{path}: there is no such file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ImageError(f"{path}: is larger than {MAX_FILE_BYTES >> 20} MiB")
    name = path.name.lower()
    is_dicom = name.endswith(_DICOM) or _has_dicom_preamble(path)
    if frame is not None and not is_dicom:
        raise ImageError(f"{path}: a frame can be chosen only of a DICOM file")
    try:
        if is_dicom:
            pixels = _read_dicom(path, frame)
        elif name.endswith(_NIFTI):
            pixels = _read_nifti(path, axis, index)
        else:
            pixels = _read_raster(path)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(f"{path}: does not fit in memory") from error
    except Exception as error:  # decoders raise errors of many types for damaged bytes
        raise ImageError(f"{path}: cannot be read as an image: {type(error).__name__}: {error}") from error
    return torch.from_numpy(_validate_pixels(path, pixels))


def check_image(image: torch.Tensor) -> None:
    """Check that a tensor is an image as :func:`read_image` returns it.

    Raises:
        ImageError: its shape is not (1 or 3, height, width), or its values are not floating-point numbers in [0, 1].
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3) or min(image.shape[1:]) < MIN_SIDE:
        raise ImageError(
            f"an image must be (1 or 3, height, width) of at least {MIN_SIDE} pixels; got {tuple(image.shape)}"
        )
    if not image.is_floating_point() or not ((image >= 0) & (image <= 1)).all():
        raise ImageError(f"an image must be floating point in [0, 1]; got {image.dtype}, or values outside")


def image_size(path: Path) -> tuple[int, int]:
    """Height and width; from the header where Pillow supports the format.

    Raises:
        ImageError: as :func:`read_image`.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError):
        height, width = read_image(path).shape[-2:]
        return height, width


def _has_dicom_preamble(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _validate_pixels(path: Path, pixels: np.ndarray) -> np.ndarray:
    if not np.isfinite(pixels).all():
        raise ImageError(f"{path}: contains {np.count_nonzero(~np.isfinite(pixels))} pixels that are NaN or infinite")
    if min(pixels.shape[-2:]) < MIN_SIDE:
        raise ImageError(
            f"{path}: is {pixels.shape[-1]}x{pixels.shape[-2]} pixels; the minimum is {MIN_SIDE}x{MIN_SIDE}"
        )
    return np.ascontiguousarray(pixels, dtype=np.float32)


def _check_pixel_count(path: Path, pixels: int) -> None:
    if pixels > MAX_PIXELS:
        raise ImageError(
            f"{path}: has {pixels / 1e6:.0f} million pixels; the maximum is {MAX_PIXELS / 1e6:.0f} million"
        )


def _read_raster(path: Path) -> np.ndarray:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked here, before decoding
        with Image.open(path) as image:
            _check_pixel_count(path, image.width * image.height)
            if image.mode.startswith("I"):  # 16-bit grey, under one of Pillow's names for it
                return np.asarray(image).astype(np.float32)[None] / 65535
            if image.mode == "F":
                return _to_unit(np.asarray(image))[None]
            grey = image.mode in ("1", "L", "LA")
            pixels = np.asarray(image.convert("L" if grey else "RGB")).astype(np.float32) / 255
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def _read_dicom(path: Path, frame: int | None) -> np.ndarray:
    import pydicom
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, convert_color_space, pixel_array

    dataset = pydicom.dcmread(path, force=True)
    if "Rows" not in dataset or "Columns" not in dataset:
        raise ImageError(f"{path}: is a DICOM file without pixels, or is truncated")
    frames = int(dataset.get("NumberOfFrames") or 1)
    _check_pixel_count(path, int(dataset.Rows) * int(dataset.Columns))
    if frames > 1 and frame is None:
        raise ImageError(f"{path}: has {frames} frames; choose one with frame=0 to frame={frames - 1}")
    if frame is not None and not 0 <= frame < frames:
        raise ImageError(f"{path}: has no frame {frame}; there are 0 to {frames - 1}")
    pixels = pixel_array(dataset, index=frame or 0)
    photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    if photometric == "PALETTE COLOR":
        return apply_color_lut(pixels, dataset).transpose(2, 0, 1).astype(np.float32) / 65535
    if pixels.ndim == 3:
        if photometric.startswith("YBR"):
            pixels = convert_color_space(pixels, photometric, "RGB")
        return pixels.transpose(2, 0, 1).astype(np.float32) / (2 ** int(dataset.BitsStored) - 1)
    windowed = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset)
    unit = _to_unit(windowed, *_window_range(dataset, windowed))
    return (1 - unit if photometric == "MONOCHROME1" else unit)[None]


def _window_range(dataset: Any, windowed: np.ndarray) -> tuple[float, float]:
    """Values that the (first) VOI window maps its ends to; the extremes where there is a lookup table or no window."""
    from pydicom.pixels import apply_voi_lut

    if "WindowWidth" not in dataset or "WindowCenter" not in dataset or "VOILUTSequence" in dataset:
        return float(windowed.min()), float(windowed.max())
    centre, width = (float(np.atleast_1d(value)[0]) for value in (dataset.WindowCenter, dataset.WindowWidth))
    low, high = apply_voi_lut(np.array([centre - 2 * width, centre + 2 * width]), dataset)
    return float(low), float(high)


def _read_nifti(path: Path, axis: int | None, index: int | None) -> np.ndarray:
    import nibabel

    image: Any = nibabel.load(path)
    shape = image.shape
    if len(shape) != 3 or axis not in (0, 1, 2):
        raise ImageError(f"{path}: is a volume of {shape}; choose axis=0, 1 or 2 of a three-dimensional one")
    index = shape[axis] // 2 if index is None else index
    if not 0 <= index < shape[axis]:
        raise ImageError(f"{path}: has no slice {index} along axis {axis}; there are 0 to {shape[axis] - 1}")
    _check_pixel_count(path, int(np.prod(shape)) // shape[axis])
    selection: list[Any] = [slice(None)] * 3
    selection[axis] = index
    pixels = np.asarray(image.dataobj[tuple(selection)], dtype=np.float32)
    if not np.isfinite(pixels).all():
        return pixels[None]
    return _to_unit(np.rot90(pixels))[None]


def _to_unit(pixels: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Scale to [0, 1] by a range, or by the extremes; a constant image becomes zero."""
    low = float(np.min(pixels)) if low is None else low
    high = float(np.max(pixels)) if high is None else high
    scaled = (pixels.astype(np.float32) - low) / max(high - low, 1e-6)
    return np.where(np.isnan(scaled), scaled, np.clip(scaled, 0, 1))
