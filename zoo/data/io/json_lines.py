"""JSON Lines files as numbered lines, read with a limit."""

from collections.abc import Iterator
from pathlib import Path


def numbered_lines(path: Path, limit: int) -> Iterator[tuple[int, str]]:
    """Lines that are not blank with their numbers from 1; a line is read no further than ``limit`` + 1 characters."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(iter(lambda: file.readline(limit + 1), ""), start=1):
            if line.strip():
                yield number, line
