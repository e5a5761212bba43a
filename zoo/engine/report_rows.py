"""Rows of a benchmark of report models on disk: what each depends on, whether it is done, and why it cannot be."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from zoo.cards.store import CardError, card_chain, check_files, read_card
from zoo.config.building import resolve_recipe
from zoo.data.traces.datasets import TraceData
from zoo.data.traces.records import RecordError
from zoo.engine.fingerprints import find_differences, records_fingerprint, weights_fingerprint
from zoo.engine.preflight import missing_for_method
from zoo.engine.report_plan import (
    AS_IS,
    FINE_TUNED,
    Benchmark,
    Item,
    instructs,
    is_recipe,
    is_run,
    open_data,
    plan_benchmark,
    recipe_of,
)
from zoo.errors import ArgumentError

DONE = "done"
_LEARNED = ("train", "val", "weights")
_CONTENT = {
    "content": "what it was measured on, which was not noted,",
    "content.measured": "the measured records or their images",
    "content.examples": "the examples of the prompt",
    "content.train": "the training records or their images",
    "content.val": "the validation records or their images",
    "content.findings": "the findings that records name",
    "content.weights": "the weights",
}


@dataclass(frozen=True)
class PlannedRow:
    """A row that is to be measured, or was.

    Attributes:
        item: the model, its kind and mode.
        state: ``done``, ``to do``, ``to do again`` with what changed, or ``not possible`` with the reason.
        setting: what the row depends on; empty where the model has no such mode.
    """

    item: Item
    state: str
    setting: Mapping[str, Any]

    @property
    def is_possible(self) -> bool:
        """Whether it can be measured, or was."""
        return not self.state.startswith("not possible")


def plan_rows(models: Sequence[str], benchmark: Benchmark) -> list[PlannedRow]:
    """The rows of a benchmark and their states; all records are read, and no weights.

    Raises:
        ArgumentError: see :func:`~zoo.engine.report_plan.plan_benchmark`; or a row was measured with other settings.
        RecordError: a record is malformed.
    """
    items = plan_benchmark(models, benchmark)
    settings = _settings_of(items, benchmark)

    @cache
    def missing(model: str, kind: str) -> str | None:
        return _missing_weights(model, kind, benchmark)

    def state_of(item: Item) -> str:
        if item.problem is not None:
            return f"not possible: {item.problem}"
        state = _state(item, benchmark, settings[item.name])
        if state == DONE:
            return state
        refused = refusal(item, benchmark, settings[item.name]) or missing(item.model, item.kind)
        return f"not possible: {refused}" if refused else state

    return [PlannedRow(item, state_of(item), settings.get(item.name, {})) for item in items]


def _missing_weights(model: str, kind: str, benchmark: Benchmark) -> str | None:
    """What a model lacks to be loaded and scored here: weights, packages, keys."""
    recipe = recipe_of(model, benchmark.settings, kind)
    try:
        is_card = kind == AS_IS and not is_recipe(model) and not is_run(model)
        for card in [*card_chain(recipe["init_from"]), *([read_card(model)] if is_card else [])]:
            check_files(card)
    except CardError as error:
        return str(error)
    return "; ".join(missing_for_method(resolve_recipe(recipe).method)) or None


def _settings_of(items: Sequence[Item], benchmark: Benchmark) -> dict[str, dict[str, Any]]:
    """What each row depends on, by the row's name, of those whose models have the mode."""
    possible = [item for item in items if item.problem is None]
    if not possible:
        return {}
    content = _content_of(open_data(possible[0].model, benchmark), benchmark)
    return {item.name: json.loads(json.dumps(_setting(item, benchmark, content))) for item in possible}


def _content_of(data: TraceData, benchmark: Benchmark) -> dict[str, Any]:
    """Fingerprints of what is read: ``measured``, ``train``, ``val``, ``examples``, and ``findings``, which all splits may name."""
    records = {split: data.records(split) for split in benchmark.splits}
    content = {split: records_fingerprint(records[split]) for split in ("train", "val") if benchmark.fine_tune}
    content["measured"] = records_fingerprint(records[benchmark.split][: benchmark.limit])
    if benchmark.shots:
        content["examples"] = records_fingerprint(records["train"][: benchmark.shots])
    try:
        vocabulary = data.metadata().get("vocabulary")
    except RecordError as error:
        raise RecordError(
            f"{error}; this split is read for its findings and words, which are those of all splits: mend it, or take its file away"
        ) from error
    content["findings"] = hashlib.sha256(repr(vocabulary).encode()).hexdigest()
    return content


def _setting(item: Item, benchmark: Benchmark, records: Mapping[str, str]) -> dict[str, Any]:
    """What a row depends on: settings, and the ``content`` of what they name."""
    recipe = recipe_of(item.model, [*benchmark.settings, f"method.evidence={item.mode}"], item.kind)
    is_card = item.kind == AS_IS and not is_recipe(item.model) and not is_run(item.model)
    weights = weights_fingerprint(
        recipe, read_card(item.model) if is_card else None, Path(item.model) if is_run(item.model) else None
    )
    used = ("measured", "findings", *(("examples",) if item.kind == AS_IS else ("train", "val")))
    content = {name: records[name] for name in used if name in records}
    setting: dict[str, Any] = {
        "recipe": recipe.content,
        "split": benchmark.split,
        "limit": benchmark.limit,
        "content": content | {"weights": weights},
    }
    if item.kind == FINE_TUNED:
        return setting | {"seeds": list(benchmark.seeds)}
    return setting | {"instruct": instructs(item, benchmark), "shots": benchmark.shots}


def _state(item: Item, benchmark: Benchmark, setting: Mapping[str, Any]) -> str:
    file = row_file(item, benchmark)
    if not file.is_file():
        return "to do"
    differences = find_differences(json.loads(file.read_text(encoding="utf-8"))["setting"], setting)
    if other := [f"{key} was {then}, now {now}" for key, (then, now) in differences.items() if key not in _CONTENT]:
        raise ArgumentError(
            f"{file} was measured with other settings; choose another folder with --out. {'; '.join(other[:5])}"
        )
    return f"to do again: {_changed(differences)}" if differences else DONE


def _changed(keys: Iterable[str]) -> str:
    return f"{' and '.join(_CONTENT[key] for key in keys)} changed"


def run_folder(item: Item, benchmark: Benchmark, seed: int) -> Path:
    """Where a row's training with a seed is."""
    return benchmark.out / "runs" / f"{item.name}-seed{seed}"


def _learned_file(run: Path) -> Path:
    return run.parents[1] / "outputs" / f"{run.name}.json"


def refusal(item: Item, benchmark: Benchmark, setting: Mapping[str, Any]) -> str | None:
    """Why a fine-tuned row cannot be measured: one of its trainings, finished or not, learned from other records or weights."""
    for seed in benchmark.seeds if item.kind == FINE_TUNED else ():
        run = run_folder(item, benchmark, seed)
        if not run.is_dir() or not _learned_file(run).is_file():
            continue
        before = json.loads(_learned_file(run).read_text(encoding="utf-8"))
        if differing := find_differences(before, _learned(setting), "content"):
            return (
                f"{run} was trained before {_changed(differing)}; remove this folder to train again, or choose another "
                "with --out"
            )
    return None


def note_learned(run: Path, setting: Mapping[str, Any]) -> None:
    """Note what a training learns from before it begins, for :func:`refusal`; of one that has begun, the note is there."""
    file = _learned_file(run)
    if not (run.is_dir() and file.is_file()):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(_learned(setting)) + "\n", encoding="utf-8")


def _learned(setting: Mapping[str, Any]) -> dict[str, Any]:
    return {name: setting["content"][name] for name in _LEARNED}


def row_file(item: Item, benchmark: Benchmark) -> Path:
    """Where a measured row is."""
    return benchmark.out / "rows" / f"{item.name}.json"
