"""The rows of a benchmark of report models, planned before anything is loaded, and what each depends on."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from zoo.cards.store import PROSE, list_cards, read_card
from zoo.config.building import resolve_recipe
from zoo.config.components import signature_of
from zoo.config.recipe import Recipe, list_recipes, read_recipe
from zoo.config.validation import type_problem
from zoo.data.base import LoaderSpec
from zoo.data.traces.datasets import TraceData
from zoo.decoders.evidence import EvidenceName
from zoo.engine.assembly import build_data
from zoo.engine.fingerprints import find_differences, records_fingerprint, weights_fingerprint
from zoo.engine.trainers import check_device
from zoo.errors import ArgumentError
from zoo.methods.report_generation import ReportGeneration
from zoo.registry import nearest

MODES: tuple[EvidenceName, ...] = ("none", "text", "box", "crop", "generated")
AS_IS, FINE_TUNED = "as it is", "fine-tuned"
_LOADING = {field.name for field in fields(LoaderSpec)} | {"render_workers", "prompt"}


@dataclass(frozen=True)
class Benchmark:
    """What all rows of a benchmark share.

    Attributes:
        out: folder for runs, reports, table and page.
        modes: of the evidence.
        fine_tune: add rows of the models after training on the training split.
        as_is: rows of the models without it.
        seeds: of the trained runs.
        data: folder with train.jsonl, val.jsonl and test.jsonl in place of the recipes' data; without training, the file of the split
            is enough.
        overrides: ``key=value`` for every recipe.
        split: that is measured.
        limit: records of it, from its beginning; all if None.
        instruct: whether prompts of models as they are have the form of a trace; those of recipes if None, since cards and runs
            have learned it.
        shots: responses to training records in these prompts.
        device: to evaluate on; training follows the recipe's ``trainer``.
    """

    out: Path
    modes: Sequence[EvidenceName] = MODES
    fine_tune: bool = False
    as_is: bool = True
    seeds: Sequence[int] = (0,)
    data: Path | None = None
    overrides: Sequence[str] = ()
    split: str = "test"
    limit: int | None = None
    instruct: bool | None = None
    shots: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ArgumentError: a mode is unknown or named twice, nothing is to be measured, or a file of the data is missing.
        """
        if unknown := [mode for mode in self.modes if mode not in MODES]:
            raise ArgumentError(f"unknown evidence {', '.join(unknown)}; expected of {', '.join(MODES)}")
        if twice := [mode for mode in MODES if list(self.modes).count(mode) > 1]:
            raise ArgumentError(f"the evidence {twice[0]} is named twice")
        if not (self.fine_tune or self.as_is):
            raise ArgumentError("nothing to measure: neither models as they are nor fine-tuned ones")
        if self.data is not None and (
            missing := [f for f in map(self._files.get, self.splits) if f and not f.is_file()]
        ):
            raise ArgumentError(
                f"there is no {missing[0]}; the folder of the data has train.jsonl, val.jsonl, test.jsonl"
            )

    @property
    def splits(self) -> list[str]:
        """Splits that are read: the measured one, and those of training and of examples."""
        learned = ["train", "val"] if self.fine_tune else ["train"] if self.shots else []
        return list(dict.fromkeys([self.split, *learned]))

    @property
    def _files(self) -> dict[str, Path]:
        return {split: cast(Path, self.data) / f"{split}.jsonl" for split in ("train", "val", "test")}

    @property
    def settings(self) -> list[str]:
        """Overrides of every recipe: the data, and the user's."""
        if self.data is None:
            return list(self.overrides)
        files = [f"data.{split}={json.dumps(str(file.resolve()))}" for split, file in self._files.items()]
        return ["data.name=ivl_jsonl", *files, *self.overrides]


@dataclass(frozen=True)
class Item:
    """A row of the table that is to be: a model in one mode, as it is or fine-tuned.

    Attributes:
        model: recipe, card or run folder.
        kind: :data:`AS_IS` or :data:`FINE_TUNED`.
        mode: of the evidence.
        problem: why the model cannot be measured so; None if it can.
    """

    model: str
    kind: str
    mode: EvidenceName
    problem: str | None = None

    @property
    def name(self) -> str:
        """As the name of a folder."""
        model = self.model.removesuffix(".yaml").strip("./").replace("/", "-")
        return f"{model}-{self.kind.replace(' ', '_').replace('-', '_')}-{self.mode}"


def plan_benchmark(models: Sequence[str], benchmark: Benchmark) -> list[Item]:
    """The rows of a benchmark, nothing measured or loaded yet.

    Raises:
        ArgumentError: a model writes no reports, two have the same name, or their records differ.
        DeviceError: this machine has no such device.
        RecipeError, CardError: a recipe does not fit, or there is no such card.
    """
    check_device(benchmark.device)
    kinds = [AS_IS] * benchmark.as_is + [FINE_TUNED] * benchmark.fine_tune
    items = [
        Item(model, kind, mode, _problem(model, kind, mode, benchmark))
        for model in models
        for kind in kinds
        for mode in benchmark.modes
    ]
    if len({item.name for item in items}) < len(items):
        raise ArgumentError(f"two models have the same name: {', '.join(models)}")
    _check_same_records(models, benchmark)
    return items


def _problem(model: str, kind: str, mode: EvidenceName, benchmark: Benchmark) -> str | None:
    recipe = recipe_of(model, benchmark.settings, kind)
    method = resolve_recipe(recipe).method.target
    if not issubclass(method, ReportGeneration):
        raise ArgumentError(f"{model} writes no reports: its method is {recipe['method']['name']}")
    if type_problem(signature_of(method)[1]["evidence"], mode) is not None:
        return "it generates no images" if mode == "generated" else f"{recipe['method']['name']} has no such mode"
    if kind == FINE_TUNED and _is_run(model):
        return "a run is not trained further; publish it, and give the card"
    return None


def _check_same_records(models: Sequence[str], benchmark: Benchmark) -> None:
    if not models:
        raise ArgumentError("name at least one model")
    sections = {
        model: {k: v for k, v in recipe_of(model, benchmark.settings)["data"].items() if k not in _LOADING}
        for model in models
    }
    first = sections[models[0]]
    if differing := [model for model, section in sections.items() if section != first]:
        raise ArgumentError(
            f"the records of {differing[0]} are not those of {models[0]}; give the same to all with --data FOLDER, or --set data.test=FILE"
        )


def _is_run(model: str) -> bool:
    folder = Path(model)
    return (folder / "model.safetensors").is_file() and not (folder / PROSE).is_file()


def is_recipe(model: str) -> bool:
    """Whether a model is neither a run nor a card."""
    return not _is_run(model) and not (Path(model) / PROSE).is_file() and model not in list_cards()


def recipe_of(model: str, settings: Sequence[str], kind: str = AS_IS) -> Recipe:
    """The recipe of a model; to train a card further, one that starts from it."""
    if _is_run(model):
        return read_recipe(Path(model) / "recipe.yaml", settings, record=True)
    if is_recipe(model):
        if not any(Path(name).is_file() for name in (model, f"{model}.yaml")) and model not in list_recipes():
            names = [*list_recipes(), *list_cards()]
            raise ArgumentError(f"{model} is no recipe, card or run folder{nearest(model, names)}")
        return read_recipe(model, settings)
    recipe = read_card(model).recipe(settings)
    return recipe.with_content(init_from=[str(read_card(model).folder)]) if kind == FINE_TUNED else recipe


def settings_of(items: Sequence[Item], benchmark: Benchmark) -> dict[str, dict[str, Any]]:
    """What each row that can be measured depends on, by the row's name; all records are read, and no weights.

    Raises:
        ArgumentError: a dataset has no traces.
        RecordError: a record is malformed.
    """
    possible = [item for item in items if item.problem is None]
    if not possible:
        return {}
    content = _content_of(open_data(possible[0].model, benchmark), benchmark)
    return {item.name: json.loads(json.dumps(_setting(item, benchmark, content))) for item in possible}


def open_data(model: str, benchmark: Benchmark) -> TraceData:
    """The dataset of a model in a benchmark.

    Raises:
        ArgumentError: it has no traces.
    """
    data = build_data(resolve_recipe(recipe_of(model, benchmark.settings)))
    if not isinstance(data, TraceData):
        raise ArgumentError(f"{model}: {type(data).__name__} has no traces; use a dataset that does, such as ivl_jsonl")
    return data


def _content_of(data: TraceData, benchmark: Benchmark) -> dict[str, Any]:
    """Fingerprints of what is read: ``measured``, ``train``, ``val``, ``examples``, and ``findings``, which all splits may name."""
    records = {split: data.records(split) for split in benchmark.splits}
    content = {split: records_fingerprint(records[split]) for split in ("train", "val") if benchmark.fine_tune}
    content["measured"] = records_fingerprint(records[benchmark.split][: benchmark.limit])
    if benchmark.shots:
        content["examples"] = records_fingerprint(records["train"][: benchmark.shots])
    content["findings"] = hashlib.sha256(repr(data.metadata().get("vocabulary")).encode()).hexdigest()
    return content


def _setting(item: Item, benchmark: Benchmark, records: Mapping[str, str]) -> dict[str, Any]:
    """What a row depends on: settings, and the ``content`` of what they name."""
    recipe = recipe_of(item.model, [*benchmark.settings, f"method.evidence={item.mode}"], item.kind)
    is_card = item.kind == AS_IS and not is_recipe(item.model) and not _is_run(item.model)
    weights = weights_fingerprint(
        recipe, read_card(item.model) if is_card else None, Path(item.model) if _is_run(item.model) else None
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


_CONTENT = {
    "content": "what it was measured on, which was not noted,",
    "content.measured": "the measured records or their images",
    "content.examples": "the examples of the prompt",
    "content.train": "the training records or their images",
    "content.val": "the validation records or their images",
    "content.findings": "the findings that records name",
    "content.weights": "the weights",
}


def row_file(item: Item, benchmark: Benchmark) -> Path:
    """Where a measured row is."""
    return benchmark.out / "rows" / f"{item.name}.json"


def row_state(item: Item, benchmark: Benchmark, setting: Mapping[str, Any]) -> str:
    """``done``, ``to do``, or ``to do again`` with what changed: the content of the same records, or weights of the same name.

    Args:
        item: the row.
        benchmark: its benchmark.
        setting: of the row, from :func:`settings_of`.

    Raises:
        ArgumentError: it was measured with other settings, which are named.
    """
    file = row_file(item, benchmark)
    if not file.is_file():
        return "to do"
    differences = find_differences(json.loads(file.read_text(encoding="utf-8"))["setting"], setting)
    if other := [f"{key} was {then}, now {now}" for key, (then, now) in differences.items() if key not in _CONTENT]:
        raise ArgumentError(
            f"{file} was measured with other settings; choose another folder with --out. {'; '.join(other[:5])}"
        )
    changed = [_CONTENT[key] for key in differences]
    return f"to do again: {' and '.join(changed)} changed" if changed else "done"


def instructs(item: Item, benchmark: Benchmark) -> bool:
    """Whether the prompts of a row have the form of a trace."""
    is_asked = is_recipe(item.model) if benchmark.instruct is None else benchmark.instruct
    return item.kind == AS_IS and is_asked
