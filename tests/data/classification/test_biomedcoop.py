"""BiomedCoOp's sets: the authors' layout, prompts, shots and descriptions."""

import json
import random

import pytest

from tests.tiny_models import biomedcoop_sets
from zoo.data.base import LoaderSpec
from zoo.data.classification.base import DataError
from zoo.data.classification.biomedcoop import BiomedCoOpSet, read_class_texts


def test_a_set_is_read_as_its_archive_is_laid_out(tmp_path):
    data = BiomedCoOpSet(set="Kvasir", root=str(biomedcoop_sets(tmp_path, "Kvasir")), shots=2)
    assert data.class_names == ["stripes", "dots", "blank film", "bright film"]
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [8, 8, 12]
    assert data.metadata() == {"class_names": data.class_names, "template": "a photo of a {}."}


def test_shots_are_the_authors_also_of_one_half(tmp_path):
    root = biomedcoop_sets(tmp_path, "BUSI", train=6)
    split = json.loads((root / "BUSI" / "split_BUSI.json").read_text())
    random.seed(2)
    expected = [sorted(random.sample([path for path, of, _ in split["train"] if of == label], 2)) for label in range(4)]

    def shots(classes):
        data = BiomedCoOpSet(set="BUSI", root=str(root), shots=2, classes=classes, loader=LoaderSpec(seed=2))
        paths = [(item.label, "/".join(item.source.parts[-2:])) for item in data.split("train").items]
        return [sorted(path for of, path in paths if of == label) for label in range(len(data.class_names))]

    assert shots("all") == expected and shots("base") == expected[:2] and shots("novel") == expected[2:]


def test_descriptions_are_read_for_the_classes_of_the_set(tmp_path):
    texts = {name: [f"{name} {n}" for n in range(3)] for name in ("stripes", "dots", "blank film", "another set's")}
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    root = str(biomedcoop_sets(tmp_path, "RETINA"))
    metadata = BiomedCoOpSet(set="RETINA", root=root, texts=str(tmp_path / "texts.json")).metadata()
    assert set(metadata["class_texts"]) == {"stripes", "dots", "blank film"}
    assert metadata["class_texts"]["dots"] == ["dots 0", "dots 1", "dots 2"]


@pytest.mark.parametrize("content", [["a"], {"a": "b"}, {"a": [1]}])
def test_malformed_descriptions_are_refused(content, tmp_path):
    (tmp_path / "texts.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"texts.json: is not of the form \{class name: \[text, \.\.\.\]\}"):
        read_class_texts(tmp_path / "texts.json")


def test_a_set_that_is_not_there_says_where_it_is_from(tmp_path):
    with pytest.raises(DataError, match=r"unpack OCTMNIST.zip of huggingface.co/datasets/TahaKoleilat/BiomedCoOp"):
        BiomedCoOpSet(set="OCTMNIST", root=str(tmp_path))
