"""Metrics of labels that do not exclude one another, each over the images where it is known."""

import torch
from torchmetrics.functional.classification import binary_auroc, binary_average_precision


def label_auroc(probabilities: torch.Tensor, targets: torch.Tensor) -> float:
    """Area under the ROC curve of one label (images); NaN without both a present and an absent one. Targets may be NaN."""
    known = ~targets.isnan()
    present = targets[known].int()
    if present.unique().numel() < 2:
        return float("nan")
    return float(binary_auroc(probabilities[known], present))


def mean_auroc(probabilities: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean of the labels' areas under the ROC curve (images, labels), over those where it is defined; NaN without any."""
    return _mean([label_auroc(*columns) for columns in zip(probabilities.T, targets.T, strict=True)])


def mean_average_precision(probabilities: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean of the labels' average precision (images, labels), over those with a present one; NaN without any."""
    values = []
    for column, target in zip(probabilities.T, targets.T, strict=True):
        known = ~target.isnan()
        if target[known].any():
            values.append(float(binary_average_precision(column[known], target[known].int())))
    return _mean(values)


def label_macro_f1(probabilities: torch.Tensor, targets: torch.Tensor, threshold: float = 0.5) -> float:
    """Mean F1 of the labels (images, labels) at a threshold, over those with a present one; NaN without any."""
    known, predicted = ~targets.isnan(), probabilities > threshold
    present = targets.nan_to_num(0).bool() & known
    hits = (predicted & present).sum(dim=0)
    total = (predicted & known).sum(dim=0) + present.sum(dim=0)
    scored = present.any(dim=0)
    return _mean((2 * hits / total.clamp(min=1))[scored].tolist())


def _mean(values: list[float]) -> float:
    return float(torch.tensor(values).nanmean()) if values else float("nan")
