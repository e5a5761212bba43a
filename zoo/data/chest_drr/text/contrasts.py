"""Conversations that teach to tell what is there from what is not: as many questions about absent findings as about present ones.

Half of the questions ask for what is there, by the same names and clues as the others. Some name several findings, of which some
are absent. Half of the conversations end in a wrong answer, which affirms what is absent or names another finding than was asked
for: a presence head learns from them (:mod:`zoo.heads.presence`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.data.chest_drr.rendering.findings import SEVERITIES
from zoo.data.chest_drr.rendering.regions import ZONES
from zoo.data.chest_drr.text.labels import LABELS
from zoo.data.chest_drr.text.phrasings import Phrasing
from zoo.data.chest_drr.text.questions import CONTRALATERAL, TurnSampler
from zoo.data.conversations.records import Target, Turn

LISTED = "listed"
"""The kind of question that names several findings."""
_ZONE_SHARES = {"pleural effusion": (0.0, 0.0, 1.0), "pneumothorax": (0.0, 0.2, 0.8)}
_OTHER_SHARES = (0.1, 0.35, 0.55)
"""How often findings lie in the upper, mid and lower lung zone; other shares would give wrong answers away by their words."""


@dataclass(frozen=True)
class _Query:
    """A finding that is asked for: index of the present one, or -1 and its label; a question, and its name in the question."""

    index: int
    target: Target
    question: str
    asked: str
    by_clue: bool


def sample_contrasts(
    record: dict[str, Any], phrasing: Phrasing, rng: np.random.Generator, turns: int = 2, *, reject: bool = True
) -> tuple[Turn, ...]:
    """Up to ``turns`` questions on a case record about present and absent findings; the last answer may be wrong.

    Args:
        record: of the case.
        phrasing: of the questions.
        rng: of all choices.
        turns: most questions of the conversation.
        reject: whether absent findings have ``[REJ]`` in the answers.
    """
    sampler = _ContrastSampler(record, phrasing, rng, reject=reject)
    count = int(rng.integers(1, turns + 1))
    sampled = [sampler.listed() if rng.random() < 0.2 else sampler.single() for _ in range(count)]
    return (*sampled[:-1], sampler.wrong()) if rng.random() < 0.5 else tuple(sampled)


class _ContrastSampler(TurnSampler):
    """Samples questions about findings that are there or not."""

    def single(self) -> Turn:
        """One finding, by a clue twice as often as by its name."""
        return self._turn(self._query())

    def listed(self) -> Turn:
        """Two or three findings by their names, each present or absent; the answer takes them one after the other."""
        chosen = self._distinct(2 + int(self.rng.random() < 1 / 3))
        names = [target.name for _, target in chosen]
        question = self._choose(self.phrasing.questions("explicit"))
        asked = " and the ".join([", the ".join(names[:-1]), names[-1]])
        answers = [
            self.affirm(target, target.name) if index >= 0 else self.deny(target.name, target.name)
            for index, target in chosen
        ]
        present = [(index, target) for index, target in chosen if index >= 0]
        masks, targets = tuple(self.masks[index] for index, _ in present), tuple(target for _, target in present)
        return Turn(question.format(asked), " ".join(answers), masks, targets, LISTED)

    def wrong(self) -> Turn:
        """A question with a wrong answer: that an absent finding is there, or another finding than was asked for."""
        query = self._query()
        others = [target for target in self.targets if target.finding != query.target.finding]
        is_present = query.index >= 0
        if others and query.by_clue and (is_present or self.rng.random() < 0.5):
            other = others[int(self.rng.integers(len(others)))]
            return Turn(query.question, self.affirm(other, other.finding), kind="absent", wrong=True)
        if is_present:
            return self._turn(query)
        side = query.target.side or ("" if query.target.finding == "cardiomegaly" else self._choose(["left", "right"]))
        shares = _ZONE_SHARES.get(query.target.finding, _OTHER_SHARES)
        zone = str(self.rng.choice(ZONES[1:], p=shares)) if side else ""
        claimed = Target(query.target.finding, side, zone)
        return Turn(query.question, self.affirm(claimed, query.asked), kind="absent", wrong=True)

    def _turn(self, query: _Query) -> Turn:
        if query.index >= 0:
            kind = "implicit" if query.by_clue else "explicit"
            answer = self.affirm(query.target, query.asked)
            return Turn(query.question, answer, (self.masks[query.index],), (query.target,), kind)
        is_contralateral = query.target.finding in {target.finding for target in self.targets}
        kind = CONTRALATERAL if is_contralateral else "absent"
        return Turn(query.question, self.deny(query.asked), kind=kind)

    def _query(self) -> _Query:
        """Present or absent with the same chance; an absent one is on the unaffected side in a third of the cases, if possible."""
        present = self.unambiguous()
        index = int(self.rng.choice(present)) if present and self.rng.random() < 0.5 else -1
        target = self.targets[index] if index >= 0 else self._absent()
        by_clue = self.rng.random() < 2 / 3
        if by_clue:
            question, asked = self.hint(target.finding, target.side)
            if index < 0 and asked == target.finding and self._is_present(target.finding):
                by_clue = False  # such a clue leaves the side open, and the other side has it
        if not by_clue:
            asked = target.name if self._is_present(target.finding) and index < 0 else self._name(target)
            question = self._choose(self.phrasing.questions("absent")).format(asked)
        return _Query(index, target, question, asked, by_clue)

    def _absent(self) -> Target:
        labels = {(target.finding, target.side) for target in self.targets}
        other_side = [label for label in LABELS if label not in labels and self._is_present(label[0])]
        if other_side and self.rng.random() < 1 / 3:
            return Target(*other_side[int(self.rng.integers(len(other_side)))])
        finding = self._choose([name for name in SEVERITIES if not self._is_present(name)])
        return Target(finding, "" if finding == "cardiomegaly" else self._choose(["left", "right"]))

    def _distinct(self, count: int) -> list[tuple[int, Target]]:
        """Findings with their sides, each present with a chance of one half where there are any left."""
        present, chosen = list(range(len(self.targets))), list[tuple[int, Target]]()
        while len(chosen) < count:
            if present and self.rng.random() < 0.5:
                index = present.pop(int(self.rng.integers(len(present))))
                chosen.append((index, self.targets[index]))
            elif (absent := self._absent()) not in [target for _, target in chosen]:
                chosen.append((-1, absent))
        return chosen

    def _is_present(self, finding: str) -> bool:
        return finding in {target.finding for target in self.targets}
