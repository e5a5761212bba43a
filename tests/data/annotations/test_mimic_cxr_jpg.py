import pytest

from zoo.data.annotations.base import AnnotationError, Problems
from zoo.data.annotations.mimic_cxr_jpg import label_value, read_sections


def test_folders_splits_views_and_labels(build, tmp_path):
    source = build("mimic_cxr_jpg")
    images = source.read()
    assert [image.split for image in images] == ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    assert images[0].image.relative_to(tmp_path / "mimic_cxr_jpg").parts[:4] == (
        "files",
        "p10",
        "p10000030",
        "s50000000",
    )
    assert [image.labels.get("Pleural Effusion") for image in images[:4]] == [1.0, 0.0, -1.0, None]
    assert images[0].patient == "10000030"
    problems = Problems()
    assert len(source.scan_images(problems)) == 8
    assert problems.notes == ["left out: 8 images of other views than PA, AP"]
    assert len(build("mimic_cxr_jpg", views=None).read()) == 16


def test_reports_are_read_from_mimic_cxr(build, tmp_path):
    images = build("mimic_cxr_jpg", reports=str(tmp_path / "mimic_cxr_jpg")).read()
    assert images[0].report == "There is an effusion. Effusion."
    assert read_sections("just\n  text") == "just text"


def test_another_label_is_named_with_its_line(build, tmp_path):
    source = build("mimic_cxr_jpg")
    (tmp_path / "mimic_cxr_jpg" / "mimic-cxr-2.0.0-chexpert.csv.gz").unlink()
    with pytest.raises(AnnotationError, match=r"has no file mimic-cxr-\*-chexpert\.csv\*"):
        source.read()
    assert label_value("-1.0") == -1.0 and label_value("") is None
    with pytest.raises(ValueError, match="label 2 is none of 1, 0, -1 and blank"):
        label_value("2")
