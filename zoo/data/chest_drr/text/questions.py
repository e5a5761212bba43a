"""Questions on chest_drr cases with exact masks: explicit, implicit, about several targets, and about absent ones.

How they are worded is in :mod:`zoo.data.chest_drr.text.phrasings`, and the answers in ``questions.yaml``.
"""

import re
from typing import Any

import numpy as np
from pycocotools import mask as coco

from zoo.data.chest_drr.rendering.findings import SEVERITIES
from zoo.data.chest_drr.rendering.regions import ZONES
from zoo.data.chest_drr.text.labels import LABELS
from zoo.data.chest_drr.text.phrasings import Phrasing
from zoo.data.chest_drr.text.wording import read_wording
from zoo.data.conversations.records import REJ, SEG, Target, Turn

KINDS = ("explicit", "implicit", "several", "absent")
"""The kinds that :func:`sample_conversation` samples from.

For training, an absent one may be of the kind ``CONTRALATERAL``, and one about several of ``ALL_FINDINGS``.
"""
CONTRALATERAL = "other_side"
"""The kind of question that asks for a finding on the unaffected side, where the other side has it."""

ALL_FINDINGS = "everything"
"""The kind of question that asks for all findings of an image with one or none."""


def without_side(question: str) -> str:
    """A question with {side} in its clue, as one that leaves the side open."""
    return re.sub(r",? (?:on the )?\{side\}", "", question)


def build_target(finding: dict[str, Any], regions: dict[str, Any]) -> Target:
    """The target of a finding of a case record: kind, side, and the lung zone that holds most of it."""
    if not finding["side"]:
        return Target(finding["kind"])
    mask = coco.decode(finding["mask"]).astype(bool)
    overlaps = {
        zone: int((mask & coco.decode(regions[f"{finding['side']} {zone}"]["mask"]).astype(bool)).sum())
        for zone in ZONES[1:]
    }
    return Target(finding["kind"], finding["side"], max(overlaps, key=lambda zone: overlaps[zone]))


def sample_conversation(
    record: dict[str, Any], phrasing: Phrasing, rng: np.random.Generator, turns: int = 2, *, reject: bool = False
) -> tuple[Turn, ...]:
    """Up to ``turns`` questions and answers on a case record, each of another kind, in random order.

    Kinds that a case cannot have are left out. With ``reject`` the questions are the same, and the answers are those that repeat
    what was asked for and hold ``[REJ]``.
    """
    sampler = TurnSampler(record, phrasing, rng, reject=reject)
    samplers = {
        "explicit": sampler.explicit,
        "implicit": sampler.implicit,
        "several": sampler.several,
        "absent": sampler.absent,
    }
    sampled = [samplers[str(kind)]() for kind in rng.permutation(KINDS)]
    return tuple([turn for turn in sampled if turn is not None][:turns])


def sample_contralateral_question(
    record: dict[str, Any], phrasing: Phrasing, rng: np.random.Generator, *, reject: bool = False
) -> tuple[Turn, ...]:
    """One question about a finding on the unaffected side; none if no finding is on one side only."""
    turn = TurnSampler(record, phrasing, rng, reject=reject).contralateral()
    return () if turn is None else (turn,)


def sample_all_findings_question(
    record: dict[str, Any], phrasing: Phrasing, rng: np.random.Generator, *, reject: bool = False
) -> tuple[Turn, ...]:
    """One question about all findings of an image with one or none; none if there are more."""
    sampler = TurnSampler(record, phrasing, rng, reject=reject)
    return (sampler.all_findings(),) if len(sampler.targets) < 2 else ()


class TurnSampler:
    """Samples questions and their answers on a case record; each method is one kind of question."""

    def __init__(
        self, record: dict[str, Any], phrasing: Phrasing, rng: np.random.Generator, *, reject: bool = False
    ) -> None:
        """Read the visible findings of a record; ``reject`` chooses the wording of answers."""
        visible = [item for item in record["findings"] if int(coco.area(item["mask"]))]
        self.targets = [build_target(item, record["regions"]) for item in visible]
        self.masks = [item["mask"] for item in visible]
        self.regions = record["regions"]
        self.phrasing, self.rng, self.reject = phrasing, rng, reject

    def explicit(self) -> Turn:
        """A finding by its name, or in a quarter of the cases (and those without findings) an anatomical region."""
        question = self._choose(self.phrasing.questions("explicit"))
        if self.targets and self.rng.random() < 0.75:
            index = int(self.rng.integers(len(self.targets)))
            target, mask = self.targets[index], self.masks[index]
            name = self._name(target) if self._is_only_of_its_kind(target) else target.name
        else:
            name = self._choose([name for name, item in self.regions.items() if item["box"]])
            target, mask = Target(name), self.regions[name]["mask"]
        return Turn(question.format(name), self.affirm(target, name), (mask,), (target,), "explicit")

    def implicit(self) -> Turn | None:
        """A finding by a clue; None where each finding is on both sides."""
        unambiguous = self.unambiguous()
        if not unambiguous:
            return None
        index = int(self.rng.choice(unambiguous))
        target = self.targets[index]
        question, name = self.hint(target.finding, target.side)
        return Turn(question, self.affirm(target, name), (self.masks[index],), (target,), "implicit")

    def several(self) -> Turn | None:
        """All findings; where there are fewer than two, only if ``phrasing.any_number``."""
        if len(self.targets) < 2:
            return self.all_findings() if self.phrasing.any_number else None
        targets, findings = self.targets, list(SEVERITIES)
        order = sorted(range(len(targets)), key=lambda i: (findings.index(targets[i].finding), targets[i].side))
        phrases = [f"{locate(targets[i])} {SEG}" for i in order]
        template = read_wording("questions")["answers"]["several"]
        answer = template.format(count=len(order), targets=", ".join(phrases[:-1]), last=phrases[-1])
        masks = tuple(self.masks[i] for i in order)
        return Turn(self._ask_for_all(), answer, masks, tuple(targets[i] for i in order), "several")

    def all_findings(self) -> Turn:
        """All findings of an image with one or none."""
        answer = self.affirm(self.targets[0]) if self.targets else self.deny(read_wording("questions")["any_finding"])
        return Turn(self._ask_for_all(), answer, tuple(self.masks), tuple(self.targets), ALL_FINDINGS)

    def absent(self) -> Turn:
        """A finding on neither side or, in a share ``phrasing.contralateral`` where possible, on the unaffected side."""
        if self._happens(self.phrasing.contralateral) and (turn := self.contralateral()):
            return turn
        present = {target.finding for target in self.targets}
        finding = self._choose([name for name in SEVERITIES if name not in present])
        side = "" if finding == "cardiomegaly" else self._choose(["left", "right"])
        if self.rng.random() < 0.5:
            template = self._choose(self.phrasing.questions("absent"))
            name = self._name(Target(finding, side))
            question = template.format(name)
        else:
            question, name = self.hint(finding, side)
        return Turn(question, self.deny(finding, name), kind="absent")

    def contralateral(self) -> Turn | None:
        """A finding on the unaffected side: by name, or half of the time by a clue that tells the side, where there are any."""
        present = {(target.finding, target.side) for target in self.targets}
        findings = {finding for finding, _ in present}
        unaffected = sorted(label for label in LABELS if label[0] in findings and label not in present)
        if not unaffected:
            return None
        finding, side = unaffected[int(self.rng.integers(len(unaffected)))]
        name = Target(finding, side).name
        sided = [text for text in self.phrasing.questions("implicit", finding) if "{side}" in text]
        if sided and self.rng.random() < 0.5:
            question = self._choose(sided).format(side=side)
        else:
            question = self._choose(self.phrasing.questions("absent")).format(name)
        return Turn(question, self.deny(name), kind=CONTRALATERAL)

    def _ask_for_all(self) -> str:
        if self.phrasing.open_questions and self._happens(1 / 3):
            return self._choose(self.phrasing.open_questions)
        return self._choose(self.phrasing.questions("several"))

    def hint(self, finding: str, side: str) -> tuple[str, str]:
        """A question that gives a clue to a finding, and the finding's name, with its side if the clue tells it."""
        question = self._choose(self.phrasing.questions("implicit", finding))
        if self._happens(self.phrasing.sideless):
            return without_side(question), finding
        return question.format(side=side), Target(finding, side if "{side}" in question else "").name

    def unambiguous(self) -> list[int]:
        """Indices of the findings that are on one side only."""
        return [index for index, target in enumerate(self.targets) if self._is_only_of_its_kind(target)]

    def _name(self, target: Target) -> str:
        return target.finding if self._happens(self.phrasing.sideless) else target.name

    def affirm(self, target: Target, asked: str = "") -> str:
        """The answer where a target is; ``asked`` is its name as the question has it, empty where all findings were asked for."""
        wording = read_wording("questions")
        text = self._choose(wording["answers"]["present"]).format(locate(target), seg=SEG)
        if self.reject:
            template = wording["rejecting_answers"]["present" if asked else "one_finding"]
            text = template.format(asked=asked, target=locate(target), seg=SEG)
        return text[0].upper() + text[1:]

    def deny(self, name: str, asked: str = "") -> str:
        """The answer where there is no ``name``; ``asked`` is the name as the question has it."""
        wording = read_wording("questions")
        text = self._choose(wording["answers"]["absent"]).format(name)
        if self.reject:
            text = wording["rejecting_answers"]["absent"].format(asked=asked or name, rej=REJ)
        return text[0].upper() + text[1:]

    def _is_only_of_its_kind(self, target: Target) -> bool:
        return [other.finding for other in self.targets].count(target.finding) == 1

    def _happens(self, share: float) -> bool:
        # No number is sampled for a share of 0: one more would change every later question of the test split.
        return bool(share) and self.rng.random() < share

    def _choose(self, texts: Any) -> str:
        # The numbers that Generator.choice would draw, without its copy of all texts.
        return str(texts[int(self.rng.integers(len(texts)))])


def locate(target: Target) -> str:
    """A target with its place, as answers have it: "the left pleural effusion in the lower lung zone"."""
    template = read_wording("questions")["answers"]["target_in_zone" if target.zone else "target"]
    return template.format(target=target.name, zone=target.zone)
