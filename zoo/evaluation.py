"""Measuring a run or a card on a split, sample by sample, with intervals."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from zoo.assembly import build_data, build_method, with_facts
from zoo.cards.load import load_with_recipe
from zoo.cards.store import CardError, read_card, refuse_pickle
from zoo.data.module import ZooData
from zoo.methods.base import Metric, Outputs, ZooModule, join_outputs
from zoo.metrics.intervals import Measured, measure
from zoo.recipe import Recipe, check_recipe, read_recipe


@dataclass
class Subject:
    """What is measured: a method with weights, and the data of its recipe."""

    method: ZooModule
    recipe: Recipe
    data: ZooData


def open_subject(source: str | Path, overrides: Sequence[str] = ()) -> Subject:
    """Open a run folder or a card for evaluation, with other data where overrides say so.

    Other classes are allowed where the method's weights do not depend on them.

    Raises:
        RecipeError: the overrides do not fit.
        CardError: there is no such run or card, it is damaged, or its weights do not fit the classes asked for.
    """
    run = Path(source)
    if (run / "model.safetensors").is_file() and not (run / "README.md").is_file():
        return _open_run(run, overrides)
    if (run / "recipe.yaml").is_file() and not (run / "README.md").is_file():
        raise CardError(f"{run} is a run that has not ended; finish it with: zoo train {run}/recipe.yaml --resume")
    card = read_card(source)
    recipe, data = _with_data(read_recipe(card.folder / "recipe.yaml", overrides))
    return Subject(load_with_recipe(card, recipe).eval(), recipe, data)


def _open_run(run: Path, overrides: Sequence[str]) -> Subject:
    recipe, data = _with_data(read_recipe(run / "recipe.yaml", overrides))
    method = build_method(recipe)
    refuse_pickle(run / "model.safetensors")
    try:
        method.load_trained_state(load_file(run / "model.safetensors"))
    except ValueError as error:
        raise CardError(f"{run}: {error}") from error
    trained_on = json.loads((run / "summary.json").read_text(encoding="utf-8"))["base_fingerprint"]
    if trained_on != method.base_fingerprint():
        raise CardError(f"{run} was trained on a frozen base with other weights than the one built now")
    return Subject(method.eval(), recipe, data)


def _with_data(recipe: Recipe) -> tuple[Recipe, ZooData]:
    check_recipe(recipe)
    data = build_data(recipe)
    facts = data.facts()
    method = {name: value for name, value in recipe["method"].items() if name not in facts}
    return with_facts(recipe.with_content(method=method), facts), data


@torch.no_grad()
def collect(method: ZooModule, data: ZooData, split: str = "test", *, progress: bool = True) -> Outputs:
    """Outputs of every sample of a split, on the method's device."""
    from rich.progress import track

    batches: Any = data.in_order(split)
    if progress:
        batches = track(batches, description=f"measuring {split}", transient=True)
    outputs = []
    for batch in batches:
        moved = {key: value.to(method.device) if torch.is_tensor(value) else value for key, value in batch.items()}
        outputs.append({name: value.cpu() for name, value in method.evaluation_step(moved).items()})
    return method.complete_outputs(join_outputs(outputs))


def evaluate(subject: Subject, split: str = "test", *, progress: bool = True) -> dict[str, Measured]:
    """All metrics of the method over a split."""
    outputs = collect(subject.method, subject.data, split, progress=progress)
    return measure_all(subject.method.metrics(), [outputs])


def measure_all(metrics: dict[str, Metric], runs: Sequence[Outputs]) -> dict[str, Measured]:
    """Every metric over one run, or over several of the same samples."""
    return {name: measure(metric, runs) for name, metric in metrics.items()}


def collect_once(subject: Subject, file: Path, split: str = "test") -> Outputs:
    """As :func:`collect`, kept in a file so that a comparison can be taken up again."""
    if not file.is_file():
        save_file(collect(subject.method, subject.data, split), file)
    return load_file(file)
