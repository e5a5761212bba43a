import pytest

from zoo.data.annotations.base import AnnotationError


def test_sentences_with_one_box_and_with_several(build):
    images = build("ms_cxr").read()
    assert [image.split for image in images] == ["train", "train", "train", "val", "test"]
    assert images[0].patient == "10000030"
    effusion, opacities = images[0].regions
    assert effusion.sentence == "large right pleural effusion" and len(opacities.boxes) == 2


def test_a_box_outside_its_image_is_a_problem(build, tmp_path):
    source = build("ms_cxr")
    table = tmp_path / "ms_cxr" / "MS_CXR_Local_Alignment_v1.1.0.csv"
    table.write_text(table.read_text().replace(",20,8,6,6,", ",20,8,60,6,"))
    with pytest.raises(AnnotationError, match="line 8: the box .* is outside its image of 32x24"):
        source.read()


def test_version_1_0_0_has_no_splits_and_images_may_lie_elsewhere(build, tmp_path):
    source = build("ms_cxr")
    table = tmp_path / "ms_cxr" / "MS_CXR_Local_Alignment_v1.1.0.csv"
    rows = [row.rpartition(",")[0] for row in table.read_text().splitlines()]
    table.write_text("\n".join(rows).replace("files/p10/p1000003", "elsewhere/p1000003"))
    images = source.read()
    assert len(images) == 5 and {image.split for image in images} == {None}
