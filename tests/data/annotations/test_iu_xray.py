import pytest

from zoo.data.annotations.base import AnnotationError


def test_two_views_and_a_report(build):
    images = build("iu_xray").read()
    assert len(images) == 9 and images[0].image.name == "0.png" and images[0].others[0].name == "1.png"
    assert images[0].report == "Left pleural effusion ." and images[3].split == "val"


def test_paths_stay_in_the_folder(build, tmp_path):
    source = build("iu_xray")
    file = tmp_path / "iu_xray" / "annotation.json"
    file.write_text(file.read_text().replace("CXR0_IM-train/0.png", "../0.png"))
    with pytest.raises(AnnotationError, match=r"train\[0\]: \.\./0\.png leaves the image folder"):
        source.read()
