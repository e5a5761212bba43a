"""References in recipes: ``${data.shots}`` stands for the value of another key of the same recipe.

Nothing else may follow a ``${``: no resolver, no nested reference, whatever escapes of YAML it is written with, since values are
looked at after YAML has decoded them. What references expand to is bounded.
"""

import re
from collections.abc import Iterator
from typing import Any

from zoo.errors import ZooError

REFERENCE = re.compile(r"\$\{\s*(\.*)([\w.]+)\s*\}")
"""Dots, of which the first stands for the mapping that holds the reference, and a path of keys."""
_MAX_SIZE = 2_000_000
_MAX_DEPTH = 100


class ReferenceProblem(ZooError, ValueError):
    """A reference that cannot be followed, under ``key``."""

    def __init__(self, key: str, message: str) -> None:
        """Keep the key apart from the message."""
        self.key = key
        super().__init__(message)


def forbidden_interpolations(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Keys and values with a ``${`` that is no plain reference: the key, and what is wrong."""
    if isinstance(content, dict):
        for name, value in content.items():
            place = f"{key}.{name}" if key else str(name)
            if "${" in str(name):
                yield place, "a key cannot contain ${"
            yield from forbidden_interpolations(value, place)
    elif isinstance(content, list):
        for index, value in enumerate(content):
            yield from forbidden_interpolations(value, f"{key}.{index}")
    elif isinstance(content, str) and "${" in (rest := REFERENCE.sub("", content)):
        start = rest.index("${")
        yield (
            key,
            f"'{rest[start : start + 20].partition(':')[0]}' is a resolver or malformed; only ${{key}} is allowed",
        )


def resolve_references(content: dict[str, Any]) -> dict[str, Any]:
    """A recipe with every reference replaced by what it refers to: its value if it stands alone, else its text.

    Raises:
        ReferenceProblem: a reference leads nowhere, into a circle, to a mapping within a text, or all of them expand to
            more than a recipe can hold.
    """
    resolver = _Resolver(content)
    resolved = {name: resolver.resolve(value, [str(name)], ()) for name, value in content.items()}
    for key, message in forbidden_interpolations(resolved):  # made of pieces, and not to be read again as a reference
        raise ReferenceProblem(key, message)
    return resolved


class _Resolver:
    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content
        self._size = 0

    def resolve(self, value: Any, place: list[str], above: tuple[str, ...]) -> Any:
        """A value at a place; ``above`` are the references that led to it."""
        if len(place) + len(above) > _MAX_DEPTH:
            raise ReferenceProblem(".".join(place[:5]), f"is nested more than {_MAX_DEPTH} levels deep")
        self._count(place, len(value) if isinstance(value, str) else 1)
        if isinstance(value, dict):
            return {name: self.resolve(item, [*place, str(name)], above) for name, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item, [*place, str(index)], above) for index, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        if value == "???":
            raise ReferenceProblem(".".join(place), "is left open (???) and must be given")
        if whole := REFERENCE.fullmatch(value):
            return self._follow(whole, place, above)
        return REFERENCE.sub(lambda match: self._text(match, place, above), value)

    def _count(self, place: list[str], size: int) -> None:
        self._size += size
        if self._size > _MAX_SIZE:
            raise ReferenceProblem(".".join(place), f"the references expand to more than {_MAX_SIZE} characters")

    def _text(self, match: re.Match[str], place: list[str], above: tuple[str, ...]) -> str:
        value = self._follow(match, place, above)
        if isinstance(value, dict | list):
            raise ReferenceProblem(".".join(place), f"'{match[0]}' is not a single value")
        self._count(place, len(str(value)))
        return str(value)

    def _follow(self, match: re.Match[str], place: list[str], above: tuple[str, ...]) -> Any:
        target = [*place[: len(place) - len(match[1])], *match[2].split(".")] if match[1] else match[2].split(".")
        name = ".".join(target)
        if name in above:
            raise ReferenceProblem(".".join(place), f"'{match[0]}' is circular")
        node: Any = self._content
        for part in target:
            if isinstance(node, list) and part.isdecimal() and int(part) < len(node):
                node = node[int(part)]
            elif isinstance(node, dict) and part in node:
                node = node[part]
            else:
                raise ReferenceProblem(".".join(place), f"'{match[0]}': there is no key '{name}'")
        return self.resolve(node, target, (*above, name))
