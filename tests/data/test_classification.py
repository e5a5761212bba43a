import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from zoo.data.classification.base import DataError
from zoo.data.classification.coop_split import CoopSplit
from zoo.data.classification.image_table import ImageCsv, ImageFolder


@pytest.fixture
def table(tmp_path):
    """A function that writes images and a CSV of rows (label, patient, split)."""

    def write(rows, header="path,label,patient,split"):
        lines = [header]
        for index, row in enumerate(rows):
            Image.fromarray(np.full((16, 16), index % 250, np.uint8)).save(tmp_path / f"{index}.png")
            lines.append(",".join([f"{index}.png", *row]))
        (tmp_path / "table.csv").write_text("\n".join(lines))
        return tmp_path / "table.csv"

    return write


def rows(count=10, splits=("train", "val", "test")):
    return [(label, f"p{split}{index}", split) for split in splits for label in ("a", "b") for index in range(count)]


def test_csv_with_given_splits(table):
    data = ImageCsv(str(table(rows())), shots=3)
    assert data.class_names == ["a", "b"]
    assert Counter(item.label for item in data.split("train").items) == {0: 3, 1: 3}
    assert len(data.split("val")) == 6 and len(data.split("test")) == 20
    sample = data.split("test")[0]
    assert sample["image"].shape == (3, 224, 224) and sample["label"] == 0


def test_shots_depend_on_the_seed_only(table):
    path = str(table(rows(20)))
    drawn = [[item.source for item in ImageCsv(path, shots=4, seed=seed).split("train").items] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_more_shots_contain_fewer(table):
    path = str(table(rows(20)))
    few, many = (set(item.source for item in ImageCsv(path, shots=k).split("train").items) for k in (2, 8))
    assert few < many


def test_splitting_keeps_patients_together(table):
    patients = [(label, f"p{index % 10}", "") for index, label in enumerate("aab" * 20)]
    data = ImageCsv(str(table(patients)))
    where = {split: {item.patient for item in data.split(split).items} for split in ("train", "val", "test")}
    assert sum(len(found) for found in where.values()) == 10
    assert not where["train"] & where["val"] and not where["train"] & where["test"]


def test_a_patient_in_two_splits_is_an_error(table):
    leaking = [*rows(2), ("a", "ptrain0", "test")]
    with pytest.raises(DataError, match="patient 'ptrain0' is in the splits 'train' and 'test'"):
        ImageCsv(str(table(leaking))).split("train")


def test_a_missing_file_is_named(table, tmp_path):
    path = table(rows(2))
    (tmp_path / "3.png").unlink()
    with pytest.raises(DataError, match=r"missing image files: .*3\.png"):
        ImageCsv(str(path)).split("train")


def test_an_empty_class_is_an_error(table):
    with pytest.raises(DataError, match="no image of 'c' in split 'train'"):
        ImageCsv(str(table([*rows(2), ("c", "x", "test")]))).split("train")


@pytest.mark.parametrize(
    ("text", "message"),
    [("path,name\na.png,b", "needs the columns path and label"), ("path,label\n,b", "line 2: path or label is empty")],
)
def test_malformed_tables(tmp_path, text, message):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        ImageCsv(str(tmp_path / "table.csv"))


def test_base_and_novel_halves(table):
    many = [
        (label, f"{label}{split}{i}", split)
        for split in ("train", "val", "test")
        for label in "abcde"
        for i in range(2)
    ]
    path = str(table(many))
    base, novel = (ImageCsv(path, classes=half) for half in ("base", "novel"))
    assert (base.class_names, novel.class_names) == (["a", "b", "c"], ["d", "e"])
    assert {item.label for item in novel.split("test").items} == {0, 1}


def test_class_names_with_odd_characters_go_through_a_model(tiny_clip):
    import torch

    from zoo.adapters.coop import CoOp
    from zoo.methods.clip_classification import ClipClassification

    names = ["naïve — 100% {normal}", "Ω <b>ß</b> 'x\"", "a\tb", "日本"]
    logits = ClipClassification(tiny_clip, CoOp, names)(torch.zeros(1, 1, 32, 32))
    assert logits.shape == (1, 4) and logits.isfinite().all()
    assert logits.unique().numel() == 4, "every name is its own prompt"


def test_folder_names_become_classes(striped_folder):
    data = ImageFolder(str(striped_folder))
    assert data.class_names == ["blank film", "dots", "stripes"]
    assert [len(data.split(split)) for split in ("train", "val", "test")] == [36, 12, 24]
    with pytest.raises(DataError, match="no such folder"):
        ImageFolder(str(striped_folder / "nowhere"))


def coop_file(folder, content):
    path = folder / "split_X.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_coop_split_as_it_is(striped_folder, tmp_path):
    content = {
        split: [
            [f"{split}/{name}/{split}{i:02d}.png", label, name]
            for label, name in enumerate(("stripes", "dots"))
            for i in range(2)
        ]
        for split in ("train", "val", "test")
    }
    data = CoopSplit(coop_file(tmp_path, content), str(striped_folder), class_names={"dots": "round dots"}, shots=1)
    assert data.class_names == ["stripes", "round dots"]
    assert len(data.split("train")) == 2 and len(data.split("test")) == 4


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (["../secret.png", 0, "a"], "leaves the image folder"),
        (["/etc/passwd", 0, "a"], "leaves the image folder"),
        (["a.png", "0", "a"], r"train\[0\]: is .* expected \[path, label, class name\]"),
        (["a.png", 5, "a"], r"labels are \[5\]; expected 0 to 0"),
    ],
)
def test_malformed_coop_entries(tmp_path, entry, message):
    with pytest.raises(DataError, match=message):
        CoopSplit(coop_file(tmp_path, {"train": [entry], "val": [], "test": []}), str(tmp_path))


def test_a_file_that_is_no_coop_split(tmp_path):
    with pytest.raises(DataError, match="needs the keys"):
        CoopSplit(coop_file(tmp_path, {"train": []}), str(tmp_path))
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(DataError, match="not readable JSON"):
        CoopSplit(str(tmp_path / "broken.json"), str(tmp_path))
