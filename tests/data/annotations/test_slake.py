import pytest

from zoo.data.annotations.base import AnnotationError


def test_questions_of_one_language_and_the_names_of_a_label_map(build):
    images = build("slake").read()
    assert images[0].questions == (("What is marked?", "Liver"),) and len(images) == 7
    assert [region.name for region in images[0].regions] == ["spleen", "liver"]
    assert len(build("slake", language="all").read()[0].questions) == 2


def test_without_names_of_values_regions_are_the_boxes(build, tmp_path):
    source = build("slake")
    (tmp_path / "slake" / "mask.txt").unlink()
    (liver,) = source.read()[0].regions
    assert liver.name == "liver" and liver.mask is None and liver.boxes == ((4.0, 6.0, 20.0, 18.0),)
    detections = tmp_path / "slake" / "imgs" / "xmlab0" / "detection.json"
    detections.write_text('[{"Liver": [1, 2, 0, 4]}]')
    with pytest.raises(AnnotationError, match="the box of Liver has a width of 0"):
        source.read()
