"""Few-shot sampling, base and novel classes, splits by patient, and what a dataset is refused for."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from tests.data.classification.tables import rows, write_table
from zoo.data.base import LoaderSpec
from zoo.data.classification.base import DataError, check_class_names, read_json, split_by_patient
from zoo.data.classification.image_table import ImageCsv
from zoo.errors import ZooWarning


def sources(path: str, **arguments: object) -> list[object]:
    return [item.source for item in ImageCsv(path, **arguments).split("train").items]


def test_shots_are_sampled_per_class(tmp_path):
    data = ImageCsv(write_table(tmp_path, rows()), shots=3)
    assert Counter(item.label for item in data.split("train").items) == {0: 3, 1: 3}
    assert len(data.split("val")) == 6 and len(data.split("test")) == 20
    many = ImageCsv(write_table(tmp_path, rows()), shots=8)
    assert len(many.split("val")) == 8, "at most four a class for validation"


def test_shots_depend_on_the_seed_only(tmp_path):
    path = write_table(tmp_path, rows(20))
    first, second, other = (sources(path, shots=4, loader=LoaderSpec(seed=seed)) for seed in (0, 0, 1))
    assert first == second != other


def test_more_shots_contain_fewer(tmp_path):
    path = write_table(tmp_path, rows(20))
    few, many = (set(sources(path, shots=shots)) for shots in (2, 8))
    assert few < many


def test_shots_must_be_positive(tmp_path):
    with pytest.raises(DataError, match="shots is 0; it must be at least 1"):
        ImageCsv(write_table(tmp_path, rows(2)), shots=0)


def test_base_and_novel_halves(tmp_path):
    path = write_table(tmp_path, rows(2, labels="abcde"))
    base, novel = (ImageCsv(path, classes=half) for half in ("base", "novel"))
    assert (base.class_names, novel.class_names) == (["a", "b", "c"], ["d", "e"])
    assert {item.label for item in novel.split("test").items} == {0, 1}
    assert base.metadata() == {"class_names": ["a", "b", "c"]}
    with pytest.raises(DataError, match="classification needs two"):
        ImageCsv(write_table(tmp_path, rows(2, labels="ab")), classes="novel")


def test_training_images_are_augmented_only_on_request(tmp_path):
    path = write_table(tmp_path, rows(2))
    plain, augmented = (ImageCsv(path, augment=augment, image_size=32).split("train") for augment in (False, True))
    torch.manual_seed(0)
    assert torch.equal(plain[1]["image"], plain[1]["image"])
    assert not torch.equal(augmented[3]["image"], plain[3]["image"])


def test_a_patient_in_two_splits_is_an_error(tmp_path):
    leaking = [*rows(2), ("a", "ptraina0", "test")]
    with pytest.raises(DataError, match="patient 'ptraina0' is in the splits 'train' and 'test'"):
        ImageCsv(write_table(tmp_path, leaking)).split("train")


def test_patients_are_split_without_overlap():
    splits = split_by_patient([f"p{index}" for index in range(10)] * 3, seed=0)
    assert {name: len(patients) for name, patients in splits.items()} == {"train": 6, "val": 2, "test": 2}
    assert len(set.union(*splits.values())) == 10
    with pytest.raises(DataError, match="2 patients cannot be split"):
        split_by_patient(["a", "b", "a"], seed=0)


def test_a_missing_file_is_named(tmp_path):
    path = write_table(tmp_path, rows(2))
    (tmp_path / "3.png").unlink()
    with pytest.raises(DataError, match=r"missing image files: .*3\.png"):
        ImageCsv(path).split("train")


def test_a_class_without_training_images_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no image of 'c' in split 'train'"):
        ImageCsv(write_table(tmp_path, [*rows(2), ("c", "x", "test")])).split("train")


@pytest.mark.parametrize("names", [["a"], ["a", "a"], ["a", " "]])
def test_class_names_are_several_distinct_and_not_blank(names):
    with pytest.raises(DataError, match="at least two, none of them blank or repeated"):
        check_class_names(names)


def test_json_is_read_within_a_limit(tmp_path: Path):
    path = tmp_path / "file.json"
    path.write_text('{"a": 1}')
    assert read_json(path) == {"a": 1}
    with pytest.raises(DataError, match="larger than 3 bytes"):
        read_json(path, limit=3)
    with pytest.raises(DataError, match="there is no such file"):
        read_json(tmp_path / "gone.json")


def test_a_file_in_two_splits_or_with_two_labels_is_an_error(tmp_path):
    path = write_table(tmp_path, rows(2))
    listed = Path(path).read_text().splitlines()
    for extra, expected in (
        ("0.png,a,other,test", r"0\.png is in the splits 'train' and 'test'"),
        ("0.png,b,ptraina0,train", r"0\.png has the labels 'a' and 'b'"),
        ("./x/../0.png,b,ptraina0,train", r"has the labels 'a' and 'b'"),
        ("0.png,a,ptraina0,train", r"0\.png is listed twice in the split 'train'"),
    ):
        Path(path).write_text("\n".join([*listed, extra]))
        with pytest.raises(DataError, match=expected):
            ImageCsv(path).split("train")


@pytest.mark.parametrize("label", ["A", " A"])
def test_labels_that_differ_in_case_or_spaces_alone_are_an_error(tmp_path, label):
    path = write_table(tmp_path, rows(2))
    listed = Path(path).read_text().splitlines()
    Path(path).write_text("\n".join([*listed, f'new.png,"{label}",p9,train']))
    with pytest.raises(DataError, match="differ in case or spaces alone; write them alike"):
        ImageCsv(path)


def test_classes_are_divided_apart_where_they_have_patients_enough():
    patients = [f"p{index}" for index in range(60)]
    labels = ["common"] * 50 + ["rare"] * 7 + ["single"] * 3
    for seed in range(20):
        splits = split_by_patient(patients, seed, labels=labels)
        assert sorted(set.union(*splits.values())) == sorted(patients)
        assert sum(map(len, splits.values())) == 60
        for members in splits.values():
            assert {label for patient, label in zip(patients, labels, strict=True) if patient in members} == set(labels)
    assert len(splits["test"]) == 10 + 1 + 1


def test_a_patient_of_several_classes_is_whole_and_counts_for_the_rarest():
    patients = ["both", "both", *(f"c{index}" for index in range(20)), "r1", "r2"]
    labels = ["common", "rare", *["common"] * 20, "rare", "rare"]
    splits = split_by_patient(patients, 0, labels=labels)
    assert all(len({"both", "r1", "r2"} & members) == 1 for members in splits.values())


def test_without_patients_enough_of_any_class_they_are_divided_together():
    splits = split_by_patient(["a", "b", "c", "d"], 0, labels=["x", "x", "y", "y"])
    assert all(splits.values())


def test_a_table_of_the_test_split_alone_is_measured_on(tmp_path):
    data = ImageCsv(write_table(tmp_path, rows(2, splits=["test"], labels="a")))
    data.use_class_names(["b", "a"])
    with pytest.warns(ZooWarning, match="no image of 'b' in split 'test'"):
        assert {sample["label"] for sample in data.split("test")} == {1}
    with pytest.raises(DataError, match="no image of 'b', 'a' in split 'train'"):
        data.split("train")
    with pytest.raises(DataError, match="the data have the classes a; the model knows b, c"):
        ImageCsv(write_table(tmp_path, rows(2, labels="a"))).use_class_names(["b", "c"])


def test_labels_follow_the_classes_of_a_model(tmp_path):
    data = ImageCsv(write_table(tmp_path, rows(2, labels="abc")))
    data.use_class_names(["c", "x", "a", "b"])
    with pytest.warns(ZooWarning):
        labels = {item.source.name: item.label for item in data.split("test").items}
    assert sorted(labels.values()) == [0, 0, 2, 2, 3, 3]
    assert data.metadata()["class_names"] == ["c", "x", "a", "b"]
