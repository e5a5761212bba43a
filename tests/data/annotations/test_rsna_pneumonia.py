import pytest

from zoo.data.annotations.rsna_pneumonia import corners


def test_boxes_and_images_without(build):
    images = build("rsna_pneumonia").read()
    assert [image.labels["pneumonia"] for image in images] == [1.0, 0.0] * 5
    assert [len(image.regions) for image in images[:3]] == [2, 0, 1]
    assert images[0].regions[1].boxes == ((24.0, 2.0, 28.0, 6.0),)


def test_an_empty_box_is_refused():
    with pytest.raises(ValueError, match="a width of 0.0"):
        corners({"x": "1", "y": "1", "width": "0", "height": "3"})
