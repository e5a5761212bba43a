"""Generated reports that are kept until they are scored."""

from types import SimpleNamespace

import pytest
import torch

from tests.tiny_trace import RECORD
from zoo.engine.generated_reports import GeneratedReports
from zoo.methods.report_generation import Swap

IMAGES = [torch.full((1, 4, 4), value) for value in (0.0, 0.5)]


@pytest.fixture
def method():
    calls: list[str] = []

    def generate(images, prompts=None):
        calls.append("generate")
        return [
            {"steps": RECORD.steps, "report": f"{prompt} {image.mean()}", "response": prompt, "images": []}
            for image, prompt in zip(images, prompts, strict=True)
        ]

    def swapped_statements(swaps):
        calls.append("swapped")
        return [({"effusion", "edema"}, set())] * len(swaps)

    return lambda: SimpleNamespace(
        global_rank=0, prompt="Default.", generate=generate, swapped_statements=swapped_statements, calls=calls
    )


def test_what_was_generated_is_not_generated_again(tmp_path, method):
    swaps = [Swap(RECORD, 0, IMAGES, IMAGES[1])]
    first = method()
    GeneratedReports(tmp_path / "row").begin(first)
    reports, stated = first.generate(IMAGES, ["One.", "Two."]), first.swapped_statements(swaps)
    with (tmp_path / "row.0.jsonl").open("a") as file:
        file.write('["cut off", {"rep')
    again = method()
    kept = GeneratedReports(tmp_path / "row")
    kept.begin(again)
    for before, after in zip(reports, again.generate(IMAGES, ["One.", "Two."]), strict=True):
        assert (after["report"], after["steps"]) == (before["report"], before["steps"])
    assert again.swapped_statements(swaps) == stated == [({"effusion", "edema"}, set())]
    assert again.calls == ["generate", "swapped"]
    again.generate(IMAGES[::-1], ["One.", "Two."])
    again.swapped_statements([Swap(RECORD, 1, IMAGES, IMAGES[1])])
    assert again.calls == ["generate", "swapped"] * 2, "others are"
    kept.end()
    assert list(tmp_path.iterdir()) == []
