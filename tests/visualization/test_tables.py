"""Tables over recipes that do not measure the same things."""

import json
import warnings

import pytest

from zoo.metrics.intervals import Measured
from zoo.visualization.tables import Row, plot_rows, write_table


@pytest.mark.parametrize(("other", "drawn"), [(["recall", "dice"], True), (["recall"], False)])
def test_the_picture_shows_a_metric_that_all_rows_have(tmp_path, other, drawn):
    def row(recipe: str, metrics: list[str]) -> Row:
        return Row(recipe, "all images", [0], {name: Measured(0.5, 0.4, 0.6, 20) for name in metrics})

    write_table([row("a/one", ["accuracy", "dice"]), row("b/two", other)], tmp_path)
    assert (tmp_path / "table.png").is_file() == drawn
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[0].split(" | ")[3:] == (["accuracy", "dice", "recall |"])
    assert [entry["recipe"] for entry in json.loads((tmp_path / "table.json").read_text())] == ["a/one", "b/two"]


def test_a_recipe_that_is_a_file_has_a_label_in_the_legend(tmp_path):
    rows = [Row("/tmp/mine.yaml", f"{k}-shot", [0], {"accuracy": Measured(0.5, 0.4, 0.6, 20)}) for k in (1, 2)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_rows(rows, "accuracy", tmp_path / "lines.png")
    assert (tmp_path / "lines.png").stat().st_size > 5000
