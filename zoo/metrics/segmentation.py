"""Segmentation by question: gIoU, cIoU and Dice from areas, one row a question, so that any of them can be resampled.

gIoU is the mean of the questions' IoU and cIoU the sum of intersections over the sum of unions, as in LISA (arXiv
2308.00692); a question about something absent counts 1 if no pixel is drawn, else 0.
"""

from collections.abc import Callable, Sequence

import torch

from zoo.data.chest_drr.rendering.findings import SEVERITIES
from zoo.data.conversations.records import Target

TARGETS = (*SEVERITIES, "region")
"""What a question can be about: a finding of chest_drr, or anything else that has a name."""
AREAS = ("iou", "dice", "intersection", "union")
"""Columns of :func:`question_row`."""


def question_row(predicted: torch.Tensor, true: torch.Tensor) -> list[float]:
    """IoU, Dice, intersection and union of one question; masks are compared in order.

    IoU and Dice are means over the masks; one that is missing, or superfluous and not empty, counts 0.

    Args:
        predicted: masks (p, height, width) of 0 and 1.
        true: masks (t, height, width) of 0 and 1.
    """
    both = min(len(predicted), len(true))
    areas = [_areas(predicted[index], true[index]) for index in range(both)]
    blank = torch.zeros_like(true[0] if len(true) else predicted[0]) if len(predicted) or len(true) else None
    areas += [_areas(mask, blank) for mask in predicted[both:]] if blank is not None else []
    areas += [_areas(blank, mask) for mask in true[both:]] if blank is not None else []
    areas = areas or [(0.0, 0.0, 0.0)]
    ious = [intersection / union if union else 1.0 for intersection, union, _ in areas]
    dices = [2 * intersection / total if total else 1.0 for intersection, _, total in areas]
    sums = [sum(column) for column in zip(*areas, strict=True)]
    return [sum(ious) / len(ious), sum(dices) / len(dices), sums[0], sums[1]]


def _areas(predicted: torch.Tensor, true: torch.Tensor) -> tuple[float, float, float]:
    """Pixels of the intersection, of the union, and of both masks together."""
    intersection = float((predicted * true).sum())
    total = float(predicted.sum() + true.sum())
    return intersection, total - intersection, total


def target_index(targets: Sequence[Target]) -> int:
    """What a question is about, as index in :data:`TARGETS`; -1 for targets of several kinds, without a name, or none."""
    findings = {target.finding for target in targets}
    if len(findings) != 1 or findings == {""}:
        return -1
    (finding,) = findings
    return TARGETS.index(finding) if finding in TARGETS else TARGETS.index("region")


def giou_where(column: str, value: int) -> Callable[[dict[str, torch.Tensor]], float]:
    """GIoU of the questions whose output ``column`` has a value; the outputs hold ``areas`` and the column."""
    return lambda outputs: giou(outputs["areas"][outputs[column] == value])


def giou_by_target() -> dict[str, Callable[[dict[str, torch.Tensor]], float]]:
    """GIoU of the questions about each of :data:`TARGETS`; the outputs hold ``areas`` and ``target``."""
    return {f"giou_{name.replace(' ', '_')}": giou_where("target", index) for index, name in enumerate(TARGETS)}


def giou(rows: torch.Tensor) -> float:
    """Mean IoU over rows (n, AREAS); NaN over none."""
    return float(rows[:, 0].mean()) if len(rows) else float("nan")


def ciou(rows: torch.Tensor) -> float:
    """Sum of intersections over sum of unions; 1 where all are empty."""
    union = float(rows[:, 3].sum())
    return float(rows[:, 2].sum()) / union if union else 1.0


def dice(rows: torch.Tensor) -> float:
    """Mean Dice over rows; NaN over none."""
    return float(rows[:, 1].mean()) if len(rows) else float("nan")
