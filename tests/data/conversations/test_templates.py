import numpy as np
import pytest

from zoo.data.annotations.base import Region
from zoo.data.conversations.records import QuestionError
from zoo.data.conversations.templates import QuestionTemplates, read_templates

FILE = """
explicit: ["Where is the {name}?"]
answers: ["The {name} is here [SEG]."]
implicit:
  effusion: ["What should be drained?", "What explains the blunt angle?"]
denials: ["I see no {name}."]
"""
MASK = {"size": [8, 8], "counts": "x"}


def rng():
    return np.random.default_rng(0)


def test_explicit_and_implicit_questions(tmp_path):
    (tmp_path / "q.yaml").write_text(FILE)
    templates = read_templates(tmp_path / "q.yaml")
    explicit, implicit = templates.turns(Region("effusion", "left"), MASK, rng())
    assert explicit.question == "Where is the left effusion?" and explicit.answer == "The left effusion is here [SEG]."
    assert implicit.question in ("What should be drained?", "What explains the blunt angle?")
    assert (explicit.kind, implicit.kind) == ("explicit", "implicit") and implicit.masks == (MASK,)
    assert explicit.targets[0].name == "left effusion"
    assert len(templates.turns(Region("nodule"), MASK, rng())) == 1, "no implicit question about it"
    turn = templates.absent_turn("nodule", rng())
    assert turn.question == "Segment the nodule." and turn.answer == "I see no nodule." and turn.masks == ()


def test_the_sentence_of_a_region_can_be_asked_for():
    templates = QuestionTemplates(phrases=("Show: {sentence}",))
    (turn,) = templates.turns(Region("opacity", sentence="hazy opacity at the left base"), MASK, rng())
    assert turn.question == "Show: hazy opacity at the left base"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("explicit: Where?", "'explicit' must be a list of texts"),
        ("answers: ['It is there.']", r"must have one \[SEG\]"),
        ("denials: ['No [SEG].']", "there is nothing to segment"),
        ("explicit: ['Segment [SEG].']", r"contains \[SEG\]"),
        ("explicit: []", "there must be an explicit question"),
        ("questions: []", "must have the keys explicit, phrases"),
        ("- a", "must have the keys"),
        ("a: [", "cannot be read as YAML"),
        ("implicit: [a]", "must be questions by the name"),
        ("denials: ['No {name} [REJ].']", "the method adds it"),
    ],
)
def test_malformed_files_are_refused(tmp_path, text, message):
    (tmp_path / "q.yaml").write_text(text)
    with pytest.raises(QuestionError, match=message):
        read_templates(tmp_path / "q.yaml")
    with pytest.raises(QuestionError, match="cannot be read"):
        read_templates(tmp_path / "gone.yaml")
