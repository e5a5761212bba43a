"""Figures of predictions and data sets."""

import numpy as np
import torch
from PIL import Image

from zoo.visualization.figures import heat_over_image, plot_contact_sheet, plot_probabilities


def pixels(file) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB")).astype(int)


def test_an_attention_map_adds_a_panel_in_colour(tmp_path):
    image, probabilities = torch.rand(1, 32, 32), {"no finding": 0.8, "nodule": 0.2}
    attention = torch.zeros(4, 4)
    attention[1, 2] = 1
    plot_probabilities(image, probabilities, tmp_path / "plain.png")
    plot_probabilities(image, probabilities, tmp_path / "folder" / "attention.png", attention)
    plain, mapped = pixels(tmp_path / "plain.png"), pixels(tmp_path / "folder" / "attention.png")
    assert mapped.shape[1] > plain.shape[1]
    red = (mapped[..., 0] - mapped[..., 2]) > 80
    assert red.any() and not ((plain[..., 0] - plain[..., 2]) > 80).any()


def test_heat_lies_where_the_attended_part_is_in_the_image():
    attention = torch.zeros(4, 4)
    attention[1, 2] = 1  # of the crop's second row, third column
    heat = heat_over_image(attention, (20, 0, 60, 40), (40, 80))
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert heat.shape == (40, 80) and 10 <= row < 20 and 40 <= column < 50
    assert heat[:, :20].max() == heat[:, 60:].max() == 0, "what the model has not seen has no heat"
    padded = heat_over_image(attention, (0, -20, 80, 60), (40, 80))  # the image is the middle half of the input's rows
    row, column = np.unravel_index(padded.argmax(), padded.shape)
    assert padded.shape == (40, 80) and 0 <= row < 20 and 40 <= column < 60


def test_masks_are_outlined_in_a_contact_sheet(tmp_path):
    images = [np.zeros((32, 32)), np.zeros((32, 32))]
    mask = np.zeros((32, 32), bool)
    mask[8:20, 8:20] = True
    plot_contact_sheet(images, ["a", "b"], [[], []], tmp_path / "plain.png")
    plot_contact_sheet(images, ["a", "b"], [[mask], [np.zeros_like(mask)]], tmp_path / "outlined.png")
    plain, outlined = pixels(tmp_path / "plain.png"), pixels(tmp_path / "outlined.png")
    assert plain.shape == outlined.shape
    changed = (plain != outlined).any(axis=-1)
    left = changed[:, : changed.shape[1] // 2]
    assert left.any() and changed.sum() == left.sum(), "the mask of the first image alone is not empty"
