"""What a dataset calls its findings, and how findings are extracted from text: all that generic code knows of either.

A dataset offers both in its ``metadata()``, as ``vocabulary`` and ``labeler``, so that metrics and methods name no finding.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

Label = tuple[str, str]
"""Finding and side; the side is "" where the finding has none, or the text does not state it."""

NEGATION = r"\b(?:no|not|without|absent|denies|free of|negative for|unremarkable|normal|clear)\b"
"""A sentence that matches states no finding."""


def label_name(finding: str, side: str = "") -> str:
    """A label in words: "left pleural effusion"."""
    return " ".join(part for part in (side, finding) if part)


@dataclass(frozen=True)
class FindingVocabulary:
    """The names of what the images of a dataset can show.

    Attributes:
        labels: every finding on every side it can be on; their order is that of label columns, (n, labels).
        regions: names of anatomical regions.
        zones: names of places within a side, which tell where a finding is.
    """

    labels: tuple[Label, ...]
    regions: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()

    @property
    def findings(self) -> tuple[str, ...]:
        """Names of the findings, each once."""
        return tuple(dict.fromkeys(finding for finding, _ in self.labels))

    @property
    def sides(self) -> tuple[str, ...]:
        """Names of the sides, each once."""
        return tuple(dict.fromkeys(side for _, side in self.labels if side))

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels in words."""
        return tuple(label_name(*label) for label in self.labels)

    @property
    def target_names(self) -> tuple[str, ...]:
        """Everything that a mask can be of, in words: the labels, then the regions."""
        return (*self.label_names, *self.regions)


class ReportLabeler(Protocol):
    """Extracts the findings that a report, a sentence or an answer states."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """The labels that are scored, in the order of label columns."""

    def label(self, text: str) -> set[Label]:
        """The findings that a text states. A label whose side the text leaves open may be none of :attr:`labels`."""


class KeywordLabeler:
    """A rule-based :class:`ReportLabeler`: a sentence that matches a finding's pattern, and no negation, states it.

    CheXbert and RadGraph read real reports better; they need weights that only their users have
    (:mod:`zoo.metrics.clinical`).
    """

    def __init__(
        self, vocabulary: FindingVocabulary, patterns: Mapping[str, str] | None = None, negation: str = NEGATION
    ) -> None:
        """Compile the patterns.

        Args:
            vocabulary: the findings and sides to look for.
            patterns: a regular expression for each finding, matched in lower case; its name as whole words if left out.
            negation: a regular expression; a sentence that matches it states nothing.
        """
        patterns = patterns or {}
        self._patterns = {
            finding: re.compile(patterns.get(finding, rf"\b{re.escape(finding.lower())}\b"))
            for finding in vocabulary.findings
        }
        self._negation = re.compile(negation)
        self._side = re.compile(rf"\b({'|'.join(map(re.escape, vocabulary.sides)) or '$.'})\b")
        self._sided = {finding for finding, side in vocabulary.labels if side}
        self.labels = vocabulary.labels

    def label(self, text: str) -> set[Label]:
        """See :meth:`ReportLabeler.label`; sentences end at a full stop, a semicolon or a line break."""
        labels: set[Label] = set()
        for sentence in re.split(r"[.;\n]", text.lower()):
            if self._negation.search(sentence):
                continue
            sides = set(self._side.findall(sentence)) or {""}
            for finding, pattern in self._patterns.items():
                if pattern.search(sentence):
                    labels |= {(finding, side) for side in (sides if finding in self._sided else {""})}
        return labels
