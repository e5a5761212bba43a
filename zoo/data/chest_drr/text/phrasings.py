"""How questions on chest_drr cases are worded (``questions.yaml``, ``clues.yaml``).

Each kind has at least forty wordings for training and validation and as many others for the test split, so that no test
question is worded as in another split. The wording was written for this dataset.
"""

from dataclasses import dataclass, field
from typing import Literal

from zoo.data.chest_drr.text.wording import read_wording


@dataclass(frozen=True)
class Phrasing:
    """How the questions of a split are worded.

    Attributes:
        verbs: before a target.
        closings: after a target.
        frames: around a clue.
        everything: names of all findings together.
        clues: of each finding, with {side} where a clue tells it.
        sideless: share of clues and names that do not tell the side.
        contralateral: share of the questions about absent findings that ask, where possible, for a present one on the other side.
        open_questions: a third of the questions about all findings.
        any_number: whether all findings are asked for in images with one or none, too.
    """

    verbs: tuple[str, ...]
    closings: tuple[str, ...]
    frames: tuple[str, ...]
    everything: tuple[str, ...]
    clues: dict[str, tuple[str, ...]]
    sideless: float = 0.0
    contralateral: float = 0.0
    open_questions: tuple[str, ...] = ()
    any_number: bool = False
    _wordings: dict[tuple[str, str], list[str]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def questions(self, kind: str, finding: str = "pleural effusion") -> list[str]:
        """All wordings of a kind of question, with {} for the target, or {side} in a clue to ``finding``."""
        if (kind, finding) not in self._wordings:
            self._wordings[kind, finding] = self._combine(kind, finding)
        return self._wordings[kind, finding]

    def _combine(self, kind: str, finding: str) -> list[str]:
        if kind == "implicit":
            return [frame.format(clue) for frame in self.frames for clue in self.clues[finding]]
        if kind == "several":
            return [
                f"{verb} {closing.format(what)}"
                for verb in self.verbs
                for what in self.everything
                for closing in self.closings
            ]
        return [f"{verb} the {closing}" for verb in self.verbs for closing in self.closings]


def _read_phrasing(
    split: Literal["train", "test"], sideless: float = 0.0, contralateral: float = 0.0, any_number: bool = False
) -> Phrasing:
    texts = {name: tuple(entries) for name, entries in read_wording("questions")[split].items()}
    clues = {finding: tuple(entries) for finding, entries in read_wording("clues")[split].items()}
    return Phrasing(**texts, clues=clues, sideless=sideless, contralateral=contralateral, any_number=any_number)


TRAIN = _read_phrasing("train", sideless=1 / 3, contralateral=1 / 2, any_number=True)
"""Wording of the training and validation questions."""

TEST = _read_phrasing("test")
"""Wording of the test questions; nothing in it stands in :data:`TRAIN`."""
