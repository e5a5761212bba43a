"""Tables over recipes that do not measure the same things."""

import json
import warnings

import pytest

from zoo.metrics.intervals import Measured
from zoo.visualization.tables import Row, plot_rows, table_cells, write_table


@pytest.mark.parametrize(("other", "drawn"), [(["recall", "dice"], True), (["recall"], False)])
def test_the_picture_shows_a_metric_that_all_rows_have(tmp_path, other, drawn):
    def row(recipe: str, metrics: list[str]) -> Row:
        return Row(recipe, "all images", [0], {name: Measured(0.5, 0.4, 0.6, 20) for name in metrics})

    write_table([row("a/one", ["accuracy", "dice"]), row("b/two", other)], tmp_path)
    assert (tmp_path / "table.png").is_file() == drawn
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[0].split(" | ")[3:] == (["accuracy", "dice", "recall |"])
    assert [entry["recipe"] for entry in json.loads((tmp_path / "table.json").read_text())] == ["a/one", "b/two"]


def test_what_is_undefined_is_null_in_json(tmp_path):
    nan = float("nan")
    write_table([Row("a/one", "all images", [0], {"accuracy": Measured(nan, nan, nan, 0)})], tmp_path)
    text = (tmp_path / "table.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)[0]["metrics"]["accuracy"]["value"] is None


def test_a_recipe_that_is_a_file_has_a_label_in_the_legend(tmp_path):
    rows = [Row("/tmp/mine.yaml", f"{k}-shot", [0], {"accuracy": Measured(0.5, 0.4, 0.6, 20)}) for k in (1, 2)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_rows(rows, "accuracy", tmp_path / "lines.png")
    assert (tmp_path / "lines.png").stat().st_size > 5000


def test_baselines_are_drawn_in_grey(tmp_path):
    from PIL import Image

    def row(name: str, setting: str, baseline: bool) -> Row:
        return Row(name, setting, [0], {"accuracy": Measured(0.5, 0.4, 0.6, 20)}, baseline)

    def grey_pixels(file) -> int:
        counts = {colour: count for count, colour in Image.open(file).convert("RGB").getcolors(100_000)}
        return counts.get((0xA8, 0xA8, 0xA8), 0)

    bars = [row("a/one", "all", False), row("majority class", "all", True)]
    plot_rows(bars, "accuracy", tmp_path / "bars.png")
    plot_rows(bars[:1], "accuracy", tmp_path / "alone.png")
    assert grey_pixels(tmp_path / "bars.png") > 5000 > grey_pixels(tmp_path / "alone.png")
    lines = [row(name, f"{k}-shot", name == "majority class") for name in ("a/one", "majority class") for k in (1, 2)]
    plot_rows(lines, "accuracy", tmp_path / "lines.png")
    assert (tmp_path / "lines.png").stat().st_size > 5000


def test_protocols_have_a_column_where_a_recipe_names_one():
    metrics = {"accuracy": Measured(0.5, 0.4, 0.6, 20)}
    rows = [
        Row("coop/official", "16-shot", [1], metrics, protocol="official"),
        Row("coop/mine", "16-shot", [1], metrics),
    ]
    header, cells = table_cells(rows)
    assert header[:4] == ["recipe", "protocol", "setting", "seeds"]
    assert [row[1] for row in cells] == ["official", ""]
    assert "protocol" not in table_cells(rows[1:])[0]


def test_points_of_settings_without_an_order_are_not_joined(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    styles, errorbar = [], Axes.errorbar

    def recorded(self, *args, **options):
        styles.append(options.get("linestyle"))
        return errorbar(self, *args, **options)

    monkeypatch.setattr(Axes, "errorbar", recorded)
    for settings in (("as it is, none", "as it is, crop"), ("1-shot", "2-shot")):
        rows = [Row("one.yaml", setting, [0], {"bleu4": Measured(0.5, 0.4, 0.6, 20)}) for setting in settings]
        plot_rows(rows, "bleu4", tmp_path / "table.png")
    assert styles == ["none", None]


def test_columns_without_any_value_are_left_out():
    nan = float("nan")
    metrics = {"bleu4": Measured(0.5, 0.4, 0.6, 20), "agreement": Measured(nan, nan, nan, 20)}
    assert table_cells([Row("one.yaml", "none", [0], metrics)])[0] == ["recipe", "setting", "seeds", "bleu4"]
