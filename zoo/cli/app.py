"""The command ``zoo``: every group of commands in one."""

from pathlib import Path
from typing import Annotated

import typer

import zoo
from zoo.cli import benchmark, cards, data, explore, predict, train
from zoo.cli.console import console, parse_integers, report_errors, resumable

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
for group in (explore, train, predict, cards):
    app.add_typer(group.commands)
app.add_typer(data.commands, name="data")
app.add_typer(benchmark.commands, name="benchmark")


def _print_version(wanted: bool) -> None:
    if wanted:
        console.print(f"medvl-zoo {zoo.__version__}", highlight=False)
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A model zoo for medical vision-language research. Exit codes: 0 done, 1 failed, 2 wrong usage."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Output folder of the demo.")] = Path("demo_output"),
    seeds: Annotated[str, typer.Option(help="Seeds, comma-separated.")] = "0",
) -> None:
    """Show the three methods on rendered radiographs, and train NEARL beside its peers. Example: `zoo demo`.

    Writes one page, index.html, with pictures, answers, reports and the table.
    """
    from zoo.cli.demo import run_demo

    with report_errors(), resumable():
        run_demo(out, parse_integers(seeds), console)


if __name__ == "__main__":
    app()
