from collections import Counter

import pytest

from zoo.data.base import LoaderSpec
from zoo.data.chest_drr.datasets.findings import TASKS, ChestDrrFindings
from zoo.data.chest_drr.rendering.build import build_series
from zoo.data.chest_drr.rendering.spec import ImageSpec
from zoo.data.chest_drr.text.wording import read_wording

RENDER = ImageSpec(image_size=32, style="portable", render_workers=2)


@pytest.fixture(autouse=True)
def _few_images(monkeypatch):
    for task in read_wording("tasks").values():
        monkeypatch.setitem(task, "images", {"train": 3, "val": 1, "test": 2})


def test_every_class_is_rendered_and_labelled():
    data = ChestDrrFindings(shots=None, render=RENDER)
    assert [len(data.split(split)) for split in ("train", "val", "test")] == [30, 10, 20]
    series = build_series(data.spec, {"train": 10})["train"]
    for index in range(10):
        sample = data.split("train")[index]
        assert sample["image"].shape == (1, 32, 32) and sample["label"] == index
        expected = list(read_wording("tasks")["findings"]["classes"].values())[index]
        rendered = series.record(index)["findings"]
        assert [[item["kind"], item["severity"]] for item in rendered] == expected


@pytest.mark.parametrize("task", TASKS)
def test_the_films_of_a_task_show_what_its_classes_say(task):
    data = ChestDrrFindings(shots=None, task=task, render=RENDER)
    names, contents = data.class_names, list(read_wording("tasks")[task]["classes"].values())
    dataset, turns = data.split("train"), [[] for _ in names]
    series = build_series(data.spec, {"train": len(dataset)})["train"]
    assert len(dataset) == 3 * len(names) and set(data.metadata()["class_texts"]) == set(names)
    for index, item in enumerate(dataset.items):
        assert dataset[index]["image"].shape == (1, 32, 32)
        turns[item.label].append(
            [
                [finding[key] for key in ("kind", "severity", "side", "lobe")]
                for finding in series.record(index)["findings"]
            ]
        )
    for alternatives, rendered in zip(contents, turns, strict=True):
        expected = [[alternatives[turn % len(alternatives)]] if alternatives else [] for turn in range(3)]
        cut = [
            [found[: len(fixed)] for found, fixed in zip(*pair, strict=True)]
            for pair in zip(rendered, expected, strict=True)
        ]
        assert cut == expected


def test_close_ups_show_the_lung_with_the_finding_at_twice_the_resolution():
    data = ChestDrrFindings(shots=None, task="close_up", render=RENDER)
    record = build_series(data.spec, {"train": 3})["train"].record(1)
    left, _, right, _ = record["regions"][f"{record['findings'][0]['side']} lung"]["box"]
    assert data.spec.image_size == 64 and 16 < right - left < 40
    film = ChestDrrFindings(shots=None, render=RENDER)
    assert film.spec.image_size == 32


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
