"""From files to batches: the method's own transform, squares for methods without one, random crops in training."""

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.base import LoaderSpec
from zoo.data.chest_drr.datasets.findings import ChestDrrFindings
from zoo.data.classification.image_table import ImageFolder
from zoo.data.classification.preparation import ImagePreparation, PreparedData
from zoo.errors import ZooWarning
from zoo.image_transform import ImageTransform

CROPPING = ImageTransform((32, 32), "shortest")


@pytest.fixture
def wide_folder(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name in ("bright", "dark"):
            (tmp_path / split / name).mkdir(parents=True)
            pixels = rng.integers(0, 256, (40, 90), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / name / "0.png")
    return tmp_path


def ramp(height, width):
    """Red rises downwards, green to the right."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([rows, columns, torch.full((height, width), 0.5)])


def test_without_a_transform_images_become_squares():
    assert ImagePreparation(None)(torch.rand(1, 10, 20)).shape == (3, 224, 224)
    assert ImagePreparation(16)(torch.rand(3, 12, 9)).shape == (3, 16, 16)
    image = torch.rand(1, 10, 20)
    assert ImagePreparation(None, as_read=True)(image) is image


def test_the_methods_transform_is_all_that_happens_to_an_image():
    image = torch.rand(1, 50, 70)
    expected = CROPPING(image.expand(3, -1, -1))
    torch.testing.assert_close(ImagePreparation(None, transform=CROPPING)(image), expected)
    torch.testing.assert_close(ImagePreparation(None, True, CROPPING).without_augmentation()(image), expected)


@pytest.mark.parametrize(("augment", "least"), [("crop", 0.08), ("crop_flip", 0.08), ("large_crop_flip", 0.5)])
def test_random_crops_are_parts_of_the_image_in_the_methods_size(augment, least):
    torch.manual_seed(0)
    prepare, mirrored, areas = ImagePreparation(None, augment, CROPPING), 0, []
    for _ in range(60):
        image = prepare(ramp(120, 130))
        assert image.shape == (3, 32, 32)
        down, across = image[0, -1, 0] - image[0, 0, 0], image[1, 0, -1] - image[1, 0, 0]
        mirrored += bool(across < 0)
        areas.append(float(down * across.abs()) * (32 / 31) ** 2)
    assert mirrored == 0 if augment == "crop" else 15 < mirrored < 45
    assert 0.75 * least < min(areas) < max(least, 0.3) + 0.2 and max(areas) > 0.7


def test_a_small_change_leaves_most_of_the_image():
    torch.manual_seed(0)
    plain = ImagePreparation(None, transform=CROPPING)(ramp(64, 64))
    changed = ImagePreparation(None, True, CROPPING)(ramp(64, 64))
    difference = (plain - changed).abs()[:, 8:24, 8:24]
    assert 0 < difference.max() < 0.15


def test_open_splits_follow_the_method_and_only_the_training_split_is_augmented(wide_folder):
    data = ImageFolder(str(wide_folder), augment="crop")
    assert isinstance(data, PreparedData)
    before = data.split("test")[0]["image"].shape
    data.use_image_transform(CROPPING)
    assert before == (3, 224, 224) and data.split("test")[0]["image"].shape == (3, 32, 32)
    torch.manual_seed(0)
    train, test = data.split("train"), data.split("test")
    assert train[0]["image"].shape == (3, 32, 32) and not torch.equal(train[0]["image"], train[0]["image"])
    assert torch.equal(test[0]["image"], test[0]["image"])
    loader = data.train_dataloader()
    assert next(iter(loader))["image"].shape == (2, 3, 32, 32)


def test_squashing_before_a_crop_is_said(wide_folder):
    data = ImageFolder(str(wide_folder), image_size=40, loader=LoaderSpec(batch_size=2))
    with pytest.warns(ZooWarning, match="image_size: 40 squashes images .* not in prediction; .* the centre cropped"):
        data.use_image_transform(CROPPING)
    assert data.split("test")[0]["image"].shape == (3, 32, 32)


def test_rendered_films_stay_as_they_are():
    data = ChestDrrFindings()
    data.use_image_transform(CROPPING)
    film = torch.rand(1, 128, 128)
    assert data.preparation("train")(film) is film
