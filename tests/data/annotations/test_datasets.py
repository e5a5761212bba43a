import pytest

from tests.data.annotations.public_forms import FORMS
from zoo.config.building import resolve
from zoo.data.annotations.base import AnnotationError
from zoo.errors import ZooWarning


def test_what_a_source_leaves_out_is_a_warning_and_its_licence_the_datasets(tmp_path):
    node = FORMS["chexmask"](tmp_path)
    data = resolve("dataset", {"name": "annotated_masks", "annotations": node}).build(seed=3)
    assert "CC BY 4.0" in data.license and "network" in data.limitations
    with pytest.warns(ZooWarning, match="1 rows of MIMIC-CXR-JPG.csv have no image"):
        counts = {split: len(images) for split, images in data.images.items()}
    assert counts == {"train": 2, "val": 1, "test": 1}


def test_problems_are_errors(tmp_path):
    node = FORMS["siim_acr"](tmp_path)
    (tmp_path / "train-rle.csv").write_text("ImageId, EncodedPixels\nx, 1 2 3\n")
    data = resolve("dataset", {"name": "annotated_masks", "annotations": node}).build()
    with pytest.raises(AnnotationError, match="line 2: .*pairs of start and length"):
        data.split("train")
