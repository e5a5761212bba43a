"""Commands that measure several models side by side on a user's own data: benchmark reports."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from zoo.cli.console import (
    Device,
    Json,
    Set,
    console,
    parse_integers,
    print_json,
    print_table,
    report_errors,
    resumable,
)

commands = typer.Typer(help="Measure models side by side.", no_args_is_help=True)


@commands.callback()
def _group() -> None:
    """Measure models side by side."""


@commands.command("reports")
def benchmark_reports(
    models: Annotated[list[str], typer.Argument(help="recipes, cards or run folders that write reports")],
    data: Annotated[
        Path | None, typer.Option(help="Folder with train.jsonl, val.jsonl, test.jsonl; the recipes' data without.")
    ] = None,
    modes: Annotated[str, typer.Option(help="Evidence modes, comma-separated.")] = "none,text,box,crop,generated",
    fine_tune: Annotated[
        bool,
        typer.Option("--fine-tune", help="Rows after training on the training split too, by the recipe's trainer."),
    ] = False,
    no_as_is: Annotated[bool, typer.Option("--no-as-is", help="No rows of the models as they are.")] = False,
    seeds: Annotated[str, typer.Option(help="Seeds of the trained models, comma-separated.")] = "0",
    prompt: Annotated[
        Literal["auto", "instructed", "plain"],
        typer.Option(help="Whether prompts of models as they are say the form of a trace; auto: those of recipes."),
    ] = "auto",
    shots: Annotated[int, typer.Option(min=0, help="Training responses as examples in these prompts.")] = 0,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Split to measure on.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Records to measure on, from the beginning.")] = None,
    settings: Set = None,
    out: Annotated[Path, typer.Option(help="Folder for table, page, reports and runs.")] = Path("benchmark"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run, and what is done; run nothing.")
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure report models in every evidence mode. Example: `zoo benchmark reports interleaved_reasoning/qwen2_5_vl_7b --data my/traces`.

    With and without fine-tuning, on three seeds: `zoo benchmark reports interleaved_reasoning/qwen2_5_vl_7b
    interleaved_reasoning/medgemma_4b --data my/traces --fine-tune --seeds 0,1,2 --set method.report_metrics=[radgraph,chexbert]`

    A card in two modes: `zoo benchmark reports interleaved-crop-chest-drr --modes none,crop --limit 50`. Repeat an interrupted command:
    what is done is not done again, unless its records or weights changed. Writes table.md, table.json, table.png, index.html with reports side by side, and reports/ROW.jsonl.
    """
    from zoo.decoders.evidence import EvidenceName
    from zoo.engine.report_benchmark import BenchmarkError, run_benchmark
    from zoo.engine.report_plan import Benchmark, open_data
    from zoo.engine.report_rows import plan_rows
    from zoo.errors import counted
    from zoo.visualization.tables import markdown_table

    with report_errors():
        benchmark = Benchmark(
            out,
            modes=cast(list[EvidenceName], [mode.strip() for mode in modes.split(",") if modes.strip()]),
            fine_tune=fine_tune,
            as_is=not no_as_is,
            seeds=parse_integers(seeds),
            data=data,
            overrides=settings or [],
            split=split,
            limit=limit,
            instruct=None if prompt == "auto" else prompt == "instructed",
            shots=shots,
            device=device,
        )
        if dry_run:
            plan = plan_rows(models, benchmark)
            records = len(open_data(models[0], benchmark).records(split)[:limit])
            if as_json:
                planned = [{**asdict(row.item), "state": row.state} for row in plan]
                print_json({"records": records, "seeds": list(benchmark.seeds), "rows": planned})
                return
            cells = [[row.item.model, row.item.kind, row.item.mode, row.state] for row in plan]
            print_table(f"{counted(records, 'record')} of {split}", ["model", "", "evidence", "state"], cells)
            return
        failure = None
        try:
            with resumable():
                rows = run_benchmark(
                    models, benchmark, say=lambda text: None if as_json else console.print(text, soft_wrap=True)
                )
        except BenchmarkError as error:
            rows, failure = error.rows, error
        if as_json:
            print_json([asdict(row) for row in rows])
        elif rows:
            console.print(markdown_table(rows), markup=False, highlight=False, soft_wrap=True)
            console.print(f"wrote {out / 'index.html'}, table.md, table.json, table.png and reports/")
        if failure:
            raise failure
