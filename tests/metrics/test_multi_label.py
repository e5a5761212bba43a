"""Metrics of labels, on numbers that can be checked by hand."""

import math

import pytest
import torch

from zoo.metrics.multi_label import label_auroc, label_macro_f1, mean_auroc, mean_average_precision

NAN = float("nan")
TARGETS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, NAN], [1.0, 0.0, 1.0], [NAN, 0.0, 0.0]])
PROBABILITIES = torch.tensor([[0.9, 0.1, 0.4], [0.2, 0.2, 0.9], [0.8, 0.3, 0.3], [0.99, 0.4, 0.1]])


def test_what_is_not_known_does_not_count():
    assert label_auroc(PROBABILITIES[:, 0], TARGETS[:, 0]) == 1.0
    assert label_auroc(PROBABILITIES[:, 2], TARGETS[:, 2]) == 0.5, "1 above 0.1 and below 0.4"


def test_a_label_of_one_kind_is_undefined_and_left_out_of_the_mean():
    assert math.isnan(label_auroc(PROBABILITIES[:, 1], TARGETS[:, 1]))
    assert mean_auroc(PROBABILITIES, TARGETS) == pytest.approx(0.75)
    assert mean_average_precision(PROBABILITIES, TARGETS) == pytest.approx((1.0 + 0.5) / 2)
    assert math.isnan(mean_auroc(PROBABILITIES[:, 1:2], TARGETS[:, 1:2]))
    assert math.isnan(mean_average_precision(PROBABILITIES[:, 1:2], TARGETS[:, 1:2]))


def test_f1_of_a_missed_label_is_0_and_not_undefined():
    assert label_macro_f1(PROBABILITIES, TARGETS) == pytest.approx((1.0 + 0.0) / 2)
    assert math.isnan(label_macro_f1(PROBABILITIES[:, 1:2], TARGETS[:, 1:2]))
