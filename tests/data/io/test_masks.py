import json

import numpy as np
import torch

from zoo.data.io.masks import decode_masks, encode_mask


def test_masks_survive_json():
    masks = np.random.default_rng(0).random((3, 9, 7)) > 0.5
    encoded = json.loads(json.dumps([encode_mask(mask) for mask in masks]))
    assert encoded[0]["size"] == [9, 7]
    assert torch.equal(decode_masks(encoded, (9, 7)), torch.from_numpy(masks).float())


def test_no_masks_have_the_size_of_the_image():
    assert decode_masks([], (9, 7)).shape == (0, 9, 7)
