"""Conversations about present and absent findings, and their wrong answers."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.data.chest_drr.text.test_questions import case
from zoo.data.chest_drr.text.contrasts import LISTED, sample_contrasts
from zoo.data.chest_drr.text.labels import LABELER
from zoo.data.chest_drr.text.phrasings import TRAIN
from zoo.data.conversations.records import REJ, SEG, rejected_phrases

FINDINGS = [("pleural effusion", "left"), ("mass", "left"), ("mass", "right"), ("cardiomegaly", "")]


@given(seed=st.integers(0, 10**6), count=st.integers(0, 4), reject=st.booleans())
def test_true_answers_tell_what_is_there_and_wrong_ones_do_not(seed, count, reject):
    labels = set(FINDINGS[:count])
    turns = sample_contrasts(case(*FINDINGS[:count]), TRAIN, np.random.default_rng(seed), reject=reject)
    assert 1 <= len(turns) <= 2
    for turn in turns:
        stated = LABELER.label(turn.answer.replace(SEG, ""))
        assert "{" not in turn.question + turn.answer and turn.question[0].isupper() and turn.answer[0].isupper()
        if turn.wrong:
            assert turn is turns[-1] and turn.answer.count(SEG) == 1 and REJ not in turn.answer
            assert not turn.masks and not turn.targets and stated
            continue
        assert stated == {(target.finding, target.side) for target in turn.targets} <= labels
        assert len(turn.masks) == len(turn.targets) == turn.answer.count(SEG)
        if reject:
            assert bool(turn.masks) or turn.answer.count(REJ) >= 1
            assert all(phrase.lower() in turn.question.lower() for phrase in rejected_phrases(turn.answer)) or (
                turn.kind != LISTED
            )


def sample(*findings: tuple[str, str], count: int = 600):
    record = case(*findings)
    return [turn for seed in range(count) for turn in sample_contrasts(record, TRAIN, np.random.default_rng(seed))]


def test_present_and_absent_findings_are_asked_for_alike():
    turns = [turn for turn in sample(("pneumothorax", "right")) if not turn.wrong]
    single = [turn for turn in turns if turn.kind != LISTED]
    assert 0.4 < sum(bool(turn.masks) for turn in single) / len(single) < 0.65
    assert {turn.kind for turn in turns} == {"explicit", "implicit", "absent", "other_side", LISTED}
    mixed = [turn for turn in turns if turn.kind == LISTED and SEG in turn.answer and REJ in turn.answer]
    assert mixed and all(turn.answer.count(SEG) + turn.answer.count(REJ) in (2, 3) for turn in mixed)


def test_the_same_question_is_asked_with_and_without_the_finding():
    def questions(present: bool, *findings: tuple[str, str]) -> Counter:
        return Counter(
            turn.question for turn in sample(*findings, count=3000) if bool(turn.masks) == present and not turn.wrong
        )

    shared = questions(True, ("cardiomegaly", "")).keys() & questions(False, ("mass", "left")).keys()
    assert len(shared) > 20


def test_wrong_answers_name_the_absent_finding_or_a_present_one():
    wrong = [turn for turn in sample(("pleural effusion", "left")) if turn.wrong]
    named = [{finding for finding, _ in LABELER.label(turn.answer)} for turn in wrong]
    others = [names for names in named if "pleural effusion" not in names]
    assert 0.2 < len(others) / len(named) < 0.9 and all(len(names) == 1 for names in named)


def test_words_do_not_give_a_wrong_answer_away():
    """Wrong answers place a finding where true ones do: an effusion low, a mass anywhere."""
    wrong = [turn.answer for turn in sample(("cardiomegaly", ""), count=1500) if turn.wrong]
    zones = {
        finding: {zone for zone in ("upper", "mid", "lower") for text in wrong if finding in text and zone in text}
        for finding in ("pleural effusion", "pneumothorax", "mass")
    }
    assert zones == {
        "pleural effusion": {"lower"},
        "pneumothorax": {"mid", "lower"},
        "mass": {"upper", "mid", "lower"},
    }
