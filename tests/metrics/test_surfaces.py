"""HD95 and NSD: MONAI's values, distances that can be counted, and what is defined where a mask is empty."""

import math

import numpy as np
import pytest
import torch

from zoo.metrics.surfaces import COLUMNS, compare_outlines, surface_distances, surface_metrics, surface_row


def ellipse(row, column, height, width):
    rows, columns = np.mgrid[:40, :60]
    return ((rows - row) / height) ** 2 + ((columns - column) / width) ** 2 <= 1


FIRST, SECOND = ellipse(18, 25, 10, 14), ellipse(21, 29, 8, 16)
SECOND[5:8, 50:55] = True
CORNERS = ellipse(0, 0, 12, 9), ellipse(2, 1, 12, 11)
EMPTY = np.zeros((40, 60), bool)


@pytest.mark.parametrize(
    ("masks", "spacing", "tolerance", "hd95", "nsd"),
    [
        ((FIRST, SECOND), (1.0, 1.0), 1.0, 17.04442596435547, 0.31081080436706543),
        ((FIRST, SECOND), (1.0, 1.0), 2.0, 17.04442596435547, 0.4189189076423645),
        ((FIRST, SECOND), (0.5, 0.2), 1.0, 4.39120626449585, 0.5270270109176636),
        ((FIRST, SECOND), (0.5, 0.2), 2.0, 4.39120626449585, 0.8040540814399719),
        (CORNERS, (1.0, 1.0), 1.0, 3.605551242828369, 0.6153846383094788),
        (CORNERS, (1.0, 1.0), 2.0, 3.605551242828369, 0.692307710647583),
        (CORNERS, (0.5, 0.2), 1.0, 0.943398118019104, 0.9743589758872986),
        (CORNERS, (0.5, 0.2), 2.0, 0.943398118019104, 1.0),
    ],
)
def test_values_of_monai(masks, spacing, tolerance, hd95, nsd):
    """Of MONAI 1.6.1, ``compute_hausdorff_distance(percentile=95)`` and ``compute_surface_dice``, on non-square masks."""
    for pair in (masks, masks[::-1]):
        assert compare_outlines(*pair, spacing, tolerance) == pytest.approx((hd95, nsd), rel=1e-6)


def test_a_shifted_square_is_as_far_as_it_was_shifted():
    one, other = (np.zeros((30, 30), bool) for _ in range(2))
    one[5:15, 5:15], other[5:15, 8:18] = True, True
    to_other, to_one = surface_distances(one, other)
    assert max(to_other.max(), to_one.max()) == 3 and len(to_other) == len(to_one) == 36
    assert compare_outlines(one, one) == (0.0, 1.0)
    assert compare_outlines(one, other, tolerance=3) == (3.0, 1.0)
    assert compare_outlines(one, other, (0.1, 0.1), tolerance=0.3 + 1e-9) == (pytest.approx(0.3), 1.0)


def test_empty_masks_are_defined():
    assert compare_outlines(EMPTY, EMPTY) == (0.0, 1.0)
    for pair in ((FIRST, EMPTY), (EMPTY, FIRST)):
        assert compare_outlines(*pair) == (math.hypot(40, 60), 0.0)
        assert compare_outlines(*pair, (0.5, 0.2)) == (math.hypot(20, 12), 0.0)


def stacked(*masks):
    return torch.from_numpy(np.stack(masks)).float() if masks else torch.zeros(0, 40, 60)


def test_a_question_is_the_mean_of_its_masks_compared_in_order():
    pixels = compare_outlines(FIRST, SECOND)
    row = surface_row(stacked(FIRST), stacked(SECOND), None, 2.0)
    assert row[:2] == pytest.approx(list(pixels)) and all(map(math.isnan, row[2:]))
    row = surface_row(stacked(FIRST, FIRST), stacked(SECOND), (0.5, 0.2), 2.0)
    assert row[0] == pytest.approx((pixels[0] + math.hypot(40, 60)) / 2) and row[1] == pytest.approx(pixels[1] / 2)
    assert row[2] == pytest.approx((4.39120626449585 + math.hypot(20, 12)) / 2)
    assert surface_row(stacked(), stacked(FIRST), None, 2.0)[:2] == [math.hypot(40, 60), 0.0], "missed"
    assert all(map(math.isnan, surface_row(stacked(FIRST), stacked(), None, 2.0))), "nothing to find"


def test_metrics_leave_out_what_has_no_mask_and_millimetres_that_are_not_known():
    nan = float("nan")
    rows = torch.tensor([[4.0, 0.5, 0.4, 0.9], [nan, nan, nan, nan], [2.0, 1.0, 0.2, 1.0]])
    metrics = surface_metrics()
    assert [metrics[name]({"surfaces": rows}) for name in COLUMNS] == pytest.approx([3.0, 0.75, 0.3, 0.95])
    rows[2, 2:] = nan
    assert math.isnan(metrics["hd95_mm"]({"surfaces": rows})) and metrics["hd95"]({"surfaces": rows}) == 3.0
    assert math.isnan(metrics["nsd"]({"surfaces": rows[1:2]}))
