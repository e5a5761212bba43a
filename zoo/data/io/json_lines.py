"""JSON Lines files, read line by line with a limit on their length."""

import codecs
from collections.abc import Iterator
from pathlib import Path


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
