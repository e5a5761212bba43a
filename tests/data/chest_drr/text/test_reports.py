import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.data.chest_drr.rendering.cases import CaseSpec, sample_findings
from zoo.data.chest_drr.rendering.findings import SEVERITIES, Finding
from zoo.data.chest_drr.text.labels import LABELER
from zoo.data.chest_drr.text.reports import negative_sentences, positive_sentences, report_texts, write_report


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), named=st.booleans())
def test_reports_name_every_finding_and_deny_none_of_them(seed, named):
    rng = np.random.default_rng(seed)
    findings = sample_findings(CaseSpec(), 0, rng)
    report = write_report(findings, list(SEVERITIES), rng, severity=named)
    words = {
        "pleural effusion": ("effusion", "pleural fluid"),
        "consolidation": ("consolidation",),
        "nodule": ("nodul",),
        "mass": ("mass",),
        "pneumothorax": ("pneumothorax",),
        "atelectasis": ("atelectasis",),
        "cardiomegaly": ("cardiomegaly", "enlarge"),
    }
    for finding in findings:
        assert any(word in report.lower() for word in words[finding.kind])
        assert f"No {finding.kind}" not in report
        assert (finding.severity in report.lower()) or not named
        assert not finding.lobe or finding.lobe in report
    assert "  " not in report and "{" not in report and report.endswith(".")


def test_a_report_is_never_silent_about_a_finding():
    with pytest.raises(ValueError, match="besides"):
        write_report([Finding("mass", "large", "left", "left upper lobe")], ["nodule"], np.random.default_rng(0))


def test_zero_shot_sentences_state_or_deny_their_finding():
    for finding in SEVERITIES:
        stated = [LABELER.label(sentence) for sentence in positive_sentences(finding)]
        assert all({name for name, _ in labels} == {finding} for labels in stated)
        assert set().union(*stated) == {label for label in LABELER.labels if label[0] == finding}
        assert all(LABELER.label(sentence) == set() for sentence in negative_sentences(finding))


@given(seed=st.integers(0, 10_000))
def test_every_word_of_a_report_is_listed(seed):
    rng = np.random.default_rng(seed)
    words = {word for text in report_texts() for word in text.split()}
    assert set(write_report(sample_findings(CaseSpec(), 0, rng), list(SEVERITIES), rng).split()) <= words
