"""Report models on one set of records, in every evidence mode, as they are and after fine-tuning: the table of MMRad-22K.

The paper (arXiv 2602.12843) compares fine-tuned models with and without image evidence. Rows of models as they are, with the
form of a trace in their prompt, are ours.
"""

import gc
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
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
from zoo.engine.generated_reports import GeneratedReports
from zoo.engine.report_folder import BenchmarkTable, claimed
from zoo.engine.report_lines import ReportLines
from zoo.engine.report_plan import AS_IS, FINE_TUNED, Benchmark, Item, instructs, is_recipe, open_data, recipe_of
from zoo.engine.report_rows import DONE, PlannedRow, note_learned, plan_rows, run_folder
from zoo.engine.trainers import is_first_process
from zoo.engine.training import InterruptedRunError
from zoo.errors import ArgumentError, ZooError, counted
from zoo.methods.base import Metric, Outputs
from zoo.methods.report_generation import ReportGeneration
from zoo.visualization.tables import Row

_PROMPTS = {None: "auto (recipes get the form of a trace)", True: "instructed", False: "plain"}


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
    ``reports/ROW.jsonl``, trained runs in ``runs/``. Rows that were measured before stay in the table until they are measured again, also
    those that the models and modes of this call leave out, where they are of the same records.

    Args:
        models: recipes, cards or run folders that write reports.
        benchmark: how.
        say: told what begins, and what cannot be measured.

    Returns:
        The rows of the table.

    Raises:
        ArgumentError: see :func:`~zoo.engine.report_plan.plan_benchmark`; or the folder has rows of other settings.
        BenchmarkError: rows could not be measured; all others are written.
        EmptySplitError: there are no records to measure on.
        InterruptedRunError: a signal stopped a training.
        OutputExistsError: the folder has files that are not a benchmark's.
        RunError: another benchmark is running in it.
        WriteError: it cannot be written.
    """
    plan = plan_rows(models, benchmark)
    impossible = [f"{row.item.title}: {row.state}" for row in plan if row.item.problem]
    if len(impossible) == len(plan):
        raise ArgumentError(f"there is nothing to measure. {'; '.join(impossible)}")
    caption = describe_records(models, benchmark)
    with claimed(benchmark.out) if is_first_process() else nullcontext():
        table = BenchmarkTable(plan, benchmark, caption)
        for note in table.notes.values():
            say(note)
        table.write()
        _measure_all(plan, benchmark, table, say)
    failures = [note for name, note in table.notes.items() if name in table.failed]
    if failures:
        message = f"{counted(len(failures), 'row')} of {len(plan) - len(impossible)} could not be measured:"
        raise BenchmarkError("\n".join([message, *failures]), list(table.rows.values()))
    return list(table.rows.values())


def _measure_all(
    plan: Sequence[PlannedRow], benchmark: Benchmark, table: BenchmarkTable, say: Callable[[str], None]
) -> None:
    possible = [row for row in plan if row.is_possible]
    for number, row in enumerate(possible, start=1):
        suffix = {DONE: ": done before", "to do": ""}.get(row.state, f": {row.state.removeprefix('to do ')}")
        say(f"{number}/{len(possible)} {row.item.title}{suffix}")
        if row.state == DONE:
            continue
        try:
            table.add(row, _measure(row, benchmark))
        except InterruptedRunError:
            raise
        except ZooError as error:
            say(table.fail(row, str(error)))
        _free_memory()
        table.write()


def describe_records(models: Sequence[str], benchmark: Benchmark) -> str:
    """What is measured, and how: the split, its records, the data, the prompts and the user's settings.

    Raises:
        EmptySplitError: there are no records.
    """
    data = open_data(models[0], benchmark)
    total = len(data.records(benchmark.split))
    if not total:
        raise EmptySplitError(f"the split '{benchmark.split}' has no samples to measure on")
    count = min(total, benchmark.limit or total)
    first = f"the first {f'{count} ' if count > 1 else ''}of " if count < total else "all " if total > 1 else ""
    name = benchmark.data or recipe_of(models[0], benchmark.settings)["data"]["name"]
    settings = f" Settings: {', '.join(benchmark.overrides)}." if benchmark.overrides else ""
    prompts = f"{_PROMPTS[benchmark.instruct]}{_shots(data, benchmark)}"
    return f"Split {benchmark.split}, {first}{counted(total, 'record')}, of {name}. Prompts of models as they are: {prompts}.{settings}"


def _shots(data: TraceData, benchmark: Benchmark) -> str:
    if not benchmark.shots:
        return ""
    used = min(benchmark.shots, len(data.records("train")))
    asked = f" ({benchmark.shots} were asked for, and there are no more)" if used < benchmark.shots else ""
    return f", with {counted(used, 'training response')} as examples{asked}"


def _measure(row: PlannedRow, benchmark: Benchmark) -> Row:
    runs = list(_outputs(row.item, benchmark, row.setting))
    functions, outputs = runs[0][0], [outputs for _, outputs in runs]
    seeds = list(benchmark.seeds) if row.item.kind == FINE_TUNED else [0]
    return Row(row.item.model, f"{row.item.kind}, {row.item.mode}", seeds, measure_all(functions, outputs))


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
        run = run_folder(item, benchmark, seed)
        if is_first_process():
            note_learned(run, setting)
        run = finished_run(recipe_of(item.model, [*settings, f"seed={seed}"], item.kind), run)
        _free_memory()
        open_model = partial(open_evaluation, run, ())
        yield _collected(open_model, item, benchmark, setting, run / "outputs", first=number == 0)


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
