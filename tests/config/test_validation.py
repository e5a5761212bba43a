"""Arguments checked against signatures and types."""

from pathlib import Path
from typing import Annotated, Literal

import pytest

from zoo.config.validation import resolve_arguments, resolve_component, type_problem
from zoo.registry import Injected


def takes(count: int, rate: float = 0.1, names: Annotated[list[str], Injected] = ()) -> None: ...


def problems_of(arguments: dict) -> dict[str, str]:
    found: dict[str, str] = {}
    resolve_arguments(takes, arguments, "part", found.__setitem__)
    return found


def test_unknown_missing_and_ill_typed_arguments_are_reported_at_once():
    assert problems_of({"count": 3, "rate": 1}) == {}, "an integer is a float, an injected argument may be left out"
    found = problems_of({"rat": 0.1, "rate": "fast"})
    assert found["part.rat"] == "unknown argument for takes; did you mean rate?"
    assert found["part.rate"].startswith("is 'fast': input should be a valid number")
    assert found["part.count"] == "is missing; takes requires it"


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (int, 3, None),
        (int, "3", "is the text '3'; write it without quotes"),
        (bool, 1, "valid boolean"),
        (Literal["a", "b"], "c", "'a' or 'b'"),
        (Path, "folder", None),
        (list[str] | None, None, None),
        (list[str], ["a", 2], "valid string"),
        (dict[str, float], {"a": 1}, None),
    ],
)
def test_values_are_checked_by_annotation(annotation, value, message):
    problem = type_problem(annotation, value)
    assert problem is None if message is None else message in problem


@pytest.mark.parametrize("node", [None, [], "oca", {"rank": 4}, {"name": 3}])
def test_what_is_no_component_is_reported(node):
    found: dict[str, str] = {}
    assert resolve_component("adapter", node, "method.adapter", found.__setitem__) is None
    assert "is not a component" in found["method.adapter"] and "oca" in found["method.adapter"]
