"""One case of chest_drr: what is wrong with the patient, the radiograph, and the whole truth about it."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from zoo.data.chest_drr.rendering.findings import SEVERITIES, Finding, draw_finding, paint_findings
from zoo.data.chest_drr.rendering.projection import develop, draw_view, project
from zoo.data.chest_drr.rendering.regions import box_of, finding_mask, region_masks, with_findings
from zoo.data.chest_drr.rendering.volume import load_volume
from zoo.data.io.masks import encode_mask

SPLITS = ("train", "val", "test")
_HEART = {"": (0.86, 0.97), "mild": (1.16, 1.22), "severe": (1.36, 1.5)}


@dataclass(frozen=True)
class CaseSpec:
    """What a series of cases is drawn from.

    ``kinds``: the findings that may occur, with severities ``{kind: [severity, ...]}``; ``at_most``: how many in a case;
    ``classes``: if given, case ``i`` has exactly the finding ``classes[i % len]``, a (kind, severity) or None.
    """

    style: str = "standard"
    image_size: int = 128
    seed: int = 0
    kinds: dict[str, list[str]] | None = None
    at_most: int = 3
    classes: list[tuple[str, str] | None] | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """A rendered case: ``image`` (size, size) uint16, masks (size, size) bool, and facts for the record."""

    image: np.ndarray
    regions: dict[str, np.ndarray]
    finding_masks: list[np.ndarray]
    findings: list[Finding]
    view: dict[str, float]

    def record(self) -> dict[str, Any]:
        """The case without its image, as JSON holds it: masks as COCO run lengths, boxes as (left, top, right, bottom)."""
        return {
            "findings": [
                {**asdict(finding), "mask": encode_mask(mask), "box": box_of(mask)}
                for finding, mask in zip(self.findings, self.finding_masks, strict=True)
            ],
            "regions": {name: {"mask": encode_mask(mask), "box": box_of(mask)} for name, mask in self.regions.items()},
            "cardiothoracic_ratio": round(_cardiothoracic_ratio(self.regions), 3),
            "view": self.view,
        }


def _cardiothoracic_ratio(regions: dict[str, np.ndarray]) -> float:
    heart, chest = box_of(regions["cardiac silhouette"]), box_of(regions["right lung"] | regions["left lung"])
    return (heart[2] - heart[0]) / (chest[2] - chest[0]) if heart and chest else 0.0


def case_generator(spec: CaseSpec, split: str, index: int) -> np.random.Generator:
    """The random stream of one case; no two (seed, split, index) share one."""
    return np.random.default_rng([spec.seed, SPLITS.index(split), index])


def draw_findings(spec: CaseSpec, index: int, rng: np.random.Generator) -> list[Finding]:
    """Draw what is wrong: one finding of the case's class, or none to ``at_most``, no two of a kind on one side."""
    if spec.classes is not None:
        wanted = spec.classes[index % len(spec.classes)]
        return [draw_finding(wanted[0], rng, wanted[1])] if wanted else []
    kinds = spec.kinds or {kind: list(severities) for kind, severities in SEVERITIES.items()}
    count = int(rng.choice([0, *range(1, spec.at_most + 1)], p=_counts(spec.at_most)))
    drawn: list[Finding] = []
    for kind in rng.permutation(list(kinds))[:count]:
        finding = draw_finding(str(kind), rng, str(rng.choice(kinds[str(kind)])))
        if not any(_clash(finding, other) for other in drawn):
            drawn.append(finding)
    return drawn


def _counts(at_most: int) -> np.ndarray:
    weights = np.array([0.22, *(0.5**step for step in range(at_most))])
    return weights / weights.sum()


def _clash(one: Finding, other: Finding) -> bool:
    """Whether two findings would hide each other: the same lobe, or pleural air with anything else on its side."""
    air = "pneumothorax" in (one.kind, other.kind)
    return one.side == other.side != "" and (air or (one.lobe == other.lobe != ""))


def render_case(spec: CaseSpec, split: str, index: int) -> Case:
    """Draw and render case ``index`` of ``split``; the same arguments give the same bytes."""
    rng = case_generator(spec, split, index)
    volume = load_volume()
    findings = draw_findings(spec, index, rng)
    view = draw_view(spec.style, _heart_scale(findings, rng), _mediastinal_shift(findings, rng), rng)
    hounsfield, painted = paint_findings(volume, findings, rng)
    integral, samples = project(volume, hounsfield, with_findings(volume, painted), view, spec.image_size)
    regions = region_masks(samples)
    masks = [
        regions["cardiac silhouette"] if finding.kind == "cardiomegaly" else finding_mask(samples, position)
        for position, finding in enumerate(findings)
    ]
    return Case(develop(integral, view, rng), regions, masks, findings, view.facts())


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
