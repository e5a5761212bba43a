"""Tables and plots over methods, shots and seeds: trains missing runs, evaluates, and writes Markdown, JSON and PNG."""

from collections.abc import Sequence
from pathlib import Path
from statistics import harmonic_mean
from typing import Any

from zoo.config.building import resolve_recipe
from zoo.config.components import Component
from zoo.config.recipe import as_overrides, read_recipe
from zoo.engine.evaluation import collect_cached, measure_all, open_evaluation
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
    """Train and evaluate recipes; finished runs in ``out`` are reused, so that an interrupted comparison resumes.

    Args:
        recipes: names or files.
        out: folder for runs, ``table.md``, ``table.json`` and ``table.png``.
        shots: K of the few-shot and base-to-novel protocols.
        seeds: of sampled shots, initial weights and order of the samples.
        protocol: "few_shot", "base_to_novel" (train on base classes, measure both halves) or "full" (all images).
        overrides: ``key=value`` for every recipe.
        device: to evaluate on; training follows the recipe's ``trainer``.

    Raises:
        ArgumentError: the protocol is unknown, or a recipe cannot predict novel classes.
        RecipeError: a recipe does not fit.
    """
    if protocol not in PROTOCOLS:
        raise ArgumentError(f"unknown protocol '{protocol}'; expected one of {', '.join(PROTOCOLS)}")
    if protocol == "base_to_novel" and (bound := [recipe for recipe in recipes if _is_class_bound(recipe, overrides)]):
        raise ArgumentError(
            f"{', '.join(bound)} learn weights for the classes of training, so they cannot predict novel ones; leave them out"
        )
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


def _is_class_bound(recipe: str, overrides: Sequence[str]) -> bool:
    """Whether a recipe's adapter can predict the classes of training only."""
    adapter = resolve_recipe(read_recipe(recipe, overrides)).method.arguments.get("adapter")
    return isinstance(adapter, Component) and getattr(adapter.target, "class_bound", False)


def _finished_run(
    recipe: str, out: Path, shots: int | None, seed: int, protocol: str, overrides: Sequence[str]
) -> Path:
    name = f"{Path(recipe).with_suffix('').as_posix().replace('/', '-')}-{shots or 'all'}-seed{seed}"
    run = out / "runs" / f"{protocol}-{name}"
    setting = [f"seed={seed}", *as_overrides(overrides)]
    if shots is not None or "shots" in (read_recipe(recipe)["data"] or {}):
        setting.append(f"data.shots={'null' if shots is None else shots}")
    if protocol == "base_to_novel":
        setting.append("data.classes=base")
    resolved = read_recipe(recipe, setting)
    if (run / "recipe.yaml").is_file() and not _contains(
        read_recipe(run / "recipe.yaml", record=True).content, resolved.content
    ):
        raise RunError(f"{run} is a run of another recipe or setting; choose another folder with --out")
    if not (run / "model.safetensors").is_file():
        train(resolved, run, resume=(run / "checkpoints" / "last.ckpt").is_file())
    return run


def _contains(content: Any, expected: Any) -> bool:
    """Whether a run's resolved recipe has all settings of a recipe."""
    if isinstance(expected, dict):
        return isinstance(content, dict) and all(_contains(content.get(key), value) for key, value in expected.items())
    return bool(content == expected)


def _measured(runs: list[Path], overrides: list[str], name: str, device: str) -> dict[str, Measured]:
    evaluations = [open_evaluation(run, overrides, device) for run in runs]
    outputs = [
        collect_cached(evaluation, run / f"outputs-{name}.safetensors")
        for run, evaluation in zip(runs, evaluations, strict=True)
    ]
    return measure_all(evaluations[0].method.metrics(), outputs)


def _base_to_novel(runs: list[Path], device: str) -> dict[str, Measured]:
    """Accuracy on the base and the novel classes, and their harmonic mean (its interval from those of the halves)."""
    base = _measured(runs, ["data.classes=base"], "base", device)["accuracy"]
    novel = _measured(runs, ["data.classes=novel"], "novel", device)["accuracy"]
    mean, low, high = (harmonic_mean([getattr(base, part), getattr(novel, part)]) for part in ("value", "low", "high"))
    return {"base": base, "novel": novel, "harmonic_mean": Measured(mean, low, high, base.n + novel.n)}
