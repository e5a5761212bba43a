"""Report models on one set of records, in every evidence mode, as they are and after fine-tuning: the table of MMRad-22K.

The paper (arXiv 2602.12843) compares fine-tuned models with and without image evidence. Rows of models as they are, with the
form of a trace in their prompt, are ours.
"""

import gc
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from zoo.cards.store import PROSE, list_cards, read_card
from zoo.config.building import resolve_recipe
from zoo.config.components import signature_of
from zoo.config.recipe import Recipe, list_recipes, read_recipe
from zoo.config.validation import type_problem
from zoo.data.base import LoaderSpec
from zoo.data.traces.datasets import TraceData, Traces
from zoo.data.traces.records import IvlRecord
from zoo.decoders.evidence import EvidenceName
from zoo.decoders.trace_prompts import instructed
from zoo.engine.assembly import assemble, build_data
from zoo.engine.comparison import finished_run
from zoo.engine.evaluation import Evaluation, collect_cached, measure_all, open_evaluation
from zoo.engine.report_lines import ReportLines, read_report_lines
from zoo.engine.trainers import is_first_process
from zoo.errors import ArgumentError
from zoo.files import replacing
from zoo.methods.base import Metric, Outputs
from zoo.methods.report_generation import ReportGeneration
from zoo.metrics.intervals import Measured
from zoo.registry import nearest
from zoo.visualization.report_table import write_report_table
from zoo.visualization.tables import Row, write_table

MODES: tuple[EvidenceName, ...] = ("none", "text", "box", "crop", "generated")
AS_IS, FINE_TUNED = "as it is", "fine-tuned"
_SHOWN = 12
"""Records whose reports stand side by side on the page."""
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
        data: folder with train.jsonl, val.jsonl and test.jsonl in place of the recipes' data.
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
            ArgumentError: a mode is unknown, nothing is to be measured, or a file of the data is missing.
        """
        if unknown := [mode for mode in self.modes if mode not in MODES]:
            raise ArgumentError(f"unknown evidence {', '.join(unknown)}; expected of {', '.join(MODES)}")
        if not (self.fine_tune or self.as_is):
            raise ArgumentError("nothing to measure: neither models as they are nor fine-tuned ones")
        if self.data is not None and (missing := [f for f in self._files.values() if not f.is_file()]):
            raise ArgumentError(
                f"there is no {missing[0]}; the folder of the data has train.jsonl, val.jsonl, test.jsonl"
            )

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
        RecipeError, CardError: a recipe does not fit, or there is no such card.
    """
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


def run_benchmark(
    models: Sequence[str], benchmark: Benchmark, say: Callable[[str], None] = lambda text: None
) -> list[Row]:
    """Measure models, train where asked; rows that are done are read again, so that an interrupted benchmark resumes.

    Writes ``table.md``, ``table.json`` and ``table.png`` after every row, and ``index.html`` with reports side by side; the reports of
    each row are in ``reports/ROW.jsonl``, trained runs in ``runs/``.

    Args:
        models: recipes, cards or run folders that write reports.
        benchmark: how.
        say: told what begins.

    Raises:
        ArgumentError: see :func:`plan_benchmark`; or the folder has rows of other settings.
        EmptySplitError: there are no records to measure on.
    """
    items = plan_benchmark(models, benchmark)
    possible = [item for item in items if item.problem is None]
    rows: list[Row] = []
    problems = [f"{item.model}, {item.kind}, {item.mode}: {item.problem}" for item in items if item.problem]
    for number, item in enumerate(possible, start=1):
        done = is_done(item, benchmark)
        say(f"{number}/{len(possible)} {item.model}, {item.kind}, {item.mode}{': done before' if done else ''}")
        rows.append(_read_row(item, benchmark) if done else _measure(item, benchmark))
        if is_first_process():
            write_table(rows, benchmark.out)
            names = [one.name for one in possible[:number]]
            reports = {
                f"{row.recipe}, {row.setting}": read_report_lines(benchmark.out / "reports" / f"{name}.jsonl", _SHOWN)
                for row, name in zip(rows, names, strict=True)
            }
            write_report_table(rows, problems, reports, benchmark.out / "index.html")
    return rows


def _problem(model: str, kind: str, mode: EvidenceName, benchmark: Benchmark) -> str | None:
    recipe = _recipe(model, benchmark.settings, kind)
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
        model: {k: v for k, v in _recipe(model, benchmark.settings)["data"].items() if k not in _LOADING}
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


def _is_recipe(model: str) -> bool:
    return not _is_run(model) and not (Path(model) / PROSE).is_file() and model not in list_cards()


def _recipe(model: str, settings: Sequence[str], kind: str = AS_IS) -> Recipe:
    """The recipe of a model; to train a card further, one that starts from it."""
    if _is_run(model):
        return read_recipe(Path(model) / "recipe.yaml", settings, record=True)
    if _is_recipe(model):
        if not any(Path(name).is_file() for name in (model, f"{model}.yaml")) and model not in list_recipes():
            names = [*list_recipes(), *list_cards()]
            raise ArgumentError(f"{model} is no recipe, card or run folder{nearest(model, names)}")
        return read_recipe(model, settings)
    recipe = read_card(model).recipe(settings)
    return recipe.with_content(init_from=[str(read_card(model).folder)]) if kind == FINE_TUNED else recipe


def _setting(item: Item, benchmark: Benchmark) -> dict[str, Any]:
    """What a row depends on."""
    setting: dict[str, Any] = {
        "recipe": _recipe(item.model, [*benchmark.settings, f"method.evidence={item.mode}"], item.kind).content,
        "split": benchmark.split,
        "limit": benchmark.limit,
    }
    if item.kind == FINE_TUNED:
        return setting | {"seeds": list(benchmark.seeds)}
    return setting | {"instruct": _instructs(item, benchmark), "shots": benchmark.shots}


def _instructs(item: Item, benchmark: Benchmark) -> bool:
    is_asked = _is_recipe(item.model) if benchmark.instruct is None else benchmark.instruct
    return item.kind == AS_IS and is_asked


def is_done(item: Item, benchmark: Benchmark) -> bool:
    """Whether a row was measured before, with the same settings.

    Raises:
        ArgumentError: with others.
    """
    file = _row_file(item, benchmark)
    if not file.is_file():
        return False
    if json.loads(file.read_text(encoding="utf-8"))["setting"] != json.loads(json.dumps(_setting(item, benchmark))):
        raise ArgumentError(f"{file} was measured with other settings; choose another folder with --out")
    return True


def _row_file(item: Item, benchmark: Benchmark) -> Path:
    return benchmark.out / "rows" / f"{item.name}.json"


def _read_row(item: Item, benchmark: Benchmark) -> Row:
    content = json.loads(_row_file(item, benchmark).read_text(encoding="utf-8"))["row"]
    return Row(**{**content, "metrics": {name: Measured(**value) for name, value in content["metrics"].items()}})


def _measure(item: Item, benchmark: Benchmark) -> Row:
    runs = list(_outputs(item, benchmark))
    functions, outputs = runs[0][0], [outputs for _, outputs in runs]
    seeds = list(benchmark.seeds) if item.kind == FINE_TUNED else [0]
    row = Row(item.model, f"{item.kind}, {item.mode}", seeds, measure_all(functions, outputs))
    if is_first_process():
        file = _row_file(item, benchmark)
        file.parent.mkdir(parents=True, exist_ok=True)
        content = {"setting": _setting(item, benchmark), "row": asdict(row)}
        with replacing(file) as written:
            written.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return row


def _outputs(item: Item, benchmark: Benchmark) -> Iterator[tuple[dict[str, Metric], Outputs]]:
    """Metrics and outputs of a model as it is, or of each of its trained runs."""
    settings = [*benchmark.settings, f"method.evidence={item.mode}"]
    if item.kind == AS_IS:
        open_model = partial(_open_recipe if _is_recipe(item.model) else open_evaluation, item.model, settings)
        yield _collected(open_model, item, benchmark, benchmark.out / "outputs" / item.name, first=True)
        return
    for number, seed in enumerate(benchmark.seeds):
        recipe = _recipe(item.model, [*settings, f"seed={seed}"], item.kind)
        run = finished_run(recipe, benchmark.out / "runs" / f"{item.name}-seed{seed}")
        _free_memory()
        yield _collected(partial(open_evaluation, run, ()), item, benchmark, run / "outputs", first=number == 0)


def _open_recipe(model: str, settings: Sequence[str], device: str) -> Evaluation:
    """A recipe's model before any training."""
    assembly = assemble(read_recipe(model, settings))
    return Evaluation(assembly.method.eval(), assembly.recipe, assembly.data, device)


def _collected(
    open_model: Callable[[str], Evaluation], item: Item, benchmark: Benchmark, prefix: Path, *, first: bool
) -> tuple[dict[str, Metric], Outputs]:
    """Metrics and outputs on the records; of the first run the reports are kept too."""
    evaluation = open_model(benchmark.device)
    method = cast(ReportGeneration, evaluation.method)
    _prepare_records(evaluation, item, benchmark)
    setting = json.dumps(_setting(item, benchmark), sort_keys=True)
    file = prefix.with_name(f"{prefix.name}-{hashlib.sha256(setting.encode()).hexdigest()[:12]}.safetensors")
    lines = ReportLines(benchmark.out / "reports" / f"{item.name}.jsonl")
    if first:
        lines.begin(method)
    file.parent.mkdir(parents=True, exist_ok=True)
    outputs = collect_cached(evaluation, file, benchmark.split)
    if first and is_first_process():
        lines.end()
    metrics = method.metrics() | {"reports_written": partial(_written, method.pad_token_id)}
    del evaluation, method
    _free_memory()
    return metrics, outputs


def _free_memory() -> None:
    """Free a model that is not needed any more before the next is loaded; a trainer and its method hold each other."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _written(pad_token_id: int, outputs: Outputs) -> float:
    """The share of reports that are not empty: a response without the sentence before its report has none."""
    return float((outputs["report_ids"] != pad_token_id).any(dim=1).float().mean())


def _prepare_records(evaluation: Evaluation, item: Item, benchmark: Benchmark) -> None:
    """Leave out records beyond the limit, and give models as they are the prompts of the mode."""
    data = evaluation.data
    traces = data.split(benchmark.split)
    if not isinstance(data, TraceData) or not isinstance(traces, Traces):
        raise ArgumentError(
            f"{item.model}: {type(data).__name__} has no traces; use a dataset that does, such as ivl_jsonl"
        )
    traces.records = traces.records[: benchmark.limit]
    if _instructs(item, benchmark):
        examples = data.records("train")[: benchmark.shots] if benchmark.shots else []
        frame = cast(ReportGeneration, evaluation.method).box_frame
        traces.records = [
            replace(record, prompt=instructed(record, item.mode, frame, examples)) for record in traces.records
        ]


def count_records(models: Sequence[str], benchmark: Benchmark) -> int:
    """Records that are measured."""
    records: list[IvlRecord] = cast(
        TraceData, build_data(resolve_recipe(_recipe(models[0], benchmark.settings)))
    ).records(benchmark.split)
    return len(records[: benchmark.limit])
