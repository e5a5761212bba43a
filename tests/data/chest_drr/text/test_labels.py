import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zoo.data.chest_drr.rendering.findings import SEVERITIES, sample_finding
from zoo.data.chest_drr.text.labels import LABELER, VOCABULARY
from zoo.data.chest_drr.text.reports import describe, write_report


@given(seed=st.integers(0, 10_000), kinds=st.lists(st.sampled_from(list(SEVERITIES)), max_size=3, unique=True))
def test_the_labeler_extracts_what_reports_state(seed, kinds):
    rng = np.random.default_rng(seed)
    findings = [sample_finding(kind, rng) for kind in kinds]
    stated = {(finding.kind, finding.side) for finding in findings}
    assert LABELER.label(write_report(findings, list(SEVERITIES), rng)) == stated <= set(LABELER.labels)
    assert LABELER.label(" ".join(describe(finding, rng) for finding in findings)) == stated


def test_a_negation_ends_with_its_sentence():
    assert LABELER.label("No pneumothorax. Small left effusion; the heart is enlarged.") == {
        ("pleural effusion", "left"),
        ("cardiomegaly", ""),
    }


def test_the_vocabulary_has_every_finding_on_its_sides():
    assert len(VOCABULARY.labels) == 13 and VOCABULARY.findings == tuple(SEVERITIES)
    assert len(VOCABULARY.target_names) == len(set(VOCABULARY.target_names)) == 13 + 34
