"""The command ``zoo``: every group of verbs in one."""

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli import cards, data, explore, predict, train
from zoo.cli.console import console, numbers, reported

app = typer.Typer(
    help="A model zoo for medical vision-language research.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
for group in (explore, train, predict, cards):
    app.add_typer(group.verbs)
app.add_typer(data.verbs, name="data")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo_output"),
    seeds: Annotated[str, typer.Option(help="Seeds, comma-separated.")] = "0",
) -> None:
    """From a CT in a package to a table of NEARL-CLIP beside its peers, and a prediction as a picture. Example: `zoo demo`."""
    from zoo.cli.demo import run_demo

    with reported():
        run_demo(out, numbers(seeds), console)


if __name__ == "__main__":
    app()
