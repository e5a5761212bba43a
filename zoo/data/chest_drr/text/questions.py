"""Questions on chest_drr cases with exact masks: explicit, implicit, about several targets, and about absent ones.

The wording is in :mod:`zoo.data.chest_drr.text.phrasings`.
"""

import re
from typing import Any

import numpy as np
from pycocotools import mask as coco

from zoo.data.chest_drr.rendering.findings import SEVERITIES
from zoo.data.chest_drr.rendering.regions import REGIONS, ZONES
from zoo.data.chest_drr.text.labels import LABELS
from zoo.data.chest_drr.text.phrasings import Phrasing
from zoo.data.conversations.records import SEG, Target, Turn
from zoo.data.io.masks import RunLength

KINDS = ("explicit", "implicit", "several", "absent")
"""The kinds that :func:`conversation_on` draws from; in training an absent one may be of ``OTHER_SIDE``, several of ``EVERYTHING``."""
OTHER_SIDE = "other_side"
"""The kind of question that asks for a finding on the side that has none, where the other side has it."""

EVERYTHING = "everything"
"""The kind of question that asks for all findings of a film that has one or none."""

FINDINGS = tuple(" ".join(part for part in (side, kind) if part) for kind, side in LABELS)
"""Every finding on every side that it can be on, as :func:`called` names it."""
NAMES = (*FINDINGS, *REGIONS)
"""Everything that a question can be about."""

_FOUND = ("{} {seg}.", "It is {} {seg}.", "There is {} {seg}.")
_NOTHING = ("There is no {}.", "No {} is seen.", "I see no {} here.")


def phrasings(kind: str, phrasing: Phrasing, finding: str = "pleural effusion") -> list[str]:
    """All wordings of a kind of question, with {} for the target or {side} in a clue."""
    if kind == "implicit":
        return [frame.format(clue) for frame in phrasing.frames for clue in phrasing.clues[finding]]
    if kind == "several":
        return [
            f"{verb} {closing.format(what)}"
            for verb in phrasing.verbs
            for what in phrasing.everything
            for closing in phrasing.closings
        ]
    return [f"{verb} the {closing}" for verb in phrasing.verbs for closing in phrasing.closings]


def without_side(question: str) -> str:
    """A question with {side} in its clue, as one that leaves the side open."""
    return re.sub(r",? (?:on the )?\{side\}", "", question)


def target_of(finding: dict[str, Any], regions: dict[str, Any]) -> Target:
    """What a case's finding is called: kind, side, and the lung zone that holds most of it."""
    if not finding["side"]:
        return Target(finding["kind"])
    mask = coco.decode(finding["mask"]).astype(bool)
    shares = {
        zone: int((mask & coco.decode(regions[f"{finding['side']} {zone}"]["mask"]).astype(bool)).sum())
        for zone in ZONES[1:]
    }
    return Target(finding["kind"], finding["side"], max(shares, key=lambda zone: shares[zone]))


def called(target: Target) -> str:
    """A target in words: "left pleural effusion"."""
    return " ".join(part for part in (target.side, target.finding) if part)


def _placed(target: Target) -> str:
    return f"the {called(target)}" + (f" in the {target.zone}" if target.zone else "")


def conversation_on(
    record: dict[str, Any], phrasing: Phrasing, rng: np.random.Generator, turns: int = 2
) -> tuple[Turn, ...]:
    """Questions and answers on a case record, ``turns`` of them at the most, each of another kind, in an order drawn.

    Kinds that a case cannot have are left out.
    """
    targets, masks = _visible(record)
    makers = {
        "explicit": lambda: _explicit(record, targets, masks, phrasing, rng),
        "implicit": lambda: _implicit(targets, masks, phrasing, rng),
        "several": lambda: _several(targets, masks, phrasing, rng),
        "absent": lambda: _absent(targets, phrasing, rng),
    }
    made = []
    for kind in rng.permutation(KINDS):
        turn = makers[str(kind)]()
        if turn is not None:
            made.append(turn)
    return tuple(made[:turns])


def other_side_on(record: dict[str, Any], phrasing: Phrasing, rng: np.random.Generator) -> tuple[Turn, ...]:
    """A conversation of one question, about a finding on the side that has none; empty if no finding is on one side only."""
    turn = _other_side(_visible(record)[0], phrasing, rng)
    return () if turn is None else (turn,)


def everything_on(record: dict[str, Any], phrasing: Phrasing, rng: np.random.Generator) -> tuple[Turn, ...]:
    """A conversation of one question, about all findings of a film with one or none; empty if there are more."""
    targets, masks = _visible(record)
    return (_everything(targets, masks, phrasing, rng),) if len(targets) < 2 else ()


def _visible(record: dict[str, Any]) -> tuple[list[Target], list[RunLength]]:
    seen = [item for item in record["findings"] if int(coco.area(item["mask"]))]
    return [target_of(item, record["regions"]) for item in seen], [item["mask"] for item in seen]


def _explicit(
    record: dict[str, Any], targets: list[Target], masks: list[RunLength], phrasing: Phrasing, rng: np.random.Generator
) -> Turn | None:
    """A finding by its name, or in a quarter of the cases (and those without findings) an anatomical region."""
    question = str(rng.choice(phrasings("explicit", phrasing)))
    if targets and rng.random() < 0.75:
        index = int(rng.integers(len(targets)))
        target, mask, answer = targets[index], masks[index], _placed(targets[index])
        name = _named(target, phrasing, rng) if _only_of_its_kind(target, targets) else called(target)
    else:
        present = [name for name, item in record["regions"].items() if item["box"]]
        name = str(rng.choice(present))
        target, mask, answer = Target(name), record["regions"][name]["mask"], f"the {name}"
    return Turn(question.format(name), _answered(answer, rng), (mask,), (target,), "explicit")


def _implicit(
    targets: list[Target], masks: list[RunLength], phrasing: Phrasing, rng: np.random.Generator
) -> Turn | None:
    clear = [index for index, target in enumerate(targets) if _only_of_its_kind(target, targets)]
    if not clear:
        return None
    index = int(rng.choice(clear))
    target = targets[index]
    question = _hinted(target.finding, target.side, phrasing, rng)
    return Turn(question, _answered(_placed(target), rng), (masks[index],), (target,), "implicit")


def _hinted(finding: str, side: str, phrasing: Phrasing, rng: np.random.Generator) -> str:
    """A question that gives a clue to a finding."""
    question = str(rng.choice(phrasings("implicit", phrasing, finding)))
    return without_side(question) if _happens(phrasing.sideless, rng) else question.format(side=side)


def _named(target: Target, phrasing: Phrasing, rng: np.random.Generator) -> str:
    return target.finding if _happens(phrasing.sideless, rng) else called(target)


def _happens(share: float, rng: np.random.Generator) -> bool:
    # Nothing is drawn for a share of 0: one draw more would change every later question of the test split.
    return bool(share) and rng.random() < share


def _only_of_its_kind(target: Target, targets: list[Target]) -> bool:
    return [other.finding for other in targets].count(target.finding) == 1


def _several(
    targets: list[Target], masks: list[RunLength], phrasing: Phrasing, rng: np.random.Generator
) -> Turn | None:
    """About all findings; where there are fewer than two, only if ``phrasing.any_number``."""
    if len(targets) < 2:
        return _everything(targets, masks, phrasing, rng) if phrasing.any_number else None
    order = sorted(range(len(targets)), key=lambda i: (list(SEVERITIES).index(targets[i].finding), targets[i].side))
    said = [f"{_placed(targets[i])} {SEG}" for i in order]
    answer = f"There are {len(order)}: {', '.join(said[:-1])} and {said[-1]}."
    question = _asks_for_all(phrasing, rng)
    return Turn(question, answer, tuple(masks[i] for i in order), tuple(targets[i] for i in order), "several")


def _everything(targets: list[Target], masks: list[RunLength], phrasing: Phrasing, rng: np.random.Generator) -> Turn:
    answer = _answered(_placed(targets[0]), rng) if targets else _denied("abnormality", rng)
    return Turn(_asks_for_all(phrasing, rng), answer, tuple(masks), tuple(targets), EVERYTHING)


def _asks_for_all(phrasing: Phrasing, rng: np.random.Generator) -> str:
    if phrasing.open_questions and _happens(1 / 3, rng):
        return str(rng.choice(phrasing.open_questions))
    return str(rng.choice(phrasings("several", phrasing)))


def _absent(targets: list[Target], phrasing: Phrasing, rng: np.random.Generator) -> Turn | None:
    """About a finding that is on neither side, or, in a share ``phrasing.other_side`` where there is one, on the other."""
    if _happens(phrasing.other_side, rng) and (turn := _other_side(targets, phrasing, rng)):
        return turn
    kinds = {target.finding for target in targets}
    finding = str(rng.choice([kind for kind in SEVERITIES if kind not in kinds]))
    side = "" if finding == "cardiomegaly" else str(rng.choice(["left", "right"]))
    if rng.random() < 0.5:
        question = str(rng.choice(phrasings("absent", phrasing))).format(_named(Target(finding, side), phrasing, rng))
    else:
        question = _hinted(finding, side, phrasing, rng)
    return Turn(question, _denied(finding, rng), kind="absent")


def _other_side(targets: list[Target], phrasing: Phrasing, rng: np.random.Generator) -> Turn | None:
    """By name, or half of the time by a clue that tells the side, for the findings that have such clues."""
    present = {(target.finding, target.side) for target in targets}
    kinds = {finding for finding, _ in present}
    bare = sorted(label for label in LABELS if label[0] in kinds and label not in present)
    if not bare:
        return None
    finding, side = bare[int(rng.integers(len(bare)))]
    name = called(Target(finding, side))
    sided = [text for text in phrasings("implicit", phrasing, finding) if "{side}" in text]
    if sided and rng.random() < 0.5:
        question = str(rng.choice(sided)).format(side=side)
    else:
        question = str(rng.choice(phrasings("absent", phrasing))).format(name)
    return Turn(question, _denied(name, rng), kind=OTHER_SIDE)


def _denied(what: str, rng: np.random.Generator) -> str:
    return str(rng.choice(_NOTHING)).format(what)


def _answered(what: str, rng: np.random.Generator) -> str:
    text = str(rng.choice(_FOUND)).format(what, seg=SEG)
    return text[0].upper() + text[1:]
