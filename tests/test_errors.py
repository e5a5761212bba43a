"""One ZooError above all errors meant for users, and the command line prints them as a message without a trace."""

import ast
import builtins
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from zoo.errors import ZooError, counted
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


def test_every_extra_that_a_message_names_is_there():
    extras = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")]
    named = {name for text in texts for name in re.findall(r"medvl-zoo\[(\w+)\]", text)}
    assert named >= {"dicom", "reports"} and named <= extras["optional-dependencies"].keys()


def is_call_of_a_name(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


def test_an_unknown_clip_is_one_line_with_the_nearest_names():
    from zoo.encoders.clip import OpenClip, OpenClipError

    with pytest.raises(OpenClipError, match=r"cannot build 'ViT-B-17'.*did you mean .*ViT-B-16") as unknown:
        OpenClip("ViT-B-17")
    assert isinstance(unknown.value, RuntimeError) and len(str(unknown.value)) < 300
    with pytest.raises(OpenClipError, match=r"with pretrained 'opnai'.*did you mean openai"):
        OpenClip("ViT-B-16", pretrained="opnai")


def test_numbers_agree_with_their_nouns():
    assert counted(1, "record", "is") == "1 record is" and counted(37, "record", "is") == "37 records are"
    assert counted(0, "problem") == "0 problems" and counted(1, "problem") == "1 problem"
    assert counted(2, "box") == "2 boxes" and counted(1200, "image", "has") == "1,200 images have"
