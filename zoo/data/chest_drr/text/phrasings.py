"""The wording of questions on chest_drr cases.

It is ours. Each kind has at least forty phrasings for training and validation and as many others for the test split, so
that no test question is worded as in another split.
"""

from dataclasses import dataclass

from zoo.data.chest_drr.text.clues import TRAIN_CLUES


@dataclass(frozen=True)
class Phrasing:
    """What questions of a split are made of: ``verbs`` and ``closings`` around a target, ``frames`` around a clue.

    A share ``sideless`` of the clues and names does not tell the side; a share ``other_side`` of the questions about absent
    findings asks, where there is one, for a finding of one side on the other. ``open_questions`` are a third of those about
    all findings, which with ``any_number`` are asked of films with one or none too.
    """

    verbs: tuple[str, ...]
    closings: tuple[str, ...]
    frames: tuple[str, ...]
    everything: tuple[str, ...]
    clues: dict[str, tuple[str, ...]]
    sideless: float = 0.0
    other_side: float = 0.0
    open_questions: tuple[str, ...] = ()
    any_number: bool = False


TRAIN = Phrasing(
    sideless=1 / 3,
    other_side=1 / 2,
    any_number=True,
    open_questions=(
        "Is there anything abnormal?",
        "What is abnormal on this film?",
        "Is this radiograph normal?",
        "What do you see?",
        "Which findings does this film show?",
        "Read this film.",
        "Does this patient have a finding on the radiograph?",
        "Is anything wrong here?",
    ),
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
    clues=TRAIN_CLUES,
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
