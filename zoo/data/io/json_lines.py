"""JSON Lines files, read line by line with a limit on their length."""

import codecs
import difflib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from zoo.errors import ZooWarning

_LIKE = 0.7
"""How like a key must be to one that is missing to be taken for it, from 0 to 1."""
_MOST = 1000
"""Keys that are warned of; a file may have any number."""
_warned: set[tuple[Path, str]] = set()


def read_lines(path: Path, limit: int) -> Iterator[tuple[int, bytes]]:
    """Non-blank lines with their numbers from 1; a longer line is cut after ``limit`` + 1 bytes.

    They are not decoded: ``json.loads`` does that, and its ValueError is of the line that is not UTF-8. A byte order mark is not
    part of the first line.
    """
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(limit + 1), b""), start=1):
            text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if text.strip():
                yield number, text


def mistyped_key(path: Path, line: int, keys: Iterable[str], known: Sequence[str]) -> str | None:
    """What is wrong with the keys of a record; None where each is read, or is like none that is missing.

    A key that is not read is named in a warning, once for a file, with the first line that has it.
    """
    present = list(keys)
    missing = [key for key in known if key not in present]
    for key in (key for key in present if key not in known):
        if close := difflib.get_close_matches(key.lower(), missing, n=1, cutoff=_LIKE):
            return f"unknown key '{key:.60}'; did you mean '{close[0]}'?"
        if (path, key) not in _warned and len(_warned) < _MOST:
            _warned.add((path, key))
            message = f"{path}:{line}: the key '{key:.60}' is not read; a record has {', '.join(known)}"
            warnings.warn(message, ZooWarning, stacklevel=2)
    return None
