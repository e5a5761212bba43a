"""Tables and plots of methods side by side."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path, PurePath
from typing import Any

from zoo.cards.prose import escape_markdown
from zoo.metrics.intervals import Measured


@dataclass(frozen=True)
class Row:
    """One method under one setting: metrics averaged over the seeds.

    Of a baseline, which trains no recipe, ``recipe`` is its name.
    """

    recipe: str
    setting: str
    seeds: list[int]
    metrics: dict[str, Measured]
    baseline: bool = False
    protocol: str = ""
    """Whose protocol the recipe follows, by its ``protocol``."""


def markdown_table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, percentages with 95% intervals; empty where a method does not have a metric."""
    header, rows_of_cells = table_cells(rows)
    escaped = [[escape_markdown(cell) for cell in cells] for cells in (header, *rows_of_cells)]
    lines = ["| " + " | ".join(cells) + " |" for cells in (escaped[0], ["---"] * len(header), *escaped[1:])]
    return "\n".join(lines) + "\n"


def table_cells(rows: Sequence[Row], names: Sequence[str] | None = None) -> tuple[list[str], list[list[str]]]:
    """Header and cells of a table of the rows, of the metrics with these names or of all that have a value; with protocols, where a recipe names one."""
    names = names or list(
        dict.fromkeys(name for row in rows for name, value in row.metrics.items() if not isnan(value.value))
    )
    named = ["protocol"] if any(row.protocol for row in rows) else []
    header = ["recipe", *named, "setting", "seeds", *(name.replace("_", " ") for name in names)]
    cells = [
        [
            f"baseline: {row.recipe}" if row.baseline else row.recipe,
            *(row.protocol for _ in named),
            row.setting,
            str(len(row.seeds)),
            *(_cell(row.metrics[n]) if n in row.metrics else "" for n in names),
        ]
        for row in rows
    ]
    return header, cells


def _cell(measured: Measured) -> str:
    if isnan(measured.value):  # no sample to measure it on
        return ""
    return f"{100 * measured.value:.1f} ({100 * measured.low:.1f} to {100 * measured.high:.1f})"


def write_table(rows: Sequence[Row], out: Path, caption: str = "", notes: Sequence[str] = ()) -> None:
    """Write ``table.md``, ``table.json`` and, of the first metric that all rows have, ``table.png``.

    Args:
        rows: of the table.
        out: the folder.
        caption: above the table in ``table.md``.
        notes: below it, a line each.
    """
    above = f"{escape_markdown(caption)}\n\n" if caption else ""
    below = "".join(f"\n- {escape_markdown(' '.join(note.split()))}" for note in notes)
    table = markdown_table(rows) if rows else "No rows.\n"
    (out / "table.md").write_text(above + table + (below + "\n" if below else ""), encoding="utf-8")
    (out / "table.json").write_text(json.dumps([_json(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    shared = [name for name in (rows[0].metrics if rows else ()) if all(name in row.metrics for row in rows)]
    if shared:
        plot_rows(rows, shared[0], out / "table.png")


def _json(row: Row) -> dict[str, Any]:
    """A row with null for what is undefined, since JSON has no NaN."""
    metrics = {name: {k: None if isnan(v) else v for k, v in asdict(m).items()} for name, m in row.metrics.items()}
    return {**asdict(row), "metrics": metrics}


def plot_rows(rows: Sequence[Row], name: str, file: Path) -> None:
    """A metric: bars for one setting, lines over K for several, and points where settings have no order."""
    from matplotlib.figure import Figure

    settings = list(dict.fromkeys(row.setting for row in rows))
    is_ordered = all(setting.endswith("-shot") for setting in settings)
    recipes = list(dict.fromkeys(row.recipe for row in rows))
    paths = [PurePath(recipe) for recipe in recipes]
    labels = [path.stem if path.suffix else path.parts[0] for path in paths]  # METHOD/NAME, or a file
    if len(set(labels)) < len(labels):  # several recipes of one method
        labels = [path.stem for path in paths]
    baselines = {row.recipe for row in rows if row.baseline}
    figure = Figure(figsize=(8, 0.45 * len(recipes) + 1.6 if len(settings) == 1 else 5), layout="constrained")
    axes = figure.add_subplot()
    for position, recipe in enumerate(recipes):
        group = [row for row in rows if row.recipe == recipe]
        values = [100 * row.metrics[name].value for row in group]
        spread = [
            [100 * (row.metrics[name].value - row.metrics[name].low) for row in group],
            [100 * (row.metrics[name].high - row.metrics[name].value) for row in group],
        ]
        if len(settings) == 1:
            color = "#a8a8a8" if recipe in baselines else "#4878a8"
            axes.barh(position, values, xerr=spread, color=color, error_kw={"ecolor": "#222222", "capsize": 3})
        else:
            line: dict[str, Any] = {"color": "#888888", "linestyle": "--"} if recipe in baselines else {}
            if not is_ordered:
                line["linestyle"] = "none"
            settings_of_group = [row.setting for row in group]
            axes.errorbar(settings_of_group, values, yerr=spread, marker="o", capsize=3, label=labels[position], **line)
    if len(settings) == 1:
        axes.set_yticks(range(len(recipes)), labels)
        axes.invert_yaxis()
        axes.set_xlabel(f"{name.replace('_', ' ')}, {settings[0]}, % (95% interval)")
    else:
        axes.set_ylabel(f"{name.replace('_', ' ')}, % (95% interval)")
        axes.legend(fontsize=8)
    figure.savefig(file, dpi=120)
