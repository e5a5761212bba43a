import numpy as np
import pytest

from zoo.data.chest_drr.datasets.findings import ChestDrrFindings
from zoo.data.chest_drr.rendering.findings import SEVERITIES, Finding
from zoo.data.chest_drr.text.captions import NO_FINDING, build_facts, write_caption
from zoo.data.chest_drr.text.wording import read_wording

REGIONS = {
    f"{side} {zone}": {"box": box}
    for side in ("left", "right")
    for zone, box in (
        ("upper lung zone", (0, 10, 40, 30)),
        ("mid lung zone", (0, 30, 40, 60)),
        ("lower lung zone", (0, 60, 40, 90)),
    )
}


def record(*findings, box=(5, 40, 15, 50)):
    items = [{"kind": f.kind, "severity": f.severity, "side": f.side, "lobe": f.lobe, "box": box} for f in findings]
    return {"findings": items, "regions": REGIONS}


EFFUSION = Finding("pleural effusion", "large", "left")
NODULE = Finding("nodule", "small", "right", "right upper lobe")


def captions(case, count=300):
    rng = np.random.default_rng(0)
    return [write_caption(case, rng) for _ in range(count)]


def test_facts_are_each_finding_by_severity_and_place_and_what_is_absent():
    facts = build_facts(record(EFFUSION, NODULE))
    assert {"pleural effusion", "large pleural effusion", "large pleural effusion in left"} <= facts
    assert {"nodule in right upper lobe", "small nodule in right", "nodule in right mid lung zone"} <= facts
    assert "no mass" in facts and "no nodule" not in facts and NO_FINDING not in facts
    assert "small pleural effusion" not in facts and "pleural effusion in right" not in facts
    assert {fact for fact in build_facts(record()) if fact.startswith("no ")} == {
        NO_FINDING,
        *(f"no {k}" for k in SEVERITIES),
    }


@pytest.mark.parametrize("case", [(), (EFFUSION,), (EFFUSION, NODULE), (Finding("cardiomegaly", "mild"),)])
def test_a_text_is_true_of_its_case_and_says_what_it_claims(case):
    facts = build_facts(record(*case))
    for text, claims in captions(record(*case)):
        assert claims and claims <= facts
        (claim,) = claims
        if claim.startswith(("whole", NO_FINDING)):
            continue
        for word in ("small", "mild", "left", "right"):
            assert (word in text) == (word in claim), (text, claim)
        assert ("large" in text.replace("enlarge", "")) == ("large" in claim), (text, claim)


def test_a_text_is_true_of_other_cases_only_where_it_is():
    other = build_facts(record(EFFUSION))
    true = {text for text, claims in captions(record(EFFUSION, NODULE)) if claims <= other}
    assert "a chest radiograph showing a large pleural effusion." in true
    assert true and not any("nodul" in text for text in true)
    healthy = build_facts(record())
    assert not any(claims <= healthy for _, claims in captions(record(EFFUSION, NODULE)))


def test_a_report_is_true_of_the_same_findings_alone():
    reports = [claims for text, claims in captions(record(EFFUSION, NODULE)) if text.count(".") > 1]
    assert reports and all(claims <= build_facts(record(NODULE, EFFUSION)) for claims in reports)
    assert not any(claims <= build_facts(record(EFFUSION)) for claims in reports)


def test_zero_shot_prompts_are_among_the_captions():
    """All classes' prompts but those of more words than a caption has: their words are in others."""
    classes = read_wording("tasks")["findings"]["classes"]
    texts = {text for case in classes.values() for text, _ in captions(record(*(_finding(*one) for one in case)), 2000)}
    missing = [name for name in classes if ChestDrrFindings.template.replace("{}", name) not in texts]
    assert not missing


def _finding(kind, severity):
    place = {"pleural effusion": "left", "pneumothorax": "left", "cardiomegaly": ""}.get(kind)
    return Finding(kind, severity, "left" if place is None else place, "left upper lobe" if place is None else "")


def test_the_same_stream_writes_the_same_text():
    assert captions(record(EFFUSION), 5) == captions(record(EFFUSION), 5)
