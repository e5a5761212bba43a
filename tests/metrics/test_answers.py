"""Answers in words are scored by the findings, sides and zones of their own dataset."""

import math

import pytest

from zoo.data.chest_drr.text.labels import LABELER, VOCABULARY
from zoo.data.conversations.records import Target
from zoo.data.vocabulary import FindingVocabulary, KeywordLabeler
from zoo.metrics.answers import answer_row

EFFUSION = (Target("pleural effusion", "left", "lower lung zone"),)
FRACTURES = FindingVocabulary((("rib fracture", "left"), ("rib fracture", "right"), ("pulmonary oedema", "")))
NONE = FindingVocabulary(())


def row_of(answer: str, targets: tuple[Target, ...], vocabulary: FindingVocabulary) -> list[float | None]:
    labeler = {VOCABULARY: LABELER, NONE: None}.get(vocabulary, KeywordLabeler(vocabulary))
    return [None if math.isnan(value) else value for value in answer_row(answer, targets, vocabulary, labeler)]


@pytest.mark.parametrize(
    ("answer", "targets", "expected"),
    [
        ("There is the left pleural effusion in the lower lung zone [SEG].", EFFUSION, [1, 1, 1]),
        ("There is the right pleural effusion in the lower lung zone [SEG].", EFFUSION, [1, 0, 1]),
        ("It is the left nodule in the mid lung zone [SEG].", EFFUSION, [0, 1, 0]),
        ("There is no pleural effusion.", EFFUSION, [0, 0, 0]),
        ("The carina [SEG].", (Target("carina"),), [1, None, None]),
        ("There is no nodule.", (), [1, None, None]),
        ("The left nodule [SEG].", (), [0, None, None]),
    ],
)
def test_answers_are_scored_by_finding_side_and_zone(answer, targets, expected):
    assert row_of(answer, targets, VOCABULARY) == expected


@pytest.mark.parametrize(
    ("answer", "targets", "expected"),
    [
        ("It is the left rib fracture [SEG].", (Target("rib fracture", "left"),), [1, 1, None]),
        ("It is the right rib fracture [SEG].", (Target("rib fracture", "left"),), [1, 0, None]),
        ("It is the left pleural effusion [SEG].", (Target("rib fracture", "left"),), [0, 0, None]),
        ("The left rib fracture [SEG], and an effusion.", (Target("rib fracture", "left"),), [1, 1, None]),
        ("It is the left pleural effusion [SEG].", (), [1, None, None]),
        ("Pulmonary oedema [SEG].", (), [0, None, None]),
    ],
)
def test_a_dataset_with_other_findings_is_scored_by_its_own(answer, targets, expected):
    """A pleural effusion, which this dataset does not know, neither helps nor harms."""
    assert row_of(answer, targets, FRACTURES) == expected


def test_without_a_vocabulary_only_names_are_scored():
    assert row_of("The left carina [SEG].", (Target("carina", "left"),), NONE) == [1, None, None]
    assert row_of("The heart [SEG].", (Target("carina"),), NONE) == [0, None, None]
    assert row_of("There is nothing.", (), NONE) == [None, None, None]
