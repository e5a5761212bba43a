import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from zoo.data.conversations.records import (
    MAX_QUESTION,
    REJ,
    SEG,
    VETO,
    Conversation,
    QuestionError,
    Target,
    mask_phrases,
    read_conversations,
    rejected_phrases,
    to_record,
    validate_question,
    with_rejection,
    without_rejection,
)
from zoo.data.io.masks import decode_masks, encode_mask
from zoo.errors import ZooWarning


def square(left: int = 4, size: int = 8, height: int = 24, width: int = 32) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[4 : 4 + size, left : left + size] = True
    return mask


RECORD = {
    "image": "a.png",
    "masks": [encode_mask(square()), encode_mask(square(20))],
    "targets": [{"finding": "nodule", "side": "left"}, {"finding": "mass"}],
    "kinds": ["several", "absent"],
    "conversations": [
        {"role": "user", "content": "Segment  all\nfindings."},
        {"role": "assistant", "content": f"A nodule {SEG} and a mass {SEG}."},
        {"role": "user", "content": "Is there fluid?"},
        {"role": "assistant", "content": "No."},
    ],
}


def write(folder: Path, *records: object) -> Path:
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(folder / "a.png")
    path = folder / "records.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in records))
    return path


def test_masks_belong_to_the_seg_tokens_in_order(tmp_path):
    (conversation,) = read_conversations(write(tmp_path, RECORD))
    first, second = conversation.turns
    assert first.question == "Segment all findings." and first.kind == "several"
    assert [target.name for target in first.targets] == ["left nodule", "mass"] and second.masks == ()
    masks = decode_masks(first.masks, (24, 32))
    assert masks.shape == (2, 24, 32) and masks[1, 4, 20] == 1 and masks[1, 4, 4] == 0


def test_a_written_record_is_read_as_the_same_conversation(tmp_path):
    (conversation,) = read_conversations(write(tmp_path, RECORD))
    record = to_record(conversation, "a.png")
    (restored,) = read_conversations(write(tmp_path, json.loads(json.dumps(record))))
    assert restored == conversation == Conversation(tmp_path / "a.png", conversation.turns, line=1)


def test_the_name_of_a_target():
    assert Target("nodule", "left", "mid lung zone").name == "left nodule"
    assert Target("cardiomegaly").name == "cardiomegaly" and Target().name == ""


def messages(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conversations": messages("Segment.", f"{SEG} {SEG} {SEG}")}, "more [SEG] than the record has masks (2)"),
        ({"conversations": messages("Segment.", "Nothing.")}, "have 0 [SEG] and the record has 2 masks"),
        ({"conversations": messages("Segment.")}, "pairs of user and assistant"),
        ({"conversations": messages(f"Segment {SEG}.", f"{SEG} {SEG}")}, "the question contains [SEG]"),
        ({"conversations": messages(f"Segment {REJ}.", f"{SEG} {SEG}")}, "the question contains [REJ]"),
        ({"conversations": messages("x" * 10_000, f"{SEG} {SEG}")}, "10000 characters"),
        ({"conversations": messages(" \n", f"{SEG} {SEG}")}, "the question is empty"),
        (
            {"masks": [encode_mask(square(height=30)), RECORD["masks"][1]]},
            "a mask has the size [30, 32] and its image [24, 32]",
        ),
        ({"masks": [encode_mask(square() & False), RECORD["masks"][1]]}, "a mask is empty"),
        ({"masks": [[1, 2], RECORD["masks"][1]]}, "compressed run lengths"),
        ({"image": "gone.png"}, "gone.png is missing"),
        ({"image": 3}, "not a JSON object with an 'image'"),
    ],
)
def test_errors_name_the_line(tmp_path, change, message):
    path = write(tmp_path, RECORD, {**RECORD, **change})
    with pytest.raises(QuestionError) as caught:
        read_conversations(path)
    assert "records.jsonl:2: " in str(caught.value) and message in str(caught.value)


@given(st.text(max_size=3000))
def test_any_question_is_validated_or_refused(text):
    try:
        question = validate_question(text)
    except QuestionError:
        return
    assert question and len(question) <= MAX_QUESTION and SEG not in question


def test_each_mask_has_a_phrase():
    answer = "There are 2: the left mass in the mid lung zone [SEG] and the cardiomegaly [SEG]."
    assert mask_phrases(answer, 2) == ["the left mass in the mid lung zone", "the cardiomegaly"]
    assert mask_phrases("Fluid is seen. It is here [SEG], there[SEG]", 3) == ["It is here", "there", ""]
    assert mask_phrases("[SEG]", 1) == [""] and mask_phrases("Nothing.", 0) == []


def test_an_answer_without_a_mask_gets_a_rejecting_token():
    assert with_rejection("There is no mass.") == "There is no mass [REJ]." and with_rejection("None") == "None [REJ]"
    assert with_rejection("") == REJ
    for answer in (f"The mass {SEG}.", f"Mass {REJ}: no sign of it."):
        assert with_rejection(answer) == answer
    assert without_rejection(f"Mass {REJ}: no sign. Nodule {REJ}.") == "Mass: no sign. Nodule."
    assert without_rejection(with_rejection("There is no mass.")) == "There is no mass."


def test_rejected_targets_are_named_by_the_words_before_their_tokens():
    answer = f"Left mass {REJ}: no sign of it. The nodule {SEG}, a cyst {REJ} and the scar {VETO}."
    assert rejected_phrases(answer) == ["Left mass", "a cyst", "the scar"]
    assert rejected_phrases(f"The nodule {SEG}.") == []


def test_a_wrong_answer_is_the_last_and_has_no_masks(tmp_path):
    wrong = [*messages("Segment the mass.", f"The mass {SEG}.")]
    wrong[-1]["wrong"] = True
    path = write(tmp_path, {"image": "a.png", "masks": [], "targets": [], "kinds": [], "conversations": wrong})
    (conversation,) = read_conversations(path)
    (turn,) = conversation.turns
    assert turn.wrong and turn.answer == f"The mass {SEG}." and turn.masks == ()
    assert to_record(conversation, "a.png")["conversations"] == wrong
    first = {
        "image": "a.png",
        "masks": [],
        "targets": [],
        "kinds": [],
        "conversations": [*wrong, *messages("And?", "Nothing.")],
    }
    with pytest.raises(QuestionError, match="must be the last of its conversation"):
        read_conversations(write(tmp_path, first))


def test_keys_that_are_not_read_are_named_and_those_like_others_refused(tmp_path):
    """A mask under another key would leave an answer without one."""

    def without(name):
        return {key: value for key, value in RECORD.items() if key != name}

    for wrong, like in (
        ({**without("masks"), "mask": RECORD["masks"]}, "masks"),
        ({**without("kinds"), "kind": []}, "kinds"),
    ):
        path = write(tmp_path, RECORD, wrong)
        with pytest.raises(QuestionError, match=rf"records.jsonl:2: unknown key '\w+'; did you mean '{like}'\?"):
            read_conversations(path)
    marked = [
        {**message, "Wrong": True} if message["role"] == "assistant" else message for message in RECORD["conversations"]
    ]
    with pytest.raises(QuestionError, match="unknown key 'Wrong'; did you mean 'wrong'"):
        read_conversations(write(tmp_path, {**RECORD, "conversations": marked}))
    with pytest.warns(ZooWarning, match="records.jsonl:1: the key 'patient' is not read"):
        read_conversations(write(tmp_path, {**RECORD, "patient": "p1"}))
