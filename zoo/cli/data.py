"""Commands on data: build, check."""

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.console import Settings, console, errors, report_errors

commands = typer.Typer(help="Prepare data sets.", no_args_is_help=True)


@commands.command("build")
def data_build(name: Annotated[str, typer.Argument(help="a dataset")], settings: Settings = None) -> None:
    """Prepare a data set in the cache. Example: `zoo data build chest_drr size=2000 image_size=256`.

    From your own chest CT: `zoo data build chest_drr ct=patient.nii.gz labels=labels.nii.gz`
    """
    from zoo.engine.datasets import prepare_dataset

    with report_errors():
        report = prepare_dataset(name, settings or [])
        for split, count in report.counts.items():
            console.print(f"{split}: {count} samples")
        rate = f", {report.rate:.1f} samples/s" if report.seconds > 1 else ": all in the cache"
        console.print(f"{report.seconds:.1f} s{rate}")


@commands.command("check")
def data_check(files: Annotated[list[Path], typer.Argument(help="JSONL files of interleaved traces")]) -> None:
    """Check records of interleaved traces, images included. Example: `zoo data check train.jsonl`."""
    from zoo.data.traces.records import read_valid_records

    malformed = 0
    with report_errors():
        for file in files:
            records, problems = read_valid_records(file)
            for problem in problems:
                errors.print(problem, markup=False, highlight=False, soft_wrap=True)
            steps = sum(len(record.steps) for record in records)
            summary = f"{file}: {len(records)} records with {steps} steps are valid, {len(problems)} are not"
            console.print(summary, markup=False, highlight=False, soft_wrap=True)
            malformed += len(problems)
    if malformed:
        raise typer.Exit(1)
