"""Vetoes of what is absent, questions of a batch, and their rows."""

import pytest
import torch

from zoo.constants import IGNORE_INDEX
from zoo.data.conversations.records import Target, Turn, rejected_phrases
from zoo.data.vocabulary import FindingVocabulary, KeywordLabeler
from zoo.language.global_context import Answer
from zoo.methods.answered_questions import (
    confirm,
    question_metrics,
    question_outputs,
    questions_of,
    without_last_answer,
)

VOCABULARY = FindingVocabulary((("mass", "left"), ("mass", "right"), ("nodule", "left"), ("nodule", "right")))
TEXT = "There are 2: the left mass [SEG] and the right nodule [SEG]."
FULL, EMPTY = torch.ones(1, 4, 4), torch.zeros(1, 4, 4)


def answer(text: str, *presence: float) -> Answer:
    count = text.count("[SEG]")
    return Answer(text, torch.arange(float(count))[:, None], True, torch.tensor(presence) if presence else None)


def test_a_veto_removes_the_mask_and_says_so():
    confirmed, masks = confirm(answer(TEXT, 0.9, 0.2), torch.cat([FULL, FULL * 1.0]), 0.5)
    assert confirmed.text == "There are 2: the left mass [SEG] and the right nodule (no sign of it)."
    assert len(masks) == 1 and confirmed.seg_hidden_states.tolist() == [[0.0]]
    assert confirmed.presence is not None and confirmed.presence.tolist() == pytest.approx([0.9])
    assert rejected_phrases(confirmed.text) == ["the right nodule"]
    unchanged, masks = confirm(answer(TEXT, 0.9, 0.2), torch.cat([FULL, FULL]), 0.1)
    assert unchanged.text == TEXT and len(masks) == 2


def test_an_empty_mask_counts_as_absent_without_a_presence_head():
    confirmed, masks = confirm(answer(TEXT), torch.cat([EMPTY, FULL]), 0.5)
    assert confirmed.text == "There are 2: the left mass (no sign of it) and the right nodule [SEG]."
    assert masks.equal(FULL) and confirmed.presence is None


def test_a_spelt_out_token_has_no_mask():
    confirmed, masks = confirm(Answer("A [SEG] and a [SEG].", torch.zeros(1, 1), True), FULL, 0.5)
    assert confirmed.text == "A [SEG] and a [SEG]." and len(masks) == 1


def test_only_the_last_run_of_labels_is_forgotten():
    labels = [IGNORE_INDEX, 1, 2, IGNORE_INDEX, IGNORE_INDEX, 3, 4]
    assert without_last_answer(labels) == [IGNORE_INDEX, 1, 2, *[IGNORE_INDEX] * 4]
    assert without_last_answer([IGNORE_INDEX]) == [IGNORE_INDEX] and without_last_answer([]) == []


def batch() -> dict:
    mask = {"size": [4, 4], "counts": "0"}
    left = Turn("The left mass?", "Left mass: the left mass [SEG].", (mask,), (Target("mass", "left"),), "explicit")
    right = Turn("The right mass?", "Right mass [REJ]: no sign of it.", kind="absent")
    wrong = Turn("A nodule?", "Nodule: the left nodule [SEG].", kind="absent", wrong=True)
    image = torch.zeros(1, 4, 4)
    return {
        "image": [image, image],
        "turns": [(left, right), (right, wrong)],
        "masks": [FULL, FULL[:0]],
        "index": [3, 5],
    }


def test_wrong_answers_are_not_asked_for_and_histories_are_true():
    questions = questions_of(batch())
    assert [turn.kind for _, _, turn, _ in questions] == ["explicit", "absent", "absent"]
    assert questions[1][1] == [("The left mass?", "Left mass: the left mass [SEG]."), ("The right mass?", None)]
    assert [len(masks) for *_, masks in questions] == [1, 0, 0]


def test_rejected_and_vetoed_questions_are_counted():
    answers = [
        confirm(answer("Left mass: the left mass [SEG].", 0.1), FULL, 0.5),
        (answer("Right mass [REJ]: no sign of it."), FULL[:0]),
        (answer("Right mass: the right mass [SEG].", 0.9), FULL),
    ]
    outputs = question_outputs(batch(), answers, VOCABULARY, KeywordLabeler(VOCABULARY), rejects=True)
    assert outputs["index"].tolist() == [3, 3, 5]
    values = {name: metric(outputs) for name, metric in question_metrics(VOCABULARY, rejects=True).items()}
    assert values["absent_recognised"] == 0.5 and values["giou_explicit"] == 0
    assert outputs["rej"].tolist() == [[0, 0], [0, 1], [1, 1]] and outputs["seg"].tolist() == [[1, 1], [0, 0], [-1, 0]]
    assert values["missing_rej"] == values["vetoed"] == values["superfluous_seg"] == pytest.approx(1 / 3)
    assert values["superfluous_rej"] == 0
    plain = question_metrics(VOCABULARY)
    assert not {"missing_rej", "superfluous_rej", "vetoed"} & set(plain) and set(plain) < set(values)
    assert not {"rej", "vetoed"} & set(question_outputs(batch(), answers, VOCABULARY, None))
