import pytest

from tests.data.classification.tables import rows, write_table
from zoo.data.classification.base import DataError
from zoo.data.classification.image_table import ImageCsv, ImageFolder
from zoo.data.io.tables import TableSpec


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
