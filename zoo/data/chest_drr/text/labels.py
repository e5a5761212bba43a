"""The findings and regions of chest_drr, and the rules that extract its findings from text."""

from zoo.data.chest_drr.rendering.findings import SEVERITIES
from zoo.data.chest_drr.rendering.regions import REGIONS, ZONES
from zoo.data.vocabulary import FindingVocabulary, KeywordLabeler

_PATTERNS = {
    "pleural effusion": r"effusion|pleural fluid",
    "consolidation": r"consolidation|airspace",
    "nodule": r"\bnodul",
    "mass": r"\bmass\b",
    "pneumothorax": r"pneumothorax",
    "atelectasis": r"atelectasis|volume loss|collapse",
    "cardiomegaly": r"cardiomegaly|enlarge\w* (?:of the )?(?:cardiac|heart)|(?:heart|silhouette) is enlarged",
}
_NEGATION = r"\bno\b|\bwithout evidence\b|\bclear\b|\bsharp\b|\bpreserved\b|\bnormal\b|\bunremarkable\b"

VOCABULARY = FindingVocabulary(
    labels=tuple(
        (finding, side)
        for finding in SEVERITIES
        for side in (("",) if finding == "cardiomegaly" else ("left", "right"))
    ),
    regions=REGIONS,
    zones=ZONES,
)
"""Every finding on every side it can be on (13 labels), 34 regions and the lung zones."""

LABELER = KeywordLabeler(VOCABULARY, _PATTERNS, _NEGATION)
"""Knows the seven findings of chest_drr in the usual words, and simple negation."""

LABELS = VOCABULARY.labels
stated_findings = LABELER.label
