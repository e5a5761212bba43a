"""Medical images from files: PNG, JPEG, JPEG 2000, TIFF, DICOM and NIfTI slices, with limits and clear errors."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from zoo.data.io.dicom import dicom_frames, dicom_size, dicom_spacing, is_dicom, read_dicom
from zoo.data.io.nifti import check_nifti, nifti_pixel_area, open_nifti, read_nifti
from zoo.data.io.pixels import MAX_PIXELS, ImageError, chosen
from zoo.data.io.raster import raster_frames, raster_size, read_raster
from zoo.ranges import NonNegativeInt

__all__ = [
    "HIDDEN_FOLDER",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "ImageError",
    "ImageOptions",
    "check_image",
    "check_options",
    "find_image_files",
    "header_size",
    "image_size",
    "pixel_area",
    "pixel_spacing",
    "read_image",
]

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jp2", ".tif", ".tiff", ".bmp", ".gif", ".webp"),
    *(".dcm", ".dicom", ".nii", ".nii.gz"),
)
"""By which a file in a folder is taken for an image; one without a suffix is if it is DICOM."""
HIDDEN_FOLDER = "__MACOSX"
"""A folder that macOS adds to archives."""
MAX_FILE_BYTES = 1 << 30
MIN_SIDE = 8
_NIFTI = (".nii", ".nii.gz")


def read_image(
    path: str | Path,
    *,
    frame: int | None = None,
    axis: int | None = None,
    index: int | None = None,
    bits: int | None = None,
) -> torch.Tensor:
    """Read an image as float32 (channels, height, width) in [0, 1]; channels are 1 or 3.

    How each format is scaled and turned: :func:`~zoo.data.io.raster.read_raster`, :func:`~zoo.data.io.dicom.read_dicom`,
    :func:`~zoo.data.io.nifti.read_nifti`.

    Args:
        path: the file.
        frame: index of the frame or page of a file with several; required there.
        axis: of a NIfTI volume, perpendicular to the slice: 0 sagittal, 1 coronal, 2 axial; required there.
        index: of the slice of a NIfTI volume; the middle one if None.
        bits: in use of a 16-bit PNG or TIFF; as many as its largest value needs if None.

    Raises:
        ImageError: the file is missing, damaged, too large, too small, contains NaN, or needs an argument that is missing.
    """
    path = Path(path)
    _check_file(path)
    try:
        if is_dicom(path):
            pixels = read_dicom(path, frame)
        elif path.name.lower().endswith(_NIFTI):
            pixels = read_nifti(path, axis, index)
        else:
            pixels = read_raster(path, frame, bits)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(f"{path}: does not fit in memory") from error
    except Exception as error:  # decoders raise errors of many types for damaged bytes
        raise _unreadable(path, error) from error
    return torch.from_numpy(_validate_pixels(path, pixels))


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Which part of a file is read, and its depth. In a recipe, the fields are arguments of the dataset.

    Attributes:
        frame: of files with several frames or pages.
        axis: of NIfTI volumes, perpendicular to the slice: 0 sagittal, 1 coronal, 2 axial.
        index: of the slice of NIfTI volumes; the middle one if None.
        bits: in use of 16-bit PNG and TIFF files; as many as the largest value of each needs if None.
    """

    frame: NonNegativeInt | None = None
    axis: NonNegativeInt | None = None
    index: NonNegativeInt | None = None
    bits: NonNegativeInt | None = None

    def read(self, path: str | Path, reader: Callable[..., torch.Tensor] | None = None) -> torch.Tensor:
        """Read an image by :func:`read_image`, or by another reader that takes the same."""
        return (reader or read_image)(path, frame=self.frame, axis=self.axis, index=self.index, bits=self.bits)


def pixel_area(path: str | Path, options: ImageOptions = ImageOptions()) -> float | None:
    """Square millimetres of a pixel of a DICOM or NIfTI image; None where it is unknown, as of any other format."""
    path = Path(path)
    try:
        if is_dicom(path):
            spacing = dicom_spacing(path)
            return spacing[0] * spacing[1] if spacing else None
        return nifti_pixel_area(path, options.axis) if path.name.lower().endswith(_NIFTI) else None
    except Exception:  # a damaged header; reading the image says so
        return None


def pixel_spacing(path: str | Path) -> tuple[float, float] | None:
    """Millimetres from row to row and from column to column of a DICOM image; None where they are unknown, as of any other format."""
    try:
        return dicom_spacing(Path(path)) if is_dicom(Path(path)) else None
    except Exception:  # as in pixel_area
        return None


def check_options(path: Path, options: ImageOptions) -> None:
    """Check from a file's header that the options choose one image of it.

    Raises:
        ImageError: they do not, or the header cannot be read.
    """
    _check_file(path)
    try:
        if is_dicom(path):
            chosen(path, "frame", dicom_frames(path), options.frame)
        elif path.name.lower().endswith(_NIFTI):
            check_nifti(path, options.axis, options.index)
        else:
            chosen(path, "frame", raster_frames(path), options.frame)
    except ImageError:
        raise
    except Exception as error:  # as in read_image
        raise _unreadable(path, error) from error


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


def find_image_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """The images below a folder, sorted, and the files that are none; hidden ones are left out."""

    def is_hidden(path: Path) -> bool:
        return any(part.startswith(".") or part == HIDDEN_FOLDER for part in path.relative_to(folder).parts)

    def is_named(path: Path) -> bool:
        return path.is_file() or (path.is_symlink() and not path.exists())  # a broken link is read, and reported

    files = [path for path in sorted(folder.rglob("*")) if is_named(path) and not is_hidden(path)]
    images = [
        path for path in files if path.name.lower().endswith(IMAGE_SUFFIXES) or (not path.suffix and is_dicom(path))
    ]
    known = set(images)
    return images, [path for path in files if path not in known]


def image_size(path: Path) -> tuple[int, int]:
    """Height and width as the image is read; from the header where it can be.

    Raises:
        ImageError: as :func:`read_image`.
    """
    try:
        return dicom_size(path) if is_dicom(path) else raster_size(path)
    except Exception:  # another format, or damaged: reading it says so
        height, width = read_image(path).shape[-2:]
        return height, width


def header_size(path: Path) -> tuple[int, int] | None:
    """Height and width from the header alone; None of a NIfTI volume, whose slices have several.

    Raises:
        ImageError: the file is missing, too large or has no header of an image. Damage behind the header is not seen.
    """
    _check_file(path)
    try:
        if is_dicom(path):
            return dicom_size(path)
        if path.name.lower().endswith(_NIFTI):
            open_nifti(path)
            return None
        return raster_size(path)
    except ImageError:
        raise
    except Exception as error:  # as in read_image
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ImageError:
    """What a decoder says of a file; of one that no decoder takes, how it begins."""
    reason = f"{type(error).__name__}: {error}"
    if type(error).__name__ in ("UnidentifiedImageError", "ImageFileError"):  # of Pillow and nibabel
        with path.open("rb") as file:
            start = file.read(16)
        reason = "it is empty" if not start else f"its content is of no known format; it begins with {start!r}"
    return ImageError(f"{path}: cannot be read as an image: {reason}")


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise ImageError(f"{path}: is a folder, not a file")
    if not path.is_file():
        raise ImageError(f"{path}: there is no such file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ImageError(f"{path}: is larger than {MAX_FILE_BYTES >> 20} MiB")


def _validate_pixels(path: Path, pixels: np.ndarray) -> np.ndarray:
    if not np.isfinite(pixels).all():
        raise ImageError(f"{path}: contains {np.count_nonzero(~np.isfinite(pixels))} pixels that are NaN or infinite")
    if min(pixels.shape[-2:]) < MIN_SIDE:
        raise ImageError(
            f"{path}: is {pixels.shape[-1]}x{pixels.shape[-2]} pixels; the minimum is {MIN_SIDE}x{MIN_SIDE}"
        )
    return np.ascontiguousarray(pixels, dtype=np.float32)
