"""Results of predictions as lines, written as they come: JSON Lines, or CSV for spreadsheets."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from zoo.files import replacing

Format = Literal["jsonl", "csv"]
_FIRST, _REST = ("image", "error"), "other"


class ResultLines:
    """Formats results; of CSV, the first result that is no error decides the columns.

    A column holds a number or text; of a mapping, as ``probabilities``, each name has a column of its own; anything else is JSON.
    What a later result has beside these is JSON in the last column.
    """

    def __init__(self, format: Format, columns: Iterable[str] = ()) -> None:
        """Begin a file, or go on with one that has these columns."""
        self.format: Format = format
        self._columns = list(columns)
        self._waiting: list[dict[str, Any]] = []

    def add(self, path: str, content: Mapping[str, Any]) -> str:
        """The text of a result, line ends included; of CSV, errors before the first result wait for it."""
        if self.format == "jsonl":
            return json.dumps({"image": path, **content}) + "\n"
        row = {"image": path, **_flat(content)}
        if self._columns:
            return self._rows([row])
        self._waiting.append(row)
        return "" if set(content) <= {"error"} else self.end()

    def end(self) -> str:
        """What still waits."""
        if not self._waiting:
            return ""
        names = [name for name in self._waiting[-1] if name not in _FIRST]
        self._columns = [*_FIRST, *names, _REST]
        rows, self._waiting = self._waiting, []
        return self._text([self._columns]) + self._rows(rows)

    def _rows(self, rows: Iterable[Mapping[str, Any]]) -> str:
        known = set(self._columns) - {_REST}
        lines = []
        for row in rows:
            rest = {name: value for name, value in row.items() if name not in known}
            cells = [row.get(name, "") for name in self._columns if name != _REST]
            lines.append([*cells, *([json.dumps(rest) if rest else ""] if _REST in self._columns else [])])
        return self._text(lines)

    @staticmethod
    def _text(lines: Iterable[Iterable[Any]]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        return text.getvalue()


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            cells |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            cells[key] = json.dumps(value) if isinstance(value, list | tuple) else value
    return cells


class ResultFile:
    """``predictions.jsonl`` or ``predictions.csv`` in a folder, with a line for each input, written at once."""

    def __init__(self, folder: Path, format: Format = "jsonl") -> None:
        """Name the file; an earlier one is continued."""
        self.path = folder / f"predictions.{format}"
        rows = self._read() if format == "csv" else []
        self._lines = ResultLines(format, rows[0] if rows else ())

    def add(self, path: str, content: Mapping[str, Any]) -> None:
        """Append a result."""
        self._append(self._lines.add(path, content))

    def end(self) -> None:
        """Write what still waits."""
        self._append(self._lines.end())

    def _append(self, text: str) -> None:
        if text:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(text)

    def _read(self) -> list[list[str]]:
        if not self.path.is_file():
            return []
        with self.path.open(encoding="utf-8", newline="") as file:
            return list(csv.reader(file))

    def remove(self, images: set[str]) -> None:
        """Remove the lines of these images, which earlier predictions wrote."""
        if not self.path.is_file():
            return
        if self._lines.format == "csv":
            header, *rows = self._read() or [[]]
            place = header.index("image") if "image" in header else 0
            kept = ResultLines._text([header, *(row for row in rows if row[place] not in images)])
        else:
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = "".join(line for line in lines if json.loads(line)["image"] not in images)
        with replacing(self.path) as partial:
            partial.write_text(kept, encoding="utf-8")

    def written(self) -> list[Path]:
        """The pictures that it lists."""
        if not self.path.is_file():
            return []
        if self._lines.format == "csv":
            header, *rows = self._read() or [[]]
            if "picture" not in header:
                return []
            place = header.index("picture")
            return [Path(row[place]) for row in rows if row[place]]  # a file that could not be read has none
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return [Path(picture) for line in lines if (picture := json.loads(line).get("picture"))]
