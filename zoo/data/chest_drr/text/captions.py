"""Captions of chest_drr cases (``captions.yaml``), and the cases that a text is true of.

In a batch of medical images, many texts are true of several images. So that these are not taken for negatives, a text has
*claims* and a case has *facts*, both plain strings; a text is true of a case if all its claims are facts.
"""

from typing import Any

import numpy as np

from zoo.data.chest_drr.rendering.findings import SEVERITIES, Finding, read_findings
from zoo.data.chest_drr.text.reports import write_report
from zoo.data.chest_drr.text.wording import read_wording

NO_FINDING = "no finding"
_ZONES = ("upper lung zone", "mid lung zone", "lower lung zone")
_SHARE_OF_REPORTS, _SHARE_OF_PROMPTS = 0.2, 0.4
_SHARE_WITH_SEVERITY, _SHARE_WITH_PLACE = 0.65, 0.4


def build_facts(record: dict[str, Any]) -> frozenset[str]:
    """Everything that a text may claim of a case: its findings, with and without severity and place, and the absent ones.

    Args:
        record: of a case (:meth:`~zoo.data.chest_drr.rendering.cases.Case.to_record`).
    """
    findings, facts = read_findings(record), set()
    for index, finding in enumerate(findings):
        for place in ("", *_places(record, index)):
            facts |= {_claim(finding, place, severity) for severity in ("", finding.severity)}
    present = {finding.kind for finding in findings}
    facts |= {f"no {kind}" for kind in SEVERITIES if kind not in present}
    return frozenset(facts | {_claim_all(findings)} | (set() if findings else {NO_FINDING}))


def write_caption(record: dict[str, Any], rng: np.random.Generator) -> tuple[str, frozenset[str]]:
    """A text on a case, from the length of a zero-shot prompt to that of a report, and its claims."""
    wording = read_wording("captions")
    findings = read_findings(record)
    if rng.random() < _SHARE_OF_REPORTS:
        return write_report(findings, list(SEVERITIES), rng), frozenset({_claim_all(findings)})
    if not findings:
        return _fill_template(str(rng.choice(wording["no_finding"])), rng), frozenset({NO_FINDING})
    index = int(rng.integers(len(findings)))
    finding = findings[index]
    severity = finding.severity if rng.random() < _SHARE_WITH_SEVERITY else ""
    places = _places(record, index)
    place = str(rng.choice(places)) if places and rng.random() < _SHARE_WITH_PLACE else ""
    return _fill_template(_phrase(finding, severity, place, rng), rng), frozenset({_claim(finding, place, severity)})


def _places(record: dict[str, Any], index: int) -> list[str]:
    """Side and lobe of a finding and, for a nodule or mass, the zone of its centre."""
    finding = read_findings(record)[index]
    places = [place for place in (finding.side, finding.lobe) if place]
    if finding.kind in ("nodule", "mass") and (zone := _zone(record, index, finding.side)):
        places.append(zone)
    return places


def _zone(record: dict[str, Any], index: int, side: str) -> str:
    box = record["findings"][index]["box"]
    if box is None:
        return ""
    centre = (box[1] + box[3]) / 2
    for zone in _ZONES:
        zone_box = record["regions"][f"{side} {zone}"]["box"]
        if zone_box and zone_box[1] <= centre < zone_box[3]:
            return f"{side} {zone}"
    return ""


def _claim(finding: Finding, place: str, severity: str) -> str:
    return " ".join(part for part in (severity, finding.kind, place and f"in {place}") if part)


def _claim_all(findings: list[Finding]) -> str:
    """All findings in one string, which only a case with the same findings has."""
    return "whole: " + "; ".join(
        sorted(_claim(finding, finding.lobe or finding.side, finding.severity) for finding in findings)
    )


def _phrase(finding: Finding, severity: str, place: str, rng: np.random.Generator) -> str:
    wording = read_wording("captions")
    if finding.kind == "cardiomegaly" and not severity:
        return str(rng.choice(wording["cardiomegaly"]))
    noun = str(rng.choice(wording["findings"][finding.kind]))
    location = ""
    if place == finding.side and place:
        location = str(rng.choice(wording["sides"])).format(side=place)
    elif place:
        location = wording["place"].format(place=place)
    side = place if place == finding.side and not location else ""
    return " ".join(noun.format(severity=severity, side=side).split()) + location


def _fill_template(phrase: str, rng: np.random.Generator) -> str:
    wording = read_wording("captions")
    template = wording["prompt"] if rng.random() < _SHARE_OF_PROMPTS else str(rng.choice(wording["templates"]))
    return template.format(phrase)
