"""Report models on one set of records, in every evidence mode, as they are and after fine-tuning: the table of MMRad-22K.

The paper (arXiv 2602.12843) compares fine-tuned models with and without image evidence. Rows of models as they are, with the
form of a trace in their prompt, are ours.
"""

import gc
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from zoo.config.recipe import read_recipe
from zoo.data.base import EmptySplitError
from zoo.data.traces.datasets import TraceData, Traces
from zoo.decoders.trace_prompts import instructed
from zoo.engine.assembly import assemble
from zoo.engine.comparison import finished_run
from zoo.engine.evaluation import Evaluation, collect_cached, measure_all, open_evaluation
from zoo.engine.fingerprints import find_differences
from zoo.engine.generated_reports import GeneratedReports
from zoo.engine.report_lines import ReportLines, read_report_lines
from zoo.engine.report_plan import (
    AS_IS,
    FINE_TUNED,
    Benchmark,
    Item,
    instructs,
    is_recipe,
    open_data,
    plan_benchmark,
    recipe_of,
    row_file,
    row_state,
    settings_of,
)
from zoo.engine.trainers import is_first_process
from zoo.engine.training import InterruptedRunError
from zoo.errors import ArgumentError, OutputExistsError, ZooError, counted
from zoo.files import replacing
from zoo.methods.base import Metric, Outputs
from zoo.methods.report_generation import ReportGeneration
from zoo.metrics.intervals import Measured
from zoo.visualization.report_table import write_report_table
from zoo.visualization.tables import Row, write_table

_SHOWN = 12
"""Records whose reports stand side by side on the page."""


class BenchmarkError(ZooError, RuntimeError):
    """Rows that could not be measured; ``rows`` are those that were."""

    def __init__(self, message: str, rows: list[Row]) -> None:
        """Keep the rows."""
        super().__init__(message)
        self.rows = rows


def run_benchmark(
    models: Sequence[str], benchmark: Benchmark, say: Callable[[str], None] = lambda text: None
) -> list[Row]:
    """Measure models, train where asked; rows that are done are read again, so that an interrupted benchmark resumes.

    A row whose records or weights changed since is measured again. An error in one row does not stop the others. Writes ``table.md``,
    ``table.json`` and ``table.png`` after every row, and ``index.html`` with reports side by side; the reports of each row are in
    ``reports/ROW.jsonl``, trained runs in ``runs/``.

    Args:
        models: recipes, cards or run folders that write reports.
        benchmark: how.
        say: told what begins, and what cannot be measured.

    Raises:
        ArgumentError: see :func:`plan_benchmark`; or the folder has rows of other settings.
        BenchmarkError: rows could not be measured; all others are written.
        EmptySplitError: there are no records to measure on.
        InterruptedRunError: a signal stopped a training.
        OutputExistsError: the folder has files that are not a benchmark's.
    """
    items = plan_benchmark(models, benchmark)
    settings = settings_of(items, benchmark)
    possible = [item for item in items if item.problem is None]
    states = {item.name: row_state(item, benchmark, settings[item.name]) for item in possible}
    notes = [f"{item.model}, {item.kind}, {item.mode}: not possible: {item.problem}" for item in items if item.problem]
    for note in notes:
        say(note)
    if not possible:
        raise ArgumentError(f"there is nothing to measure. {'; '.join(notes)}")
    caption = describe_records(models, benchmark)
    _claim_folder(benchmark.out)
    named = {item.name for item in items}
    if others := sorted(f.stem for f in (benchmark.out / "rows").glob("*.json") if f.stem not in named):
        notes.append(f"left out, since this command does not name them: {', '.join(others)}")
        say(notes[-1])
    rows: dict[str, Row] = {}
    failures: list[str] = []
    for number, item in enumerate(possible, start=1):
        title, state = f"{item.model}, {item.kind}, {item.mode}", states[item.name]
        suffix = {"done": ": done before", "to do": ""}.get(state, f": {state.removeprefix('to do ')}")
        say(f"{number}/{len(possible)} {title}{suffix}")
        try:
            row = _read_row(item, benchmark) if state == "done" else _measure(item, benchmark, settings[item.name])
            rows[item.name] = row
        except InterruptedRunError:
            raise
        except ZooError as error:
            failures.append(f"{title}: not possible: {error}")
            say(failures[-1])
        _free_memory()
        if is_first_process():
            _write(rows, caption, [*notes, *failures], benchmark.out)
    if failures:
        message = f"{counted(len(failures), 'row')} of {len(possible)} could not be measured:"
        raise BenchmarkError("\n".join([message, *failures]), list(rows.values()))
    return list(rows.values())


def describe_records(models: Sequence[str], benchmark: Benchmark) -> str:
    """What is measured on: the split, its records, and the data.

    Raises:
        EmptySplitError: there are none.
    """
    total = len(open_data(models[0], benchmark).records(benchmark.split))
    if not total:
        raise EmptySplitError(f"the split '{benchmark.split}' has no samples to measure on")
    count = min(total, benchmark.limit or total)
    data = benchmark.data or recipe_of(models[0], benchmark.settings)["data"]["name"]
    records = f"first {count} of {counted(total, 'record')}" if count < total else f"all {counted(total, 'record')}"
    return f"Split {benchmark.split}, {records}, of {data}."


def _claim_folder(out: Path) -> None:
    """Make the folder, unless it holds other files, which must not be overwritten."""
    if out.is_dir() and any(out.iterdir()) and not (out / "rows").is_dir():
        raise OutputExistsError(f"{out} has files that are not a benchmark's; choose a new or empty folder with --out")
    (out / "rows").mkdir(parents=True, exist_ok=True)


def _write(rows: Mapping[str, Row], caption: str, notes: Sequence[str], out: Path) -> None:
    """The table and the page of the rows so far."""
    write_table(list(rows.values()), out, caption, notes)
    reports = {
        f"{row.recipe}, {row.setting}": read_report_lines(out / "reports" / f"{name}.jsonl", _SHOWN)
        for name, row in rows.items()
    }
    write_report_table(list(rows.values()), notes, reports, out / "index.html", caption)


def _read_row(item: Item, benchmark: Benchmark) -> Row:
    content = json.loads(row_file(item, benchmark).read_text(encoding="utf-8"))["row"]
    return Row(**{**content, "metrics": {name: Measured(**value) for name, value in content["metrics"].items()}})


def _measure(item: Item, benchmark: Benchmark, setting: Mapping[str, Any]) -> Row:
    runs = list(_outputs(item, benchmark, setting))
    functions, outputs = runs[0][0], [outputs for _, outputs in runs]
    seeds = list(benchmark.seeds) if item.kind == FINE_TUNED else [0]
    row = Row(item.model, f"{item.kind}, {item.mode}", seeds, measure_all(functions, outputs))
    if is_first_process():
        with replacing(row_file(item, benchmark)) as written:
            content = {"setting": setting, "row": asdict(row)}
            written.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return row


def _outputs(
    item: Item, benchmark: Benchmark, setting: Mapping[str, Any]
) -> Iterator[tuple[dict[str, Metric], Outputs]]:
    """Metrics and outputs of a model as it is, or of each of its trained runs."""
    settings = [*benchmark.settings, f"method.evidence={item.mode}"]
    if item.kind == AS_IS:
        open_model = partial(_open_recipe if is_recipe(item.model) else open_evaluation, item.model, settings)
        prefix = benchmark.out / "outputs" / item.name
        yield _collected(open_model, item, benchmark, setting, prefix, first=True)
        return
    for number, seed in enumerate(benchmark.seeds):
        recipe = recipe_of(item.model, [*settings, f"seed={seed}"], item.kind)
        run = benchmark.out / "runs" / f"{item.name}-seed{seed}"
        _check_trained_on(run, benchmark.out / "outputs" / f"{run.name}.json", setting["content"])
        run = finished_run(recipe, run)
        _free_memory()
        open_model = partial(open_evaluation, run, ())
        yield _collected(open_model, item, benchmark, setting, run / "outputs", first=number == 0)


def _check_trained_on(run: Path, file: Path, content: Mapping[str, Any]) -> None:
    """Note what a run is trained on before it begins; refuse one of the same recipe that learned from other records or weights."""
    learned = {name: content[name] for name in ("train", "val", "weights")}
    if run.is_dir() and file.is_file():
        if differing := find_differences(json.loads(file.read_text(encoding="utf-8")), learned):
            raise ArgumentError(
                f"{run} was trained before {' and '.join(differing)} changed; remove this folder to train again, or choose "
                "another with --out"
            )
    elif is_first_process():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(learned) + "\n", encoding="utf-8")


def _open_recipe(model: str, settings: Sequence[str], device: str) -> Evaluation:
    """A recipe's model before any training."""
    assembly = assemble(read_recipe(model, settings))
    return Evaluation(assembly.method.eval(), assembly.recipe, assembly.data, device)


def _collected(
    open_model: Callable[[str], Evaluation],
    item: Item,
    benchmark: Benchmark,
    setting: Mapping[str, Any],
    prefix: Path,
    *,
    first: bool,
) -> tuple[dict[str, Metric], Outputs]:
    """Metrics and outputs on the records; of the first run the reports are kept too.

    What was generated is kept until it is scored, so that a repeated command, or one with other metrics, does not generate it again.
    """
    evaluation = open_model(benchmark.device)
    method = cast(ReportGeneration, evaluation.method)
    _prepare_records(evaluation, item, benchmark)
    file = prefix.with_name(f"{prefix.name}-{_key(setting)}.safetensors")
    generated = GeneratedReports(prefix.with_name(f"{prefix.name}-generated-{_key(_without_metrics(setting))}"))
    generated.begin(method)
    lines = ReportLines(benchmark.out / "reports" / f"{item.name}.jsonl")
    if first:
        lines.begin(method)
    file.parent.mkdir(parents=True, exist_ok=True)
    outputs = collect_cached(evaluation, file, benchmark.split)
    if is_first_process():
        generated.end()
        if first:
            lines.end()
    metrics = method.metrics() | {"reports_written": partial(_written, method.pad_token_id)}
    del evaluation, method
    _free_memory()
    return metrics, outputs


def _key(setting: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:12]


def _without_metrics(setting: Mapping[str, Any]) -> dict[str, Any]:
    """What reports depend on before they are scored."""
    recipe = setting["recipe"]
    method = {name: value for name, value in recipe["method"].items() if name != "report_metrics"}
    return {**setting, "recipe": {**recipe, "method": method}}


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
    if instructs(item, benchmark):
        examples = data.records("train")[: benchmark.shots] if benchmark.shots else []
        frame = cast(ReportGeneration, evaluation.method).box_frame
        traces.records = [
            replace(record, prompt=instructed(record, item.mode, frame, examples)) for record in traces.records
        ]
