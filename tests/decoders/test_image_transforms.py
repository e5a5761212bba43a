"""Chameleon's image transform against Pillow and transformers, on images that are not square; boxes under the centre crop."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.chameleon.image_processing_pil_chameleon import ChameleonImageProcessorPil

from tests.tiny_models import anole
from zoo.decoders.image_transforms import PixelScale, center_crop, squash, visible_box
from zoo.decoders.interleaved_models import Anole


def film(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).movedim(-1, 0).float() / 255


@pytest.mark.parametrize(("height", "width", "size"), [(90, 131, (46, 32)), (131, 70, (32, 59)), (20, 33, (52, 32))])
def test_the_centre_crop_is_that_of_pillow_to_the_pixel(height, width, size):
    """Shortest edge to 32 with Lanczos, the centre, x / 127.5 - 1."""
    pixels = film(height, width)
    left, top = (size[0] - 32) // 2, (size[1] - 32) // 2
    resized = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS).crop((left, top, left + 32, top + 32))
    expected = torch.from_numpy(np.array(resized)).movedim(-1, 0).float() / 127.5 - 1
    torch.testing.assert_close(center_crop(to_tensor(pixels), 32), expected, atol=1e-6, rtol=0)
    assert (squash(to_tensor(pixels), 32) - expected).abs().max() > 0.1


def test_the_centre_crop_is_that_of_transformers_with_the_scale_of_the_checkpoint(tmp_path):
    pixels = film(90, 131, 1)
    processor = ChameleonImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor.to_dict(), default=str))
    scale = PixelScale.from_folder(tmp_path)
    assert scale == (0.0078, 1.0)
    expected = processor(Image.fromarray(pixels[..., 0]), return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(center_crop(to_tensor(pixels), 32, scale), expected, atol=1e-6, rtol=0)


@torch.no_grad()
def test_anole_crops_the_centre_by_default_and_squashes_on_request(tmp_path):
    """What lies outside the centre changes no token of the first, and the codes of both are cached apart."""
    folder = str(anole(tmp_path))
    cropping, squashing = Anole(folder).eval(), Anole(folder, image_transform="squash").eval()
    image = torch.rand(1, 16, 40, generator=torch.Generator().manual_seed(0))
    other = image.clone()
    other[..., :8] = 1.0
    assert torch.equal(cropping.prepare_image(image), cropping.prepare_image(other))
    assert not torch.equal(squashing.prepare_image(image), squashing.prepare_image(other))
    assert cropping.image_fingerprint() != squashing.image_fingerprint() == squashing.image_tokenizer.fingerprint()


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((30, 10, 60, 50), (30, 10, 60, 50)),
        ((0, 10, 60, 50), (20, 10, 60, 50)),
        ((100, 0, 140, 100), (100, 0, 120, 100)),
        ((0, 10, 20, 50), None),
        ((120, 10, 140, 50), None),
    ],
)
def test_boxes_are_clipped_to_the_centre(box, expected):
    """Of an image of 100 x 140 pixels, the columns 20 to 119 are kept."""
    assert visible_box(box, 100, 140) == expected
    turned = tuple(box[index] for index in (1, 0, 3, 2))
    assert visible_box(turned, 140, 100) == (expected and tuple(expected[index] for index in (1, 0, 3, 2)))
