"""Questions on chest_drr cases with exact masks: explicit, implicit, about several targets, and about absent ones.

The wording is ours. Each kind has at least forty phrasings for training and validation and as many others for the test
split, so that no test question is worded as in another split.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco

from zoo.data.chest_drr.findings import SEVERITIES
from zoo.data.chest_drr.labels import LABELS
from zoo.data.chest_drr.regions import REGIONS, ZONES
from zoo.data.medseg import SEG, RunLength, Target, Turn

KINDS = ("explicit", "implicit", "several", "absent")
"""Every kind of question."""

FINDINGS = tuple(" ".join(part for part in (side, kind) if part) for kind, side in LABELS)
"""Every finding on every side that it can be on, as :func:`called` names it."""
NAMES = (*FINDINGS, *REGIONS)
"""Everything that a question can be about."""


@dataclass(frozen=True)
class Phrasing:
    """What questions of a split are made of: ``openings`` and ``closings`` around a target, frames around a clue."""

    verbs: tuple[str, ...]
    closings: tuple[str, ...]
    frames: tuple[str, ...]
    everything: tuple[str, ...]
    clues: dict[str, tuple[str, ...]]


TRAIN = Phrasing(
    verbs=("Segment", "Outline", "Delineate", "Mark", "Highlight", "Contour", "Trace", "Show me", "Find", "Localise"),
    closings=("{}.", "{} in this radiograph.", "{}, please.", "{} on the film.", "{} if it is there."),
    frames=(
        "Which region {}?",
        "What on this film {}?",
        "Segment whatever {}.",
        "Outline the area that {}.",
        "Where is the part that {}?",
        "Show what {}.",
        "Is there anything that {}?",
        "Mark the structure that {}.",
        "Please contour what {}.",
        "Do you see something that {}?",
        "Which finding {}? Show it.",
        "Look for a change that {}.",
    ),
    everything=("all abnormalities", "every abnormal finding", "everything abnormal", "each pathology", "all findings"),
    clues={
        "pleural effusion": (
            "would explain blunting of the {side} costophrenic angle",
            "should be drained from the {side} pleural space with a needle",
            "forms a meniscus at the {side} base",
            "is fluid lying on the {side} hemidiaphragm",
            "would layer out if the patient lay on the {side}",
            "is a collection in the {side} pleural cavity",
            "makes the {side} base white up to a curved upper border",
            "could be tapped for a laboratory test on the {side}",
            "often comes with heart failure and dulls percussion on the {side}",
            "would be seen as fluid by ultrasound of the {side} chest",
            "makes the {side} hemidiaphragm vanish under liquid",
            "would be relieved by a pleural drain on the {side}",
            "is water around the {side} lung",
        ),
        "consolidation": (
            "fits pneumonia in a patient with fever",
            "would hold air bronchograms",
            "is airspace filled with pus or fluid",
            "would be treated with antibiotics",
            "makes the lung dense without taking its volume",
            "is a patchy opacity of the air spaces",
            "would clear after a course of amoxicillin",
            "is lung as solid as liver",
            "goes with crackles and a raised white cell count",
            "is where bacteria have filled the lung",
            "shows open bronchi inside a white area",
            "could be an aspiration",
            "is an ill-defined cloudy density with fever",
        ),
        "nodule": (
            "is a small round spot that needs a follow-up CT",
            "would be measured and compared with an earlier film",
            "is a coin lesion in the lung",
            "could be an early lung cancer of less than three centimetres",
            "is a focal round opacity that a smoker should worry about",
            "is a pulmonary spot below three centimetres",
            "is a tiny rounded density",
            "would be looked up in the Fleischner guidelines",
            "might be a granuloma",
            "is a pea-sized opacity",
            "could be a single small metastasis",
            "is a well-defined bead in the lung field",
            "would be found again in a screening programme",
        ),
        "mass": (
            "is a large round lesion that needs a biopsy",
            "is most suspicious for advanced lung cancer",
            "measures more than three centimetres and is solid",
            "would be sampled through the chest wall",
            "is a bulky tumour in the lung",
            "is a round density of more than three centimetres",
            "is probably a bronchial carcinoma of great size",
            "would be staged by PET and bronchoscopy",
            "is a solid ball in the lung, too big for a nodule",
            "explains weight loss and blood from the airways",
            "is a large neoplasm",
            "would be removed by lobectomy if it has not spread",
            "is the most worrying large opacity",
        ),
        "pneumothorax": (
            "explains missing lung markings on the {side}",
            "should be vented with a chest tube for trapped air on the {side}",
            "is bounded by a thin visceral pleural line on the {side}",
            "explains sudden pain and hyperresonance on the {side}",
            "is air between the {side} lung and the chest wall",
            "is a black rim without vessels on the {side}",
            "means that the {side} lung has come away from the ribs",
            "could follow a broken rib or a biopsy on the {side}",
            "is free gas in the {side} pleural space",
            "would be treated by aspirating air on the {side}",
            "is typical of a tall thin young man with sudden breathlessness, on the {side}",
            "leaves the {side} apex dark and empty",
            "makes breath sounds vanish on the {side} while it stays resonant",
        ),
        "atelectasis": (
            "is lung that has lost its volume",
            "would open again with breathing exercises",
            "could follow from a plugged bronchus",
            "explains why fissures are drawn together",
            "is collapsed lung after an operation",
            "is a band or wedge of lung without air",
            "makes the hilum and the hemidiaphragm move",
            "would be helped by physiotherapy and deep breaths",
            "is a lobe that has fallen in",
            "explains crowded ribs on one side",
            "is dense because the lung is not inflated",
            "comes of shallow breathing in bed",
            "could be caused by a foreign body in an airway",
        ),
        "cardiomegaly": (
            "explains a cardiothoracic ratio above one half",
            "should be looked at with echocardiography",
            "is wider than it ought to be in a patient with swollen legs",
            "would fit heart failure",
            "is an organ too large for this chest",
            "is an enlarged heart",
            "is a heart shadow that has grown to the left",
            "would fit a dilated ventricle",
            "could be explained by long years of high blood pressure",
            "is a widened cardiac outline",
            "goes with a displaced apex beat",
            "makes one think of valve disease",
            "would be measured against the width of the thorax",
        ),
    },
)
"""Phrasing of the training and validation questions."""

TEST = Phrasing(
    verbs=("Annotate", "Indicate", "Map out", "Draw around", "Point out", "Circle", "Label", "Give me a mask of"),
    closings=("{} here.", "{} for the report.", "{} on this chest image.", "{} as exactly as you can.", "{} now."),
    frames=(
        "I wonder which part {}.",
        "Can you draw the thing that {}?",
        "Please give a mask of what {}.",
        "A colleague asks what {}.",
        "Point to the area which {}.",
        "Tell me and show me what {}.",
    ),
    everything=(
        "whatever is pathological",
        "any disease you see",
        "the complete set of lesions",
        "all that is not normal",
    ),
    clues={
        "pleural effusion": (
            "hides the {side} costophrenic sulcus",
            "calls for thoracentesis on the {side}",
            "would move with gravity on the {side}",
        ),
        "consolidation": (
            "goes with cough and sputum",
            "looks like infected lung",
            "has alveoli full of exudate",
        ),
        "nodule": (
            "is a little round shadow to be watched",
            "would be followed by size over the years",
            "is a solitary spot in the lung",
        ),
        "mass": (
            "is a big lump for the tumour board",
            "should have tissue taken from it",
            "is a sizeable round tumour",
        ),
        "pneumothorax": (
            "shows that air has escaped around the {side} lung",
            "would need decompression on the {side}",
            "lies beyond the edge of the {side} lung",
        ),
        "atelectasis": (
            "is airless lung that has shrunk",
            "would follow from a mucus plug",
            "pulls its surroundings towards it",
        ),
        "cardiomegaly": (
            "would make a cardiologist worry about pump failure",
            "is broader than half of the chest",
            "shows an overgrown heart",
        ),
    },
)
"""Phrasing of the test questions; nothing in it stands in :data:`TRAIN`."""

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
    """Questions and answers on a case record, ``turns`` of them at the most, each of another kind.

    Every case is asked about something absent or something present; kinds that a case cannot have are left out.
    """
    visible = [item for item in record["findings"] if int(coco.area(item["mask"]))]
    targets = [target_of(item, record["regions"]) for item in visible]
    masks = [item["mask"] for item in visible]
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


def _explicit(
    record: dict[str, Any], targets: list[Target], masks: list[RunLength], phrasing: Phrasing, rng: np.random.Generator
) -> Turn | None:
    """A finding by its name, or in a quarter of the cases (and those without findings) an anatomical region."""
    question = str(rng.choice(phrasings("explicit", phrasing)))
    if targets and rng.random() < 0.75:
        index = int(rng.integers(len(targets)))
        target, mask, answer = targets[index], masks[index], _placed(targets[index])
    else:
        present = [name for name, item in record["regions"].items() if item["box"]]
        name = str(rng.choice(present))
        target, mask, answer = Target(name), record["regions"][name]["mask"], f"the {name}"
    return Turn(question.format(called(target)), _answered(answer, rng), (mask,), (target,), "explicit")


def _implicit(
    targets: list[Target], masks: list[RunLength], phrasing: Phrasing, rng: np.random.Generator
) -> Turn | None:
    kinds = [target.finding for target in targets]
    clear = [index for index, target in enumerate(targets) if kinds.count(target.finding) == 1]
    if not clear:
        return None
    index = int(rng.choice(clear))
    target = targets[index]
    question = str(rng.choice(phrasings("implicit", phrasing, target.finding))).format(side=target.side)
    return Turn(question, _answered(_placed(target), rng), (masks[index],), (target,), "implicit")


def _several(
    targets: list[Target], masks: list[RunLength], phrasing: Phrasing, rng: np.random.Generator
) -> Turn | None:
    if len(targets) < 2:
        return None
    order = sorted(range(len(targets)), key=lambda i: (list(SEVERITIES).index(targets[i].finding), targets[i].side))
    said = [f"{_placed(targets[i])} {SEG}" for i in order]
    answer = f"There are {len(order)}: {', '.join(said[:-1])} and {said[-1]}."
    question = str(rng.choice(phrasings("several", phrasing)))
    return Turn(question, answer, tuple(masks[i] for i in order), tuple(targets[i] for i in order), "several")


def _absent(targets: list[Target], phrasing: Phrasing, rng: np.random.Generator) -> Turn | None:
    kinds = {target.finding for target in targets}
    finding = str(rng.choice([kind for kind in SEVERITIES if kind not in kinds]))
    side = "" if finding == "cardiomegaly" else str(rng.choice(["left", "right"]))
    if rng.random() < 0.5:
        question = str(rng.choice(phrasings("absent", phrasing))).format(called(Target(finding, side)))
    else:
        question = str(rng.choice(phrasings("implicit", phrasing, finding))).format(side=side)
    return Turn(question, str(rng.choice(_NOTHING)).format(finding), kind="absent")


def _answered(what: str, rng: np.random.Generator) -> str:
    text = str(rng.choice(_FOUND)).format(what, seg=SEG)
    return text[0].upper() + text[1:]
