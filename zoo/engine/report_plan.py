"""The rows of a benchmark of report models, planned before anything is read or loaded."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import cast

from zoo.cards.store import PROSE, list_cards, read_card
from zoo.config.building import ResolvedRecipe, resolve_recipe
from zoo.config.components import signature_of
from zoo.config.locations import has_value
from zoo.config.recipe import COMMAND_LINE, Recipe, RecipeError, list_recipes, parse_overrides, read_recipe
from zoo.config.validation import type_problem
from zoo.data.base import LoaderSpec
from zoo.data.traces.datasets import TraceData
from zoo.decoders.evidence import EvidenceName
from zoo.engine.assembly import build_data
from zoo.engine.preflight import missing_data
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
            ArgumentError: a mode is unknown or named twice, nothing is to be measured, a file of the data is missing, or an override
                is of what the command decides.
        """
        if not self.modes:
            raise ArgumentError(f"no evidence is named; --modes takes some of {', '.join(MODES)}")
        if unknown := [mode for mode in self.modes if mode not in MODES]:
            raise ArgumentError(f"unknown evidence {', '.join(unknown)}; expected of {', '.join(MODES)}")
        if twice := [mode for mode in MODES if list(self.modes).count(mode) > 1]:
            raise ArgumentError(f"the evidence {twice[0]} is named twice")
        if not (self.fine_tune or self.as_is):
            raise ArgumentError("nothing to measure: neither models as they are nor fine-tuned ones")
        if self.out.exists() and not self.out.is_dir():
            raise ArgumentError(f"{self.out} is a file; choose a folder with --out")
        self._check_overrides()
        if self.data is not None and (
            missing := [f for f in map(self._files.get, self.splits) if f and not f.is_file()]
        ):
            raise ArgumentError(
                f"there is no {missing[0]}; the folder of the data has train.jsonl, val.jsonl, test.jsonl"
            )

    def _check_overrides(self) -> None:
        """Refuse overrides of what the command decides itself, which would be ignored, or would replace the data."""
        decided = {"method.evidence": "--modes", "seed": "--seeds"}
        if self.data is not None:
            decided |= {f"data.{name}": "--data" for name in ("name", "train", "val", "test")}
        given = parse_overrides(self.overrides)
        if ignored := [f"{key} is decided by {option}" for key, option in decided.items() if has_value(given, key)]:
            raise ArgumentError(f"{'; '.join(ignored)}; leave it out of --set")

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
    def title(self) -> str:
        """As a message names it."""
        return f"{self.model}, {self.kind}, {self.mode}"

    @property
    def name(self) -> str:
        """As the name of a folder."""
        model = self.model.removesuffix(".yaml").strip("./").replace("/", "-")
        return f"{model}-{self.kind.replace(' ', '_').replace('-', '_')}-{self.mode}"


def plan_benchmark(models: Sequence[str], benchmark: Benchmark) -> list[Item]:
    """The rows of a benchmark, nothing measured or loaded yet.

    Raises:
        ArgumentError: a model writes no reports, two have the same name, their records differ or are not here.
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
    _check_data(models[0], benchmark)
    return items


def _problem(model: str, kind: str, mode: EvidenceName, benchmark: Benchmark) -> str | None:
    recipe = recipe_of(model, benchmark.settings, kind)
    method = _resolved(model, recipe).method.target
    if not issubclass(method, ReportGeneration):
        raise ArgumentError(f"{model} writes no reports: its method is {recipe['method']['name']}")
    if type_problem(signature_of(method)[1]["evidence"], mode) is not None:
        return "it generates no images" if mode == "generated" else f"{recipe['method']['name']} has no such mode"
    if kind == FINE_TUNED and is_run(model):
        return "a run is not trained further; publish it, and give the card"
    return None


def _resolved(model: str, recipe: Recipe) -> ResolvedRecipe:
    """A resolved recipe; a problem with an override names the model that it does not fit."""
    try:
        return resolve_recipe(recipe)
    except RecipeError as error:
        raise RecipeError(
            [
                replace(problem, file=f"{model}: {COMMAND_LINE}") if problem.file == COMMAND_LINE else problem
                for problem in error.problems
            ]
        ) from error


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


def _check_data(model: str, benchmark: Benchmark) -> None:
    """Files of the splits that are read must be here, where a recipe names them."""
    missing = missing_data(resolve_recipe(recipe_of(model, benchmark.settings)))
    if needed := [f"data.{split}" for split in benchmark.splits if f"data.{split}" in missing]:
        raise ArgumentError(
            f"{model}: the files of {' and '.join(needed)} of its recipe are not here; give yours as --data FOLDER, with "
            "train.jsonl, val.jsonl and test.jsonl"
        )


def is_run(model: str) -> bool:
    """Whether a model is the folder of a finished run."""
    folder = Path(model)
    return (folder / "model.safetensors").is_file() and not (folder / PROSE).is_file()


def is_recipe(model: str) -> bool:
    """Whether a model is neither a run nor a card."""
    return not is_run(model) and not (Path(model) / PROSE).is_file() and model not in list_cards()


def recipe_of(model: str, settings: Sequence[str], kind: str = AS_IS) -> Recipe:
    """The recipe of a model; to train a card further, one that starts from it.

    Raises:
        ArgumentError, CardError: there is no such model, or a card that is trained further has other weights to start from.
        RecipeError: it cannot be read, or an override does not fit.
    """
    if is_run(model):
        return read_recipe(Path(model) / "recipe.yaml", settings, record=True)
    if is_recipe(model):
        if not any(Path(name).is_file() for name in (model, f"{model}.yaml")) and model not in list_recipes():
            names = [*list_recipes(), *list_cards()]
            raise ArgumentError(f"{model} is no recipe, card or run folder{nearest(model, names)}")
        return read_recipe(model, settings)
    card = read_card(model)
    recipe = card.recipe(settings)
    if kind == AS_IS:
        return recipe
    if has_value(parse_overrides(settings), "init_from"):
        raise ArgumentError(f"{model} is trained further from its own weights; leave out --set init_from")
    return recipe.with_content(init_from=[str(card.folder)])


def open_data(model: str, benchmark: Benchmark) -> TraceData:
    """The dataset of a model in a benchmark.

    Raises:
        ArgumentError: it has no traces.
    """
    data = build_data(resolve_recipe(recipe_of(model, benchmark.settings)))
    if not isinstance(data, TraceData):
        raise ArgumentError(f"{model}: {type(data).__name__} has no traces; use a dataset that does, such as ivl_jsonl")
    return data


def instructs(item: Item, benchmark: Benchmark) -> bool:
    """Whether the prompts of a row have the form of a trace."""
    is_asked = is_recipe(item.model) if benchmark.instruct is None else benchmark.instruct
    return item.kind == AS_IS and is_asked
