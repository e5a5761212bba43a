"""What holds for every reader: nothing is lost without a word, and damaged files are problems with their place."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from tests.data.annotations.public_forms import BOX, FORMS, HEIGHT, WIDTH, picture
from zoo.data.annotations.base import (
    AnnotatedImage,
    AnnotationError,
    AnnotationSource,
    Problems,
    Region,
    find_images,
    merge_images,
    only_file,
    stated_labels,
)
from zoo.registry import registry

MASKS = {"siim_acr", "chexmask", "mask_images", "coco_instances", "run_length_table", "slake"}
BOXES = {"vindr_cxr", "rsna_pneumonia", "coco_instances", "ms_cxr", "padchest_gr", "chest_imagenome", "gemex_thinkvg"}


def test_every_reader_is_tried():
    assert set(FORMS) == set(registry("annotation_source"))


@pytest.mark.parametrize("name", list(FORMS))
def test_a_form_is_read_without_a_problem_and_its_images_open(name, build):
    source = build(name)
    images = source.read()
    assert len(images) >= 4 and len({image.image for image in images}) == len(images)
    picture = source.read_image(images[0].image)
    assert picture.dtype == torch.float32 and 0 <= picture.min() < picture.max() <= 1
    assert source.license and source.source and isinstance(stated_labels(source, images), list)


@pytest.mark.parametrize("name", sorted(MASKS))
def test_masks_are_exact(name, build):
    size = (32, 32) if name == "siim_acr" else (HEIGHT, WIDTH)
    expected = np.zeros(size, bool)
    expected[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True
    masks = [region.mask.encode(size) for image in build(name).read() for region in image.regions if region.mask]
    decoded = [coco.decode(mask).astype(bool) for mask in masks]
    equal = [mask for mask in decoded if (mask == expected).all()]
    assert len(equal) >= 3
    if name in ("siim_acr", "mask_images", "run_length_table"):
        assert len(equal) == len(decoded), "all masks of this form are the rectangle"


@pytest.mark.parametrize("name", sorted(BOXES))
def test_boxes_are_exact(name, build):
    boxes = []
    for image in build(name).read():
        for region in image.regions:
            scale = np.array([WIDTH, HEIGHT] * 2) if region.relative else np.ones(4)
            boxes += [tuple(np.round(np.array(box) * scale).astype(int).tolist()) for box in region.boxes]
    assert Counter(boxes)[BOX] >= 2


@pytest.mark.parametrize("name", sorted(set(FORMS) - {"medmnist"}))
def test_an_image_that_is_gone_is_a_problem_or_counted(name, build, tmp_path):
    source = build(name)
    gone = source.read()[0].image
    assert isinstance(gone, Path)
    gone.unlink()
    problems = Problems()
    images = source.scan_images(problems)
    assert gone not in [image.image for image in images]
    assert any(
        gone.name in text or gone.stem in text or "no image" in text for text in problems.messages + problems.notes
    )


@pytest.mark.parametrize("name", sorted(set(FORMS) - {"mask_images"}))
@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"\xff" + b[3:], lambda b: b.replace(b"1", b"x")]
)
def test_damaged_files_are_problems_and_no_other_error(name, damage, build, tmp_path):
    build(name)
    files = [path for path in (tmp_path / name).rglob("*") if path.suffix in (".csv", ".gz", ".json", ".jsonl", ".npz")]
    assert files
    for path in files:
        source = build(name)  # a fresh one, which has read nothing
        path.write_bytes(damage(path.read_bytes()))
        problems = Problems()
        images = source.scan_images(problems)
        assert all(isinstance(image, AnnotatedImage) for image in images) and (images or problems.messages)


def test_all_problems_are_raised_at_once(build, tmp_path):
    source = build("rsna_pneumonia")
    table = tmp_path / "rsna_pneumonia" / "stage_2_train_labels.csv"
    table.write_text(table.read_text().replace("id-1,,,,,0", "id-1,,,,,2").replace("id-2,4.0", "id-2,wide"))
    with pytest.raises(AnnotationError) as caught:
        source.read()
    assert "line 3: Target is '2', neither 0 nor 1" in str(caught.value).replace("is malformed: ", "")
    assert "line 4" in str(caught.value) and len(str(caught.value).splitlines()) == 2


def test_many_problems_are_counted():
    problems = Problems()
    for line in range(50):
        problems.add(f"line {line}", "is wrong")
    with pytest.raises(AnnotationError, match="and 30 more problems"):
        problems.raise_if_any()


def test_missing_fields_are_named():
    problems = Problems()
    with problems.at("file: 3"):
        raise KeyError("objects")
    assert problems.messages == ["file: 3: 'objects' is missing"]


def test_a_data_set_without_images_is_a_problem():
    class Empty(AnnotationSource):
        def scan(self, problems):
            return []

    with pytest.raises(AnnotationError, match="Empty: there are no images"):
        Empty().read()


def test_images_are_found_by_name_and_hidden_files_are_not(tmp_path):
    for name in ("a/1.png", ".ipynb_checkpoints/2.png", "._3.png"):
        picture(tmp_path / name)
    assert find_images(tmp_path) == {"1": tmp_path / "a" / "1.png"}
    picture(tmp_path / "b" / "1.jpg")
    with pytest.raises(AnnotationError, match=r"1\.jpg: has the same name as .*1\.png"):
        find_images(tmp_path)
    with pytest.raises(AnnotationError, match="there is no such folder"):
        find_images(tmp_path / "gone")
    with pytest.raises(AnnotationError, match=r"has no file \*\.csv"):
        only_file(tmp_path, "*.csv")


def test_rows_of_one_image_are_merged():
    first = AnnotatedImage(Path("a"), labels={"x": 1.0}, regions=(Region("x"),))
    second = AnnotatedImage(Path("a"), labels={"y": 0.0}, regions=(Region("y", "left"),))
    (merged,) = merge_images([first, second])
    assert merged.labels == {"x": 1.0, "y": 0.0} and [region.label for region in merged.regions] == ["x", "left y"]
