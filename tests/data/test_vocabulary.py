"""Finding vocabularies and the keyword labeler: names, sides, negations, and the labels of real records."""

import json

import pytest

from tests.tiny_models.data import ivl_traces
from zoo.data.traces.datasets import IvlJsonl
from zoo.data.vocabulary import FindingVocabulary, KeywordLabeler

VOCABULARY = FindingVocabulary(
    labels=(("pulmonary oedema", ""), ("rib fracture", "left"), ("rib fracture", "right")), regions=("left lung",)
)


def test_names_follow_the_labels():
    assert VOCABULARY.findings == ("pulmonary oedema", "rib fracture") and VOCABULARY.sides == ("left", "right")
    expected = ("pulmonary oedema", "left rib fracture", "right rib fracture", "left lung")
    assert VOCABULARY.target_names == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Pulmonary oedema on the left.", {("pulmonary oedema", "")}),
        ("A left rib fracture. No right rib fracture.", {("rib fracture", "left")}),
        ("Left and right rib fracture", {("rib fracture", "left"), ("rib fracture", "right")}),
        ("Rib fracture, side not given", set()),
        ("Rib fracture; the left is clear", {("rib fracture", "")}),
        ("Rib fractures", set()),
        ("", set()),
    ],
)
def test_findings_are_extracted_sentence_by_sentence(text, expected):
    assert KeywordLabeler(VOCABULARY).label(text) == expected


def test_patterns_and_negation_can_be_given():
    labeler = KeywordLabeler(VOCABULARY, {"rib fracture": r"ribs? .*broken"}, negation=r"\bnever\b")
    assert labeler.label("No, the left ribs are broken") == {("rib fracture", "left")}
    assert labeler.label("The left ribs were never broken") == set()


def test_real_traces_are_labelled_by_what_their_records_state(tmp_path):
    file = str(ivl_traces(tmp_path) / "data.jsonl")
    unlabelled = IvlJsonl(file, file, file).metadata()
    assert unlabelled.keys() == {"prompt", "pieces"} and unlabelled["prompt"] == "Write a report. <image>", (
        "no phrase of another dataset labels these reports"
    )
    lines = [json.loads(line) for line in open(file)]
    lines[0]["findings"] = [["rib fracture", "left"]]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    labeler = IvlJsonl(file, file, file).metadata()["labeler"]
    assert labeler.labels == (("rib fracture", "left"),)
    assert labeler.label("Left rib fracture and left pleural effusion.") == {("rib fracture", "left")}
    given = IvlJsonl(file, file, file, findings=["mass"], prompt="Describe. <image>").metadata()
    assert given["prompt"] == "Describe. <image>" and given["labeler"].label("A left mass.") == {("mass", "left")}


def test_traces_that_are_not_here_have_no_labels(tmp_path):
    assert IvlJsonl(*(str(tmp_path / f"{name}.jsonl") for name in ("train", "val", "test"))).metadata() == {}
