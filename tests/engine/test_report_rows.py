"""States of a benchmark's rows: what was measured, and what has to be."""

import json
from pathlib import Path

import pytest

from tests.tiny_benchmark import write_models
from zoo.data.traces.records import RecordError
from zoo.engine.report_plan import FINE_TUNED, Benchmark, Item
from zoo.engine.report_rows import note_learned, plan_rows, refusal, row_file, run_folder
from zoo.errors import ArgumentError


@pytest.fixture
def root(tmp_path):
    return write_models(tmp_path / "benchmark")


def benchmark(root: Path, **options) -> Benchmark:
    return Benchmark(root / "out", data=root / "traces", device="cpu", modes=("none",), **options)


def test_a_row_is_done_until_its_records_change(root):
    model, settings = str(root / "qwen.yaml"), benchmark(root)
    (row,) = plan_rows([model], settings)
    assert row.state == "to do" and row.is_possible
    file = row_file(row.item, settings)
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"setting": row.setting}))
    assert [row.state for row in plan_rows([model], settings)] == ["done"]
    traces = root / "traces" / "test.jsonl"
    traces.write_text(traces.read_text().replace("No pleural effusion.", "Cardiomegaly."))
    assert [row.state for row in plan_rows([model], settings)] == [
        "to do again: the measured records or their images changed"
    ]
    with pytest.raises(ArgumentError, match="was measured with other settings; .* limit was None, now 2"):
        plan_rows([model], benchmark(root, limit=2))


def test_a_training_of_other_weights_is_refused_in_words(root):
    settings, item = benchmark(root, seeds=(0, 1)), Item("model", FINE_TUNED, "none")
    before, now = ({"content": {"train": "a", "val": "b", "weights": weights}} for weights in "xy")
    run = run_folder(item, settings, 1)
    note_learned(run, before)
    assert refusal(item, settings, now) is None, "it has not begun"
    run.mkdir(parents=True)
    note_learned(run, now)
    assert refusal(item, settings, before) is None, "what a run learned from is noted once"
    assert refusal(item, settings, now) == (
        f"{run} was trained before the weights changed; remove this folder to train again, or choose another with --out"
    )


def test_a_malformed_record_of_another_split_says_why_it_is_read(root):
    (root / "traces" / "train.jsonl").write_text("{")
    with pytest.raises(
        RecordError, match=r"train.jsonl:1: is not JSON.*; this split is read for its findings and words"
    ):
        plan_rows([str(root / "qwen.yaml")], benchmark(root))
    with pytest.raises(RecordError, match=r"train.jsonl:1: is not JSON") as raised:
        plan_rows([str(root / "qwen.yaml")], benchmark(root, shots=1))
    assert "this split is read" not in str(raised.value)
