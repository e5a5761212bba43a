"""Reports of an evaluation as JSON Lines, from one process or several."""

import json
import math
from types import SimpleNamespace

import torch

from tests.tiny_trace import RECORD
from zoo.engine.report_lines import ReportLines, read_report_lines


def scores(indices):
    labels = torch.zeros(len(indices), 2, 14)  # of a metric that is a function of all rows
    return {"judge": torch.tensor([math.nan if index == 3 else index / 4 for index in indices]), "chexbert": labels}


def test_lines_of_several_processes_are_in_the_order_of_the_records(tmp_path):
    lines = ReportLines(tmp_path / "reports" / "row.jsonl")
    methods = [SimpleNamespace(global_rank=0, on_reports=None) for _ in range(2)]
    for method in methods:
        lines.begin(method)  # every process does, before there is a trainer that knows its rank
    for rank, indices in enumerate(([0, 2], [1, 3, 0])):  # the last process has a record again, to fill its batch
        methods[rank].global_rank = rank
        predictions = [
            {"report": f"Report {index}.", "response": "All.", "steps": RECORD.steps[:1]} for index in indices
        ]
        methods[rank].on_reports({"index": indices, "record": [RECORD] * len(indices)}, predictions, scores(indices))
    parts = sorted(path.name for path in lines.path.parent.iterdir())
    assert parts == [".row.jsonl.0.part", ".row.jsonl.1.part"], "no process writes into another's file"
    lines.end()
    content = [json.loads(line) for line in lines.path.read_text().splitlines()]
    assert [line["report"] for line in content] == [f"Report {index}." for index in range(4)]
    assert content[0]["steps"] == [{"region": "heart", "box": [2, 4, 20, 30], "statement": "It is enlarged."}]
    assert [line["scores"] for line in content] == [{"judge": score} for score in (0.0, 0.25, 0.5, None)]
    assert content[0]["response"] == "All."
    assert content[0]["reference"] == "A normal film." and content[0]["image"] == "film.png"
    assert [path.name for path in lines.path.parent.iterdir()] == ["row.jsonl"], "no parts are left"
    assert [line["index"] for line in read_report_lines(lines.path, 3)] == [0, 1, 2]
    assert read_report_lines(tmp_path / "none.jsonl", 3) == []


def test_what_a_killed_process_left_is_not_kept(tmp_path):
    lines = ReportLines(tmp_path / "row.jsonl")
    for report in ("killed", "again"):
        method = SimpleNamespace(global_rank=0, on_reports=None)
        lines.begin(method)
        method.on_reports({"index": [0], "record": [RECORD]}, [{"report": report, "response": report, "steps": []}], {})
    lines.end()
    assert [line["report"] for line in read_report_lines(lines.path, 9)] == ["again"]
    lines.end()
    assert len(read_report_lines(lines.path, 9)) == 1, "nothing new: the file stays"
