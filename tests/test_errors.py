"""One ZooError above all errors meant for users, and the command line prints them as a message without a trace."""

import ast
import builtins
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer
from huggingface_hub import errors as hub

from zoo.cli.console import report_errors
from zoo.errors import ArgumentError, ZooError
from zoo.paths import PACKAGE

BUILTIN = {name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, Exception)}
ALLOWED = {("__init__.py", "AttributeError")}
"""A module's ``__getattr__`` must raise AttributeError, or ``hasattr`` and imports break."""


def nodes() -> Iterator[tuple[Path, ast.AST]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            yield path.relative_to(PACKAGE), node


def test_every_error_is_a_zoo_error_and_a_builtin_one():
    found = [(path, node.name) for path, node in nodes() if isinstance(node, ast.ClassDef)]
    errors = [(path, name) for path, name in found if name.endswith(("Error", "Exception")) and name != "ZooError"]
    for path, name in errors:
        error = getattr(importlib.import_module(".".join(("zoo", *path.with_suffix("").parts))), name)
        assert issubclass(error, ZooError), f"{path}: {name}"
        assert any(base.__name__ in BUILTIN - {"Exception"} for base in error.__mro__), f"{path}: {name}"
    assert len(errors) >= 24


def test_no_builtin_error_is_raised():
    """``raise NotImplementedError`` without a message marks what a subclass gives, and is no error of a user."""
    raised = [(path, node.exc) for path, node in nodes() if isinstance(node, ast.Raise) and node.exc is not None]
    calls = [(path, exc.func.id, exc.lineno) for path, exc in raised if is_call_of_a_name(exc)]
    bare = [(path, exc.id, exc.lineno) for path, exc in raised if isinstance(exc, ast.Name) and exc.id in BUILTIN]
    wrong = [(path, name, line) for path, name, line in calls if name in BUILTIN and (str(path), name) not in ALLOWED]
    wrong += [(path, name, line) for path, name, line in bare if name != "NotImplementedError"]
    assert not wrong
    assert len(calls) > 100 and {(str(path), name) for path, name, _ in calls} >= ALLOWED


def is_call_of_a_name(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


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


def test_mistakes_in_use_exit_with_2_and_keep_their_lines(capsys):
    from zoo.config.recipe import Problem, RecipeError
    from zoo.registry import UnknownComponentError

    assert exit_of(RecipeError([Problem("a.yaml", "data", "is missing"), Problem("a.yaml", "method", "too")])) == 2
    assert capsys.readouterr().err == "RecipeError: a.yaml: data: is missing\na.yaml: method: too\n"
    assert exit_of(UnknownComponentError("no such thing")) == 2
    assert exit_of(ArgumentError("batch_size is 0")) == 1


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("x"), KeyError("x"), ZeroDivisionError()])
def test_a_bug_keeps_its_trace(error):
    with pytest.raises(type(error)), report_errors():
        raise error


def test_an_unknown_clip_is_one_line_with_the_nearest_names():
    from zoo.encoders.clip import OpenClip, OpenClipError

    with pytest.raises(OpenClipError, match=r"cannot build 'ViT-B-17'.*did you mean .*ViT-B-16") as unknown:
        OpenClip("ViT-B-17")
    assert isinstance(unknown.value, RuntimeError) and len(str(unknown.value)) < 300
    with pytest.raises(OpenClipError, match=r"with pretrained 'opnai'.*did you mean openai"):
        OpenClip("ViT-B-16", pretrained="opnai")
