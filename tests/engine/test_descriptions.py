"""Components in plain text: types in words, arguments with their meaning, one line each."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest

from zoo.config.components import signature_of
from zoo.engine.descriptions import describe_arguments, documented_arguments, plain_text, summary_of, type_in_words
from zoo.ranges import Dropout, Fraction, PositiveFloat, PositiveInt
from zoo.registry import KINDS, Injected, Slot, registry

COMPONENTS = [(kind, name) for kind in KINDS for name in registry(kind)]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (PositiveInt, "int, from 1 to 10000000"),
        (PositiveInt | None, "int, from 1 to 10000000, or None"),
        (Annotated[PositiveFloat, Injected], "float, above 0"),
        (Fraction, "float, from 0 to 1"),
        (Dropout, "float, at least 0, below 1"),
        (Literal["a", "b"] | None, "'a' or 'b' or None"),
        (list[str] | None, "list of text or None"),
        (dict[str, bool], "dict of text to true or false"),
        (Annotated[int, Slot("adapter")], "adapter component"),
        (Annotated[Callable[..., int] | None, Slot("head")], "head component"),
        (Annotated[int, Slot("head")] | None, "head component or None"),
        (Any, "anything"),
    ],
)
def test_types_read_as_words(annotation, words):
    assert type_in_words(annotation) == words


def test_markup_of_docstrings_is_gone():
    text = "See :class:`~zoo.encoders.clip.ClipEncoder` and :func:`collate`; ``a <- b`` where ``x\ny``."
    assert plain_text(text) == "See ClipEncoder and collate; a <- b where x\ny."
    assert plain_text(None) == ""


def test_arguments_of_a_docstring_are_joined_over_lines():
    docstring = "Build.\n\nArgs:\n    a: first\n        part.\n    b: ``second``.\n\nRaises:\n    c: not one."
    assert documented_arguments(docstring) == {"a": "first part.", "b": "second."}


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_every_argument_of_every_component_is_explained_without_python_objects(kind, name):
    component = registry(kind).resolve(name)
    rows = describe_arguments(component)
    assert [row["name"] for row in rows] == list(signature_of(component)[0])
    assert [row["name"] for row in rows if not row["meaning"]] == []
    assert not any(raw in str(rows) for raw in ("typing.", " at 0x", "<class", ":class:", "``"))


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_every_component_has_a_line_that_is_a_sentence(kind, name):
    line = summary_of(kind, name)
    assert line[0].isalnum() and line.endswith(".") and len(line.split()) >= 5 and "`" not in line
