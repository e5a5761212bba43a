"""Tables and plots over methods, shots and seeds: trains what is missing, measures, and writes Markdown, JSON and PNG."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from statistics import harmonic_mean
from typing import Any

from zoo.evaluation import collect_once, measure_all, open_subject
from zoo.metrics.intervals import Measured
from zoo.recipe import read_recipe
from zoo.training import RunError, train

PROTOCOLS = ("few_shot", "base_to_novel", "full")


@dataclass(frozen=True)
class Row:
    """One method under one setting: metrics averaged over the seeds."""

    recipe: str
    setting: str
    seeds: list[int]
    metrics: dict[str, Measured]


def compare(
    recipes: Sequence[str],
    out: Path,
    *,
    shots: Sequence[int] = (16,),
    seeds: Sequence[int] = (0, 1, 2),
    protocol: str = "few_shot",
    overrides: Sequence[str] = (),
) -> list[Row]:
    """Compare recipes; finished runs in ``out`` are taken as they are, so that a broken-off comparison goes on.

    Args:
        recipes: names or files.
        out: folder for runs, ``table.md``, ``table.json`` and ``table.png``.
        shots: K of the few-shot and base-to-novel protocols.
        seeds: of shots, initial weights and order.
        protocol: "few_shot", "base_to_novel" (train on base classes, measure both halves) or "full" (all images).
        overrides: ``key=value`` for every recipe.

    Raises:
        ValueError: there is no such protocol.
        RecipeError: a recipe does not fit.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"no protocol '{protocol}'; there are {', '.join(PROTOCOLS)}")
    rows = []
    for count in [None] if protocol == "full" else shots:
        for recipe in recipes:
            runs = [_finished_run(recipe, out, count, seed, protocol, overrides) for seed in seeds]
            metrics = _base_to_novel(runs) if protocol == "base_to_novel" else _measured(runs, [], "test")
            setting = "all images" if count is None else f"{count}-shot"
            rows.append(Row(recipe, setting, list(seeds), metrics))
            write_table(rows, out)
    return rows


def _finished_run(
    recipe: str, out: Path, shots: int | None, seed: int, protocol: str, overrides: Sequence[str]
) -> Path:
    name = f"{Path(recipe).with_suffix('').as_posix().replace('/', '-')}-{shots or 'all'}-seed{seed}"
    run = out / "runs" / f"{protocol}-{name}"
    setting = [f"seed={seed}", *overrides]
    if shots is not None or "shots" in (read_recipe(recipe)["data"] or {}):
        setting.append(f"data.shots={'null' if shots is None else shots}")
    if protocol == "base_to_novel":
        setting.append("data.classes=base")
    wanted = read_recipe(recipe, setting)
    if (run / "recipe.yaml").is_file() and not _holds(read_recipe(run / "recipe.yaml").content, wanted.content):
        raise RunError(f"{run} is a run of another recipe or setting; choose another folder with --out")
    if not (run / "model.safetensors").is_file():
        train(wanted, run, resume=(run / "checkpoints" / "last.ckpt").is_file())
    return run


def _holds(made: Any, wanted: Any) -> bool:
    """Whether a run's resolved recipe has everything that a recipe asks for."""
    if isinstance(wanted, dict):
        return isinstance(made, dict) and all(_holds(made.get(key), value) for key, value in wanted.items())
    return bool(made == wanted)


def _measured(runs: list[Path], overrides: list[str], name: str) -> dict[str, Measured]:
    subjects = [open_subject(run, overrides) for run in runs]
    outputs = [
        collect_once(subject, run / f"outputs-{name}.safetensors") for run, subject in zip(runs, subjects, strict=True)
    ]
    return measure_all(subjects[0].method.metrics(), outputs)


def _base_to_novel(runs: list[Path]) -> dict[str, Measured]:
    """Accuracy on the base and the novel classes, and their harmonic mean (its interval from those of the halves)."""
    base = _measured(runs, ["data.classes=base"], "base")["accuracy"]
    novel = _measured(runs, ["data.classes=novel"], "novel")["accuracy"]
    mean, low, high = (harmonic_mean([getattr(base, part), getattr(novel, part)]) for part in ("value", "low", "high"))
    return {"base": base, "novel": novel, "harmonic_mean": Measured(mean, low, high, base.n + novel.n)}


def markdown_table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, percentages with 95% intervals; empty where a method does not have a metric."""
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    lines = [
        "| recipe | setting | seeds | " + " | ".join(name.replace("_", " ") for name in names) + " |",
        "| --- | --- | --- | " + " | ".join("---" for _ in names) + " |",
    ]
    for row in rows:
        cells = [_cell(row.metrics[name]) if name in row.metrics else "" for name in names]
        lines.append(f"| {row.recipe} | {row.setting} | {len(row.seeds)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(measured: Measured) -> str:
    if isnan(measured.value):  # nothing to measure it on
        return ""
    return f"{100 * measured.value:.1f} ({100 * measured.low:.1f} to {100 * measured.high:.1f})"


def write_table(rows: Sequence[Row], out: Path) -> None:
    """Write ``table.md``, ``table.json`` and, of the first metric that all rows have, ``table.png``."""
    (out / "table.md").write_text(markdown_table(rows), encoding="utf-8")
    content = [asdict(row) for row in rows]
    (out / "table.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    shared = [name for name in rows[0].metrics if all(name in row.metrics for row in rows)]
    if shared:
        _plot(rows, shared[0], out / "table.png")


def _plot(rows: Sequence[Row], name: str, file: Path) -> None:
    """A metric: bars for one setting, lines over K for several."""
    from matplotlib.figure import Figure

    settings = list(dict.fromkeys(row.setting for row in rows))
    recipes = list(dict.fromkeys(row.recipe for row in rows))
    labels = [recipe.split("/")[0] for recipe in recipes]
    if len(set(labels)) < len(labels):  # several recipes of one method
        labels = [recipe.split("/")[-1] for recipe in recipes]
    figure = Figure(figsize=(8, 0.45 * len(recipes) + 1.6 if len(settings) == 1 else 5), layout="constrained")
    axes = figure.add_subplot()
    for position, recipe in enumerate(recipes):
        mine = [row for row in rows if row.recipe == recipe]
        values = [100 * row.metrics[name].value for row in mine]
        spread = [
            [100 * (row.metrics[name].value - row.metrics[name].low) for row in mine],
            [100 * (row.metrics[name].high - row.metrics[name].value) for row in mine],
        ]
        if len(settings) == 1:
            axes.barh(position, values, xerr=spread, color="#4878a8", error_kw={"ecolor": "#222222", "capsize": 3})
        else:
            axes.errorbar(
                [row.setting for row in mine], values, yerr=spread, marker="o", capsize=3, label=labels[position]
            )
    if len(settings) == 1:
        axes.set_yticks(range(len(recipes)), labels)
        axes.invert_yaxis()
        axes.set_xlabel(f"{name.replace('_', ' ')}, {settings[0]}, % (95% interval)")
    else:
        axes.set_ylabel(f"{name.replace('_', ' ')}, % (95% interval)")
        axes.legend(fontsize=8)
    figure.savefig(file, dpi=120)
