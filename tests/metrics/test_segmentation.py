"""gIoU, cIoU, Dice and answers, by hand and by invariants."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zoo.data.conversations.records import Target
from zoo.metrics.answers import answer_row
from zoo.metrics.segmentation import TARGETS, ciou, dice, giou, giou_by_target, question_row, target_index


def block(left: int, width: int, side: int = 10) -> torch.Tensor:
    mask = torch.zeros(side, side)
    mask[:, left : left + width] = 1
    return mask


NONE = torch.zeros(0, 10, 10)


def test_by_hand():
    """Half overlapping blocks: 20 of 60 pixels; then a hit of 40 pixels."""
    rows = torch.tensor(
        [question_row(block(0, 4)[None], block(2, 4)[None]), question_row(block(0, 4)[None], block(0, 4)[None])]
    )
    assert rows[0].tolist() == pytest.approx([1 / 3, 0.5, 20, 60])
    assert giou(rows) == pytest.approx((1 / 3 + 1) / 2) and ciou(rows) == pytest.approx(60 / 100)
    assert dice(rows) == pytest.approx(0.75)


def test_missing_and_superfluous_masks_count_nothing():
    two = torch.stack([block(0, 2), block(5, 2)])
    assert question_row(two[:1], two)[0] == 0.5, "one of two was drawn"
    assert question_row(two, two[:1])[0] == 0.5, "one of two was asked for"
    assert question_row(NONE, two)[0] == 0.0


def test_absent_targets_count_1_if_no_pixel_is_drawn():
    assert question_row(NONE, NONE) == [1.0, 1.0, 0.0, 0.0]
    assert question_row(torch.zeros(1, 10, 10), NONE)[0] == 1.0
    assert question_row(block(0, 1)[None], NONE)[:2] == [0.0, 0.0]
    assert math.isnan(giou(torch.zeros(0, 4))) and ciou(torch.tensor([[1.0, 1.0, 0.0, 0.0]])) == 1.0


def test_giou_is_split_by_what_questions_are_about():
    about = [(Target("mass", "left"),), (Target("mass"), Target("mass")), (Target("carina"),), (), (Target(), Target())]
    targets = [target_index(targets) for targets in [*about, (Target("mass"), Target("nodule"))]]
    assert targets == [TARGETS.index("mass"), TARGETS.index("mass"), TARGETS.index("region"), -1, -1, -1]
    areas = torch.tensor([[value, value, 0.0, 0.0] for value in (0.5, 1.0, 0.3, 0.9, 0.9, 0.9)])
    measured = {
        name: metric({"areas": areas, "target": torch.tensor(targets)}) for name, metric in giou_by_target().items()
    }
    assert measured["giou_mass"] == 0.75 and measured["giou_region"] == pytest.approx(0.3)
    assert math.isnan(measured["giou_pleural_effusion"])


@given(st.integers(0, 8), st.integers(1, 9), st.integers(0, 8), st.integers(1, 9))
def test_iou_is_symmetric_and_at_most_dice(a, b, c, d):
    one, other = block(a, b)[None], block(c, d)[None]
    row, swapped = question_row(one, other), question_row(other, one)
    assert row == swapped and 0 <= row[0] <= row[1] <= 1
    assert (row[0] == 1) == bool(torch.equal(one, other))


@pytest.mark.parametrize(
    ("answer", "targets", "row"),
    [
        ("There is the left pleural effusion in the lower lung zone [SEG].", "effusion", [1, 1, 1]),
        ("There is the right pleural effusion in the lower lung zone [SEG].", "effusion", [1, 0, 1]),
        ("It is the left nodule in the mid lung zone [SEG].", "effusion", [0, 1, 0]),
        ("There is no pleural effusion.", "effusion", [0, 0, 0]),
        ("The carina [SEG].", "carina", [1, None, None]),
        ("There is no nodule.", "none", [1, None, None]),
        ("The left nodule [SEG].", "none", [0, None, None]),
    ],
)
def test_answers_are_right_by_finding_side_and_zone(answer, targets, row):
    wanted = {
        "effusion": (Target("pleural effusion", "left", "lower lung zone"),),
        "carina": (Target("carina"),),
        "none": (),
    }[targets]
    made = [None if math.isnan(value) else value for value in answer_row(answer, wanted)]
    assert made == row
