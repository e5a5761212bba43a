"""Slices of NIfTI volumes as a radiologist sees them, however the file stores its axes."""

from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.io.pixels import ImageError, check_pixel_count, chosen, to_unit


def read_nifti(path: Path, axis: int | None = None, index: int | None = None) -> np.ndarray:
    """Read a slice (1 or 3, height, width) scaled by its extremes; colours by 255.

    A slice is turned as it is viewed: the patient's right is on the left, anterior or superior on top, and in a sagittal slice
    anterior on the left.

    Args:
        path: the file.
        axis: of the patient, whatever the order of the file: 0 left to right (sagittal slices), 1 posterior to anterior
            (coronal), 2 inferior to superior (axial). Not needed for a file of one slice.
        index: along the axis, from the patient's left, back or feet; the middle one if None.

    Raises:
        ImageError: the file has more than three axes, or its axis is not chosen or has no such slice.
    """
    import nibabel

    image: Any = nibabel.load(path)
    shape = _volume_shape(path, image.shape)
    axes = _patient_axes(image)
    stored_axis, axis = _slicing_axis(path, shape, axes, axis)
    length, forward = shape[stored_axis], axes[stored_axis, 1] > 0
    index = chosen(path, "slice", length, length // 2 if index is None else index)
    check_pixel_count(path, int(np.prod(shape)) // length)
    selection: list[Any] = [slice(None)] * 3 + [0] * (len(image.shape) - 3)
    selection[stored_axis] = index if forward else length - 1 - index
    plane = np.asarray(image.dataobj[tuple(selection[: len(image.shape)])])
    remaining = [axes[other] for other in range(3) if other != stored_axis]
    return _scale(_as_viewed(plane, remaining))


def nifti_pixel_area(path: Path, axis: int | None = None) -> float | None:
    """Square millimetres of a slice's pixel; None where the spacing is not positive.

    Raises:
        ImageError: as :func:`read_nifti`.
    """
    import nibabel

    image: Any = nibabel.load(path)
    shape = _volume_shape(path, image.shape)
    stored_axis, _ = _slicing_axis(path, shape, _patient_axes(image), axis)
    zooms = (*image.header.get_zooms(), 1.0)[:3]
    area = float(np.prod([zoom for position, zoom in enumerate(zooms) if position != stored_axis]))
    return area if area > 0 and np.isfinite(area) else None


def check_nifti(path: Path, axis: int | None, index: int | None) -> None:
    """Check from the header that a slice is chosen and there.

    Raises:
        ImageError: as :func:`read_nifti`.
    """
    image, shape = open_nifti(path)
    stored_axis, _ = _slicing_axis(path, shape, _patient_axes(image), axis)
    chosen(path, "slice", shape[stored_axis], shape[stored_axis] // 2 if index is None else index)


def open_nifti(path: Path) -> tuple[Any, tuple[int, ...]]:
    """Nibabel's image, of which only the header is read, and its three axes.

    Raises:
        ImageError: it has other axes.
    """
    import nibabel

    image: Any = nibabel.load(path)
    return image, _volume_shape(path, image.shape)


def _patient_axes(image: Any) -> np.ndarray:
    """For each stored axis, the patient's (0, 1, 2) that it runs along, and 1 or -1 for its direction: (3, 2)."""
    from nibabel.orientations import io_orientation

    axes: np.ndarray = io_orientation(image.affine)  # type: ignore[no-untyped-call]
    if np.isnan(axes).any():  # an affine that maps two axes to one, or to none
        return np.array([[0, 1], [1, 1], [2, 1]])
    return axes


def _volume_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Three axes: missing ones are 1, further ones must be."""
    if len(shape) < 2 or any(length != 1 for length in shape[3:]):
        raise ImageError(f"{path}: has the axes {shape}; expected two or three, save one volume of a series")
    return (*shape, 1)[:3]


def _slicing_axis(path: Path, shape: tuple[int, ...], axes: np.ndarray, axis: int | None) -> tuple[int, int]:
    """The stored axis of a patient's axis, and that axis; the only one of length 1 if it is not chosen."""
    single = [stored for stored in range(3) if shape[stored] == 1]
    if axis is None and len(single) == 1:
        return single[0], int(axes[single[0], 0])
    if axis not in (0, 1, 2):
        raise ImageError(
            f"{path}: is a volume of {shape}; choose axis=0 (sagittal), 1 (coronal) or 2 (axial slices) and index"
        )
    return int(np.flatnonzero(axes[:, 0] == axis)[0]), axis


def _as_viewed(plane: np.ndarray, axes: list[np.ndarray]) -> np.ndarray:
    """Turn a plane whose stored axes are the patient's ``axes`` (which, direction)."""
    for position, (_, direction) in enumerate(axes):
        plane = np.flip(plane, position) if direction < 0 else plane
    if axes[0][0] > axes[1][0]:
        plane = plane.T
    return plane[::-1, ::-1].T


def _scale(plane: np.ndarray) -> np.ndarray:
    if plane.dtype.names:  # NIfTI's colours
        return np.stack([plane[name] for name in plane.dtype.names[:3]]).astype(np.float32) / 255
    return to_unit(plane.astype(np.float32))[None]
