"""Short captions of chest_drr cases, and which texts are true of which case.

In a batch of medical images many texts are true of several images. So that these are not held for negatives, a text comes
with its *claims* and a case with its *facts*, both plain strings; a text is true of a case if all its claims are facts.
"""

from typing import Any

import numpy as np

from zoo.data.chest_drr.rendering.findings import SEVERITIES, Finding, findings_of
from zoo.data.chest_drr.text.reports import write_report

NO_FINDING = "no finding"
_ZONES = ("upper lung zone", "mid lung zone", "lower lung zone")
_PROMPT = "a chest radiograph showing {}."
_TEMPLATES = (
    "a chest x-ray showing {}.",
    "a chest radiograph with {}.",
    "a chest x-ray of a patient with {}.",
    "a frontal radiograph of the chest: {}.",
    "chest film, {}.",
    "an x-ray image of {}.",
    "there is {}.",
    "{}.",
    "{}",
)
_NOUNS: dict[str, tuple[str, ...]] = {
    "pleural effusion": ("a {severity} {side} pleural effusion", "{severity} {side} pleural fluid"),
    "consolidation": ("{severity} {side} consolidation", "{severity} {side} lobar consolidation"),
    "nodule": ("a {severity} {side} pulmonary nodule", "a {severity} {side} lung nodule", "a {severity} {side} nodule"),
    "mass": ("a {severity} {side} pulmonary mass", "a {severity} {side} lung mass", "a {severity} {side} mass"),
    "pneumothorax": ("a {severity} {side} pneumothorax",),
    "atelectasis": ("{severity} {side} atelectasis",),
    "cardiomegaly": ("{severity} cardiomegaly", "a heart with {severity} enlargement"),
}
"""What a finding is called; a side in front of it is left out where a place follows."""
_NOTHING = (
    "no finding",
    "no findings",
    "no abnormality",
    "no acute abnormality",
    "a normal chest",
    "clear lungs and a normal heart",
    "normal lungs",
)
_SHARE_OF_REPORTS, _SHARE_OF_PROMPTS = 0.2, 0.4
_SHARE_WITH_SEVERITY, _SHARE_WITH_PLACE = 0.65, 0.4


def facts_of(record: dict[str, Any]) -> frozenset[str]:
    """Everything that a text may claim of a case: each finding with and without severity and place, what is absent, and all.

    Args:
        record: of a case (:meth:`~zoo.data.chest_drr.rendering.cases.Case.record`).
    """
    findings, facts = findings_of(record), set()
    for index, finding in enumerate(findings):
        for place in ("", *_places(record, index)):
            facts |= {_claim(finding, place, severity) for severity in ("", finding.severity)}
    present = {finding.kind for finding in findings}
    facts |= {f"no {kind}" for kind in SEVERITIES if kind not in present}
    return frozenset(facts | {_whole(findings)} | (set() if findings else {NO_FINDING}))


def write_caption(record: dict[str, Any], rng: np.random.Generator) -> tuple[str, frozenset[str]]:
    """A text on a case, as short as a zero-shot prompt or as long as a report, and its claims."""
    findings = findings_of(record)
    if rng.random() < _SHARE_OF_REPORTS:
        return write_report(findings, list(SEVERITIES), rng), frozenset({_whole(findings)})
    if not findings:
        return _in_template(str(rng.choice(_NOTHING)), rng), frozenset({NO_FINDING})
    index = int(rng.integers(len(findings)))
    finding = findings[index]
    severity = finding.severity if rng.random() < _SHARE_WITH_SEVERITY else ""
    places = _places(record, index)
    place = str(rng.choice(places)) if places and rng.random() < _SHARE_WITH_PLACE else ""
    return _in_template(_phrase(finding, severity, place, rng), rng), frozenset({_claim(finding, place, severity)})


def _places(record: dict[str, Any], index: int) -> list[str]:
    """Where a finding is: its side, its lobe, and, of what is round, the zone of its middle."""
    finding = findings_of(record)[index]
    places = [place for place in (finding.side, finding.lobe) if place]
    if finding.kind in ("nodule", "mass") and (zone := _zone(record, index, finding.side)):
        places.append(zone)
    return places


def _zone(record: dict[str, Any], index: int, side: str) -> str:
    box = record["findings"][index]["box"]
    if box is None:
        return ""
    middle = (box[1] + box[3]) / 2
    for zone in _ZONES:
        zone_box = record["regions"][f"{side} {zone}"]["box"]
        if zone_box and zone_box[1] <= middle < zone_box[3]:
            return f"{side} {zone}"
    return ""


def _claim(finding: Finding, place: str, severity: str) -> str:
    return " ".join(part for part in (severity, finding.kind, place and f"in {place}") if part)


def _whole(findings: list[Finding]) -> str:
    """The whole case in one string, which only a case with the same findings has."""
    return "whole: " + "; ".join(
        sorted(_claim(finding, finding.lobe or finding.side, finding.severity) for finding in findings)
    )


def _phrase(finding: Finding, severity: str, place: str, rng: np.random.Generator) -> str:
    if finding.kind == "cardiomegaly" and not severity:
        return str(rng.choice(["cardiomegaly", "an enlarged heart", "an enlarged cardiac silhouette"]))
    noun = str(rng.choice(_NOUNS[finding.kind]))
    behind = ""
    if place == finding.side and place:
        behind = str(rng.choice(["", f" on the {place}", f" in the {place} lung", f" on the {place} side"]))
    elif place:
        behind = f" in the {place}"
    side = place if place == finding.side and not behind else ""
    return " ".join(noun.format(severity=severity, side=side).split()) + behind


def _in_template(phrase: str, rng: np.random.Generator) -> str:
    template = _PROMPT if rng.random() < _SHARE_OF_PROMPTS else str(rng.choice(_TEMPLATES))
    return template.format(phrase)
