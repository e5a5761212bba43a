import re

import numpy as np
import pytest
from pycocotools import mask as coco

from zoo.data.chest_drr.rendering.cases import CaseSpec, render_case
from zoo.data.chest_drr.text.labels import LABELER
from zoo.data.chest_drr.text.traces import PROMPT, build_pairs, build_trace, trace_words
from zoo.data.traces.records import parse_response

SIZE = 64


@pytest.fixture(scope="module")
def records():
    return [render_case(CaseSpec(image_size=SIZE), "val", index).to_record() for index in range(6)]


def test_each_finding_has_a_step_and_each_step_its_box(records):
    for index, record in enumerate(records):
        trace = build_trace(record, SIZE, np.random.default_rng(index))
        steps, report = parse_response(trace["response"])
        expected = {(item["kind"], item["side"]) for item in record["findings"]}
        assert trace["prompt"] == PROMPT and {tuple(label) for label in trace["findings"]} == expected
        assert LABELER.label(report) == expected and [step.box for step in steps] == trace["boxes"]
        examined = set().union(*(LABELER.label(step.statement) for step in steps))
        visible = {(i["kind"], i["side"]) for i in record["findings"] if coco.area(i["mask"]) > SIZE}
        assert visible <= examined <= expected and len(steps) >= 2


def test_pairs_are_an_image_and_a_region_with_their_findings(records):
    for index, record in enumerate(records):
        (whole, whole_box), (region, region_box) = build_pairs(record, SIZE, np.random.default_rng(index))
        expected = {(item["kind"], item["side"]) for item in record["findings"]}
        assert LABELER.label(whole["response"]) == expected and LABELER.label(region["response"]) <= expected
        for left, top, right, bottom in (whole_box, region_box):
            assert 0 <= left < right <= SIZE and 0 <= top < bottom <= SIZE and right - left == bottom - top
        assert whole_box[2] - whole_box[0] >= SIZE * 11 // 12


def test_every_word_of_a_trace_is_listed(records):
    words = set(trace_words(SIZE))
    for index, record in enumerate(records):
        text = build_trace(record, SIZE, np.random.default_rng(index))["response"].replace("<image>", " ")
        assert set(re.findall(r"\w+|[^\w\s]", text)) <= words
    assert len(trace_words(SIZE)) == len(words) and str(SIZE) in words and str(SIZE + 1) not in words
