"""Tables and plots over methods, shots, seeds and tasks: trains missing runs, evaluates, and writes Markdown, JSON and PNG."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import fmean, harmonic_mean
from typing import Any

import numpy as np

from zoo.config.building import resolve_recipe
from zoo.config.recipe import Recipe, as_overrides, read_recipe
from zoo.data.classification.base import ClassificationData
from zoo.engine.baselines import MAJORITY, PIXELS, baseline_outputs, has_baselines
from zoo.engine.class_names import is_class_bound
from zoo.engine.evaluation import Evaluation, cached_outputs, collect_cached, measure_all, open_evaluation
from zoo.engine.jobs import run_jobs
from zoo.engine.trainers import check_device, is_first_process
from zoo.engine.training import RunError, train
from zoo.errors import ArgumentError
from zoo.methods.base import Metric, Outputs
from zoo.metrics.intervals import Measured, average, measure_difference, measure_jointly
from zoo.visualization.tables import Row, write_table

PROTOCOLS = ("few_shot", "base_to_novel", "full")
Values = Mapping[str, Sequence[str]]
"""Recipe key to the values that it takes in turn."""
Measurable = tuple[dict[str, Metric], list[Outputs]]
"""A method's metrics, and the outputs of one run per seed."""


@dataclass(frozen=True)
class Comparison:
    """What all runs of a comparison share."""

    out: Path
    protocol: str
    overrides: list[str]
    tasks: list[str]
    device: str
    against: str | None = None


@dataclass(frozen=True)
class Run:
    """One run of a comparison."""

    recipe: str
    count: int | None
    seed: int
    task: str
    settings: Sequence[str]
    on_validation: bool = False
    """Whether it is measured on all validation images, to choose from a grid; else on the test images."""


def compare(
    recipes: Sequence[str],
    out: Path,
    *,
    shots: Sequence[int] = (16,),
    seeds: Sequence[int] = (0, 1, 2),
    protocol: str = "few_shot",
    overrides: Sequence[str] = (),
    over: Values | None = None,
    grid: Values | None = None,
    baselines: bool = True,
    against: str | None = None,
    device: str = "auto",
    jobs: int = 1,
) -> list[Row]:
    """Train and evaluate recipes; finished runs in ``out`` are reused, so that an interrupted comparison resumes.

    Args:
        recipes: names or files.
        out: folder for runs, ``table.md``, ``table.json`` and ``table.png``, and ``grid.json`` with a grid.
        shots: K of the few-shot and base-to-novel protocols.
        seeds: of sampled shots, initial weights and order of the samples.
        protocol: "few_shot", "base_to_novel" (train on base classes, measure both halves) or "full" (all images).
        overrides: ``key=value`` for every recipe.
        over: one key and its values, which are trained and measured apart and averaged, as ``{"data.task": ["side", "lobe"]}``.
        grid: keys and the values from which each recipe takes those that are best on all validation images, with the first
            seed and the largest K, in the mean over ``over``.
        baselines: add rows of the majority class and of a linear probe on raw pixels, for classifiers; both learn from the
            training images of the first recipe, the same K shots with few.
        against: one of the recipes. The others' rows have the paired difference of their first metric from its.
        device: to evaluate on; training follows the recipe's ``trainer``.
        jobs: runs that are trained and evaluated at once, in processes of their own, which share the cores and the device.

    Raises:
        ArgumentError: the protocol is unknown, a recipe cannot predict novel classes, or there are no differences from ``against``.
        DeviceError: this machine has no such device.
        InterruptedRunError: a signal stopped a training.
        JobError: one of several jobs failed.
        RecipeError: a recipe does not fit.
    """
    if protocol not in PROTOCOLS:
        raise ArgumentError(f"unknown protocol '{protocol}'; expected one of {', '.join(PROTOCOLS)}")
    check_device(device)
    if len(over or {}) > 1:
        raise ArgumentError(f"a comparison averages over one key; got {', '.join(over or {})}")
    if against is not None and against not in recipes:
        raise ArgumentError(f"differences are from one of the recipes, not from {against}")
    if against is not None and protocol == "base_to_novel":
        raise ArgumentError("differences are of one metric; from base to novel there are two halves")
    if protocol == "base_to_novel" and (
        bound := [recipe for recipe in recipes if is_class_bound(resolve_recipe(read_recipe(recipe, overrides)))]
    ):
        raise ArgumentError(
            f"{', '.join(bound)} learn weights for the classes of training, so they cannot predict novel ones; leave them out"
        )
    counts: list[int | None] = [None] if protocol == "full" else list(shots)
    tasks = [f"{key}={value}" for key, values in (over or {}).items() for value in values]
    shared = Comparison(out, protocol, list(overrides), tasks or [""], device, against)
    if grid:
        _run_at_once(shared, jobs, _grid_runs(shared, recipes, counts, seeds[0], grid))
    chosen = {recipe: _choose(shared, recipe, counts, seeds[0], grid) if grid else [] for recipe in recipes}
    runs = product(counts, recipes, shared.tasks, seeds)
    _run_at_once(shared, jobs, [Run(recipe, k, seed, task, chosen[recipe]) for k, recipe, task, seed in runs])
    rows = []
    for count in counts:
        setting = "all images" if count is None else f"{count}-shot"
        reference = _task_outputs(shared, against, count, seeds, chosen[against]) if against else {}
        for recipe in recipes:
            own = reference if recipe == against else _task_outputs(shared, recipe, count, seeds, chosen[recipe])
            metrics = _metrics(shared, own)
            if against not in (None, recipe):
                metrics |= _difference(own, reference)
            followed = str(read_recipe(recipe, overrides)["protocol"] or "")
            rows.append(Row(recipe, setting, list(seeds), metrics, protocol=followed))
            if is_first_process():
                write_table(rows, out)
        for name, metrics in _baselines(shared, recipes[0], count, seeds, chosen[recipes[0]]) if baselines else ():
            rows.append(Row(name, setting, list(seeds), metrics, baseline=True))
    if is_first_process():
        write_table(rows, out)
    return rows


def _task_outputs(
    shared: Comparison, recipe: str, count: int | None, seeds: Sequence[int], chosen: Sequence[str]
) -> dict[str, list[Measurable]]:
    """Each task's metrics and outputs on the test images; from base to novel, those of the two halves of the classes."""
    outputs = {}
    for task in shared.tasks:
        runs = [_finished_run(shared, Run(recipe, count, seed, task, chosen)) for seed in seeds]
        outputs[task] = [
            _outputs(runs, [] if half == "test" else [f"data.classes={half}"], half, shared.device)
            for half in _halves(shared)
        ]
    return outputs


def _halves(shared: Comparison) -> list[str]:
    return ["base", "novel"] if shared.protocol == "base_to_novel" else ["test"]


def _run_at_once(shared: Comparison, jobs: int, runs: Sequence[Run]) -> None:
    """Train and evaluate, in several processes, the runs that have no outputs yet; whoever reads them checks that they are theirs.

    With one job at a time, a run is trained where its outputs are read.
    """
    if jobs == 1:
        return

    def is_done(run: Run) -> bool:
        folder = _run_folder(shared, run)
        names = ["val"] if run.on_validation else _halves(shared)
        return all((folder / f"outputs-{name}.safetensors").is_file() for name in names)

    content = {**asdict(shared), "out": str(shared.out)}
    missing = [{"comparison": content, "run": asdict(run)} for run in runs if not is_done(run)]
    run_jobs("zoo.engine.comparison:finish_job", missing, jobs, shared.out / "logs", "training and evaluating")


def finish_job(comparison: dict[str, Any], run: dict[str, Any]) -> None:
    """Train and evaluate one run, without progress bars: a job of a comparison."""
    one = Run(**run)
    quiet = [*comparison["overrides"], "trainer.enable_progress_bar=false"]
    shared = Comparison(**{**comparison, "out": Path(comparison["out"]), "overrides": quiet, "tasks": [one.task]})
    if one.on_validation:
        _validation_outputs(shared, one)
    else:
        _task_outputs(shared, one.recipe, one.count, [one.seed], one.settings)


def _metrics(shared: Comparison, outputs: Mapping[str, list[Measurable]]) -> dict[str, Measured]:
    """Metrics of a row: means over the tasks, and the first metric of each task."""
    from_base = shared.protocol == "base_to_novel"
    by_task = {
        task: _base_to_novel([halves]) if from_base else measure_all(*halves[0]) for task, halves in outputs.items()
    }
    if shared.tasks == [""]:
        return by_task[""]
    names = list(next(iter(by_task.values())))
    means = (
        _base_to_novel(list(outputs.values()))
        if from_base
        else {name: average([metrics[name] for metrics in by_task.values()]) for name in names}
    )
    main = "harmonic_mean" if from_base else names[0]
    return means | {task.split("=", 1)[1]: metrics[main] for task, metrics in by_task.items()}


def _difference(
    outputs: Mapping[str, list[Measurable]], reference: Mapping[str, list[Measurable]]
) -> dict[str, Measured]:
    """The difference of the first metric from that of the runs compared with, averaged over the tasks."""
    differences = []
    for task, [(metrics, own)] in outputs.items():
        [(_, other)] = reference[task]
        name, metric = next(iter(metrics.items()))
        differences.append(measure_difference(metric, own, other))
    return {f"{name}_difference": average(differences)}


def _baselines(
    shared: Comparison, recipe: str, count: int | None, seeds: Sequence[int], chosen: list[str]
) -> Iterator[tuple[str, dict[str, Measured]]]:
    """Each baseline's metrics on the data of a recipe's runs; on the base classes alone where others are novel to it."""
    half = "base" if shared.protocol == "base_to_novel" else "test"
    overrides = [f"data.classes={half}"] if half == "base" else []
    functions: dict[str, Metric] = {}
    by_task: dict[str, list[dict[str, Outputs]]] = {}
    for task in shared.tasks:
        runs = [_finished_run(shared, Run(recipe, count, seed, task, chosen)) for seed in seeds]
        evaluations = [open_evaluation(run, overrides, shared.device) for run in runs]
        by_task[task] = [_baseline_outputs(*pair, half) for pair in zip(evaluations, runs, strict=True)]
        functions = evaluations[0].method.metrics()
    if half == "base":
        functions = {"base": functions["accuracy"]}
    for name in (MAJORITY, PIXELS):
        if not all(name in outputs for runs_outputs in by_task.values() for outputs in runs_outputs):
            continue
        measured = {task: measure_all(functions, [run[name] for run in runs]) for task, runs in by_task.items()}
        means = {metric: average([values[metric] for values in measured.values()]) for metric in functions}
        of_tasks = {} if shared.tasks == [""] or half == "base" else measured
        main = next(iter(functions))
        yield name, means | {task.split("=", 1)[1]: values[main] for task, values in of_tasks.items()}


def _baseline_outputs(evaluation: Evaluation, run: Path, half: str) -> dict[str, Outputs]:
    """What each baseline makes of every test sample, cached in the run; empty for other tasks than classification."""
    outputs = collect_cached(evaluation, run / f"outputs-{half}.safetensors")
    if not has_baselines(evaluation.data, outputs):
        return {}

    def compute() -> Outputs:
        assert isinstance(evaluation.data, ClassificationData)
        computed = baseline_outputs(evaluation.data, outputs["labels"], "test")
        return {name: content["probabilities"] for name, content in computed.items()}

    probabilities = cached_outputs(run / f"baselines-{half}.safetensors", compute, "baselines")
    return {name: {"probabilities": value, "labels": outputs["labels"]} for name, value in probabilities.items()}


def _choose(shared: Comparison, recipe: str, counts: Sequence[int | None], seed: int, grid: Values) -> list[str]:
    """The overrides of the grid that are best on all validation images; every value tried is written to grid.json."""
    scores: dict[str, list[float]] = {}
    for run in _grid_runs(shared, [recipe], counts, seed, grid):
        measured = measure_all(*_validation_outputs(shared, run))
        scores.setdefault(" ".join(run.settings), []).append(next(iter(measured.values())).value)
    tried = {settings: fmean(values) for settings, values in scores.items()}
    best = max(tried, key=lambda name: tried[name])
    if is_first_process():
        file = shared.out / "grid.json"
        content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        content[recipe] = {"chosen": best, "validation": tried}
        file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return best.split(" ")


def _grid_runs(
    shared: Comparison, recipes: Sequence[str], counts: Sequence[int | None], seed: int, grid: Values
) -> list[Run]:
    """The runs from which the values of a grid are chosen: those of the largest K."""
    count = None if None in counts else max(number for number in counts if number is not None)
    settings = [
        [f"{key}={value}" for key, value in zip(grid, values, strict=True)] for values in product(*grid.values())
    ]
    return [
        Run(recipe, count, seed, task, one, True) for recipe in recipes for one in settings for task in shared.tasks
    ]


def _validation_outputs(shared: Comparison, run: Run) -> Measurable:
    """The metrics of a run, and its outputs on all validation images."""
    all_images = ["data.shots=null"] if run.count is not None else []
    return _outputs([_finished_run(shared, run)], all_images, "val", shared.device, split="val")


def _run_folder(shared: Comparison, run: Run) -> Path:
    name = f"{Path(run.recipe).with_suffix('').as_posix().replace('/', '-')}-{run.count or 'all'}-seed{run.seed}"
    parts = [f"{shared.protocol}-{name}", *(_file_name(setting) for setting in (run.task, *run.settings) if setting)]
    return shared.out / "runs" / "-".join(parts)


def _finished_run(shared: Comparison, run: Run) -> Path:
    setting = [f"seed={run.seed}", *as_overrides([*shared.overrides, *filter(None, [run.task]), *run.settings])]
    if run.count is not None or "shots" in (read_recipe(run.recipe)["data"] or {}):
        setting.append(f"data.shots={'null' if run.count is None else run.count}")
    if shared.protocol == "base_to_novel":
        setting.append("data.classes=base")
    return finished_run(read_recipe(run.recipe, setting), _run_folder(shared, run))


def finished_run(recipe: Recipe, run: Path) -> Path:
    """A run of a recipe in this folder: as it is if it is finished, else trained, or resumed from its last checkpoint.

    Raises:
        RunError: the folder holds a run of another recipe or setting.
    """
    if (run / "recipe.yaml").is_file() and not _contains(
        read_recipe(run / "recipe.yaml", record=True).content, recipe.content
    ):
        raise RunError(f"{run} is a run of another recipe or setting; choose another folder with --out")
    if not (run / "model.safetensors").is_file():
        train(recipe, run, resume=(run / "checkpoints" / "last.ckpt").exists())
    return run


def _file_name(setting: str) -> str:
    """A setting as part of a folder's name: the last part of its key, and its value."""
    key, value = setting.split("=", 1)
    return f"{key.rsplit('.', 1)[-1]}_{value}".replace("/", "_")


def _contains(content: Any, expected: Any) -> bool:
    """Whether a run's resolved recipe has all settings of a recipe."""
    if isinstance(expected, dict):
        return isinstance(content, dict) and all(_contains(content.get(key), value) for key, value in expected.items())
    return bool(content == expected)


def _outputs(runs: list[Path], overrides: list[str], name: str, device: str, split: str = "test") -> Measurable:
    """The method's metrics, and what each run makes of every sample."""
    evaluations = [open_evaluation(run, overrides, device) for run in runs]
    outputs = [
        collect_cached(evaluation, run / f"outputs-{name}.safetensors", split)
        for run, evaluation in zip(runs, evaluations, strict=True)
    ]
    return evaluations[0].method.metrics(), outputs


def _base_to_novel(tasks: list[list[Measurable]]) -> dict[str, Measured]:
    """Accuracy on the base and the novel classes, averaged over tasks, and their harmonic mean.

    Of several tasks there are two: ``harmonic_mean``, of the averages, and ``mean_of_harmonic_means``, the average of the tasks'
    own. Published tables have the one or the other.
    """
    metric = tasks[0][0][0]["accuracy"]
    outputs = [[runs for _, runs in halves] for halves in tasks]

    def average_of(half: int) -> Measured:
        return measure_jointly(metric, [[halves[half]] for halves in outputs], lambda values: float(values.mean()))

    def of_averages(values: np.ndarray) -> float:
        return float(harmonic_mean(values.mean(axis=0).tolist()))

    def averaged(values: np.ndarray) -> float:
        return fmean(map(harmonic_mean, values.tolist()))

    metrics = {"base": average_of(0), "novel": average_of(1)}
    metrics["harmonic_mean"] = measure_jointly(metric, outputs, of_averages)
    if len(tasks) > 1:
        metrics["mean_of_harmonic_means"] = measure_jointly(metric, outputs, averaged)
    return metrics
