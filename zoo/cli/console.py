"""What all commands share: the console, error messages, tables and JSON."""

import json
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from zoo.config.deprecations import RecipeDeprecationWarning
from zoo.errors import ZooError, ZooWarning

_RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
"""Environment variables with the rank of a process: torchrun, SLURM, Lightning; the first that is set counts."""


def is_first_process() -> bool:
    """Whether this process prints, of those that work together."""
    return next((os.environ[name] for name in _RANKS if name in os.environ), "0") == "0"


_PLAIN: dict[str, Any] = {"markup": False, "emoji": False}
"""What is printed is mostly not the zoo's: class names, paths and answers may hold brackets and colons."""
console = Console(quiet=not is_first_process(), **_PLAIN)
errors = Console(stderr=True, **_PLAIN)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Settings = Annotated[list[str] | None, typer.Argument(help="Changes, as key=value.", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value of the recipe, as trainer.devices=4 or trainer.precision=bf16-mixed."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]


_SETTING = re.compile(r"[\w.]+=")


def split_settings(items: Sequence[str | Path], settings: Sequence[str] | None = None) -> tuple[list[str], list[str]]:
    """Names, and ``key=value`` changes, of arguments in which they stand together; those of ``--set`` follow.

    A file that is called like a change is a name.
    """
    texts = [str(item) for item in items]
    changes = [text for text in texts if _SETTING.match(text) and not Path(text).exists()]
    return [text for text in texts if text not in changes], [*changes, *(settings or [])]


@contextmanager
def report_errors() -> Iterator[None]:
    """Print the user's errors as a message, and exit with 1: the zoo's, the disk's, and the hub's. A bug keeps its trace.

    A warning of the zoo, about old names in a recipe for example, is printed as a message too, once.
    """
    try:
        with _warnings_as_messages():
            yield
    except _expected_errors() as error:
        multiline = isinstance(error, ZooError)  # may have a line for each problem; others get one line
        errors.print(f"{type(error).__name__}:", style="bold red", end=" ")
        errors.print(
            str(error) if multiline else " ".join(str(error).split()), markup=False, highlight=False, soft_wrap=True
        )
        raise typer.Exit(1) from error


@contextmanager
def resumable() -> Iterator[None]:
    """For a command of several trainings that goes on where it was interrupted: print that, and exit."""
    from zoo.engine.training import InterruptedRunError

    try:
        yield
    except (KeyboardInterrupt, SystemExit, InterruptedRunError) as error:
        errors.print("interrupted: repeat the same command, and it goes on from what is done")
        if isinstance(error, InterruptedRunError):
            raise typer.Exit(1) from error
        raise


_printed_warnings: set[str] = set()  # a command may read a recipe several times


@contextmanager
def _warnings_as_messages() -> Iterator[None]:
    default = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
        if not issubclass(category, RecipeDeprecationWarning | ZooWarning):
            default(message, category, *place, **options)
        elif is_first_process() and str(message) not in _printed_warnings:
            _printed_warnings.add(str(message))
            errors.print("warning:", style="bold yellow", end=" ")
            errors.print(str(message), markup=False, highlight=False, soft_wrap=True)

    with warnings.catch_warnings():
        for category in (RecipeDeprecationWarning, ZooWarning):
            warnings.simplefilter("always", category)
        warnings.showwarning = show
        yield


def _expected_errors() -> tuple[type[Exception], ...]:
    """Errors of the zoo, of the disk, of huggingface_hub, and of the HTTP client that it uses.

    Evaluated only when something was raised, so that huggingface_hub is not imported for nothing.
    """
    from huggingface_hub import errors as hub

    of_hub = [value for value in vars(hub).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (ZooError, OSError, *of_hub)


def print_json(content: Any) -> None:
    """Print JSON on standard output, in the first process; null stands for what is not a number."""
    if is_first_process():
        sys.stdout.write(json.dumps(_without_nan(content), indent=2, default=str) + "\n")


def _without_nan(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and not isfinite(content) else content


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table; cells are folded, not cut."""
    table = Table(*(Column(column, overflow="fold") for column in columns), title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print a heading and a value for each fact: text, a mapping of names to values, or a table of rows with the same keys."""
    for key, value in facts.items():
        title = key.replace("_", " ")
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            print_table(title, list(value[0]), [[_cell(row[column]) for column in value[0]] for row in value])
            continue
        lines = (
            [f"{name}: {_cell(item)}" for name, item in value.items()] if isinstance(value, Mapping) else [_cell(value)]
        )
        console.print(title, style="bold", markup=False, highlight=False)
        console.print("\n".join(lines).rstrip(), markup=False, highlight=False, soft_wrap=True)


def _cell(value: Any) -> str:
    """A value for people: no None, no brackets, numbers with separators."""
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value)) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def parse_integers(text: str) -> list[int]:
    """Parse comma-separated integers, each of which stands there once."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"'{text}' is not a list of integers such as 0,1,2") from None
    _refuse_twice(text, numbers)
    return numbers


def _refuse_twice(text: str, values: Sequence[Any]) -> None:
    """What is measured twice would count twice in a mean and its interval."""
    if twice := [value for value in dict.fromkeys(values) if values.count(value) > 1]:
        raise typer.BadParameter(f"'{text}' names {twice[0]} twice")


def parse_values(settings: list[str]) -> dict[str, list[str]]:
    """Parse ``key=a,b,c`` to ``{key: [a, b, c]}``."""
    for setting in settings:
        if not all(setting.partition("=")[::2]):
            raise typer.BadParameter(f"'{setting}' is not KEY=A,B,... such as optimizer.lr=1e-3,3e-3")
        _refuse_twice(setting, setting.partition("=")[2].split(","))
    return {key: values.split(",") for key, values in (setting.split("=", 1) for setting in settings)}
