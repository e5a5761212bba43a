import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from zoo.data.io.letterbox import letterbox, letterbox_masks, scaled_size, unletterbox


@given(height=st.integers(8, 90), width=st.integers(8, 90), side=st.sampled_from([32, 64]), seed=st.integers(0, 99))
def test_a_mask_keeps_its_place_through_letterbox_and_back(height, width, side, seed):
    rng = np.random.default_rng(seed)
    top, left = int(rng.integers(0, height // 2)), int(rng.integers(0, width // 2))
    mask = torch.zeros(1, height, width)
    mask[0, top : top + height // 2, left : left + width // 2] = 1
    resized = letterbox_masks(mask, side)
    rows, columns = scaled_size((height, width), side)
    assert resized[0, rows:].sum() == 0 and resized[0, :, columns:].sum() == 0
    restored = (unletterbox(resized * 20 - 10, (height, width)) > 0).float()
    union = ((restored + mask) > 0).sum()
    if min(height, width) >= 24:
        assert (restored * mask).sum() / union > 0.6


def test_an_image_fills_the_longer_side_and_is_padded_with_zeros():
    image = letterbox(torch.ones(1, 20, 40), 32)
    assert scaled_size((20, 40), 32) == (16, 32) and image.shape == (3, 32, 32)
    torch.testing.assert_close(image[:, :16], torch.ones(3, 16, 32))
    assert not image[:, 16:].any()
