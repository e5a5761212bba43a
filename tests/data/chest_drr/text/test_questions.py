import hashlib
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zoo.data.chest_drr.rendering.regions import REGIONS
from zoo.data.chest_drr.text.phrasings import TEST, TRAIN
from zoo.data.chest_drr.text.questions import (
    ALL_FINDINGS,
    CONTRALATERAL,
    sample_all_findings_question,
    sample_contralateral_question,
    sample_conversation,
    without_side,
)
from zoo.data.conversations.records import SEG
from zoo.data.io.masks import encode_mask


def case(*findings: tuple[str, str]) -> dict:
    """A case record in which every region and finding is the same square."""
    mask = np.zeros((24, 32), dtype=bool)
    mask[4:12, 4:12] = True
    item = {"mask": encode_mask(mask), "box": [4, 4, 8, 8]}
    return {
        "findings": [{"kind": kind, "side": side, **item} for kind, side in findings],
        "regions": dict.fromkeys(REGIONS, item),
    }


def test_a_clue_without_a_side_is_still_a_sentence():
    clues = [clue for phrasing in (TRAIN, TEST) for texts in phrasing.clues.values() for clue in texts]
    sided = [clue for clue in clues if "{side}" in clue]
    assert 40 < len(sided) < len(clues)
    for clue in clues:
        text = without_side(clue)
        assert "{" not in text and "  " not in text and not text.endswith((" on the", " the", ",", " "))
        assert text == clue or clue in sided
    assert without_side("forms a meniscus at the {side} base") == "forms a meniscus at the base"
    assert without_side("is a young man's, on the {side}") == "is a young man's"


@given(seed=st.integers(0, 10**6), phrasing=st.sampled_from([TRAIN, TEST]))
def test_contralateral_questions_ask_for_a_finding_on_the_unaffected_side(seed, phrasing):
    record = case(("pleural effusion", "left"), ("pleural effusion", "right"), ("mass", "left"), ("cardiomegaly", ""))
    (turn,) = sample_contralateral_question(record, phrasing, np.random.default_rng(seed))
    assert turn.kind == CONTRALATERAL and not turn.masks and not turn.targets
    assert "right mass" in turn.question, "the only finding that is on one side alone, and that no clue gives a side to"
    assert turn.answer.rstrip(".").endswith(("right mass", "right mass is seen", "right mass here"))
    assert sample_contralateral_question(case(("cardiomegaly", "")), phrasing, np.random.default_rng(seed)) == ()


@given(seed=st.integers(0, 10**6))
def test_a_clue_to_the_unaffected_side_names_it(seed):
    (turn,) = sample_contralateral_question(case(("pneumothorax", "right")), TRAIN, np.random.default_rng(seed))
    assert "left" in turn.question and "right" not in turn.question and "left pneumothorax" in turn.answer


@given(seed=st.integers(0, 10**6), phrasing=st.sampled_from([TRAIN, TEST]))
def test_all_findings_are_asked_for_where_there_is_one_or_none(seed, phrasing):
    (one,), (none,) = (
        sample_all_findings_question(case(*findings), phrasing, np.random.default_rng(seed))
        for findings in ([("mass", "left")], [])
    )
    assert one.kind == none.kind == ALL_FINDINGS and one.question == none.question
    assert "left mass" in one.answer and one.answer.count(SEG) == len(one.masks) == len(one.targets) == 1
    assert "no abnormality" in none.answer.lower() and not none.masks and not none.targets
    assert (
        sample_all_findings_question(
            case(("mass", "left"), ("cardiomegaly", "")), phrasing, np.random.default_rng(seed)
        )
        == ()
    )


def test_shares_of_contralateral_questions_and_of_questions_without_a_side():
    record = case(("pleural effusion", "left"), ("mass", "right"))

    def sample_turns(phrasing):
        return [
            turn for seed in range(200) for turn in sample_conversation(record, phrasing, np.random.default_rng(seed))
        ]

    def share(kind, phrasing):
        counts = [turn.kind for turn in sample_turns(phrasing)]
        return counts.count(kind) / (counts.count("absent") + counts.count(CONTRALATERAL))

    assert share(CONTRALATERAL, TEST) == 0 and share(CONTRALATERAL, replace(TEST, contralateral=1.0)) == 1
    assert 0.35 < share(CONTRALATERAL, TRAIN) < 0.65
    named = [
        turn for turn in sample_turns(replace(TRAIN, sideless=1.0)) if turn.kind in ("explicit", "implicit", "absent")
    ]
    regions = [turn for turn in named if turn.targets and turn.targets[0].finding in REGIONS]
    assert all("left" not in turn.question and "right" not in turn.question for turn in named if turn not in regions)


def test_test_questions_stay_those_that_published_cards_were_measured_on():
    record = case(("pleural effusion", "left"), ("mass", "right"), ("cardiomegaly", ""))
    turns = [turn for seed in range(50) for turn in sample_conversation(record, TEST, np.random.default_rng(seed))]
    assert (
        hashlib.sha256(repr(turns).encode()).hexdigest()
        == "8a54afeac98da016fc8eea19ccf97e70db92ceb5c1a60613df8a92ee2fb5129b"
    )
