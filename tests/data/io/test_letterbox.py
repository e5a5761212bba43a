import torch

from zoo.data.io.letterbox import letterbox, scaled_size


def test_an_image_fills_the_longer_side_and_is_padded_with_zeros():
    image = letterbox(torch.ones(1, 20, 40), 32)
    assert scaled_size((20, 40), 32) == (16, 32) and image.shape == (3, 32, 32)
    torch.testing.assert_close(image[:, :16], torch.ones(3, 16, 32))
    assert not image[:, 16:].any()
