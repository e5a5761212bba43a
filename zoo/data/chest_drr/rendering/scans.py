"""Chest CTs of the user with TotalSegmentator label maps: read with limits, checked, divided into splits by patient."""

import hashlib
import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from filelock import FileLock

from zoo.checksums import remove_damaged, write_checksum
from zoo.data.chest_drr.rendering.volume import (
    LOBES,
    ChestVolume,
    MissingDataError,
    Spacing,
    chest_volume,
    to_working_grid,
)
from zoo.errors import ArgumentError, ZooError, ZooWarning
from zoo.files import replacing
from zoo.paths import cache_folder

SCAN_VERSION = 1
"""Raised whenever the same files give another working volume; it is part of the name of its cache file."""
NEEDED = {
    **{id_: name for name, id_ in LOBES.items()},
    16: "trachea",
    51: "heart",
    52: "aorta",
    62: "superior vena cava",
}
"""Ids without which there is no chest radiograph to label, with their names."""
OPTIONAL = {1: "spleen", 5: "liver", 6: "stomach", 73: "left clavicle", 74: "right clavicle"}
_VERTEBRAE = range(25, 51)
_LICENSE = "that of the user's CT"
_LIMITATIONS = (
    "All images are rendered, with findings painted into {count} by hand-written rules. Results do not predict results on "
    "radiographs of patients, and no clinical claim is made."
)

_MAX_VOXELS = 512 * 1024**2
_MAX_SPACING = 5.5
_MAX_ANGLE = 20.0
_LITRES = (0.4, 12.0)
_AIR_UP_TO = -400.0


class ScanError(ZooError, ValueError):
    """A CT or a label map that cannot be rendered; the message says why."""


@dataclass(frozen=True)
class Scan:
    """A chest CT and its label map, as NIfTI files on one grid, in any orientation.

    Attributes:
        ct: file with Hounsfield units.
        labels: file with the ids of TotalSegmentator 2, task "total".
        patient: name; scans of a patient are in one split. The file's name if empty.
        split: of the patient; all scans of a data set have one, or none has.
    """

    ct: str
    labels: str
    patient: str = ""
    split: Literal["train", "val", "test"] | None = None

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    @property
    def name(self) -> str:
        """The patient, by name or by file."""
        return self.patient or Path(self.ct).name.removesuffix(".gz").removesuffix(".nii")

    def key(self) -> list[str]:
        """What rendered bytes depend on: hashes of both files, the name and the split."""
        return [_digest(self.ct), _digest(self.labels), self.name, self.split or ""]


def describe_source(scans: Sequence[Scan]) -> dict[str, str]:
    """Licence, source and limitations of a data set rendered from scans, for its card."""
    patients = len({scan.name for scan in scans})
    count = f"{patients} patients' chest CTs" if patients > 1 else "one patient's chest CT, which all splits show,"
    return {
        "license": _LICENSE,
        "source": f"Rendered by `zoo data build` from {count.removesuffix(',')} and TotalSegmentator label maps of the user.",
        "limitations": _LIMITATIONS.format(count=count),
    }


def divide_by_patient(scans: Sequence[Scan]) -> tuple[Scan, ...]:
    """The scans with a split each: a patient's are in one, a tenth of the patients, and at least one, in val and in test.

    The order of the names' hashes decides, so that it does not depend on that of the list. A single patient is in every
    split, which is what rendered data of one CT are; a card says so.

    Raises:
        ArgumentError: a split is given for some scans only, a patient is in two, a split has none, or there are two patients.
    """
    given = {scan.split for scan in scans}
    patients: dict[str, set[str | None]] = {}
    for scan in scans:
        patients.setdefault(scan.name, set()).add(scan.split)
    if None in given and len(given) > 1:
        raise ArgumentError("some scans have a `split` and some have none; give it for all of them or for none")
    if torn := sorted(name for name, splits in patients.items() if len(splits) > 1):
        raise ArgumentError(f"patient {torn[0]} is in two splits; all scans of a patient belong to one")
    if None not in given:
        if missing := [split for split in ("train", "val", "test") if split not in given]:
            raise ArgumentError(f"no scan is in the split {missing[0]}")
        return tuple(scans)
    names = sorted(patients, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    if len(names) == 1:
        return tuple(scans)
    if len(names) == 2:
        raise ArgumentError("two patients cannot be divided into train, val and test; give one, or three or more")
    held_out = max(round(len(names) / 10), 1)
    splits: dict[str, Any] = dict.fromkeys(names, "train")
    splits |= dict.fromkeys(names[:held_out], "val") | dict.fromkeys(names[held_out : 2 * held_out], "test")
    return tuple(replace(scan, split=splits[scan.name]) for scan in scans)


def scan_of_case(scans: Sequence[Scan], split: str, stream: Sequence[int]) -> Scan:
    """The scan that a case is rendered from: one of its split, by a random stream of its own."""
    of_split = [scan for scan in scans if scan.split in (split, None)]
    return of_split[int(np.random.default_rng([*stream, 1]).integers(len(of_split)))]


@lru_cache(maxsize=8)
def load_scan(scan: Scan) -> ChestVolume:
    """The working volume of a scan; what is read of its files is kept in the cache.

    Raises:
        MissingDataError: a file is missing.
        ScanError: a file is no NIfTI volume, or the scan does not hold a labelled chest.
    """
    name = hashlib.sha256("".join([str(SCAN_VERSION), *scan.key()[:2]]).encode()).hexdigest()[:16]
    file = cache_folder() / "chest_drr" / "scans" / f"{name}.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):  # another process may be reading the same scan
        remove_damaged([file], "scans")
        if not file.is_file():
            hounsfield, labels, spacing = read_scan(scan)
            with replacing(file, durable=False) as partial:
                with partial.open("wb") as out:
                    np.savez(out, hounsfield=hounsfield, labels=labels, spacing=np.array(spacing))
                write_checksum(file, partial)
    try:
        with np.load(file, allow_pickle=False) as content:
            x, y, z = map(float, content["spacing"])
            return chest_volume(content["hounsfield"], content["labels"], (x, y, z))
    except (zipfile.BadZipFile, ValueError, KeyError) as error:
        raise ScanError(f"{file} is damaged; remove it: {error}") from error


def read_scan(scan: Scan) -> tuple[np.ndarray, np.ndarray, Spacing]:
    """Hounsfield units and labels of a scan on the working grid, (z, y, x) with x to the left, y to the front, z to the head.

    Raises:
        MissingDataError: a file is missing.
        ScanError: a file is no NIfTI volume, or the scan does not hold a labelled chest.
    """
    raw, affine = _read_canonical(Path(scan.ct))
    labels, label_affine = _read_canonical(Path(scan.labels))
    if raw.shape != labels.shape or not np.allclose(affine, label_affine, atol=0.1):
        raise ScanError(
            f"{scan.ct} {raw.shape[::-1]} and {scan.labels} {labels.shape[::-1]} are not on one grid; resample the label map "
            "to the CT (nearest neighbour)"
        )
    if not np.isfinite(raw).all():
        raise ScanError(f"{scan.ct} has values that are not finite")
    if (labels < 0).any() or (labels > 255).any() or (labels != np.floor(labels)).any():
        raise ScanError(f"{scan.labels} is no label map: it has values that are not whole numbers from 0 to 255")
    x, y, z = (float(size) for size in np.linalg.norm(affine[:3, :3], axis=0))
    if max(x, y, z) > _MAX_SPACING or min(x, y, z) < 0.1:
        raise ScanError(
            f"{scan.ct} has voxels of {x:.2f} x {y:.2f} x {z:.2f} mm; at most {_MAX_SPACING} mm are rendered"
        )
    hounsfield, working, spacing = to_working_grid(raw, labels.astype(np.int16), (x, y, z))
    _check_chest(scan, hounsfield, working, spacing)
    return hounsfield, working, spacing


def _read_canonical(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A NIfTI volume (z, y, x) float32 whose axes are turned to the head, the front and the left, and the affine of (x, y, z)."""
    import nibabel

    if not path.is_file():
        raise MissingDataError(f"{path}: there is no such file")
    if not path.name.endswith((".nii", ".nii.gz")):
        raise ScanError(f"{path} is not a NIfTI file (.nii or .nii.gz)")
    unreadable: tuple[type[Exception], ...] = (*_unreadable(), EOFError, zlib.error, ValueError, OSError)
    try:
        image: Any = nibabel.load(path)
        shape = tuple(image.shape)
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) != 3 or min(shape) < 16 or math.prod(shape) > _MAX_VOXELS:
            raise ScanError(
                f"{path} is {image.shape}; expected a volume of at least 16 and at most {_MAX_VOXELS:,} voxels"
            )
        if image.get_data_dtype().kind not in "iuf":
            raise ScanError(f"{path} holds {image.get_data_dtype()}; expected numbers")
        if not (image.header["sform_code"] or image.header["qform_code"]):
            raise ScanError(f"{path} does not say how the patient lies: both its sform and its qform code are 0")
        array = np.asarray(image.dataobj, dtype=np.float32).reshape(shape)
    except ScanError:
        raise
    except unreadable as error:
        raise ScanError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    return _turned(path, array, np.asarray(image.affine, dtype=float))


def _unreadable() -> tuple[type[Exception], ...]:
    """Errors of nibabel for files that are no NIfTI, or whose header contradicts itself."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    return ImageFileError, HeaderDataError, WrapStructError


def _turned(path: Path, array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import nibabel

    orientations: Any = nibabel.orientations
    axes = affine[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if not np.isfinite(affine).all() or (lengths == 0).any() or abs(np.linalg.det(axes / lengths)) < 0.5:
        raise ScanError(f"{path} has an affine that is no orientation: {affine.round(2).tolist()}")
    angle = math.degrees(math.acos(min((np.abs(axes).max(axis=0) / lengths).min(), 1.0)))
    if angle > _MAX_ANGLE:
        raise ScanError(f"{path} is oblique by {angle:.0f} degrees; resample it to the axes of the patient")
    turn = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt("LAS"))
    turned = orientations.apply_orientation(array, turn)
    return turned.transpose(2, 1, 0), affine @ orientations.inv_ornt_aff(turn, array.shape)


def _check_chest(scan: Scan, hounsfield: np.ndarray, labels: np.ndarray, spacing: Spacing) -> None:
    """Refuse what is no whole, labelled chest in Hounsfield units; name optional labels that are missing."""
    present = set(np.unique(labels).tolist())
    if missing := [f"{name} ({id_})" for id_, name in NEEDED.items() if id_ not in present]:
        raise ScanError(
            f"{scan.labels} has no voxel of {', '.join(missing)}; the scan must hold the chest, and the label map the ids of "
            "TotalSegmentator 2 (task total)"
        )
    lungs = np.isin(labels, list(LOBES.values()))
    litres = np.count_nonzero(lungs) * math.prod(spacing) / 1e6
    if not _LITRES[0] < litres < _LITRES[1]:
        raise ScanError(f"the lungs of {scan.labels} have {litres:.2f} litres; is the voxel size in millimetres?")
    for name, id_ in (*LOBES.items(), ("trachea", 16)):
        if (median := float(np.median(hounsfield[labels == id_]))) > _AIR_UP_TO:
            raise ScanError(
                f"{scan.ct} has a median of {median:.0f} in the {name} ({id_}), where there should be air; the values must be "
                "Hounsfield units, and the ids those of TotalSegmentator 2 (task total)"
            )
    area = np.count_nonzero(lungs, axis=(1, 2))
    for end, place in ((0, "bottom"), (-1, "top")):
        if area[end] > 0.1 * area.max():
            raise ScanError(
                f"the lungs of {scan.ct} are cut at the {place} of the scan, which must hold the whole chest"
            )
    _check_directions(scan, labels)
    optional = [f"{name} ({id_})" for id_, name in OPTIONAL.items() if id_ not in present]
    optional += [] if present & set(_VERTEBRAE) else ["vertebrae (25 to 50)"]
    if optional:
        import warnings

        message = f"{scan.labels} has no voxel of {', '.join(optional)}; their regions are empty in every image"
        warnings.warn(message, ZooWarning, stacklevel=2)


def _check_directions(scan: Scan, labels: np.ndarray) -> None:
    """Refuse a header that says another side, end or face of the patient than the labels show."""

    def middle(*ids: int) -> np.ndarray:
        return np.array([axis.mean() for axis in np.nonzero(np.isin(labels, ids))])

    lower, upper = (middle(*(id_ for name, id_ in LOBES.items() if part in name)) for part in ("lower", "upper"))
    left, right = (middle(*(id_ for name, id_ in LOBES.items() if part in name)) for part in ("left", "right"))
    wrong = [("left", left[2] < right[2]), ("head", upper[0] < lower[0])]
    if np.isin(labels, _VERTEBRAE).any():
        wrong.append(("front", middle(51)[1] < middle(*_VERTEBRAE)[1]))
    if found := [place for place, is_wrong in wrong if is_wrong]:
        raise ScanError(
            f"the header of {scan.labels} says {found[0]} where its labels show the opposite; the affine must be the patient's"
        )


def _digest(path: str) -> str:
    file = Path(path)
    if not file.is_file():
        raise MissingDataError(f"{path}: there is no such file")
    status = file.stat()
    return _digest_of(str(file.resolve()), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)
def _digest_of(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
