"""gIoU, cIoU and Dice, by hand and by invariants."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zoo.data.conversations.records import Target
from zoo.data.vocabulary import FindingVocabulary
from zoo.metrics.segmentation import ciou, dice, giou, giou_by_target, question_row, target_index


def block(left: int, width: int, side: int = 10) -> torch.Tensor:
    mask = torch.zeros(side, side)
    mask[:, left : left + width] = 1
    return mask


NONE = torch.zeros(0, 10, 10)
VOCABULARY = FindingVocabulary((("rib fracture", "left"), ("rib fracture", "right"), ("pulmonary oedema", "")))


def test_by_hand():
    """Half overlapping blocks: 20 of 60 pixels; then a hit of 40 pixels."""
    rows = torch.tensor(
        [question_row(block(0, 4)[None], block(2, 4)[None]), question_row(block(0, 4)[None], block(0, 4)[None])]
    )
    assert rows[0].tolist() == pytest.approx([1 / 3, 0.5, 20, 60])
    assert giou(rows) == pytest.approx((1 / 3 + 1) / 2) and ciou(rows) == pytest.approx(60 / 100)
    assert dice(rows) == pytest.approx(0.75)


def test_missing_and_superfluous_masks_score_0():
    two = torch.stack([block(0, 2), block(5, 2)])
    assert question_row(two[:1], two)[0] == 0.5, "one of two is predicted"
    assert question_row(two, two[:1])[0] == 0.5, "one of two is a target"
    assert question_row(NONE, two)[0] == 0.0


def test_absent_targets_score_1_if_no_pixel_is_predicted():
    assert question_row(NONE, NONE) == [1.0, 1.0, 0.0, 0.0]
    assert question_row(torch.zeros(1, 10, 10), NONE)[0] == 1.0
    assert question_row(block(0, 1)[None], NONE)[:2] == [0.0, 0.0]
    assert math.isnan(giou(torch.zeros(0, 4))) and ciou(torch.tensor([[1.0, 1.0, 0.0, 0.0]])) == 1.0


def test_giou_is_grouped_by_the_findings_of_the_vocabulary():
    questions = [
        (Target("rib fracture", "left"),),
        (Target("rib fracture"), Target("rib fracture")),
        (Target("carina"),),
        (),
        (Target(), Target()),
        (Target("rib fracture"), Target("pulmonary oedema")),
    ]
    targets = [target_index(targets, VOCABULARY) for targets in questions]
    assert targets == [0, 0, 2, -1, -1, -1]
    areas = torch.tensor([[value, value, 0.0, 0.0] for value in (0.5, 1.0, 0.3, 0.9, 0.9, 0.9)])
    outputs = {"areas": areas, "target": torch.tensor(targets)}
    values = {name: metric(outputs) for name, metric in giou_by_target(VOCABULARY).items()}
    assert set(values) == {"giou_rib_fracture", "giou_pulmonary_oedema", "giou_region"}
    assert values["giou_rib_fracture"] == 0.75 and values["giou_region"] == pytest.approx(0.3)
    assert math.isnan(values["giou_pulmonary_oedema"])
    assert giou_by_target(FindingVocabulary(())) == {}


@given(st.integers(0, 8), st.integers(1, 9), st.integers(0, 8), st.integers(1, 9))
def test_iou_is_symmetric_and_at_most_dice(a, b, c, d):
    one, other = block(a, b)[None], block(c, d)[None]
    row, swapped = question_row(one, other), question_row(other, one)
    assert row == swapped and 0 <= row[0] <= row[1] <= 1
    assert (row[0] == 1) == bool(torch.equal(one, other))
