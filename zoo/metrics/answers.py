"""Whether an answer in words names the right finding, side and zone."""

from collections.abc import Sequence

from zoo.data.chest_drr.rendering.findings import SEVERITIES
from zoo.data.chest_drr.rendering.regions import ZONES
from zoo.data.chest_drr.text.labels import stated_findings
from zoo.data.conversations.records import Target

PARTS = ("finding", "side", "zone")
"""Columns of :func:`answer_row`."""


def answer_row(answer: str, targets: Sequence[Target]) -> list[float]:
    """1 or 0 for each of :data:`PARTS`; NaN where the targets have no such part.

    A question without targets asks whether nothing is stated: its finding is right if the answer states none. Targets that
    are no findings (anatomical regions) are right if the answer names them.
    """
    said = " ".join(answer.lower().replace("[seg]", " ").split())
    stated = stated_findings(said)
    if not targets:
        return [float(not stated), float("nan"), float("nan")]
    findings = {target.finding for target in targets}
    regions = findings - set(SEVERITIES)
    named = {kind for kind, _ in stated} | {name for name in regions if name in said}
    sides = {target.side for target in targets if target.side}
    zones = {target.zone for target in targets if target.zone}
    said_zones = {zone for zone in ZONES if zone in said}
    return [
        float(findings <= named and {kind for kind, _ in stated} <= findings),
        float(sides == {side for _, side in stated if side}) if sides else float("nan"),
        float(zones == said_zones) if zones else float("nan"),
    ]
