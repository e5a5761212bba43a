import re

import numpy as np
import pytest
from pycocotools import mask as coco

from zoo.data.chest_drr.rendering.cases import CaseSpec, render_case
from zoo.data.chest_drr.text.labels import LABELER
from zoo.data.chest_drr.text.traces import PROMPT, SYSTEMATIC_REGIONS, build_pairs, build_trace, trace_words
from zoo.data.traces.records import parse_response
from zoo.metrics.reports import impression_agreement, repeats_sentence

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


def test_a_systematic_search_examines_the_same_regions_whatever_there_is(records):
    stated: set[tuple[str, str]] = set()
    for index, record in enumerate(records):
        trace = build_trace(record, SIZE, np.random.default_rng(index), "systematic")
        steps, report = parse_response(trace["response"])
        assert [step.region for step in steps] == list(SYSTEMATIC_REGIONS)
        expected = {(item["kind"], item["side"]) for item in record["findings"]}
        examined = set().union(*(LABELER.label(step.statement) for step in steps))
        visible = {(i["kind"], i["side"]) for i in record["findings"] if coco.area(i["mask"]) > 4}
        assert visible <= examined <= expected == LABELER.label(report)
        stated |= examined
        areas = [coco.area(item["mask"]) / SIZE**2 for item in record["findings"]]
        assert trace["finding_areas"] == pytest.approx(areas, abs=1e-5)
    assert len(stated) >= 4


@pytest.mark.parametrize("search", ["targeted", "systematic"])
def test_a_report_repeats_no_sentence_and_states_every_finding_that_it_lists(records, search):
    reports = [
        parse_response(build_trace(record, SIZE, np.random.default_rng([index, seed]), search)["response"])[1]
        for index, record in enumerate(records)
        for seed in range(10)
    ]
    assert repeats_sentence(reports).sum() == 0
    assert impression_agreement(reports, LABELER).tolist() == [1.0] * len(reports)


def test_a_systematic_report_states_findings_in_the_order_of_its_list(records):
    """A model need not remember which of them it has stated."""
    several = [record for record in records if len(record["findings"]) > 1]
    assert several
    for record in several:
        for seed in range(10):
            trace = build_trace(record, SIZE, np.random.default_rng(seed), "systematic")
            impression, _, sentences = parse_response(trace["response"])[1].partition(" Findings: ")
            stated = [label for part in sentences.split(".") for label in LABELER.label(part)]
            listed = [label for part in impression.split(";") for label in LABELER.label(part)]
            assert stated == listed


def test_pairs_of_a_systematic_search_are_its_regions_and_close_ups_are_marked(records):
    for index, record in enumerate(records):
        (whole, _), (close_up, box) = build_pairs(record, SIZE, np.random.default_rng(index), "systematic")
        assert close_up["close_up"] and "close_up" not in whole
        centre = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        boxes = [record["regions"][name]["box"] for name in SYSTEMATIC_REGIONS]
        assert any(left <= centre[0] <= right and top <= centre[1] <= bottom for left, top, right, bottom in boxes)
