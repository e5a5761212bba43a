import json

import pytest

from zoo.data.annotations.base import AnnotationError, Problems


def test_regions_sentences_and_the_report_in_its_order(build):
    source, problems = build("chest_imagenome"), Problems()
    images = source.scan_images(problems)
    lung, svc = images[0].regions
    assert lung.sentence == "Opacity in the right lung. No effusion." and svc.sentence == ""
    assert images[0].report == "No effusion. Opacity in the right lung.", "as numbered in phrase_IDs"
    assert images[0].labels == {"lung opacity": 1.0, "pleural effusion": 0.0}
    assert [image.split for image in images] == ["train", "train", "train", "val", "test"]
    assert problems.notes[0].startswith("1 scene graphs have no image")


def test_a_graph_without_objects_is_named(build, tmp_path):
    source = build("chest_imagenome")
    file = tmp_path / "chest_imagenome" / "scene_graph" / "00000001-0000_SceneGraph.json"
    content = json.loads(file.read_text())
    del content["objects"]
    file.write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match=r"00000001-0000_SceneGraph\.json: 'objects' is missing"):
        source.read()
