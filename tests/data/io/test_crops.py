import torch
from hypothesis import given
from hypothesis import strategies as st

from zoo.data.io.crops import MARGIN, crop, square_box


@given(
    box=st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 300), st.integers(1, 300)),
    height=st.integers(8, 64),
    width=st.integers(8, 64),
)
def test_a_crop_is_a_square_inside_the_image(box, height, width):
    box = (box[0], box[1], box[0] + box[2], box[1] + box[3])
    left, top, right, bottom = square_box(box, height, width)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height and right - left == bottom - top
    assert crop(torch.rand(1, height, width), box, 16).shape == (1, 16, 16)


def test_a_crop_has_the_pixels_around_the_box():
    image = torch.arange(64 * 64, dtype=torch.float32).view(1, 64, 64) / 4096
    box = (20, 24, 30, 44)
    left, top, right, bottom = square_box(box, 64, 64)
    assert right - left == round(20 * (1 + 2 * MARGIN)) and left <= 20 and right >= 30 and top <= 24 and bottom >= 44
    assert torch.equal(crop(image, box), image[:, top:bottom, left:right])
