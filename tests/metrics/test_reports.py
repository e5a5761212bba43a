"""Report metrics: equal to those of the packages over a corpus, and resampled as a corpus is."""

import math
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.text import BLEUScore

from zoo.metrics.reports import (
    MissingMetricError,
    bleu_columns,
    box_iou,
    cider,
    corpus_bleu,
    f1,
    label_rows,
    macro_f1,
    rouge_l,
    tokenized,
)

LABELS = (("rib fracture", "left"), ("rib fracture", "right"), ("pulmonary oedema", ""))
REFERENCES = ["The heart is enlarged. No effusion.", "A small left pleural effusion is seen.", "The lungs are clear."]
REPORTS = ["The heart is not enlarged. No effusion.", "A small right pleural effusion is present.", "Clear lungs."]


def test_bleu_of_columns_is_that_of_the_corpus():
    corpus = BLEUScore(n_gram=4)
    corpus.update([tokenized(text) for text in REPORTS], [[tokenized(text)] for text in REFERENCES])
    assert corpus_bleu(bleu_columns(REPORTS, REFERENCES)) == pytest.approx(float(corpus.compute()), abs=1e-6)


def test_a_perfect_report_has_the_highest_score():
    assert corpus_bleu(bleu_columns(REFERENCES, REFERENCES)) == pytest.approx(1.0)
    assert torch.allclose(rouge_l(REFERENCES, REFERENCES), torch.ones(3))
    assert (cider(REFERENCES, REFERENCES) > cider(REPORTS, REFERENCES)).all()


def test_rouge_l_by_hand():
    """Longest common subsequence "the heart is": 3 of 4 and 3 of 5 words."""
    score = rouge_l(["the heart is big"], ["the heart is very large"])[0]
    assert score == pytest.approx(2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5), abs=1e-6)


def test_empty_reports_score_0():
    assert corpus_bleu(bleu_columns([""], ["The heart."])) == 0 and rouge_l([""], ["The heart."])[0] == 0


def test_clinical_f1_counts_findings_and_sides():
    target = label_rows([{("rib fracture", "left"), ("pulmonary oedema", "")}, set()], LABELS)
    predicted = label_rows([{("rib fracture", "right"), ("pulmonary oedema", "")}, set()], LABELS)
    assert target.tolist() == [[1, 0, 1], [0, 0, 0]]
    assert f1(predicted, target) == 0.5, "one of two is correct, the other on the wrong side"
    assert macro_f1(predicted, target) == 0.5
    assert math.isnan(f1(target * 0, target * 0)), "there is nothing to find, and nothing is claimed"


@given(st.lists(st.sets(st.sampled_from(LABELS)), min_size=1, max_size=6))
def test_the_f1_of_the_truth_is_1(stated):
    rows = label_rows(stated, LABELS)
    assert f1(rows, rows) == 1.0 if rows.any() else math.isnan(f1(rows, rows))


def test_box_iou_by_hand():
    assert box_iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert box_iou((0, 0, 10, 10), (20, 20, 30, 30)) == 0


def test_cider_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocoevalcap.cider.cider", None)
    with pytest.raises(MissingMetricError, match=r"pip install 'medvl-zoo\[reports\]'"):
        cider(["no effusion"], ["an effusion"])
