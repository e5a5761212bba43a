"""Training curves."""

import numpy as np
import pandas
from PIL import Image

from zoo.visualization.curves import plot_curves


def test_each_logged_value_has_a_panel(tmp_path):
    table = pandas.DataFrame({"step": [0, 1, 2], "train_loss": [3.0, 2.0, 1.0], "val_accuracy": [None, 0.2, 0.4]})
    plot_curves(table[["step", "train_loss"]], tmp_path / "one.png")
    plot_curves(table, tmp_path / "two.png")
    one, two = (Image.open(tmp_path / name) for name in ("one.png", "two.png"))
    assert two.width == 2 * one.width and two.height == one.height
    assert np.asarray(two.convert("L")).std() > 5


def test_an_empty_log_has_no_figure(tmp_path):
    plot_curves(pandas.DataFrame({"step": []}), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
