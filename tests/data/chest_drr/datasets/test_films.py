import pytest
import torch

from zoo.data.chest_drr.datasets.films import ChestDrrFilms
from zoo.data.chest_drr.rendering.spec import RenderSpec

RENDER = RenderSpec(size=32, image_size=64, render_workers=2)


def images(crop_probability: float, split: str = "val") -> torch.Tensor:
    dataset = ChestDrrFilms(output_size=16, crop_probability=crop_probability, render=RENDER).split(split)
    return torch.stack([dataset[index]["image"] for index in range(12)])


def test_samples_are_whole_images_or_crops():
    whole, cropped, mixed = (images(probability) for probability in (0.0, 1.0, 0.5))
    assert whole.shape == (12, 1, 16, 16) and 0 <= whole.min() < whole.max() <= 1
    is_whole = (mixed == whole).flatten(1).all(dim=1)
    is_cropped = (mixed == cropped).flatten(1).all(dim=1)
    assert (is_whole | is_cropped).all() and not is_whole.all() and not is_cropped.all()


@pytest.mark.parametrize(("split", "same"), [("train", False), ("val", True)])
def test_only_training_samples_vary(split, same):
    torch.manual_seed(0)
    assert torch.equal(images(1.0, split), images(1.0, split)) == same
