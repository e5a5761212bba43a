from collections import Counter

import pytest

from zoo.data.base import LoaderSpec
from zoo.data.chest_drr.datasets import findings
from zoo.data.chest_drr.datasets.findings import CLASSES, ChestDrrFindings
from zoo.data.chest_drr.rendering.build import build_series
from zoo.data.chest_drr.rendering.spec import ImageSpec

RENDER = ImageSpec(image_size=32, style="portable", render_workers=2)


@pytest.fixture(autouse=True)
def _few_images(monkeypatch):
    monkeypatch.setattr(findings, "PER_CLASS", {"train": 3, "val": 1, "test": 2})


def test_every_class_is_rendered_and_labelled():
    data = ChestDrrFindings(shots=None, render=RENDER)
    assert [len(data.split(split)) for split in ("train", "val", "test")] == [30, 10, 20]
    series = build_series(data.spec, {"train": 10})["train"]
    for index in range(10):
        sample = data.split("train")[index]
        assert sample["image"].shape == (1, 32, 32) and sample["label"] == index
        label = list(CLASSES.values())[index]
        rendered = series.record(index)["findings"]
        assert [(item["kind"], item["severity"]) for item in rendered] == ([label] if label else [])


def test_shots_are_sampled_by_the_seed():
    def sources(seed: int) -> list[str]:
        data = ChestDrrFindings(shots=1, render=RENDER, loader=LoaderSpec(seed=seed))
        assert Counter(item.label for item in data.split("train").items) == dict.fromkeys(range(10), 1)
        return [str(item.source) for item in data.split("train").items]

    assert sources(0) == sources(0) != sources(1)


def test_splits_have_different_images():
    data = ChestDrrFindings(shots=None, render=RENDER)
    images = {data.split(split)[0]["image"].numpy().tobytes() for split in ("train", "val", "test")}
    assert len(images) == 3
    assert data.example_images(2)[1].title.startswith("small") and data.example_images(1)[0].title == "no finding"
