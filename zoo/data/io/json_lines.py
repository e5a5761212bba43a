"""JSON Lines files, read line by line with a limit on their length."""

from collections.abc import Iterator
from pathlib import Path


def read_lines(path: Path, limit: int) -> Iterator[tuple[int, str]]:
    """Non-blank lines with their numbers from 1; a longer line is cut after ``limit`` + 1 characters."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(iter(lambda: file.readline(limit + 1), ""), start=1):
            if line.strip():
                yield number, line
