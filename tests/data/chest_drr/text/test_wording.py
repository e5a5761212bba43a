"""The wording files, and golden hashes of every kind of text that is sampled from them."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import pytest

from zoo.data.chest_drr.datasets.conversations import ChestDrrMedSegQa
from zoo.data.chest_drr.datasets.masks import ChestDrrMasks
from zoo.data.chest_drr.datasets.reports import ChestDrrReports
from zoo.data.chest_drr.datasets.traces import ChestDrrIvl
from zoo.data.chest_drr.rendering.findings import SEVERITIES
from zoo.data.chest_drr.rendering.spec import RenderSpec
from zoo.data.chest_drr.text.traces import PROMPT, trace_words
from zoo.data.chest_drr.text.wording import read_wording
from zoo.data.traces.records import IMAGE_PLACEHOLDER
from zoo.paths import PACKAGE

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "chest_drr_texts.json").read_text())
"""Hashes of the texts that the published cards were trained and measured on, for 32 training cases of 64 pixels."""

RENDER = RenderSpec(size=32, image_size=64, render_workers=2)


def digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize(("name", "dataset"), [("questions", ChestDrrMedSegQa), ("masks", ChestDrrMasks)])
def test_questions_are_those_of_the_published_cards(name, dataset, split):
    conversations = dataset(render=RENDER).conversations(split)
    assert not any(turn.wrong for conversation in conversations for turn in conversation.turns)
    texts = (
        json.dumps(
            [{key: value for key, value in asdict(turn).items() if key != "wrong"} for turn in conversation.turns]
        )
        for conversation in conversations
    )
    assert digest(texts) == GOLDEN[f"{name}/{split}"]


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize(("name", "pairs"), [("traces", False), ("pairs", True)])
def test_traces_are_those_of_the_published_cards(name, pairs, split):
    records = ChestDrrIvl(render=RENDER, pairs=pairs).records(split)
    texts = (json.dumps([r.prompt, [asdict(s) for s in r.steps], r.report, r.findings, r.regions]) for r in records)
    assert digest(texts) == GOLDEN[f"{name}/{split}"]


def test_reports_probes_and_words_are_those_of_the_published_cards():
    data = ChestDrrReports(render=RENDER)
    reports = data.split("val")
    assert digest(reports[index]["text"] for index in range(64)) == GOLDEN["reports/val"]
    assert digest([json.dumps(data.metadata()["probes"])]) == GOLDEN["probes"]
    assert digest(trace_words(64)) == GOLDEN["words"]


def test_every_finding_has_its_wording():
    reports, clues, labels = read_wording("reports"), read_wording("clues"), read_wording("labels")
    for entries in (reports["positive"], reports["negative"], clues["train"], clues["test"], labels["patterns"]):
        assert list(entries) == list(SEVERITIES)
    assert all(re.compile(pattern) for pattern in labels["patterns"].values())


def test_every_prompt_has_a_place_for_its_image():
    prompts = read_wording("traces")["prompts"]
    assert PROMPT in prompts.values() and all(text.count(IMAGE_PLACEHOLDER) == 1 for text in prompts.values())


def test_wording_is_read_once_and_has_no_line_twice():
    assert read_wording("clues") is read_wording("clues")
    for path in sorted((PACKAGE / "data" / "chest_drr" / "text").glob("*.yaml")):
        for entries in _lists(read_wording(path.stem)):
            assert len(entries) == len(set(map(str, entries))), path


def _lists(content: object) -> Iterable[list[str]]:
    if isinstance(content, list):
        yield content
    elif isinstance(content, dict):
        for value in content.values():
            yield from _lists(value)
