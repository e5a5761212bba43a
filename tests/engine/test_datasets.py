"""Data sets by name: built, checked, plotted."""

import numpy as np
import pytest
from PIL import Image

from zoo.config.recipe import RecipeError
from zoo.engine.datasets import build_dataset, plot_dataset, prepare_dataset


def test_settings_are_those_of_the_dataset(striped_folder):
    data = build_dataset("image_folder", [f"folder={striped_folder}", "image_size=16"])
    assert data.metadata()["class_names"] == ["blank film", "dots", "stripes"]
    with pytest.raises(
        RecipeError, match=r"command line: data.image_sise: unknown argument .* did you mean image_size"
    ):
        build_dataset("image_folder", [f"folder={striped_folder}", "image_sise=16"])


def test_preparing_counts_the_samples_of_each_split(striped_folder):
    report = prepare_dataset("image_folder", [f"folder={striped_folder}"])
    assert report.counts == {"train": 36, "val": 12, "test": 24} and report.rate > 0


def test_a_contact_sheet_shows_the_first_samples(striped_folder, tmp_path):
    settings = [f"folder={striped_folder}", "image_size=32"]
    few, many = (plot_dataset("image_folder", tmp_path / str(n), settings, count=n) for n in (4, 8))
    few, many = (np.asarray(Image.open(file).convert("L")) for file in (few, many))
    assert many.shape[0] == 2 * few.shape[0] and few.std() > 20
