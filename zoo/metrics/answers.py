"""Whether an answer in words names the right finding, side and zone."""

from collections.abc import Sequence
from math import nan

from zoo.data.conversations.records import SEG, Target
from zoo.data.vocabulary import FindingVocabulary, ReportLabeler

PARTS = ("finding", "side", "zone")
"""Columns of :func:`answer_row`."""


def answer_row(
    answer: str, targets: Sequence[Target], vocabulary: FindingVocabulary, labeler: ReportLabeler | None
) -> list[float]:
    """Accuracy, 1 or 0, for each of :data:`PARTS`; NaN for a part that the targets or the vocabulary lack.

    The finding is correct if the answer states the findings of the targets and no others; without targets, if it states none.
    Targets that are no findings (anatomical regions) are correct if the answer names them.

    Args:
        answer: in words, with ``[SEG]`` or without.
        targets: of the question.
        vocabulary: of the dataset.
        labeler: of the dataset; without one an answer states no findings.
    """
    text = " ".join(answer.lower().replace(SEG.lower(), " ").split())
    labels = labeler.label(text) if labeler else set()
    if not targets:
        return [float(not labels) if labeler else nan, nan, nan]
    names = {target.finding for target in targets}
    stated = {finding for finding, _ in labels}
    stated_regions = {name for name in names - set(vocabulary.findings) if name.lower() in text}
    sides = {target.side for target in targets if target.side}
    stated_sides = {side for _, side in labels if side}
    zones = {target.zone for target in targets if target.zone}
    stated_zones = {zone for zone in vocabulary.zones if zone.lower() in text}
    return [
        float(names <= stated | stated_regions and stated <= names),
        float(sides == stated_sides) if sides and labeler else nan,
        float(zones == stated_zones) if zones and vocabulary.zones else nan,
    ]
