"""Components described for a reader: plain text of docstrings, types in words, a row for each argument."""

import collections.abc
import inspect
import re
import types
import typing
from typing import Annotated, Any

from zoo.config.components import is_injected, signature_of, unpacked_defaults
from zoo.registry import KINDS, registry, slot_of

_ROLE = re.compile(r":\w+:`(~?)([^`]+)`")
_SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Example|Examples):$", re.MULTILINE)
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def plain_text(docstring: str | None) -> str:
    """A docstring without the markup of Sphinx: roles become names, literals lose their double backticks."""
    text = _ROLE.sub(lambda match: match[2].rpartition(".")[2] if match[1] else match[2], docstring or "")
    return re.sub(r"``(.+?)``", r"\1", text, flags=re.DOTALL)


def summary_of(kind: str, name: str) -> str:
    """A component in one line: that of its file where the file holds nothing else, which names the paper, else its own."""
    component = registry(kind).resolve(name)
    module = inspect.getmodule(component)
    alone = len([target for target in _modules() if target == component.__module__]) == 1
    text = inspect.getdoc(module) if alone and module else inspect.getdoc(component)
    return plain_text((text or "").partition("\n")[0])


def _modules() -> list[str]:
    """The module of every component, once for each."""
    return [registry(kind).target(name).partition(":")[0] for kind in KINDS for name in registry(kind)]


def describe_arguments(component: Any) -> list[dict[str, str]]:
    """A row for every argument as a recipe writes it: name, type, default ("required" if none) and meaning."""
    parameters, hints = signature_of(component)
    meanings = _meanings(component)
    rows = []
    for name, parameter in parameters.items():
        default = parameter.default
        if is_injected(hints.get(name)):
            shown = "filled in"
        elif default is parameter.empty:
            shown = "required"
        else:
            shown = getattr(default, "__name__", None) or repr(default)
        row = {"name": name, "type": type_in_words(hints.get(name, Any)), "default": shown}
        rows.append({**row, "meaning": meanings.get(name, "")})
    return rows


def python_arguments(component: Any) -> str:
    """How the arguments of a component that are dataclasses are written in Python; empty if it has none."""
    return ", ".join(f"{name}={type(default).__name__}(...)" for name, default in unpacked_defaults(component).items())


def _meanings(component: Any) -> dict[str, str]:
    """What the docstrings of a constructor and of its dataclass arguments say of each argument."""
    function = component.__init__ if inspect.isclass(component) else component
    packed = [base for default in unpacked_defaults(component).values() for base in reversed(type(default).__mro__)]
    found: dict[str, str] = {}
    for item in [function, *packed]:
        found |= documented_arguments(inspect.cleandoc(item.__doc__ or ""))
    return found


def documented_arguments(docstring: str) -> dict[str, str]:
    """Names and meanings under ``Args:`` or ``Attributes:`` of a Google docstring, each meaning in one line of plain text."""
    parts = _SECTION.split(docstring)
    lines = [
        line
        for title, text in zip(parts[1::2], parts[2::2], strict=True)
        if title in ("Args", "Attributes")
        for line in text.splitlines()
    ]
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        if match := re.match(r"^    (\w+): (.*)$", line):
            name, found[match[1]] = match[1], match[2]
        elif name and line.startswith("     "):
            found[name] += f" {line.strip()}"
    return {name: plain_text(text) for name, text in found.items()}


def type_in_words(annotation: Any) -> str:
    """A type as a reader would write it: ``int, at least 1``, ``'a' or 'b'``, ``list of text``, ``adapter component``."""
    if (kind := slot_of(annotation)) is not None:
        return f"{kind} component" + (" or None" if type(None) in typing.get_args(annotation) else "")
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return type_in_words(parts[0]) + "".join(map(_range_in_words, parts[1:]))
    if origin in (typing.Union, types.UnionType):
        words = [type_in_words(part) for part in parts]
        return (", or " if any("," in word for word in words) else " or ").join(words)
    if origin is typing.Literal:
        return " or ".join(map(repr, parts))
    if origin in (list, dict, collections.abc.Sequence, collections.abc.Iterable):
        return f"{origin.__name__.lower()} of {' to '.join(map(type_in_words, parts))}"
    if annotation in (None, type(None)):
        return "None"
    return {str: "text", bool: "true or false", Any: "anything"}.get(annotation, getattr(annotation, "__name__", "any"))


def _range_in_words(mark: Any) -> str:
    """A mark of ``annotated_types`` as the end of a type; other marks say nothing to a reader."""
    bounds = {name: getattr(mark, name, None) for name in _BOUNDS}
    if bounds["ge"] is not None and bounds["le"] is not None:
        return f", from {bounds['ge']} to {bounds['le']}"
    return "".join(f", {_BOUNDS[name]} {value}" for name, value in bounds.items() if value is not None)
