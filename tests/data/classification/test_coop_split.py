import json

import pytest

from zoo.data.classification.base import DataError
from zoo.data.classification.coop_split import CoopSplit


def write_split(folder, content):
    path = folder / "split_X.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_a_split_file_lists_images_and_class_names(striped_folder, tmp_path):
    content = {
        split: [
            [f"{split}/{name}/{split}{i:02d}.png", label, name]
            for label, name in enumerate(("stripes", "dots"))
            for i in range(2)
        ]
        for split in ("train", "val", "test")
    }
    data = CoopSplit(write_split(tmp_path, content), str(striped_folder), class_names={"dots": "round dots"}, shots=1)
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
def test_malformed_entries_are_named(tmp_path, entry, message):
    with pytest.raises(DataError, match=message):
        CoopSplit(write_split(tmp_path, {"train": [entry], "val": [], "test": []}), str(tmp_path))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="needs the keys"):
        CoopSplit(write_split(tmp_path, {"train": []}), str(tmp_path))
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(DataError, match="not readable JSON"):
        CoopSplit(str(tmp_path / "broken.json"), str(tmp_path))
