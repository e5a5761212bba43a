"""Chest CTs of the user: the packaged one in other storage gives the same film; what is no labelled chest is refused."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from zoo.data.chest_drr.rendering.build import series_folder
from zoo.data.chest_drr.rendering.cases import CaseSpec, render_case
from zoo.data.chest_drr.rendering.scans import (
    Scan,
    ScanError,
    describe_source,
    divide_by_patient,
    load_scan,
    read_scan,
    scan_of_case,
)
from zoo.data.chest_drr.rendering.spec import ImageSpec, RenderSpec
from zoo.data.chest_drr.rendering.volume import MissingDataError, source_folder
from zoo.errors import ArgumentError, ZooWarning

SIZE = 64


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    load_scan.cache_clear()


@pytest.fixture(scope="module")
def packaged() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hounsfield units and labels (x, y, z) of the packaged CT, and its affine."""
    ct, labels = (nibabel.load(source_folder() / name) for name in ("cxr.nii.gz", "mask.nii.gz"))
    return np.asarray(ct.dataobj), np.asarray(labels.dataobj), ct.affine


@pytest.fixture(scope="module")
def small(packaged) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same at 2.8 x 2.8 x 5 mm, which is read in no time."""
    raw, labels, affine = packaged
    return raw[::4, ::4, ::2], labels[::4, ::4, ::2], affine @ np.diag([4.0, 4.0, 2.0, 1.0])


def write(folder: Path, raw: np.ndarray, labels: np.ndarray, affine: np.ndarray, name: str = "scan") -> Scan:
    folder.mkdir(exist_ok=True)
    for part, array in (("ct", raw.astype(np.int16)), ("labels", labels.astype(np.uint8))):
        nibabel.save(nibabel.Nifti1Image(array, affine), folder / f"{name}-{part}.nii")
    return Scan(str(folder / f"{name}-ct.nii"), str(folder / f"{name}-labels.nii"))


def film(*scans: Scan, style: str = "standard") -> np.ndarray:
    return render_case(CaseSpec(style=style, image_size=SIZE, scans=scans or None), "test", 0).image / 65535


def test_the_packaged_files_as_a_scan_give_the_same_bytes():
    scan = Scan(str(source_folder() / "cxr.nii.gz"), str(source_folder() / "mask.nii.gz"), patient="p1")
    case = render_case(CaseSpec(image_size=SIZE, scans=[scan]), "test", 0)
    assert np.array_equal(case.image / 65535, film())
    record = render_case(CaseSpec(image_size=SIZE), "test", 0).to_record()
    assert case.to_record() == {**record, "patient": "p1"}


def test_storage_in_another_orientation_gives_the_same_volume(small, tmp_path):
    raw, labels, affine = small
    expected = read_scan(write(tmp_path, raw, labels, affine))
    turn = np.zeros((4, 4))  # axes (z, x, y), the first two reversed
    turn[2, 0], turn[2, 3], turn[0, 1], turn[0, 3], turn[1, 2], turn[3, 3] = (
        -1,
        raw.shape[2] - 1,
        -1,
        raw.shape[0] - 1,
        1,
        1,
    )
    turned = [array.transpose(2, 0, 1)[::-1, ::-1] for array in (raw, labels)]
    found = read_scan(write(tmp_path, *turned, affine @ turn, "turned"))
    assert all(np.array_equal(a, b) for a, b in zip(expected[:2], found[:2], strict=True)) and expected[2] == found[2]
    label_file = write(tmp_path, raw, labels, affine, "mixed").labels
    mixed = read_scan(Scan(str(tmp_path / "turned-ct.nii"), label_file))
    assert np.array_equal(mixed[0], expected[0]), "each file is turned by its own header"


@pytest.mark.parametrize("style", ["standard", "portable"])
def test_a_resampled_and_cropped_scan_gives_the_same_film_up_to_interpolation(style, packaged, tmp_path):
    """Mean difference below 0.015 of the range from black to white, and a correlation above 0.995."""
    raw, labels, affine = packaged
    inside = np.s_[27:487, 33:497, 3:131]
    raw, labels, corner = np.clip(raw[inside], -1000, 2000).astype(np.float32), labels[inside], np.array([27, 33, 3])
    zoom = np.array([0.703125, 0.703125, 2.5]) / (1.3, 1.7, 1.6)
    options = {"zoom": zoom, "grid_mode": True, "mode": "nearest"}
    resampled, mapped = ndimage.zoom(raw, order=1, **options), ndimage.zoom(labels, order=0, **options)
    step = np.array(raw.shape) / resampled.shape
    placed = np.diag([*step, 1.0])
    placed[:3, 3] = corner + (step - 1) / 2
    scan = write(tmp_path, resampled, mapped, affine @ placed)
    first, second = film(style=style), film(scan, style=style)
    assert 0 < np.abs(first - second).mean() < 0.015
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.995


def without(*ids: int) -> Callable:
    return lambda raw, labels, affine: (raw, np.where(np.isin(labels, ids), 0, labels), affine)


def version_1(raw: np.ndarray, labels: np.ndarray, affine: np.ndarray) -> tuple:
    """TotalSegmentator 1 has the lobes at 13 to 17 and other organs at 10 to 12."""
    lobes = (labels >= 10) & (labels <= 14)
    return raw, np.where(lobes, labels + 3, np.where(np.isin(labels, [5, 1, 6]), labels % 3 + 10, labels)), affine


def turned_by(degrees: float) -> Callable:
    angle = np.radians(degrees)
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return lambda raw, labels, affine: (raw, labels, rotation @ affine)


WRONG = {
    "no trachea": (
        without(16, 62),
        r"no voxel of trachea \(16\), superior vena cava \(62\); the scan must hold the chest",
    ),
    "no chest": (
        lambda r, m, a: (r, np.where(m == 5, 5, 0), a),
        r"no voxel of left upper lobe \(10\), left lower lobe",
    ),
    "cut at the top": (lambda r, m, a: (r[..., :48], m[..., :48], a), "are cut at the top of the scan"),
    "cut at the bottom": (lambda r, m, a: (r[..., 28:], m[..., 28:], a), "are cut at the bottom of the scan"),
    "no Hounsfield units": (lambda r, m, a: (np.maximum(r, -1024) + 1024, m, a), "must be Hounsfield units"),
    "version 1": (version_1, "Hounsfield units, and the ids those of TotalSegmentator 2"),
    "centimetres": (
        lambda r, m, a: (r, m, a @ np.diag([0.1, 0.1, 0.1, 1])),
        "litres; is the voxel size in millimetres",
    ),
    "metres": (lambda r, m, a: (r, m, a @ np.diag([1e-3, 1e-3, 1e-3, 1])), "voxels of 0.00 x 0.00 x 0.00 mm"),
    "thick": (lambda r, m, a: (r[..., ::2], m[..., ::2], a @ np.diag([1, 1, 2, 1])), "10.00 mm; at most 5.5 mm"),
    "mirrored": (lambda r, m, a: (r, m, np.diag([-1, 1, 1, 1]) @ a), "says left where its labels show the opposite"),
    "upside down": (lambda r, m, a: (r, m, np.diag([-1, 1, -1, 1]) @ a), "says left|says head"),
    "face down": (lambda r, m, a: (r, m, np.diag([1, -1, 1, 1]) @ a), "says front where"),
    "oblique": (turned_by(35), "oblique by 35 degrees"),
    "few slices": (lambda r, m, a: (r[..., :9], m[..., :9], a), "expected a volume of at least 16"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_what_is_no_labelled_chest_is_refused(mistake, small, tmp_path):
    change, message = WRONG[mistake]
    with pytest.raises(ScanError, match=message):
        load_scan(write(tmp_path, *change(*small)))


def test_files_that_are_no_volumes_are_refused(small, tmp_path):
    raw, labels, affine = small
    scan = write(tmp_path, raw, labels, affine)
    smaller = write(tmp_path, raw[2:], labels[2:], affine, "smaller")
    with pytest.raises(ScanError, match="are not on one grid; resample the label map"):
        read_scan(Scan(scan.ct, smaller.labels))
    with pytest.raises(ScanError, match="is no label map"):
        read_scan(Scan(scan.ct, scan.ct))
    with pytest.raises(MissingDataError, match=r"gone\.nii: there is no such file"):
        load_scan(Scan(str(tmp_path / "gone.nii"), scan.labels))
    content = Path(scan.ct).read_bytes()
    for name, data, message in (
        ("short.nii", content[: len(content) // 2], "cannot be read"),
        ("text.nii", b"no volume" * 100, "cannot be read"),
        ("zip.nii.gz", b"\x1f\x8b" + b"0" * 500, "cannot be read"),
        ("array.npy", content, r"is not a NIfTI file \(.nii or .nii.gz\)"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ScanError, match=message):
            read_scan(Scan(str(tmp_path / name), scan.labels))
    header = nibabel.load(scan.ct).header
    header["sform_code"], header["srow_z"] = 2, 0
    (tmp_path / "flat.nii").write_bytes(header.binaryblock + content[len(header.binaryblock) :])
    with pytest.raises(ScanError, match="affine that is no orientation"):
        read_scan(Scan(str(tmp_path / "flat.nii"), scan.labels))
    nibabel.save(nibabel.Nifti1Image(raw.astype(np.complex64), affine), tmp_path / "complex.nii")
    with pytest.raises(ScanError, match="holds complex64; expected numbers"):
        read_scan(Scan(str(tmp_path / "complex.nii"), scan.labels))
    lost = nibabel.Nifti1Image(raw, None)
    nibabel.save(lost, tmp_path / "lost.nii")
    with pytest.raises(ScanError, match="does not say how the patient lies"):
        read_scan(Scan(str(tmp_path / "lost.nii"), scan.labels))


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_header_is_read_or_refused_but_nothing_else(small, tmp_path):
    raw, labels, affine = small
    scan = write(tmp_path, raw[::4, ::4, ::4], labels[::4, ::4, ::4], affine @ np.diag([4.0, 4.0, 4.0, 1.0]))
    content, rng, refused = bytearray(Path(scan.ct).read_bytes()), np.random.default_rng(0), 0
    for _ in range(150):
        damaged = content.copy()
        for place in rng.integers(0, 348, size=3):
            damaged[place] = rng.integers(256)
        (tmp_path / "damaged.nii").write_bytes(damaged)
        try:
            read_scan(Scan(str(tmp_path / "damaged.nii"), scan.labels))
        except ScanError:
            refused += 1
    assert refused > 50


def test_a_header_that_claims_too_much_is_refused_before_memory_is_taken(small, tmp_path):
    scan = write(tmp_path, *small)
    header = nibabel.load(scan.ct).header
    header.set_data_shape((2000, 2000, 2000))
    (tmp_path / "huge.nii").write_bytes(header.binaryblock + bytes(500))
    with pytest.raises(ScanError, match=r"at most 536,870,912 voxels"):
        read_scan(Scan(str(tmp_path / "huge.nii"), scan.labels))


def test_optional_labels_that_are_missing_are_named(small, tmp_path):
    raw, labels, affine = without(6, 73, *range(25, 51))(*small)
    scan = write(tmp_path, raw, labels, affine)
    with pytest.warns(
        ZooWarning, match=r"no voxel of stomach \(6\), left clavicle \(73\), vertebrae \(25 to 50\); their"
    ):
        load_scan(scan)
    case = render_case(CaseSpec(image_size=SIZE, scans=[scan]), "val", 1)
    assert not case.regions["left clavicle"].any() and case.regions["right clavicle"].any()


def test_the_field_opens_for_larger_lungs(small, tmp_path):
    raw, labels, affine = small
    large = load_scan(write(tmp_path, raw, labels, affine @ np.diag([1.3, 1.3, 1.0, 1.0])))
    assert large.field_scale == pytest.approx(1.3 * 252 / 265, abs=0.03) and large.reach > 160
    assert load_scan(write(tmp_path, raw, labels, affine, "same")).field_scale == 1


def patients(*names: str) -> list[Scan]:
    return [Scan(f"{name}-{number}.nii", "labels.nii", name) for name in names for number in range(2)]


def test_whole_patients_go_to_one_split():
    names = [f"p{number}" for number in range(20)]
    divided = divide_by_patient(patients(*names))
    splits = {name: {scan.split for scan in divided if scan.name == name} for name in names}
    assert all(len(found) == 1 for found in splits.values())
    assert sorted(sum(found == {split} for found in splits.values()) for split in ("train", "val", "test")) == [
        2,
        2,
        16,
    ]
    again = divide_by_patient(patients(*names[::-1]))
    assert {(scan.name, scan.split) for scan in again} == {(scan.name, scan.split) for scan in divided}
    seen = {
        split: {scan_of_case(divided, split, [0, 0, index]).name for index in range(400)} for split in ("train", "test")
    }
    assert len(seen["train"]) == 16 and len(seen["test"]) == 2 and not seen["train"] & seen["test"]


def test_one_patient_is_in_every_split_and_the_card_says_so():
    (scan, _) = divide_by_patient(patients("p1"))
    assert scan.split is None and scan_of_case([scan], "test", [0, 1, 2]) is scan
    assert "which all splits show" in describe_source([scan])["limitations"]
    assert "3 patients' chest CTs" in describe_source(patients("a", "b", "c"))["source"]


@pytest.mark.parametrize(
    ("scans", "message"),
    [
        (patients("a", "b"), "two patients cannot be divided"),
        ([Scan("a", "b", "p", "train"), Scan("c", "d", "p", "test"), Scan("e", "f", "q", "val")], "p is in two splits"),
        ([Scan("a", "b", "p", "train"), Scan("c", "d", "q")], "some scans have a `split` and some have none"),
        ([Scan("a", "b", "p", "train"), Scan("c", "d", "q", "val")], "no scan is in the split test"),
    ],
)
def test_patients_that_cannot_be_divided_are_refused(scans, message):
    with pytest.raises(ArgumentError, match=message):
        divide_by_patient(scans)


def test_scans_of_a_recipe_are_checked():
    from zoo.config.building import build
    from zoo.config.recipe import RecipeError

    three = [{"ct": f"{name}.nii", "labels": "l.nii", "split": name} for name in ("train", "val", "test")]
    data = build("dataset", {"name": "chest_drr", "scans": three})
    assert [scan.name for scan in data.spec.scans] == ["train", "val", "test"]
    assert data.license == "that of the user's CT" and "3 patients" in data.limitations
    with pytest.raises(RecipeError, match="data.*two patients cannot be divided"):
        build("dataset", {"name": "chest_drr", "scans": [{"ct": name, "labels": "l.nii"} for name in "ab"]})
    with pytest.raises(RecipeError, match="data.*scans"):
        build("dataset", {"name": "chest_drr", "scans": [{"ct": "a.nii", "lables": "l.nii"}]})
    for wrong in ({"ct": "a.nii"}, {"ct": "a", "labels": "b", "scans": [Scan("a", "b")]}, {"scans": []}):
        with pytest.raises(ArgumentError):
            ImageSpec(**wrong)
    assert RenderSpec(ct="a.nii.gz", labels="l").divided_scans[0].name == "a"


def test_the_cache_folder_depends_on_what_the_files_hold(small, tmp_path):
    raw, labels, affine = small
    first = write(tmp_path, raw, labels, affine)
    before = series_folder(CaseSpec(scans=[first]))
    assert before == series_folder(CaseSpec(scans=[first])) != series_folder(CaseSpec())
    write(tmp_path, raw + 1, labels, affine)
    assert series_folder(CaseSpec(scans=[first])) != before
