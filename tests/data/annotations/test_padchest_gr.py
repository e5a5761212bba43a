import pytest

from zoo.data.annotations.base import AnnotationError


def test_reports_sentences_and_labels(build):
    images = build("padchest_gr").read()
    assert images[0].report == "Right pleural effusion. Heart size is normal."
    assert [image.labels for image in images[:2]] == [{"pleural effusion": 1.0}, {"pleural effusion": 0.0}]
    assert [image.split for image in images] == ["train"] * 3 + ["val"] + ["test"] * 2
    assert images[0].regions[0].relative and not images[0].regions[1].is_marked
    assert build("padchest_gr", language="es").read()[0].report.startswith("Derrame pleural")


def test_boxes_in_pixels_are_refused(build, tmp_path):
    source = build("padchest_gr")
    file = tmp_path / "padchest_gr" / "grounded_reports_20240819.json"
    file.write_text(file.read_text().replace("0.625", "625"))
    with pytest.raises(AnnotationError, match="study 0: the box .* not in shares of the image from 0 to 1"):
        source.read()
