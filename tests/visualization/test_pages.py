import numpy as np
import torch

from zoo.visualization.pages import render_overlay


def test_masks_that_overlap_are_both_seen():
    masks = torch.zeros(2, 4, 6)
    masks[0, :, :4] = masks[1, :, 2:] = 1
    film = torch.full((1, 4, 6), 0.5)
    pixels = np.asarray(render_overlay(film, masks)).astype(int)
    first, both, second = pixels[0, 0], pixels[0, 3], pixels[0, 5]
    assert first[0] > first[2] and second[2] > second[0]
    assert both[2] > first[2] and both[0] > second[0]
    assert (np.asarray(render_overlay(film, masks[:0])) == 128).all()
