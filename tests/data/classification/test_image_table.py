import warnings
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from tests.data.classification.tables import rows, write_table
from tests.data.io.dicom_files import RAMP, write_dicom
from zoo.data.classification.base import DataError
from zoo.data.classification.image_table import ImageCsv, ImageFolder
from zoo.data.io.images import ImageError, ImageOptions, read_image
from zoo.data.io.tables import TableSpec
from zoo.errors import ZooWarning


def test_a_table_with_splits(tmp_path):
    data = ImageCsv(write_table(tmp_path, rows()))
    assert data.class_names == ["a", "b"]
    assert [len(data.split(split)) for split in ("train", "val", "test")] == [20, 20, 20]
    sample = data.split("test")[0]
    assert sample["image"].shape == (3, 224, 224) and sample["label"] == 0


def test_a_table_without_splits_is_split_by_patient(tmp_path):
    patients = [(label, f"p{index % 10}", "") for index, label in enumerate("aab" * 20)]
    data = ImageCsv(write_table(tmp_path, patients))
    splits = {split: {item.patient for item in data.split(split).items} for split in ("train", "val", "test")}
    assert sum(map(len, splits.values())) == 10
    assert not splits["train"] & splits["val"] and not splits["train"] & splits["test"]


@pytest.mark.parametrize(
    ("split", "message"), [("", "give all or none"), ("fold 1", "split 'fold 1' is none of train, val and test")]
)
def test_unusable_splits_are_refused(tmp_path, split, message):
    with pytest.raises(DataError, match=message):
        ImageCsv(write_table(tmp_path, [*rows(2), ("a", "x", split)])).split("train")


@pytest.mark.parametrize(
    ("text", "message"),
    [("path,name\na.png,b", "needs the columns path and label"), ("path,label\n,b", "line 2: path or label is empty")],
)
def test_malformed_tables(tmp_path, text, message):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        ImageCsv(str(tmp_path / "table.csv"))


def test_folder_names_become_classes(striped_folder):
    data = ImageFolder(str(striped_folder))
    assert data.class_names == ["blank film", "dots", "stripes"]
    assert [len(data.split(split)) for split in ("train", "val", "test")] == [36, 12, 24]
    with pytest.raises(DataError, match="no such folder"):
        ImageFolder(str(striped_folder / "nowhere"))


def test_a_pattern_names_the_patients_of_a_folder(striped_folder):
    train = ImageFolder(str(striped_folder), patient_pattern=r"(train|val|test)\d+\.png").split("train")
    assert {item.patient for item in train.items} == {"train"}
    with pytest.raises(DataError, match="has no match with a group"):
        ImageFolder(str(striped_folder), patient_pattern=r"patient\d+")


def test_columns_separator_encoding_and_splits_are_arguments(tmp_path):
    write_table(tmp_path, rows(2))
    text = (tmp_path / "table.csv").read_text().replace("path,label,patient,split", "Datei,Befund,Fall,Teil")
    text = (
        text.replace(",a,", ",Erguß,").replace(",train", ",Lernen").replace(",val", ",Probe").replace(",test", ",Ende")
    )
    (tmp_path / "own.csv").write_bytes(text.replace(",", ";").encode("cp1252"))
    spec = TableSpec(
        path_column="Datei",
        label_column="Befund",
        patient_column="Fall",
        split_column="Teil",
        separator=";",
        encoding="cp1252",
        split_names={"Lernen": "train", "Probe": "val", "Ende": "test"},
    )
    data = ImageCsv(str(tmp_path / "own.csv"), columns=spec)
    assert data.class_names == ["Erguß", "b"]
    assert [len(data.split(split)) for split in ("train", "val", "test")] == [4, 4, 4]


def test_a_row_with_a_comma_too_many_is_named(tmp_path):
    path = write_table(tmp_path, [*rows(2), ("mass, large", "p", "test")])
    with pytest.raises(DataError, match="line 14: has 5 fields and the header 4"):
        ImageCsv(path)


def write_images(folder, *names):
    for index, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16), 20 * index % 250, np.uint8)).save(folder / name, format="PNG")


def classes_of(folder, **arguments):
    data = ImageFolder(str(folder), **arguments)
    return {split: Counter(data.class_names[item.label] for item in data.split(split).items) for split in SPLITS}


SPLITS = ("train", "val", "test")
FILMS = [f"{label}/{index}.png" for label in ("benign", "malignant") for index in range(3)]


def test_hidden_files_and_folders_are_left_out(tmp_path):
    write_images(
        tmp_path, *FILMS, ".ipynb_checkpoints/0.png", "benign/.ipynb_checkpoints/0.png", "__MACOSX/benign/0.png"
    )
    for name in ("benign/._0.png", "benign/.DS_Store", ".hidden.png"):
        (tmp_path / name).write_bytes(b"no image")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sum(classes_of(tmp_path).values(), Counter()) == {"benign": 3, "malignant": 3}


@pytest.mark.parametrize(
    "names", [("Training", "Validation", "Testing"), ("Train", "Val", "Test"), ("train", "valid", "test"), SPLITS]
)
def test_split_folders_are_understood_by_common_names(tmp_path, names):
    for name in names:
        write_images(tmp_path, *(f"{name}/{film}" for film in FILMS))
    assert classes_of(tmp_path) == {split: {"benign": 3, "malignant": 3} for split in SPLITS}


def test_classes_that_are_called_like_a_split_are_classes(tmp_path):
    write_images(tmp_path, *(f"{label}/{index}.png" for label in ("valid", "invalid") for index in range(3)))
    assert ImageFolder(str(tmp_path)).class_names == ["invalid", "valid"]


def test_a_split_folder_of_another_name_is_an_error_that_says_what_they_are_called(tmp_path):
    write_images(tmp_path, *(f"{name}/{film}" for name in ("train", "holdout") for film in FILMS))
    with pytest.raises(DataError, match="'holdout', which is none; splits are called train, val and test"):
        ImageFolder(str(tmp_path))


def test_no_class_is_lost_without_a_word(tmp_path):
    write_images(tmp_path, *FILMS)
    (tmp_path / "normal").mkdir()
    (tmp_path / "normal" / "1.svs").touch()
    (tmp_path / "normal" / "2.svs").touch()
    with pytest.raises(DataError, match=r"normal: is a folder of a class and has no images; it holds 2 of \.svs"):
        ImageFolder(str(tmp_path))
    write_images(tmp_path, "normal/patient 1/study/1.png", "normal/3.png", "normal/4.png")
    with pytest.warns(ZooWarning, match=r"normal: left out what is no image: 2 of \.svs"):
        assert sum(classes_of(tmp_path).values(), Counter())["normal"] == 3


def test_files_without_a_suffix_are_read_if_they_are_dicom(tmp_path):
    write_images(tmp_path, *FILMS)
    for index in range(3):
        write_dicom(tmp_path / "dicom" / f"IM{index}", (RAMP * (100 + index)).astype(np.uint16))
    (tmp_path / "dicom" / "DICOMDIR").write_bytes(b"text")
    with pytest.warns(ZooWarning, match="1 without suffix"):
        data = ImageFolder(str(tmp_path), image_size=16)
    assert len(data.class_names) == 3 and data.split("train")[0]["image"].shape == (3, 16, 16)


@pytest.fixture
def volumes(tmp_path):
    """Rows of a multi-frame DICOM, a volume and a plain image, each in every split."""
    lines = ["path,label,split,frame,slice"]
    volume = np.arange(10 * 12 * 14).reshape(10, 12, 14).astype(np.float32)
    for split in SPLITS:
        frames = np.stack([(RAMP * 100 * (n + 1)).astype(np.uint16) for n in range(3)])
        frames[:, 0, 0] = [0, 400, 800]
        write_dicom(tmp_path / f"{split}.dcm", frames)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / f"{split}.nii.gz")
        write_images(tmp_path, f"{split}.png")
        lines += [f"{split}.dcm,a,{split},2,", f"{split}.nii.gz,b,{split},,3", f"{split}.png,b,{split},,"]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    return str(tmp_path / "table.csv")


def test_frames_and_slices_are_chosen_by_settings_or_columns(volumes):
    with pytest.raises(ImageError, match=r"train\.dcm: has 3 frames; choose one with frame=0"):
        ImageCsv(volumes).split("train")
    with pytest.raises(ImageError, match=r"train\.nii\.gz: is a volume .* choose axis=0"):
        ImageCsv(volumes, frame_column="frame").split("train")
    data = ImageCsv(volumes, frame_column="frame", index_column="slice", reading=ImageOptions(axis=2), image_size=16)
    items = data.split("train").items
    assert [(item.options.frame, item.options.index) for item in items] == [(2, None), (None, 3), (None, None)]
    folder = Path(volumes).parent
    sample = data.split("train")[0]["image"]
    expected = functional.resize(read_image(folder / "train.dcm", frame=2), [16, 16], antialias=True)
    torch.testing.assert_close(sample[:1], expected)
    with pytest.raises(ImageError, match=r"has no slice 3|has no frame 3"):
        ImageCsv(volumes, reading=ImageOptions(axis=2, frame=3)).split("train")


def test_slices_of_one_volume_are_images_of_their_own(volumes):
    folder = Path(volumes).parent
    lines = [f"{split}.nii.gz,{label},{split},,{index}" for split in SPLITS for index, label in enumerate("ab")]
    (folder / "slices.csv").write_text("\n".join(["path,label,split,frame,slice", *lines]))
    data = ImageCsv(str(folder / "slices.csv"), index_column="slice", reading=ImageOptions(axis=2))
    assert [len(data.split(split)) for split in SPLITS] == [2, 2, 2]
    (folder / "slices.csv").write_text("\n".join(["path,label,split,slice", "train.nii.gz,a,train,third"]))
    with pytest.raises(DataError, match="line 2: 'third' is no number of a frame or slice"):
        ImageCsv(str(folder / "slices.csv"), index_column="slice")
