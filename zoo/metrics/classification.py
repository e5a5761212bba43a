"""Metrics of mutually exclusive classes; a class that cannot be measured is left out of a mean, and counts neither 0 nor 1."""

import warnings
from collections.abc import Sequence

import torch
from torchmetrics.functional.classification import multiclass_auroc, multiclass_confusion_matrix


def accuracy(probabilities: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of images (n) whose most likely class, of probabilities (n, classes), is their label."""
    return float((probabilities.argmax(dim=-1) == labels).float().mean())


def confusion_matrix(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Number of images of each class (row) that are taken for each class (column): (classes, classes)."""
    matrix: torch.Tensor = multiclass_confusion_matrix(probabilities, labels, num_classes=probabilities.shape[1])
    return matrix


def recall_by_class(matrix: torch.Tensor) -> torch.Tensor:
    """Share of each class's images that are recognised (classes); NaN for a class without images."""
    return matrix.diag() / matrix.sum(dim=1)


def precision_by_class(matrix: torch.Tensor) -> torch.Tensor:
    """Share of the images taken for a class that are of it (classes); NaN for one that is never predicted."""
    return matrix.diag() / matrix.sum(dim=0)


def f1_by_class(matrix: torch.Tensor) -> torch.Tensor:
    """F1 of each class (classes) from a confusion matrix; NaN for a class without images."""
    scores = 2 * matrix.diag() / (matrix.sum(dim=0) + matrix.sum(dim=1))
    return torch.where(matrix.sum(dim=1) > 0, scores, torch.nan)


def auroc_by_class(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """AUROC of each class against the others (classes); NaN for one with no images, or with all of them."""
    classes = probabilities.shape[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics scores a class that cannot be measured with 0, and warns
        scores = multiclass_auroc(probabilities, labels, num_classes=classes, average="none")
    counts = torch.bincount(labels, minlength=classes)
    return torch.where((counts > 0) & (counts < len(labels)), scores, torch.nan)


def macro_f1(probabilities: torch.Tensor, labels: torch.Tensor) -> float:
    """Mean F1 of the classes that have images."""
    return float(f1_by_class(confusion_matrix(probabilities, labels)).nanmean())


def macro_auroc(probabilities: torch.Tensor, labels: torch.Tensor) -> float:
    """Mean AUROC of the classes that have images, if not all of them; NaN if there is none."""
    return float(auroc_by_class(probabilities, labels).nanmean())


def binary_auroc(scores: torch.Tensor, truth: torch.Tensor) -> float:
    """AUROC of scores (n) for truth (n) of 0 and 1; NaN where all are of one kind."""
    from torchmetrics.functional.classification import binary_auroc as area

    return float(area(scores, truth.int())) if 0 < int(truth.sum()) < len(truth) else float("nan")


def nan_mean(values: Sequence[float]) -> float:
    """Mean of the values that are numbers; NaN if none is."""
    return float(torch.tensor([float("nan"), *values]).nanmean())
