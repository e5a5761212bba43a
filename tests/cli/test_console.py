"""Errors on the command line: the user's as messages, bugs with their trace."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import typer
from huggingface_hub import errors as hub

from zoo.cli.console import (
    console,
    parse_integers,
    parse_values,
    print_facts,
    print_json,
    print_table,
    report_errors,
    resumable,
    split_settings,
)
from zoo.engine.training import InterruptedRunError
from zoo.errors import ArgumentError


def exit_of(error: Exception) -> int:
    with pytest.raises(typer.Exit) as raised, report_errors():
        raise error
    return raised.value.exit_code


def http_client() -> ModuleType:
    """The library that huggingface_hub makes its requests with."""
    return importlib.import_module(hub.HTTPError.__module__.partition(".")[0])


def hub_errors() -> list[Exception]:
    request = http_client().Request("GET", "https://huggingface.co/api/models/a/b")
    response = http_client().Response(404, request=request)
    return [
        hub.LocalEntryNotFoundError("no snapshot\n\nof this revision"),
        hub.OfflineModeIsEnabled("offline mode\nis enabled"),
        hub.RepositoryNotFoundError("404\n\nRepository Not Found", response=response),
        hub.HFValidationError("a repository is OWNER/NAME"),
        hub.EntryNotFoundError("no such entry"),
    ]


@pytest.mark.parametrize("error", hub_errors(), ids=lambda error: type(error).__name__)
def test_an_error_of_the_hub_is_one_line(error, capsys):
    assert exit_of(error) == 1
    line = capsys.readouterr().err
    assert line.startswith(f"{type(error).__name__}: ") and line.count("\n") == 1


def test_an_error_of_the_network_is_one_line(capsys):
    with pytest.raises(http_client().HTTPError) as refused:
        http_client().get("http://127.0.0.1:9/", trust_env=False)  # the port that discards: nothing listens
    assert not isinstance(refused.value, OSError)
    for error in (refused.value, ConnectionError("no route\nto host"), TimeoutError("timed out")):
        assert exit_of(error) == 1
        assert capsys.readouterr().err.count("\n") == 1


def test_errors_of_the_zoo_exit_with_1_and_keep_their_lines(capsys):
    from zoo.config.recipe import Problem, RecipeError
    from zoo.registry import UnknownComponentError

    assert exit_of(RecipeError([Problem("a.yaml", "data", "is missing"), Problem("a.yaml", "method", "too")])) == 1
    assert capsys.readouterr().err == "RecipeError: a.yaml: data: is missing\na.yaml: method: too\n"
    assert exit_of(UnknownComponentError("no such thing")) == 1
    assert exit_of(ArgumentError("batch_size is 0")) == 1


def test_what_is_named_twice_would_count_twice():
    assert parse_integers("0,2,1") == [0, 2, 1]
    assert parse_values(["data.task=side,lobe"]) == {"data.task": ["side", "lobe"]}
    with pytest.raises(typer.BadParameter, match="'0,1,0' names 0 twice"):
        parse_integers("0,1,0")
    with pytest.raises(typer.BadParameter, match="'data.task=side,side' names side twice"):
        parse_values(["data.task=side,side"])


def test_an_interrupted_command_says_that_it_goes_on(capsys):
    for error, ends in ((InterruptedRunError("at step 3"), typer.Exit), (KeyboardInterrupt(), KeyboardInterrupt)):
        with pytest.raises(ends), resumable():
            raise error
        assert capsys.readouterr().err.startswith("interrupted: repeat the same command")


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("x"), KeyError("x"), ZeroDivisionError()])
def test_a_bug_keeps_its_trace(error):
    with pytest.raises(type(error)), report_errors():
        raise error


def test_text_that_is_not_the_zoos_is_printed_as_it_is(capsys):
    """Class names, file names and answers with brackets and colons are no markup."""
    text = "mass [left] :lung: [/bold] film[1].png"
    print_table(text, [text], [[text]])
    console.print(text, soft_wrap=True)
    print_facts({"classes": {text: text}})
    printed = capsys.readouterr().out
    assert all(printed.count(part) == 6 for part in ("[left]", ":lung:", "[/bold]", "film[1].png"))
    with pytest.raises(typer.Exit), report_errors():
        raise ArgumentError(text)
    assert text in capsys.readouterr().err


def test_json_has_null_for_what_is_not_a_number(capsys):
    print_json({"auroc": {"value": float("nan")}, "rows": [1.0, float("inf")]})
    assert json.loads(capsys.readouterr().out) == {"auroc": {"value": None}, "rows": [1.0, None]}


def test_every_command_that_takes_changes_takes_them_bare():
    """``zoo verify my-card data.table=mine.csv`` as ``zoo eval`` does; ``--set`` is for scripts that have it."""
    import typer

    from zoo.cli.app import app

    group = typer.main.get_command(app)
    commands = {**group.commands, **{f"data {name}": item for name, item in group.commands["data"].commands.items()}}
    with_changes = {
        name: command
        for name, command in commands.items()
        if any("--set" in parameter.opts or parameter.name in ("settings", "changes") for parameter in command.params)
    }
    names = {"train", "eval", "plan", "verify", "probe", "publish", "export", "predict", "app", "compare", "show"}
    assert names <= set(with_changes)
    for name, command in with_changes.items():
        rest = [parameter for parameter in command.params if parameter.param_type_name == "argument"][-1]
        assert rest.nargs == -1, f"{name}: a change cannot stand after its other arguments"


def test_changes_are_told_from_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.png").touch()
    items = ["card", "data.table=mine=1.csv", Path("a=b.png"), "films/x=1.png"]
    assert split_settings(items, ["trainer.devices=2"]) == (
        ["card", "a=b.png", "films/x=1.png"],
        ["data.table=mine=1.csv", "trainer.devices=2"],
    )
