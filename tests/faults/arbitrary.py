"""Hypothesis strategies for damaged input: bytes with mutations, JSON with one part replaced, and what readers may do with it."""

import copy
import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from zoo.errors import ZooError

fuzz = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

_ODD = [
    *(
        float("nan"),
        float("inf"),
        -float("inf"),
        1e18,
        1e7,
        -1,
        0,
        2**40,
        10**400,
        True,
        None,
        "",
        "x",
        "NaN",
        "\ud800",
        "a\0b",
    ),
    *([], {}, [[]], [None], {"a": {}}, [[float("nan")] * 6], [1e18] * 8, ["[SEG]"] * 3, {"size": [4, 4]}, [[1, 2, 3]]),
]
ODD_VALUES = st.one_of(st.sampled_from(_ODD), st.text(max_size=20), st.integers(), st.floats())


def _places(content: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield from _places(value, (*place, key))


def every_change(content: Any) -> Iterator[Any]:
    """The content with each of its parts, at every depth, removed or replaced by each of the odd values."""
    for place in _places(content):
        yield from (_changed(content, place, value) for value in _ODD)
        if place:
            yield _changed(content, place, _REMOVED)


def changed_json(content: Any) -> st.SearchStrategy[Any]:
    """The content with one part, at any depth, replaced by an odd value."""
    return st.builds(
        lambda place, value: _changed(content, place, value), st.sampled_from([*_places(content)]), ODD_VALUES
    )


_REMOVED = object()


def _changed(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    result = copy.deepcopy(content)
    node = result
    for key in place[:-1]:
        node = node[key]
    if value is _REMOVED:
        del node[place[-1]]
    else:
        node[place[-1]] = value
    return result


def as_json(content: Any) -> bytes:
    """JSON as Python writes it, NaN and lone surrogates included."""
    return json.dumps(content).encode("utf-8", "surrogatepass")


def damaged_bytes(valid: bytes) -> st.SearchStrategy[bytes]:
    """Any bytes; or the valid ones cut short, or with a piece overwritten."""
    positions = st.integers(0, len(valid))
    overwritten = st.builds(
        lambda at, piece: valid[:at] + piece + valid[at + len(piece) :], positions, st.binary(min_size=1, max_size=8)
    )
    return st.one_of(st.binary(max_size=200), positions.map(lambda end: valid[:end]), overwritten)


def value_or_error(read: Callable[[], Any]) -> Any:
    """What a reader gives, or the error for users that it raises; any other exception fails the test."""
    try:
        return read()
    except ZooError as error:
        assert str(error).strip()
        return error


@contextmanager
def bounded_memory(megabytes: int = 400) -> Iterator[None]:
    """Fail where the memory of this process grows by more."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < megabytes, f"the memory of the process grew by {grown:.0f} MB"
