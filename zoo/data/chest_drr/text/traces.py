"""Interleaved reasoning traces on chest_drr cases: which regions are looked at, what is seen there, and the report.

The record form is MMRad-IVL-22K's (:mod:`zoo.data.traces.records`); the choice of regions and the wording are ours.
"""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from pycocotools import mask as coco

from zoo.data.chest_drr.rendering.findings import SEVERITIES, Finding, findings_of
from zoo.data.chest_drr.rendering.regions import REGIONS, ZONES
from zoo.data.chest_drr.text.reports import describe, words_of_reports, write_report
from zoo.data.io.crops import square_around
from zoo.data.traces.records import MARK, SUMMARY, Box, box_text

PROMPT = f"Write a report for this chest radiograph. {MARK}"
CLOSE_UP_PROMPT = f"What is seen in this close-up? {MARK}"
LIST_PROMPT = f"Which findings are there? {MARK}"
IMPRESSION, FINDINGS = "Impression:", "Findings:"
"""A report opens with the bare list of its findings, a step's statement with that of its region's; both then word them."""
_OPENINGS = ("I need to analyze the {region}", "I need to examine the {region}")
_ORDER = ("First,", "Next,")
_UNREMARKABLE = ("No abnormality is seen here.", "This area is unremarkable.", "The {region} appears normal.")
_HEART = ("cardiac silhouette", "right cardiac silhouette", "left cardiac silhouette")
_LOOKED_AT = (
    *(f"{side} {part}" for side in ("right", "left") for part in (*ZONES, "costophrenic angle")),
    "cardiac silhouette",
)
"""Where findings are looked for; most of a trace's normal steps are drawn from the same places."""

_BOX_STEPS = 64
"""Boxes in a trace are rounded outwards to this fraction of the image."""

_SEEN_FROM = 0.25
"""A finding is seen in a region that holds this share of it, or of which it fills this share."""


def trace_of(record: dict[str, Any], image_size: int, rng: np.random.Generator) -> dict[str, Any]:
    """A trace on a case record, without its image files.

    Returns:
        ``prompt``, ``response``, ``findings``, ``regions`` (true boxes) and ``boxes`` (of the steps, rounded, in order).
    """
    findings = findings_of(record)
    seen = _seen_in(record, findings)
    chosen = _choose_regions(record, findings, seen, rng)
    boxes = [_rounded(record["regions"][name]["box"], image_size) for name in chosen]
    said = []
    for position, (name, box) in enumerate(zip(chosen, boxes, strict=True)):
        opening = f"{_ORDER[min(position, 1)]} {rng.choice(_OPENINGS).format(region=name)}"
        said.append(f"{opening} {MARK} {box_text(box)} {_statement(name, [findings[i] for i in seen[name]], rng)}")
    report = f"{IMPRESSION} {_listed(findings)} {FINDINGS} {write_report(findings, list(SEVERITIES), rng)}"
    return {
        "prompt": PROMPT,
        "response": " ".join([*said, SUMMARY, report]),
        "findings": [[finding.kind, finding.side] for finding in findings],
        "regions": {name: item["box"] for name, item in record["regions"].items() if item["box"]},
        "boxes": boxes,
    }


def pairs_of(record: dict[str, Any], image_size: int, rng: np.random.Generator) -> Iterator[tuple[dict[str, Any], Box]]:
    """Single squares of a film with a bare list of what is seen in them, as records without steps: the film, then a close-up.

    A report's words are mostly wording; from the list a small model learns to see. The film is cut by up to a twelfth at the
    sides, and a close-up's square is moved and scaled a little, so that a model sees few pictures twice. Half of the close-ups
    show a finding, where there is one.
    """
    findings = findings_of(record)
    seen = _seen_in(record, findings)
    present = [name for name in REGIONS if record["regions"][name]["box"]]
    telling = [name for name in present if seen[name]] or present
    side = round(image_size * rng.uniform(1 - 1 / 12, 1))
    left, top = (int(rng.integers(image_size - side + 1)) for _ in range(2))
    yield {"prompt": LIST_PROMPT, "response": _listed(findings)}, (left, top, left + side, top + side)
    name = str(rng.choice(telling if rng.random() < 0.5 else present))
    square = square_around(_jittered(record["regions"][name]["box"], rng), image_size, image_size)
    yield {"prompt": CLOSE_UP_PROMPT, "response": _listed([findings[i] for i in seen[name]])}, square


def _listed(findings: list[Finding]) -> str:
    """Findings as a bare list in a fixed order."""
    order = sorted(findings, key=lambda finding: (list(SEVERITIES).index(finding.kind), finding.side))
    said = "; ".join(" ".join(part for part in (f.side, f.kind) if part) for f in order)
    return f"{said or 'no abnormality'}."


def _jittered(box: Box, rng: np.random.Generator) -> Box:
    """A box moved by up to a tenth of its sides and scaled by up to a tenth."""
    width, height = box[2] - box[0], box[3] - box[1]
    x, y = rng.uniform(-0.1, 0.1, 2) * (width, height)
    half = rng.uniform(0.9, 1.1) / 2
    centre = (box[0] + box[2]) / 2 + x, (box[1] + box[3]) / 2 + y
    left, top = max(round(centre[0] - half * width), 0), max(round(centre[1] - half * height), 0)
    return left, top, max(round(centre[0] + half * width), left + 1), max(round(centre[1] + half * height), top + 1)


def _seen_in(record: dict[str, Any], findings: list[Finding]) -> dict[str, list[int]]:
    """For each region, the findings that are seen in it."""
    regions = {name: coco.decode(item["mask"]).astype(bool) for name, item in record["regions"].items()}
    masks = [coco.decode(item["mask"]).astype(bool) for item in record["findings"]]
    seen: dict[str, list[int]] = {}
    for name, region in regions.items():
        seen[name] = []
        for index, (finding, mask) in enumerate(zip(findings, masks, strict=True)):
            if finding.kind == "cardiomegaly":
                visible = name in _HEART
            else:
                smaller = max(min(region.sum(), mask.sum()), 1)
                visible = name not in _HEART and (region & mask).sum() >= _SEEN_FROM * smaller
            if visible:
                seen[name].append(index)
    return seen


def _choose_regions(
    record: dict[str, Any], findings: list[Finding], seen: dict[str, list[int]], rng: np.random.Generator
) -> list[str]:
    """One region for each finding, one or two more, in the order of ``REGIONS``."""
    present = [name for name in REGIONS if record["regions"][name]["box"]]
    chosen: set[str] = set()
    for index in range(len(findings)):
        where = [name for name in _LOOKED_AT if name in present and index in seen[name]]
        where = where or [name for name in present if index in seen[name]]
        if where and not chosen & set(where):
            chosen.add(str(rng.choice(where)))
    wanted = len(chosen) + (2 if not findings else int(rng.integers(1, 3)))
    while len(chosen) < min(wanted, len(present)):
        places = [name for name in _LOOKED_AT if name in present] if rng.random() < 0.6 else present
        chosen.add(str(rng.choice(places)))
    return [name for name in REGIONS if name in chosen]


def _rounded(box: Box, image_size: int) -> Box:
    step = max(image_size // _BOX_STEPS, 1)
    left, top = (value // step * step for value in box[:2])
    right, bottom = (min(-(-value // step) * step, image_size) for value in box[2:])
    return left, top, right, bottom


def _statement(region: str, findings: list[Finding], rng: np.random.Generator) -> str:
    unremarkable = str(rng.choice(_UNREMARKABLE)).format(region=region)
    worded = " ".join(describe(finding, rng) for finding in findings) or unremarkable
    return f"{FINDINGS} {_listed(findings)} {worded}"


def words_of_traces(image_size: int) -> list[str]:
    """Every word, number and mark that a trace on images of this size can hold, for a word-level tokenizer."""
    step = max(image_size // _BOX_STEPS, 1)
    texts = [
        PROMPT,
        CLOSE_UP_PROMPT,
        LIST_PROMPT,
        IMPRESSION,
        FINDINGS,
        "no abnormality;",
        SUMMARY,
        box_text((0, 0, 1, 1)),
        *_ORDER,
        *_OPENINGS,
        *_UNREMARKABLE,
        *REGIONS,
    ]
    numbers = [str(value) for value in range(0, image_size + step, step)]
    return sorted(
        {word for text in [*texts, *numbers, *words_of_reports()] for word in re.findall(r"\w+|[^\w\s]", text)}
    )
