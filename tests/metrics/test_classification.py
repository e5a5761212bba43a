"""A class without images, or with all of them, is left out of a mean: it counts neither 0 nor 1."""

import math

import pytest
import torch
from torch.nn.functional import one_hot
from torchmetrics.functional.classification import multiclass_auroc, multiclass_f1_score

from zoo.metrics.classification import (
    accuracy,
    auroc_by_class,
    binary_auroc,
    confusion_matrix,
    f1_by_class,
    macro_auroc,
    macro_f1,
    nan_mean,
    precision_by_class,
    recall_by_class,
)
from zoo.metrics.intervals import measure


def perfect(labels: list[int], classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return one_hot(torch.tensor(labels), classes) * 0.9 + 0.1 / classes, torch.tensor(labels)


def test_where_every_class_has_images_the_means_are_torchmetrics():
    torch.manual_seed(0)
    probabilities, labels = torch.rand(200, 5).softmax(-1), torch.arange(200) % 5
    assert macro_f1(probabilities, labels) == pytest.approx(
        float(multiclass_f1_score(probabilities, labels, num_classes=5, average="macro"))
    )
    assert macro_auroc(probabilities, labels) == float(multiclass_auroc(probabilities, labels, num_classes=5))


@pytest.mark.parametrize("metric", [accuracy, macro_f1, macro_auroc])
@pytest.mark.parametrize("labels", [[0, 1] * 10, [0, 1] * 19 + [2, 2], [2, 0] + [1] * 30])
def test_a_perfect_classifier_has_1_with_a_class_absent_or_rare(metric, labels):
    probabilities, targets = perfect(labels)
    outputs = {"probabilities": probabilities, "labels": targets}
    measured = measure(lambda o: metric(o["probabilities"], o["labels"]), [outputs])
    assert (measured.value, measured.low, measured.high) == (1, 1, 1)


def test_one_class_alone_has_no_auroc():
    probabilities, labels = perfect([0] * 6)
    assert math.isnan(macro_auroc(probabilities, labels))
    measured = measure(
        lambda o: macro_auroc(o["probabilities"], o["labels"]), [dict(probabilities=probabilities, labels=labels)]
    )
    assert math.isnan(measured.value) and math.isnan(measured.low)
    assert macro_f1(probabilities, labels) == 1
    assert math.isnan(binary_auroc(torch.rand(4), torch.zeros(4))) and math.isnan(
        binary_auroc(torch.rand(4), torch.ones(4))
    )


def test_measures_of_each_class():
    probabilities, _ = perfect([0, 0, 1, 1, 0, 3], 4)
    labels = torch.tensor([0, 1, 1, 1, 0, 0])
    matrix = confusion_matrix(probabilities, labels)
    assert matrix.tolist() == [[2, 0, 0, 1], [1, 2, 0, 0], [0] * 4, [0] * 4]
    nan = torch.nan
    torch.testing.assert_close(recall_by_class(matrix), torch.tensor([2 / 3, 2 / 3, nan, nan]), equal_nan=True)
    torch.testing.assert_close(precision_by_class(matrix), torch.tensor([2 / 3, 1, nan, 0]), equal_nan=True)
    torch.testing.assert_close(f1_by_class(matrix), torch.tensor([2 / 3, 0.8, nan, nan]), equal_nan=True)
    assert auroc_by_class(probabilities, labels).isnan().tolist() == [False, False, True, True]


def test_the_mean_of_what_is_a_number():
    assert nan_mean([1.0, math.nan, 2.0]) == 1.5
    assert math.isnan(nan_mean([])) and math.isnan(nan_mean([math.nan]))
