import json

import pytest

from zoo.data.annotations.base import AnnotationError


def test_categories_are_labels_and_regions(build):
    images = build("coco_instances").read()
    assert [image.labels for image in images[:2]] == [
        {"polyp": 1.0, "instrument": 1.0},
        {"polyp": 1.0, "instrument": 0.0},
    ]
    instrument = images[0].regions[1]
    assert instrument.mask is None and instrument.boxes == ((1, 1, 5, 5),)


def test_bad_annotations_are_named_by_their_id(build, tmp_path):
    source = build("coco_instances")
    file = tmp_path / "coco_instances" / "annotations" / "instances_val.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["segmentation"] = [[1e18, 1, 2, 3, 4, 5]]
    content["annotations"][1]["image_id"] = 99
    content["annotations"][2]["category_id"] = 5
    content["images"][0]["file_name"] = "../secret.png"
    file.write_text(json.dumps(content))
    with pytest.raises(AnnotationError) as caught:
        source.read()
    text = str(caught.value)
    assert (
        "annotation 100: " in text and "annotation 101: image_id 99" in text and "annotation 102: 5 is missing" in text
    )
    assert "image 7: '../secret.png' leaves the image folder" in text
