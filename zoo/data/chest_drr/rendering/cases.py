"""One case of chest_drr: the findings, the radiograph, and its ground truth."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from zoo.data.chest_drr.rendering.findings import SEVERITIES, Finding, paint_findings, sample_finding
from zoo.data.chest_drr.rendering.projection import develop, project, sample_view
from zoo.data.chest_drr.rendering.regions import bounding_box, finding_mask, overlay_findings, region_masks
from zoo.data.chest_drr.rendering.scans import Scan, load_scan, scan_of_case
from zoo.data.chest_drr.rendering.volume import load_volume
from zoo.data.io.masks import encode_mask

SPLITS = ("train", "val", "test")
_HEART = {"": (0.86, 0.97), "mild": (1.16, 1.22), "severe": (1.36, 1.5)}
CaseClass = Sequence[str] | None
"""The finding of a case: kind, severity, side and lobe, as far as they are fixed; None for no finding."""


@dataclass(frozen=True)
class CaseSpec:
    """What a series of cases is sampled from.

    ``kinds``: the findings that may occur, with severities ``{kind: [severity, ...]}``; ``at_most``: the most in a case;
    ``classes``: if given, case ``i`` has exactly the finding ``classes[i % len]``: (kind, severity, side, lobe), of which the
    last may be left out and are sampled then, None for no finding, or a list of such, which take turns;
    ``scans``: the user's CTs, each with its split; the packaged CT if None.
    """

    style: str = "standard"
    image_size: int = 128
    seed: int = 0
    kinds: dict[str, list[str]] | None = None
    at_most: int = 3
    classes: list[CaseClass | Sequence[Sequence[str]]] | None = None
    scans: Sequence[Scan] | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """A rendered case: ``image`` (size, size) uint16, masks (size, size) bool, findings, view settings, and the patient if not packaged."""

    image: np.ndarray
    regions: dict[str, np.ndarray]
    finding_masks: list[np.ndarray]
    findings: list[Finding]
    view: dict[str, float]
    patient: str | None = None

    def to_record(self) -> dict[str, Any]:
        """The case without its image, for JSON: masks as COCO run lengths, boxes as (left, top, right, bottom)."""
        return {
            "findings": [
                {**asdict(finding), "mask": encode_mask(mask), "box": bounding_box(mask)}
                for finding, mask in zip(self.findings, self.finding_masks, strict=True)
            ],
            "regions": {
                name: {"mask": encode_mask(mask), "box": bounding_box(mask)} for name, mask in self.regions.items()
            },
            "cardiothoracic_ratio": round(_cardiothoracic_ratio(self.regions), 3),
            "view": self.view,
            **({"patient": self.patient} if self.patient else {}),
        }


def _cardiothoracic_ratio(regions: dict[str, np.ndarray]) -> float:
    heart, chest = (
        bounding_box(regions["cardiac silhouette"]),
        bounding_box(regions["right lung"] | regions["left lung"]),
    )
    return (heart[2] - heart[0]) / (chest[2] - chest[0]) if heart and chest else 0.0


def case_generator(spec: CaseSpec, split: str, index: int) -> np.random.Generator:
    """The random stream of one case, unique to (seed, split, index)."""
    return np.random.default_rng([spec.seed, SPLITS.index(split), index])


def sample_findings(spec: CaseSpec, index: int, rng: np.random.Generator) -> list[Finding]:
    """Sample findings: that of the case's class, or up to ``at_most``, no two of which would hide each other."""
    if spec.classes is not None:
        fixed = class_of_case(spec.classes, index)
        return [sample_finding(fixed[0], rng, *fixed[1:])] if fixed else []
    kinds = spec.kinds or {kind: list(severities) for kind, severities in SEVERITIES.items()}
    count = int(rng.choice([0, *range(1, spec.at_most + 1)], p=_count_probabilities(spec.at_most)))
    findings: list[Finding] = []
    for kind in rng.permutation(list(kinds))[:count]:
        finding = sample_finding(str(kind), rng, str(rng.choice(kinds[str(kind)])))
        if not any(_overlaps(finding, other) for other in findings):
            findings.append(finding)
    return findings


def class_of_case(classes: list[CaseClass | Sequence[Sequence[str]]], index: int) -> CaseClass:
    """The finding of case ``index``; alternatives of a class take turns."""
    choice: Any = classes[index % len(classes)]
    if choice and not isinstance(choice[0], str):
        choice = choice[index // len(classes) % len(choice)]
    case: CaseClass = choice
    return case


def _count_probabilities(at_most: int) -> np.ndarray:
    weights = np.array([0.22, *(0.5**step for step in range(at_most))])
    return weights / weights.sum()


def _overlaps(finding: Finding, other: Finding) -> bool:
    """Whether two findings would hide each other: the same lobe, or pleural air with anything else on its side."""
    air = "pneumothorax" in (finding.kind, other.kind)
    return finding.side == other.side != "" and (air or (finding.lobe == other.lobe != ""))


def render_case(spec: CaseSpec, split: str, index: int) -> Case:
    """Sample and render case ``index`` of ``split``; the same arguments give the same bytes."""
    rng = case_generator(spec, split, index)
    scan = scan_of_case(spec.scans, split, [spec.seed, SPLITS.index(split), index]) if spec.scans else None
    volume = load_scan(scan) if scan else load_volume()
    findings = sample_findings(spec, index, rng)
    view = sample_view(spec.style, _heart_scale(findings, rng), _mediastinal_shift(findings, rng), rng)
    view = replace(view, field=view.field * volume.field_scale)
    hounsfield, painted = paint_findings(volume, findings, rng)
    integral, samples = project(volume, hounsfield, overlay_findings(volume, painted), view, spec.image_size)
    regions = region_masks(samples)
    masks = [
        regions["cardiac silhouette"] if finding.kind == "cardiomegaly" else finding_mask(samples, position)
        for position, finding in enumerate(findings)
    ]
    return Case(develop(integral, view, rng), regions, masks, findings, view.to_dict(), scan.name if scan else None)


def _heart_scale(findings: list[Finding], rng: np.random.Generator) -> float:
    severity = next((finding.severity for finding in findings if finding.kind == "cardiomegaly"), "")
    return float(rng.uniform(*_HEART[severity]))


def _mediastinal_shift(findings: list[Finding], rng: np.random.Generator) -> float:
    """Millimetres to the patient's left: towards a lobar collapse, away from much fluid or air."""
    shift = float(rng.normal(0, 2))
    for finding in findings:
        towards = 1.0 if finding.side == "left" else -1.0
        if (finding.kind, finding.severity) == ("atelectasis", "lobar"):
            shift += towards * rng.uniform(7, 14)
        elif finding.kind in ("pneumothorax", "pleural effusion") and finding.severity == "large":
            shift -= towards * rng.uniform(5, 11)
    return shift
