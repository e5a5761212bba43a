"""What a classifier must beat to be believed: the majority class, and a linear probe on raw pixels; and its classes one by one."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from zoo.data.base import ZooData
from zoo.data.classification.base import ClassificationData, LabelledImages
from zoo.methods.base import Metric, Outputs
from zoo.metrics.classification import (
    auroc_by_class,
    confusion_matrix,
    f1_by_class,
    precision_by_class,
    recall_by_class,
)
from zoo.metrics.intervals import Measured, measure

MAJORITY, PIXELS = "majority class", "raw-pixel probe"
_SIDE = 16
"""Images of the probe are grey, of this side."""
_MOST_IMAGES = 1000
"""Training images that the probe reads, sampled by the data's seed."""
_STEPS, _DECAY = 100, 1e-2


@dataclass(frozen=True)
class ClassificationDetails:
    """Beside the metrics of a classifier: those of baselines by name, its classes with n, its confusion matrix, and warnings.

    ``confusion`` has a row for each true class, with the number of images taken for each class.
    """

    baselines: dict[str, dict[str, Measured]]
    classes: list[dict[str, Any]]
    confusion: list[list[int]]
    notes: list[str]


def classification_details(
    data: ZooData, metrics: Mapping[str, Metric], outputs: Outputs, split: str
) -> ClassificationDetails | None:
    """Baselines on the same images, and what to know before a number is believed; None for other tasks than classification.

    Args:
        data: that was measured on; baselines learn from its training split, if it has one.
        metrics: of the method.
        outputs: of the method on the split.
        split: that was measured.
    """
    if not has_baselines(data, outputs):
        return None
    assert isinstance(data, ClassificationData)
    labels, names = outputs["labels"], data.class_names
    baselines = {
        name: {metric: measure(function, [predicted]) for metric, function in metrics.items()}
        for name, predicted in baseline_outputs(data, labels, split).items()
    }
    probabilities = outputs["probabilities"]
    matrix = confusion_matrix(probabilities, labels)
    columns = {
        "n": matrix.sum(dim=1),
        "recall": recall_by_class(matrix),
        "precision": precision_by_class(matrix),
        "f1": f1_by_class(matrix),
        "auroc": auroc_by_class(probabilities, labels),
    }
    classes = [
        {"class": name, **{key: column[i].item() for key, column in columns.items()}} for i, name in enumerate(names)
    ]
    measured = {name: function(outputs) for name, function in metrics.items()}
    return ClassificationDetails(baselines, classes, matrix.tolist(), _notes(measured, baselines, probabilities, names))


def has_baselines(data: ZooData, outputs: Outputs) -> bool:
    """Whether the task is classification with one label an image."""
    return isinstance(data, ClassificationData) and outputs.get("labels", torch.zeros(0, 0)).ndim == 1


def baseline_outputs(data: ClassificationData, labels: torch.Tensor, split: str) -> dict[str, Outputs]:
    """Probabilities and labels of each baseline on a split whose labels are known.

    The majority is that of the training images, or of the split where there are none; the probe needs training images of two
    classes.
    """
    train = _training_images(data)
    counts = torch.tensor([item.label for item in train.items]) if train else labels
    majority = int(counts.bincount(minlength=len(data.class_names)).argmax())
    always = functional.one_hot(torch.full_like(labels, majority), len(data.class_names)).float()
    outputs = {MAJORITY: {"probabilities": always, "labels": labels}}
    if train and len(counts.unique()) > 1:
        order = np.random.default_rng(data.loader.seed).permutation(len(train))[:_MOST_IMAGES].tolist()
        weights = _fit(_pixels(train, order), counts[order], len(data.class_names))
        tested = data.split(split)
        probabilities = (_pixels(tested, range(len(labels))) @ weights).softmax(dim=1)
        outputs[PIXELS] = {"probabilities": probabilities.float(), "labels": labels}
    return outputs


def _training_images(data: ClassificationData) -> LabelledImages | None:
    """The training split as it is measured on, without augmentation; None if it has no images, or not of every class."""
    try:
        train = data.split("train")
    except ValueError:  # a table of the test split alone
        return None
    assert isinstance(train, LabelledImages)
    return train.without_augmentation()


def _pixels(images: Any, indices: Any) -> torch.Tensor:
    """Grey pixels and a constant (images, side * side + 1) in [-1, 1], float64."""
    rows = []
    for index in indices:
        grey = images[index]["image"].mean(dim=0, keepdim=True)[None]
        small = functional.interpolate(grey, size=(_SIDE, _SIDE), mode="area").flatten()
        rows.append(torch.cat([small * 2 - 1, torch.ones(1)]))
    return torch.stack(rows).double()


def _fit(features: torch.Tensor, labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Weights (features, classes) of a logistic regression with weight decay."""
    weights = torch.zeros(features.shape[1], classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(features @ weights, labels) + _DECAY * weights.square().sum() / 2
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return weights.detach()


def _notes(
    measured: Mapping[str, float],
    baselines: Mapping[str, Mapping[str, Measured]],
    probabilities: torch.Tensor,
    names: list[str],
) -> list[str]:
    """Reasons not to believe a classifier."""
    notes = []
    predicted = probabilities.argmax(dim=1).unique()
    if len(predicted) == 1:
        notes.append(f"every image is taken for '{names[int(predicted)]}'")
    if measured.get("auroc", 1.0) < 0.5:
        notes.append(f"the AUROC, {measured['auroc']:.3f}, is below chance: are labels or classes mixed up?")
    for name, metrics in baselines.items():
        value, reached = (
            measured.get("accuracy", float("nan")),
            metrics["accuracy"].value if "accuracy" in metrics else 0.0,
        )
        if not isnan(value) and value <= reached:
            notes.append(f"the accuracy, {value:.3f}, is no better than that of the {name}, {reached:.3f}")
    return notes
