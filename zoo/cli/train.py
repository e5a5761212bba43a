"""Commands that train and evaluate: train, eval, compare."""

from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from zoo.cli.console import (
    Device,
    Json,
    Settings,
    console,
    parse_integers,
    parse_values,
    print_json,
    print_table,
    report_errors,
    resumable,
    split_settings,
)
from zoo.config.recipe import read_recipe

if TYPE_CHECKING:
    from zoo.engine.baselines import ClassificationDetails
    from zoo.metrics.intervals import Measured

commands = typer.Typer()
_MOST_COLUMNS = 12
"""Classes up to which a confusion matrix is printed; JSON has it in any case."""


@commands.command()
def train(
    recipe: Annotated[str, typer.Argument(help="a recipe, by name or file")],
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/METHOD/NAME or runs/NAME by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted run.")] = False,
) -> None:
    """Train a recipe. Example: `zoo train nearl_clip/chest_drr_16shot trainer.max_epochs=5 --out runs/try`."""
    from zoo.config.building import resolve_recipe
    from zoo.engine.preflight import preflight
    from zoo.engine.training import train as run_training

    with report_errors():
        content = read_recipe(recipe, settings or [])
        preflight(resolve_recipe(content), to_run=True)
        folder = run_training(content, out, resume=resume)
        console.print(f"run: {folder}\nnext: zoo eval {folder}")


@commands.command("eval")
def evaluate(
    source: Annotated[str, typer.Argument(help="a run folder or a card")],
    settings: Settings = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Split to evaluate.")] = "test",
    no_details: Annotated[
        bool,
        typer.Option(
            "--no-details",
            help="No baselines, classes, confusion matrix, targets, outlines, and what speaks against the numbers.",
        ),
    ] = False,
    tolerance: Annotated[float, typer.Option(min=0, help="Of the NSD of masks, in pixels and in millimetres.")] = 2.0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Evaluate a run or card, with 95% intervals. Example: `zoo eval nearl-clip-chest-drr-16shot data.classes=novel`.

    A classifier is shown beside the majority class and a linear probe on raw pixels, which learn from the training split. Masks are
    measured by their outlines too (HD95 and NSD, in millimetres where the spacing is known), and by target.
    """
    from zoo.engine.baselines import classification_details
    from zoo.engine.evaluation import collect, measure_all, open_evaluation
    from zoo.engine.targets import measure_outlines, target_rows

    with report_errors():
        evaluation = open_evaluation(source, settings or [], device)
        if not no_details:
            measure_outlines(evaluation.method, tolerance)
        outputs, functions = collect(evaluation, split), evaluation.method.metrics()
        metrics = measure_all(functions, [outputs])
        more = classification_details(evaluation.data, functions, outputs, split) if not no_details else None
        targets = target_rows(evaluation.data, outputs, split) if not no_details else []
    if as_json:
        content = {name: asdict(result) for name, result in metrics.items()}
        details = asdict(more) if more else {"targets": targets} if targets else None
        print_json({**content, "details": details} if details else content)
        return
    defined = {name: measured for name, measured in metrics.items() if not isnan(measured.value)}
    rows = [[name, *_cells(measured), str(measured.n)] for name, measured in defined.items()]
    print_table(f"{source}, {split}", ["metric", "value", "95% interval", "n"], rows)
    if undefined := [name for name in metrics if name not in defined]:
        reason = "these data have nothing to measure them on"
        console.print(f"note: left out, since {reason}: {', '.join(undefined)}", highlight=False, soft_wrap=True)
    if more:
        _print_details(more)
    if targets:
        columns = list(targets[0])
        print_table("targets", columns, [[_cell(row[column]) for column in columns] for row in targets])


def _print_details(details: "ClassificationDetails") -> None:
    names = list(next(iter(details.baselines.values())))
    rows = [[baseline, *(_cells(values[name])[0] for name in names)] for baseline, values in details.baselines.items()]
    print_table("baselines", ["", *names], rows)
    columns = list(details.classes[0])
    rows = [[_cell(row[column]) for column in columns] for row in details.classes]
    print_table("classes", columns, rows)
    classes = [str(row["class"]) for row in details.classes]
    if len(classes) <= _MOST_COLUMNS:
        rows = [[name, *map(str, row)] for name, row in zip(classes, details.confusion, strict=True)]
        print_table("confusion: rows are true, columns predicted", ["", *classes], rows)
    for note in details.notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if isnan(value) else f"{value:.4f}"
    return str(value)


def _cells(measured: "Measured") -> tuple[str, str]:
    if isnan(measured.value):  # an AUROC of one class alone, for example
        return "not defined here", ""
    return f"{measured.value:.4f}", f"{measured.low:.4f} to {measured.high:.4f}"


@commands.command()
def compare(
    recipes: Annotated[list[str], typer.Argument(help="recipes")],
    out: Annotated[Path, typer.Option(help="Folder for runs, table.md, table.json and table.png.")] = Path(
        "comparison"
    ),
    shots: Annotated[str, typer.Option(help="Shots (K), comma-separated.")] = "16",
    seeds: Annotated[str, typer.Option(help="Seeds, comma-separated.")] = "0,1,2",
    protocol: Annotated[
        Literal["few_shot", "base_to_novel", "full"], typer.Option(help="Training and test classes.")
    ] = "few_shot",
    over: Annotated[
        str | None, typer.Option(help="KEY=A,B,...: train and measure each value, and average over them.")
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(help="KEY=A,B,...: each recipe takes the value that is best on validation images; repeatable."),
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value for every recipe.")] = None,
    no_baselines: Annotated[
        bool, typer.Option("--no-baselines", help="No rows of the majority class and of a linear probe on raw pixels.")
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(help="One of the recipes: the others' differences from it, on the same samples and seeds."),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", help="Runs at once, in processes that share the cores and the device.", min=1)
    ] = 1,
    device: Device = "auto",
) -> None:
    """Train and evaluate several recipes. Example: `zoo compare coop/chest_drr_16shot maple/chest_drr_16shot --seeds 0`.

    Over several tasks, with each recipe's learning rate chosen on validation images: `zoo compare coop/chest_drr_16shot --over
    data.task=side,lobe --grid optimizer.lr=1e-3,3e-3`.

    Classifiers are shown beside the majority class and a linear probe on raw pixels, which learn from the same training images.
    """
    from zoo.engine.comparison import compare as run_comparison
    from zoo.visualization.tables import markdown_table

    names, settings = split_settings(recipes, settings)
    with report_errors():
        with resumable():
            rows = run_comparison(
                names,
                out,
                shots=parse_integers(shots),
                seeds=parse_integers(seeds),
                protocol=protocol,
                overrides=settings,
                over=parse_values([over] if over else []),
                grid=parse_values(grid or []),
                baselines=not no_baselines,
                against=against,
                device=device,
                jobs=jobs,
            )
        console.print(markdown_table(rows), markup=False, highlight=False, soft_wrap=True)
        console.print(f"wrote {out / 'table.md'}, table.json and table.png")
