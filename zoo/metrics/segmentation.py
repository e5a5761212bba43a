"""Segmentation by question: gIoU, cIoU and Dice from areas, one row per question, so that any of them can be resampled.

gIoU is the mean of the questions' IoU and cIoU the sum of intersections over the sum of unions, as in LISA (arXiv
2308.00692). A question about something absent scores 1 if no pixel is predicted, otherwise 0.
"""

from collections.abc import Callable, Sequence

import torch

from zoo.data.conversations.records import Target
from zoo.data.vocabulary import FindingVocabulary

AREAS = ("iou", "dice", "intersection", "union")
"""Columns of :func:`question_row`."""


def question_row(predicted: torch.Tensor, target: torch.Tensor) -> list[float]:
    """IoU, Dice, intersection and union of one question; masks are compared in order.

    IoU and Dice are means over the masks. A mask that is missing, or superfluous and not empty, scores 0.

    Args:
        predicted: masks (p, height, width) of 0 and 1.
        target: masks (t, height, width) of 0 and 1.
    """
    pairs = min(len(predicted), len(target))
    areas = [_areas(predicted[index], target[index]) for index in range(pairs)]
    areas += [_areas(mask, torch.zeros_like(mask)) for mask in (*predicted[pairs:], *target[pairs:])]
    areas = areas or [(0.0, 0.0, 0.0)]
    ious = [intersection / union if union else 1.0 for intersection, union, _ in areas]
    dices = [2 * intersection / total if total else 1.0 for intersection, _, total in areas]
    sums = [sum(column) for column in zip(*areas, strict=True)]
    return [sum(ious) / len(ious), sum(dices) / len(dices), sums[0], sums[1]]


def _areas(predicted: torch.Tensor, target: torch.Tensor) -> tuple[float, float, float]:
    """Pixels of the intersection and of the union, and the sum of both areas."""
    intersection = float((predicted * target).sum())
    total = float(predicted.sum() + target.sum())
    return intersection, total - intersection, total


def target_index(targets: Sequence[Target], vocabulary: FindingVocabulary) -> int:
    """What a question is about: the index of its finding in the vocabulary; the number of findings for anything else with a name.

    -1 for targets with different names, without a name, or none.
    """
    names = {target.finding for target in targets}
    if len(names) != 1 or names == {""}:
        return -1
    (name,) = names
    findings = vocabulary.findings
    return findings.index(name) if name in findings else len(findings)


def giou_where(column: str, value: int) -> Callable[[dict[str, torch.Tensor]], float]:
    """GIoU of the questions whose output ``column`` has a value; the outputs hold ``areas`` and the column."""
    return lambda outputs: giou(outputs["areas"][outputs[column] == value])


def giou_by_target(vocabulary: FindingVocabulary) -> dict[str, Callable[[dict[str, torch.Tensor]], float]]:
    """GIoU of the questions about each finding, and about regions; none if the vocabulary is empty.

    The outputs hold ``areas`` and ``target``, of :func:`target_index`.
    """
    names = (*vocabulary.findings, "region") if vocabulary.findings else ()
    return {f"giou_{name.lower().replace(' ', '_')}": giou_where("target", index) for index, name in enumerate(names)}


def giou(rows: torch.Tensor) -> float:
    """Mean IoU over rows (n, AREAS); NaN over none."""
    return float(rows[:, 0].mean()) if len(rows) else float("nan")


def ciou(rows: torch.Tensor) -> float:
    """Sum of intersections over sum of unions; 1 if all masks are empty."""
    union = float(rows[:, 3].sum())
    return float(rows[:, 2].sum()) / union if union else 1.0


def dice(rows: torch.Tensor) -> float:
    """Mean Dice over rows; NaN over none."""
    return float(rows[:, 1].mean()) if len(rows) else float("nan")
