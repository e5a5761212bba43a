import numpy as np
import pytest

from zoo.data.chest_drr.rendering.findings import SEVERITIES, Finding, read_findings, sample_finding
from zoo.data.chest_drr.rendering.volume import LOBES

KINDS = [(kind, severity) for kind, severities in SEVERITIES.items() for severity in severities]


def test_findings_are_painted_in_their_place(one_of_each):
    for case, (kind, _) in zip(one_of_each, KINDS, strict=False):
        finding, mask = case.findings[0], case.finding_masks[0]
        assert finding.kind == kind and mask.any()
        if finding.side:
            assert (mask & case.regions[f"{finding.side} lung"]).sum() > 0.9 * mask.sum()
    effusion, air = (
        next(c for c in one_of_each if c.findings and c.findings[0].kind == k)
        for k in ("pleural effusion", "pneumothorax")
    )
    assert np.nonzero(effusion.finding_masks[0])[0].mean() > 32 > np.nonzero(air.finding_masks[0])[0].mean()


def test_unknown_findings_are_refused():
    with pytest.raises(ValueError, match="no finding 'fracture'"):
        sample_finding("fracture", np.random.default_rng(0))
    assert all(lobe.split()[0] in ("left", "right") for lobe in LOBES)


def test_findings_are_read_from_a_case_record(one_of_each):
    for case in one_of_each:
        assert read_findings(case.to_record()) == case.findings


def test_grades_run_from_mildest_to_worst():
    grades = [Finding("pneumothorax", severity, "left").grade for severity in SEVERITIES["pneumothorax"]]
    assert grades == [0, 0.5, 1]
