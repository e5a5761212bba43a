"""Interleaved reasoning traces on chest_drr cases: the regions examined, the findings in each, and the report.

The record format is MMRad-IVL-22K's (:mod:`zoo.data.traces.records`); the choice of regions and the wording (``traces.yaml``)
are ours.
"""

import re
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco

from zoo.data.chest_drr.rendering.findings import SEVERITIES, Finding, read_findings
from zoo.data.chest_drr.rendering.regions import REGIONS, ZONES
from zoo.data.chest_drr.text.reports import describe, report_texts, write_report
from zoo.data.chest_drr.text.wording import read_wording
from zoo.data.io.crops import square_box
from zoo.data.io.masks import RunLength
from zoo.data.traces.records import IMAGE_PLACEHOLDER, SUMMARY, Box, format_box
from zoo.data.vocabulary import label_name

PROMPT: str = read_wording("traces")["prompts"]["report"]
"""Asks for a trace and a report."""

_HEART = ("cardiac silhouette", "right cardiac silhouette", "left cardiac silhouette")
_PREFERRED_REGIONS = (
    *(f"{side} {part}" for side in ("right", "left") for part in (*ZONES, "costophrenic angle")),
    "cardiac silhouette",
)
"""Regions that a finding is examined in where possible; most of a trace's normal steps are sampled from the same ones."""

SYSTEMATIC_REGIONS = (
    *(f"{side} {zone}" for side in ("right", "left") for zone in ZONES if zone != "apical zone"),
    "cardiac silhouette",
)
"""Regions of a systematic search, in order. Together they hold every finding."""

Search = Literal["targeted", "systematic"]
"""Which regions a trace examines.

``targeted``: one for each finding and one or two more, so that the choice of regions tells what was found before it is examined.
``systematic``: :data:`SYSTEMATIC_REGIONS`, whatever there is to find.
"""

_BOX_GRID = 64
"""Boxes in a trace are rounded outwards to a grid of this many steps across the image."""

_MIN_OVERLAP = 0.25
"""A finding is visible in a region that holds this share of it, or of which it covers this share."""


def build_trace(
    record: dict[str, Any], image_size: int, rng: np.random.Generator, search: Search = "targeted"
) -> dict[str, Any]:
    """A trace on a case record, without its image files.

    The report of a systematic search states the findings in the order of its list.

    Returns:
        ``prompt``, ``response``, ``findings``, ``finding_areas`` (shares of the image), ``regions`` (true boxes) and ``boxes``
        (of the steps, rounded, in order).
    """
    wording = read_wording("traces")
    findings = read_findings(record)
    visible = _visible_findings(record, findings)
    systematic = search == "systematic"
    names = _systematic_regions(record) if systematic else _sample_regions(record, findings, visible, rng)
    boxes = [_round_box(record["regions"][name]["box"], image_size) for name in names]
    steps = []
    for position, (name, box) in enumerate(zip(names, boxes, strict=True)):
        opening = f"{wording['next' if position else 'first']} {rng.choice(wording['openings']).format(region=name)}"
        statement = _write_statement(name, [findings[i] for i in visible[name]], rng)
        steps.append(f"{opening} {IMAGE_PLACEHOLDER} {format_box(box)} {statement}")
    report = write_report(_in_order(findings) if systematic else findings, list(SEVERITIES), rng, ordered=systematic)
    report = f"{wording['impression']} {_list_findings(findings)} {wording['findings']} {report}"
    return {
        "prompt": PROMPT,
        "response": " ".join([*steps, SUMMARY, report]),
        "findings": [[finding.kind, finding.side] for finding in findings],
        "finding_areas": [round(float(coco.area(item["mask"])) / image_size**2, 5) for item in record["findings"]],
        "regions": {name: item["box"] for name, item in record["regions"].items() if item["box"]},
        "boxes": boxes,
    }


def build_pairs(
    record: dict[str, Any], image_size: int, rng: np.random.Generator, search: Search = "targeted"
) -> Iterator[tuple[dict[str, Any], Box]]:
    """Squares of a radiograph, each with a bare list of its findings as a record without steps: all of it, then one region.

    Most tokens of a report are wording; the list trains a small model to recognise findings. The radiograph is cropped by up to
    a twelfth, and the region's square is shifted and scaled a little, so that few images are trained on twice. Half of the
    regions show a finding, where there is one; those of a systematic search are the ones that it examines.
    """
    prompts = read_wording("traces")["prompts"]
    findings = read_findings(record)
    visible = _visible_findings(record, findings)
    examined = SYSTEMATIC_REGIONS if search == "systematic" else REGIONS
    present = [name for name in examined if record["regions"][name]["box"]]
    abnormal = [name for name in present if visible[name]] or present
    side = round(image_size * rng.uniform(1 - 1 / 12, 1))
    left, top = (int(rng.integers(image_size - side + 1)) for _ in range(2))
    yield {"prompt": prompts["findings"], "response": _list_findings(findings)}, (left, top, left + side, top + side)
    name = str(rng.choice(abnormal if rng.random() < 0.5 else present))
    square = square_box(_jitter_box(record["regions"][name]["box"], rng), image_size, image_size)
    response = _list_findings([findings[i] for i in visible[name]])
    yield {"prompt": prompts["crop"], "response": response, "close_up": True}, square


def _list_findings(findings: list[Finding]) -> str:
    """Findings as a bare list in a fixed order."""
    names = "; ".join(label_name(finding.kind, finding.side) for finding in _in_order(findings))
    return f"{names or read_wording('traces')['no_finding']}."


def _in_order(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: (list(SEVERITIES).index(finding.kind), finding.side))


def _jitter_box(box: Box, rng: np.random.Generator) -> Box:
    """A box shifted by up to a tenth of its sides and scaled by up to a tenth."""
    width, height = box[2] - box[0], box[3] - box[1]
    x, y = rng.uniform(-0.1, 0.1, 2) * (width, height)
    half = rng.uniform(0.9, 1.1) / 2
    centre = (box[0] + box[2]) / 2 + x, (box[1] + box[3]) / 2 + y
    left, top = max(round(centre[0] - half * width), 0), max(round(centre[1] - half * height), 0)
    return left, top, max(round(centre[0] + half * width), left + 1), max(round(centre[1] + half * height), top + 1)


def _visible_findings(record: dict[str, Any], findings: list[Finding]) -> dict[str, list[int]]:
    """Indices of the findings that are visible in each region."""
    masks = [item["mask"] for item in record["findings"]]
    return {
        name: [
            index
            for index, (finding, mask) in enumerate(zip(findings, masks, strict=True))
            if _is_visible(finding, mask, name, region["mask"])
        ]
        for name, region in record["regions"].items()
    }


def _is_visible(finding: Finding, mask: RunLength, name: str, region: RunLength) -> bool:
    if finding.kind == "cardiomegaly" or name in _HEART:
        return finding.kind == "cardiomegaly" and name in _HEART
    smaller = max(min(int(coco.area(region)), int(coco.area(mask))), 1)
    return int(coco.area(coco.merge([region, mask], intersect=True))) >= _MIN_OVERLAP * smaller


def _sample_regions(
    record: dict[str, Any], findings: list[Finding], visible: dict[str, list[int]], rng: np.random.Generator
) -> list[str]:
    """One region for each finding and one or two more, in the order of ``REGIONS``."""
    present = [name for name in REGIONS if record["regions"][name]["box"]]
    sampled: set[str] = set()
    for index in range(len(findings)):
        candidates = [name for name in _PREFERRED_REGIONS if name in present and index in visible[name]]
        candidates = candidates or [name for name in present if index in visible[name]]
        if candidates and not sampled & set(candidates):
            sampled.add(str(rng.choice(candidates)))
    count = len(sampled) + (2 if not findings else int(rng.integers(1, 3)))
    while len(sampled) < min(count, len(present)):
        candidates = [name for name in _PREFERRED_REGIONS if name in present] if rng.random() < 0.6 else present
        sampled.add(str(rng.choice(candidates)))
    return [name for name in REGIONS if name in sampled]


def _systematic_regions(record: dict[str, Any]) -> list[str]:
    return [name for name in SYSTEMATIC_REGIONS if record["regions"][name]["box"]]


def _round_box(box: Box, image_size: int) -> Box:
    step = max(image_size // _BOX_GRID, 1)
    left, top = (value // step * step for value in box[:2])
    right, bottom = (min(-(-value // step) * step, image_size) for value in box[2:])
    return left, top, right, bottom


def _write_statement(region: str, findings: list[Finding], rng: np.random.Generator) -> str:
    wording = read_wording("traces")
    unremarkable = str(rng.choice(wording["unremarkable"])).format(region=region)
    sentences = " ".join(describe(finding, rng) for finding in findings) or unremarkable
    return f"{wording['findings']} {_list_findings(findings)} {sentences}"


def trace_words(image_size: int) -> list[str]:
    """Every word, number and punctuation mark that a trace on images of this size can hold, for a word-level tokenizer."""
    wording = read_wording("traces")
    single = [wording[name] for name in ("impression", "findings", "first", "next", "no_finding")]
    texts = [
        *single,
        *wording["prompts"].values(),
        *wording["openings"],
        *wording["unremarkable"],
        SUMMARY,
        ";",
        format_box((0, 0, 1, 1)),
        *REGIONS,
        *report_texts(),
    ]
    step = max(image_size // _BOX_GRID, 1)
    numbers = [str(value) for value in range(0, image_size + step, step)]
    return sorted({word for text in [*texts, *numbers] for word in re.findall(r"\w+|[^\w\s]", text)})
