"""The findings and regions of chest_drr, and the labeler that extracts its findings from text."""

from zoo.data.chest_drr.rendering.findings import SEVERITIES
from zoo.data.chest_drr.rendering.regions import REGIONS, ZONES
from zoo.data.chest_drr.text.wording import read_wording
from zoo.data.vocabulary import FindingVocabulary, KeywordLabeler

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

LABELER = KeywordLabeler(VOCABULARY, **read_wording("labels"))
"""Extracts the seven findings of chest_drr, in the usual words, with simple negation."""

LABELS = VOCABULARY.labels
