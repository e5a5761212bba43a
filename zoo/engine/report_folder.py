"""The folder of a benchmark of report models: its lock, the rows that were measured, and the table and page of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from zoo.engine.report_lines import read_report_lines
from zoo.engine.report_plan import Benchmark
from zoo.engine.report_rows import DONE, PlannedRow, row_file
from zoo.engine.trainers import is_first_process
from zoo.engine.training import RunError
from zoo.errors import OutputExistsError, WriteError
from zoo.files import replacing
from zoo.metrics.intervals import Measured
from zoo.visualization.report_table import write_report_table
from zoo.visualization.tables import Row, write_table

_SHOWN = 12
"""Records whose reports stand side by side on the page."""
_SAME = ("measured", "findings")
"""What rows of one table share."""


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Hold a folder for this benchmark alone, which is made; a process that is killed gives it back.

    Raises:
        OutputExistsError: it holds other files, which must not be overwritten.
        RunError: another benchmark is running in it.
        WriteError: it cannot be written.
    """
    if out.is_dir() and any(out.iterdir()) and not (out / "rows").is_dir():
        raise OutputExistsError(f"{out} has files that are not a benchmark's; choose a new or empty folder with --out")
    lock = FileLock(out / ".benchmark.lock")
    try:
        (out / "rows").mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(
            f"another benchmark is running in {out}; wait for it, or choose another folder with --out"
        ) from None
    except OSError as error:
        raise WriteError(f"{out} cannot be written ({error.strerror}); choose another folder with --out") from error
    try:
        yield
    finally:
        lock.release()


class BenchmarkTable:
    """The rows of a table, those measured before first, with a note on each that is not as this benchmark would have it.

    Attributes:
        rows: by name, in the order of the plan, then those that it leaves out.
        notes: by the row's name.
        failed: names of rows that could not be measured.
    """

    def __init__(self, plan: Sequence[PlannedRow], benchmark: Benchmark, caption: str) -> None:
        """Read the rows that are there."""
        self._benchmark, self._caption = benchmark, caption
        self._stored = {file.stem: _read(file) for file in sorted((benchmark.out / "rows").glob("*.json"))}
        self._measured: dict[str, Row] = {}
        self.notes: dict[str, str] = {}
        self.failed: set[str] = set()
        self._names = [row.item.name for row in plan]
        self._outdated = {row.item.name for row in plan if row.state != DONE} & self._stored.keys()
        for row in plan:
            if row.item.problem:
                self.notes[row.item.name] = f"{row.item.title}: {row.state}"
            elif not row.is_possible:
                self.fail(row, row.state.removeprefix("not possible: "))
            elif row.item.name in self._outdated:
                self.notes[row.item.name] = f"{row.item.title}: measured before; {row.state}"
        content = next(row.setting["content"] for row in plan if row.setting)
        for name in [name for name in self._stored if name not in self._names]:
            self._keep_other(name, content)

    def _keep_other(self, name: str, content: Mapping[str, Any]) -> None:
        """A row that the command does not name stays in the table where its records are the same."""
        stored = self._stored[name]
        before = stored["setting"].get("content", {})
        if any(before.get(key) != content[key] for key in _SAME):
            self.notes[name] = (
                f"{name}: left out, since this command does not name it and it was measured on other records"
            )
            return
        self._names.append(name)
        if stored.get("caption") != self._caption:
            self.notes[name] = f"{name}: of an earlier command. {stored.get('caption', '')}"

    @property
    def rows(self) -> dict[str, Row]:
        """The rows, by name."""
        rows = {name: _row(stored["row"]) for name, stored in self._stored.items()} | self._measured
        return {name: rows[name] for name in self._names if name in rows}

    def add(self, row: PlannedRow, measured: Row) -> None:
        """Add a row that was measured, and write its file."""
        name = row.item.name
        self._measured[name] = measured
        self.notes.pop(name, None)
        self._outdated.discard(name)
        if is_first_process():
            content = {"caption": self._caption, "setting": row.setting, "row": asdict(measured)}
            with replacing(row_file(row.item, self._benchmark)) as partial:
                partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def fail(self, row: PlannedRow, reason: str) -> str:
        """Note why a row could not be measured; numbers of before stay."""
        name = row.item.name
        self.failed.add(name)
        again = "measured before; could not be measured again" if name in self._outdated else "not possible"
        self.notes[name] = f"{row.item.title}: {again}: {reason}"
        return self.notes[name]

    def write(self) -> None:
        """Write table and page of the rows so far, if there are any."""
        rows, out, notes = self.rows, self._benchmark.out, list(self.notes.values())
        if not rows or not is_first_process():
            return
        write_table(list(rows.values()), out, self._caption, notes)
        reports = {
            f"{row.recipe}, {row.setting}": read_report_lines(out / "reports" / f"{name}.jsonl", _SHOWN)
            for name, row in rows.items()
            if name not in self._outdated  # its reports may be of other images
        }
        write_report_table(list(rows.values()), notes, reports, out / "index.html", self._caption)


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _row(content: Mapping[str, Any]) -> Row:
    return Row(**{**content, "metrics": {name: Measured(**value) for name, value in content["metrics"].items()}})
