"""Tables and plots over methods, shots and seeds: trains what is missing, measures, and writes Markdown, JSON and PNG."""

from collections.abc import Sequence
from pathlib import Path
from statistics import harmonic_mean
from typing import Any

from zoo.config.recipe import read_recipe
from zoo.engine.evaluation import collect_once, measure_all, open_subject
from zoo.engine.trainers import is_first_process
from zoo.engine.training import RunError, train
from zoo.errors import ArgumentError
from zoo.metrics.intervals import Measured
from zoo.visualization.tables import Row, write_table

PROTOCOLS = ("few_shot", "base_to_novel", "full")


def compare(
    recipes: Sequence[str],
    out: Path,
    *,
    shots: Sequence[int] = (16,),
    seeds: Sequence[int] = (0, 1, 2),
    protocol: str = "few_shot",
    overrides: Sequence[str] = (),
    device: str = "auto",
) -> list[Row]:
    """Compare recipes; finished runs in ``out`` are taken as they are, so that a broken-off comparison goes on.

    Args:
        recipes: names or files.
        out: folder for runs, ``table.md``, ``table.json`` and ``table.png``.
        shots: K of the few-shot and base-to-novel protocols.
        seeds: of shots, initial weights and order.
        protocol: "few_shot", "base_to_novel" (train on base classes, measure both halves) or "full" (all images).
        overrides: ``key=value`` for every recipe.
        device: to measure on; training follows the recipe's ``trainer``.

    Raises:
        ArgumentError: there is no such protocol.
        RecipeError: a recipe does not fit.
    """
    if protocol not in PROTOCOLS:
        raise ArgumentError(f"no protocol '{protocol}'; there are {', '.join(PROTOCOLS)}")
    rows = []
    for count in [None] if protocol == "full" else shots:
        for recipe in recipes:
            runs = [_finished_run(recipe, out, count, seed, protocol, overrides) for seed in seeds]
            metrics = (
                _base_to_novel(runs, device) if protocol == "base_to_novel" else _measured(runs, [], "test", device)
            )
            setting = "all images" if count is None else f"{count}-shot"
            rows.append(Row(recipe, setting, list(seeds), metrics))
            if is_first_process():
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
    if (run / "recipe.yaml").is_file() and not _holds(
        read_recipe(run / "recipe.yaml", record=True).content, wanted.content
    ):
        raise RunError(f"{run} is a run of another recipe or setting; choose another folder with --out")
    if not (run / "model.safetensors").is_file():
        train(wanted, run, resume=(run / "checkpoints" / "last.ckpt").is_file())
    return run


def _holds(made: Any, wanted: Any) -> bool:
    """Whether a run's resolved recipe has everything that a recipe asks for."""
    if isinstance(wanted, dict):
        return isinstance(made, dict) and all(_holds(made.get(key), value) for key, value in wanted.items())
    return bool(made == wanted)


def _measured(runs: list[Path], overrides: list[str], name: str, device: str) -> dict[str, Measured]:
    subjects = [open_subject(run, overrides, device) for run in runs]
    outputs = [
        collect_once(subject, run / f"outputs-{name}.safetensors") for run, subject in zip(runs, subjects, strict=True)
    ]
    return measure_all(subjects[0].method.metrics(), outputs)


def _base_to_novel(runs: list[Path], device: str) -> dict[str, Measured]:
    """Accuracy on the base and the novel classes, and their harmonic mean (its interval from those of the halves)."""
    base = _measured(runs, ["data.classes=base"], "base", device)["accuracy"]
    novel = _measured(runs, ["data.classes=novel"], "novel", device)["accuracy"]
    mean, low, high = (harmonic_mean([getattr(base, part), getattr(novel, part)]) for part in ("value", "low", "high"))
    return {"base": base, "novel": novel, "harmonic_mean": Measured(mean, low, high, base.n + novel.n)}
