"""Evaluation of a run or a card on a split, with bootstrap intervals."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.cards.store import PROSE, CardError, list_cards, read_card, read_safetensors, where_cards_are
from zoo.checksums import load_checked, save_checked, say_rebuilt
from zoo.config.building import resolve_recipe
from zoo.config.recipe import Recipe, read_recipe
from zoo.data.base import EmptySplitError, ZooData
from zoo.engine.assembly import assemble, build_data
from zoo.engine.class_names import match_classes
from zoo.engine.loading import load_resolved
from zoo.engine.trainers import inference_trainer, is_first_process
from zoo.files import replacing
from zoo.methods.base import Metric, Outputs, ZooModule
from zoo.metrics.intervals import Measured, measure
from zoo.registry import nearest


@dataclass
class Evaluation:
    """A method with weights, the data of its recipe, and the device to evaluate on."""

    method: ZooModule
    recipe: Recipe
    data: ZooData
    device: str = "auto"


def open_evaluation(source: str | Path, overrides: Sequence[str] = (), device: str = "auto") -> Evaluation:
    """Open a run folder or a card for evaluation, with other data where overrides say so.

    Other classes are possible where the method's weights do not depend on them.

    Raises:
        RecipeError: the overrides do not fit.
        CardError: there is no such run or card, it is damaged, or its weights do not fit the classes.
    """
    run = Path(source)
    if (run / "model.safetensors").is_file() and not (run / "README.md").is_file():
        return _open_run(run, overrides, device)
    if (run / "recipe.yaml").is_file() and not (run / "README.md").is_file():
        raise CardError(f"{run} is an unfinished run; {how_to_finish(run)}")
    if not (run / PROSE).is_file() and str(source) not in list_cards():
        where = (
            "holds neither a run (model.safetensors) nor a card"
            if run.is_dir()
            else "is neither a run folder nor a card"
        )
        raise CardError(f"{source} {where}{where_cards_are()}{nearest(str(source), list_cards())}")
    card = read_card(source)
    resolved = resolve_recipe(card.recipe(overrides))
    data = build_data(resolved)
    match_classes(resolved, data)
    metadata = data.metadata()
    resolved = resolved.with_metadata(metadata, overwrite=True)
    method = load_resolved(card, resolved).eval()
    method.use_metadata(metadata)
    return Evaluation(method, resolved.recipe, data, device)


def how_to_finish(run: Path) -> str:
    """What to do with an unfinished run."""
    if (run / "checkpoints" / "last.ckpt").exists():
        return f"resume it with: zoo train {run}/recipe.yaml --resume"
    return f"it has no checkpoint, so train again: zoo train {run}/recipe.yaml --out {run}-2"


def _open_run(run: Path, overrides: Sequence[str], device: str) -> Evaluation:
    assembly = assemble(read_recipe(run / "recipe.yaml", overrides, record=True), other_data=True)
    method = assembly.method
    try:
        method.load_trained_state(read_safetensors(run / "model.safetensors"))
    except ValueError as error:
        raise CardError(f"{run}: {error}") from error
    trained_on = json.loads((run / "summary.json").read_text(encoding="utf-8"))["base_fingerprint"]
    if trained_on != method.base_fingerprint():
        raise CardError(f"{run} was trained on a frozen base whose weights differ from those built now")
    return Evaluation(method.eval(), assembly.recipe, assembly.data, device)


def collect(evaluation: Evaluation, split: str = "test", *, progress: bool = True) -> Outputs:
    """Outputs of every sample of a split, each once, from all processes.

    Raises:
        EmptySplitError: the split has no sample.
    """
    if not len(evaluation.data.split(split)):  # type: ignore[arg-type]
        raise EmptySplitError(f"the split '{split}' has no samples to measure on")
    trainer: Any = inference_trainer(evaluation.recipe, evaluation.device, progress=progress)
    evaluation.data.test_split = split
    trainer.test(evaluation.method, datamodule=evaluation.data, verbose=False)
    return evaluation.method.test_outputs


def evaluate(evaluation: Evaluation, split: str = "test", *, progress: bool = True) -> dict[str, Measured]:
    """All metrics of the method over a split."""
    return measure_all(evaluation.method.metrics(), [collect(evaluation, split, progress=progress)])


def measure_all(metrics: dict[str, Metric], runs: Sequence[Outputs]) -> dict[str, Measured]:
    """Every metric over one run, or over several runs on the same samples."""
    return {name: measure(metric, runs) for name, metric in metrics.items()}


def collect_cached(evaluation: Evaluation, file: Path, split: str = "test") -> Outputs:
    """As :func:`collect`, cached in a file, so that an interrupted comparison resumes."""
    return cached_outputs(file, lambda: collect(evaluation, split), "outputs")


def cached_outputs(file: Path, compute: Callable[[], Outputs], what: str) -> Outputs:
    """Tensors of a file; computed and written where it is not there, or damaged, which is said.

    Args:
        file: safetensors with a checksum.
        compute: the tensors, by name.
        what: they are, for the warning.
    """
    if file.is_file():
        if (cached := load_checked(file)) is not None:
            return cached
        say_rebuilt(what, file)
    outputs = compute()
    if is_first_process():
        with replacing(file) as partial:
            save_checked(outputs, partial)
    return outputs
