import numpy as np
import pytest
from PIL import Image

from tests.data.annotations.public_forms import marked, picture
from zoo.data.annotations.base import AnnotationError, Problems
from zoo.data.annotations.mask_images import MaskImages, existing_splits
from zoo.data.io.masks import mask_area


def mask(path, value=255):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(marked().astype(np.uint8) * value).save(path)


def regions(source):
    return {image.image.stem: [region.label for region in image.regions] for image in source.read()}


def test_masks_beside_the_images_end_in_mask(tmp_path):
    for name in ("benign/benign (1)", "benign/benign (2)", "normal/normal_1"):
        picture(tmp_path / f"{name}.png")
    for name in ("benign (1)_mask", "benign (1)_mask_1", "benign (2)_mask"):
        mask(tmp_path / "benign" / f"{name}.png")
    source = MaskImages(str(tmp_path), target="lesion")
    assert regions(source) == {"benign (1)": ["lesion"], "benign (2)": ["lesion"], "normal_1": []}
    assert len(source.read()[0].regions[0].mask.paths) == 2


def test_biomedparse_names_the_target_after_the_image(tmp_path):
    picture(tmp_path / "train" / "1_CT_abdomen.png")
    mask(tmp_path / "train_mask" / "1_CT_abdomen_left+kidney.png")
    mask(tmp_path / "train_mask" / "1_CT_abdomen_liver.png")
    source = MaskImages(f"{tmp_path}/{{split}}", f"{tmp_path}/{{split}}_mask")
    assert regions(source) == {"1_CT_abdomen": ["left kidney", "liver"]}
    assert source.read()[0].split == "train"


def test_label_maps_have_a_name_for_each_value(tmp_path):
    picture(tmp_path / "images" / "a.jpg")
    mask(tmp_path / "labels" / "a.png", 2)
    source = MaskImages(str(tmp_path / "images"), str(tmp_path / "labels"), labels={1: "spleen", 2: "liver"})
    (image,) = source.read()
    assert [mask_area(region.mask.encode((24, 32))) for region in image.regions] == [0, 16 * 12]


def test_a_mask_without_an_image_and_an_image_without_a_mask(build, tmp_path):
    source, problems = build("mask_images"), Problems()
    mask(tmp_path / "mask_images" / "val" / "masks" / "77.png")
    source.scan_images(problems)
    assert "77.png: no image in" in problems.messages[0] and "1 image has no mask, as 2.png" in problems.notes


def test_a_placeholder_that_leads_nowhere(tmp_path):
    with pytest.raises(AnnotationError, match="does not exist for any of train, val, test"):
        existing_splits(f"{tmp_path}/{{split}}")
    with pytest.raises(AnnotationError, match="there is no such folder"):
        MaskImages(str(tmp_path / "gone")).read()
