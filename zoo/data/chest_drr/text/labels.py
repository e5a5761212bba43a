"""A rule-based labeller: which findings a text states, and on which side.

It knows the seven findings of chest_drr in the usual words, and simple negation. CheXbert and RadGraph read real reports
better; they need weights that only their users have (:mod:`zoo.metrics.external`).
"""

import re

from zoo.data.chest_drr.rendering.findings import SEVERITIES

_WORDS = {
    "pleural effusion": r"effusion|pleural fluid",
    "consolidation": r"consolidation|airspace",
    "nodule": r"\bnodul",
    "mass": r"\bmass\b",
    "pneumothorax": r"pneumothorax",
    "atelectasis": r"atelectasis|volume loss|collapse",
    "cardiomegaly": r"cardiomegaly|enlarge\w* (?:of the )?(?:cardiac|heart)|(?:heart|silhouette) is enlarged",
}
_NEGATION = re.compile(r"\bno\b|\bwithout evidence\b|\bclear\b|\bsharp\b|\bpreserved\b|\bnormal\b|\bunremarkable\b")
_SIDE = re.compile(r"\b(left|right)\b")

Label = tuple[str, str]
"""Finding and side; the side is "" where the text names none, and for the heart."""

LABELS: tuple[Label, ...] = tuple(
    (kind, side) for kind in SEVERITIES for side in (("",) if kind == "cardiomegaly" else ("left", "right"))
)
"""Every finding on every side that it can be on (13)."""


def stated_findings(text: str) -> set[Label]:
    """The findings that a text states, sentence by sentence; a sentence with a negation states none."""
    found: set[Label] = set()
    for sentence in re.split(r"[.;\n]", text.lower()):
        if _NEGATION.search(sentence):
            continue
        sides = set(_SIDE.findall(sentence)) or {""}
        for kind, words in _WORDS.items():
            if re.search(words, sentence):
                found |= {(kind, "")} if kind == "cardiomegaly" else {(kind, side) for side in sides}
    return found
