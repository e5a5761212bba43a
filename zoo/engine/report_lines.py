"""Reports of an evaluation as JSON Lines: what a model wrote for each record, beside what is true."""

import json
from pathlib import Path
from typing import Any

import torch

from zoo.files import replacing
from zoo.methods.distributed import INDEX, Outputs
from zoo.methods.report_generation import ReportGeneration


class ReportLines:
    """A file with a line for each record, in their order; written whole at the end, from a part of each process."""

    def __init__(self, path: Path) -> None:
        """Name the file."""
        self.path = path

    def _parts(self) -> list[Path]:
        return sorted(self.path.parent.glob(f".{self.path.name}.*.part"))

    def begin(self, method: ReportGeneration) -> None:
        """Keep what a method writes from now on; processes meet between this and the first batch."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for left in self._parts():
            left.unlink(missing_ok=True)  # of a benchmark that was killed

        def keep(batch: dict[str, Any], predictions: list[dict[str, Any]], scores: Outputs) -> None:
            rows = enumerate(zip(batch[INDEX], batch["record"], predictions, strict=True))
            part = self.path.with_name(f".{self.path.name}.{method.global_rank}.part")  # known once there is a trainer
            with part.open("a", encoding="utf-8") as file:
                for position, (index, record, prediction) in rows:
                    steps = [
                        {"region": step.region, "box": step.box, "statement": step.statement}
                        for step in prediction["steps"]
                    ]
                    line = {
                        "index": int(index),
                        "image": str(record.images[0]),
                        "prompt": record.prompt,
                        "report": prediction["report"],
                        "response": prediction["response"],
                        "reference": record.report,
                        "steps": steps,
                        "scores": {name: _score(row[position]) for name, row in scores.items() if row.ndim == 1},
                    }
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")

        method.on_reports = keep

    def end(self) -> None:
        """Put the parts of all processes together."""
        parts = self._parts()
        lines = [json.loads(line) for part in parts for line in part.read_text(encoding="utf-8").splitlines()]
        if lines:
            ordered = {line["index"]: line for line in sorted(lines, key=lambda line: line["index"])}
            with replacing(self.path) as partial:
                partial.write_text(
                    "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in ordered.values()), encoding="utf-8"
                )
        for part in parts:
            part.unlink()


def _score(value: torch.Tensor) -> float | None:
    """A number, or None for a report without a score: JSON has no NaN."""
    return None if value.isnan() else round(float(value), 6)


def read_report_lines(path: Path, count: int) -> list[dict[str, Any]]:
    """The first lines of such a file; none if there is no file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for _, line in zip(range(count), file, strict=False)]
