"""Image transforms against open_clip's own, on 8-bit images."""

from itertools import product

import numpy as np
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image

from zoo.image_transform import ImageTransform, resize

SHAPES = [(301, 450), (450, 300), (50, 41), (64, 200), (63, 65)]


@pytest.mark.parametrize(("mode", "size"), product(["shortest", "longest", "squash"], [(64, 64), (48, 80)]))
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_tensors_equal_open_clips_to_within_rounding(mode, size, interpolation):
    rng = np.random.default_rng(0)
    official = image_transform(
        size if size[0] != size[1] else size[0],
        is_train=False,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        resize_mode=mode,
        interpolation=interpolation,
        fill_color=40,
    )
    transform = ImageTransform(size, mode, interpolation, 40 / 255)
    for height, width in SHAPES:
        # Grey enough that nothing is clipped: which way is resized first, and so clipped, depends on Pillow's version.
        pixels = rng.integers(64, 192, (height, width, 3), dtype=np.uint8)
        image = torch.from_numpy(pixels).permute(2, 0, 1) / 255
        expected, actual = official(Image.fromarray(pixels)), transform(image)
        assert actual.shape == expected.shape == (3, *size)
        assert float((actual - expected).abs().max()) * 255 < 1.1
        batch = transform(torch.stack([image, image]))
        torch.testing.assert_close(batch, torch.stack([actual, actual]))


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("shape", [(300, 450), (450, 300), (90, 40)])
def test_the_box_is_where_the_input_was_in_the_image(mode, shape):
    """A ramp of coordinates, transformed, says for each pixel of the input where it came from."""
    height, width = shape
    transform = ImageTransform((32, 32), mode, "bilinear", fill=0.5)
    down = (torch.arange(height) + 0.5)[:, None].expand(shape) / height
    across = (torch.arange(width) + 0.5)[None].expand(shape) / width
    left, top, right, bottom = transform.box(height, width)
    rows, columns = transform(torch.stack([down * height / 1000, across * width / 1000])) * 1000
    expected_rows = top + (torch.arange(32) + 0.5) * (bottom - top) / 32
    expected_columns = left + (torch.arange(32) + 0.5) * (right - left) / 32
    inside_rows = (expected_rows > 30) & (expected_rows < height - 30)  # not at the edge, nor in the padding
    inside_columns = (expected_columns > 15) & (expected_columns < width - 15)
    assert inside_rows.any() and inside_columns.any()
    inside = inside_rows[:, None] & inside_columns[None]
    torch.testing.assert_close(rows[inside], expected_rows[:, None].expand(32, 32)[inside], atol=0.6, rtol=0)
    torch.testing.assert_close(columns[inside], expected_columns[None].expand(32, 32)[inside], atol=0.6, rtol=0)


def test_the_box_is_the_whole_image_a_part_of_it_or_more():
    assert ImageTransform((32, 32), "squash").box(64, 128) == (0, 0, 128, 64)
    assert ImageTransform((32, 32), "shortest").box(64, 128) == (32, 0, 96, 64)
    assert ImageTransform((32, 32), "longest").box(64, 128) == (0, -32, 128, 96)
    assert ImageTransform((32, 48), "longest").box(32, 48) == (0, 0, 48, 32)


def test_an_image_of_the_size_stays_as_it_is():
    image = torch.rand(1, 32, 32)
    assert ImageTransform((32, 32), "shortest")(image) is image


def test_padding_has_the_fill_and_the_words_say_so():
    transform = ImageTransform((32, 32), "longest", fill=0.25)
    padded = transform(torch.ones(1, 32, 64))
    assert padded[0, :8].unique().tolist() == [0.25] and padded[0, 8:24].min() == 1 and padded[0, 24:].max() == 0.25
    assert transform.describe() == "the longer side resized, the rest padded (bicubic, antialiased)"


def test_resized_values_stay_in_the_unit_range():
    edge = torch.zeros(1, 8, 8)
    edge[..., 4:] = 1
    larger = resize(edge, (64, 64), "bicubic")
    assert larger.min() == 0 and larger.max() == 1
