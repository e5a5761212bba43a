import pytest

from zoo.data.annotations.base import AnnotationError


def test_splits_patients_and_labels_come_with_the_masks(build):
    images = build("run_length_table").read()
    assert [image.split for image in images] == ["train", "train", "train", "val", "test", "test"]
    assert [image.labels["nodule"] for image in images] == [1.0, 0.0] * 3
    assert images[0].patient == "p0" and images[1].regions == ()


def test_one_image_in_two_splits_is_a_problem(build, tmp_path):
    source = build("run_length_table")
    table = tmp_path / "run_length_table" / "masks.csv"
    table.write_text(table.read_text() + "0.png,mass,1 2,p0,test\n")
    with pytest.raises(AnnotationError, match="line 8: .*0.png has another split or patient"):
        source.read()
