"""Masks by what they are of: a row for each target that the questions of a split name, whatever its vocabulary."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from zoo.data.base import ZooData
from zoo.data.conversations.datasets import ConversationData
from zoo.data.conversations.records import Turn, mask_phrases
from zoo.methods.base import Outputs, ZooModule
from zoo.metrics.segmentation import dice, giou
from zoo.metrics.surfaces import COLUMNS

SEVERAL, ABSENT = "several targets", "no target"
"""Rows of questions about more than one target, and about none that is there."""


def measure_outlines(method: ZooModule, tolerance: float) -> None:
    """Have a method that makes masks measure their outlines too; cards and probes are measured without.

    Args:
        method: any.
        tolerance: of the NSD, in pixels and in millimetres.
    """
    masks: Any = method
    if hasattr(masks, "surface_tolerance"):
        masks.surface_tolerance = tolerance


def target_rows(data: ZooData, outputs: Outputs, split: str) -> list[dict[str, Any]]:
    """A row for each target: the number of questions, gIoU, Dice, and where outlines were measured HD95 and NSD; NaN if undefined.

    The most frequent first, then questions about several targets, and about none; empty for data without questions.

    Args:
        data: that was measured on.
        outputs: of all questions, in their order.
        split: of the data.
    """
    if not isinstance(data, ConversationData) or "areas" not in outputs:
        return []
    turns = [turn for conversation in data.conversations(split) for turn in conversation.turns]
    turns = turns if len(turns) == len(outputs["areas"]) else [turn for turn in turns if not turn.wrong]
    by_name: dict[str, list[int]] = defaultdict(list)
    for index, turn in enumerate(turns[: len(outputs["areas"])]):  # fewer where trainer.limit_test_batches is set
        by_name[target_name(turn)].append(index)
    if "seg" not in outputs:  # baselines are asked for what is there alone
        by_name.pop(ABSENT, None)
    last = [name for name in (SEVERAL, ABSENT) if name in by_name]
    names = [*sorted(by_name.keys() - set(last), key=lambda name: (-len(by_name[name]), name)), *last]
    return [_row(name, by_name[name], outputs) for name in names]


def target_name(turn: Turn) -> str:
    """What the masks of an answer are of: the targets' name, else the phrase of the answer."""
    if not turn.masks:
        return ABSENT
    names = [target.name for target in turn.targets] or mask_phrases(turn.answer, len(turn.masks))
    distinct = {"mask" if not name or name.lower() == "it is" else name for name in names}
    return distinct.pop() if len(distinct) == 1 else SEVERAL


def _row(name: str, indices: Sequence[int], outputs: Outputs) -> dict[str, Any]:
    chosen = torch.tensor(indices)
    areas = outputs["areas"][chosen]
    row = {"target": name, "n": len(indices), "gIoU": giou(areas), "Dice": dice(areas)}
    if "surfaces" in outputs:
        surfaces = outputs["surfaces"][chosen]
        titles = ("HD95", "NSD", "HD95, mm", "NSD, mm")
        values = {title: float(surfaces[:, column].mean()) for column, title in enumerate(titles)}
        known = not outputs["surfaces"][:, COLUMNS.index("hd95_mm")].isnan().all()
        row |= values if known else dict(list(values.items())[:2])
    return row
