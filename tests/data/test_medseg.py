"""Records of questions and masks: readers, what they refuse, and the rendered questions."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from zoo.data.chest_drr.datasets.conversations import ChestDrrMedSegQa
from zoo.data.chest_drr.rendering.findings import SEVERITIES
from zoo.data.chest_drr.rendering.regions import REGIONS
from zoo.data.chest_drr.text.phrasings import TEST, TRAIN
from zoo.data.chest_drr.text.questions import (
    EVERYTHING,
    KINDS,
    OTHER_SIDE,
    conversation_on,
    everything_on,
    other_side_on,
    phrasings,
    without_side,
)
from zoo.data.conversations.datasets import CocoReferring, MedSegFiles
from zoo.data.conversations.formats import read_reason_seg
from zoo.data.conversations.records import (
    MAX_QUESTION,
    SEG,
    QuestionError,
    checked_question,
    read_conversations,
    said_of_masks,
)
from zoo.data.io.letterbox import fitted, fitted_mask, scaled_size, unfitted
from zoo.data.io.masks import decode_masks, encode_mask


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
    assert [target.finding for target in first.targets] == ["nodule", "mass"] and second.masks == ()
    masks = decode_masks(first.masks, (24, 32))
    assert masks.shape == (2, 24, 32) and masks[1, 4, 20] == 1 and masks[1, 4, 4] == 0


def said(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conversations": said("Segment.", f"{SEG} {SEG} {SEG}")}, "more [SEG] than the record has masks (2)"),
        ({"conversations": said("Segment.", "Nothing.")}, "have 0 [SEG] and the record has 2 masks"),
        ({"conversations": said("Segment.")}, "pairs of user and assistant"),
        ({"conversations": said(f"Segment {SEG}.", f"{SEG} {SEG}")}, "the question holds [SEG]"),
        ({"conversations": said("x" * 10_000, f"{SEG} {SEG}")}, "10000 characters"),
        ({"conversations": said(" \n", f"{SEG} {SEG}")}, "the question is empty"),
        (
            {"masks": [encode_mask(square(height=30)), RECORD["masks"][1]]},
            "a mask is of [30, 32] and its image of [24, 32]",
        ),
        ({"masks": [encode_mask(square() & False), RECORD["masks"][1]]}, "a mask is empty"),
        ({"masks": [[1, 2], RECORD["masks"][1]]}, "compressed run lengths"),
        ({"image": "gone.png"}, "gone.png is missing"),
        ({"image": 3}, "no JSON object with an 'image'"),
    ],
)
def test_errors_name_the_line(tmp_path, change, message):
    path = write(tmp_path, RECORD, {**RECORD, **change})
    with pytest.raises(QuestionError) as caught:
        read_conversations(path)
    assert "records.jsonl:2: " in str(caught.value) and message in str(caught.value)


def test_a_thin_image_is_refused(tmp_path):
    path = write(tmp_path, RECORD)
    Image.fromarray(np.zeros((1, 5000), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(QuestionError, match=r"a mask is of \[24, 32\] and its image of \[1, 5000\]"):
        read_conversations(path)
    Image.fromarray(np.zeros((1, 5000), np.uint8)).save(tmp_path / "a.png")
    record = {"image": "a.png", "conversations": said("Is there fluid?", "No.")}
    files = str(write(tmp_path, record))
    Image.fromarray(np.zeros((1, 5000), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="is 5000x1 pixels"):
        MedSegFiles(files, files, files).split("test")[0]


@given(st.text(max_size=3000))
def test_any_question_is_fit_or_refused(text):
    try:
        question = checked_question(text)
    except QuestionError:
        return
    assert question and len(question) <= MAX_QUESTION and SEG not in question


def test_reason_seg_is_read_with_its_ignored_parts(tmp_path):
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(tmp_path / "x.jpg")
    box = [[4, 4], [20, 4], [20, 20], [4, 20]]
    hole = [[4, 4], [12, 4], [12, 20], [4, 20]]
    shapes = [{"label": "target", "points": box}, {"label": "ignore", "points": hole}]
    (tmp_path / "x.json").write_text(json.dumps({"text": ["What hurts?", "Which part aches?"], "shapes": shapes}))
    (conversation,) = read_reason_seg(tmp_path)
    assert [turn.question for turn in conversation.turns] == ["What hurts?", "Which part aches?"]
    mask = decode_masks(conversation.turns[0].masks, (24, 32))[0]
    assert mask[10, 16] == 1 and mask[10, 8] == 0 and mask[22, 30] == 0
    (tmp_path / "x.jpg").unlink()
    with pytest.raises(QuestionError, match=r"x\.jpg is missing"):
        read_reason_seg(tmp_path)
    (tmp_path / "x.json").write_text("{}")
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(tmp_path / "x.jpg")
    with pytest.raises(QuestionError, match="ReasonSeg's form"):
        read_reason_seg(tmp_path)


def test_coco_references_are_read_and_pickles_are_not(tmp_path):
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(tmp_path / "1.png")
    polygon = [[4, 4, 20, 4, 20, 20, 4, 20]]
    coco_file = {
        "images": [{"id": 1, "file_name": "1.png"}],
        "annotations": [{"id": 7, "image_id": 1, "segmentation": polygon}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(coco_file))
    refs = [{"image_id": 1, "ann_id": 7, "split": "train", "sentences": [{"sent": "the left box"}]}]
    (tmp_path / "refs.json").write_text(json.dumps(refs))
    data = CocoReferring(str(tmp_path / "instances.json"), str(tmp_path / "refs.json"), str(tmp_path))
    sample = data.split("train")[0]
    assert sample["turns"][0].question == "Segment the left box." and sample["masks"][0, 10, 10] == 1
    with pytest.raises(QuestionError, match="no references of the split 'val'"):
        data.split("val")
    with pytest.raises(QuestionError, match="loads no pickles"):
        CocoReferring(str(tmp_path / "instances.json"), str(tmp_path / "refs(unc).p"), str(tmp_path)).split("train")


def test_test_questions_are_phrased_as_in_no_other_split():
    train, test = (
        {text for kind in KINDS for finding in SEVERITIES for text in phrasings(kind, phrasing, finding)}
        for phrasing in (TRAIN, TEST)
    )
    assert not train & test
    for kind in KINDS:
        for phrasing in (TRAIN, TEST):
            assert len({text for finding in SEVERITIES for text in phrasings(kind, phrasing, finding)}) >= 40


def test_a_clue_without_a_side_is_still_a_sentence():
    clues = [clue for phrasing in (TRAIN, TEST) for told in phrasing.clues.values() for clue in told]
    sided = [clue for clue in clues if "{side}" in clue]
    assert 40 < len(sided) < len(clues)
    for clue in clues:
        said = without_side(clue)
        assert "{" not in said and "  " not in said and not said.endswith((" on the", " the", ",", " "))
        assert said == clue or clue in sided
    assert without_side("forms a meniscus at the {side} base") == "forms a meniscus at the base"
    assert without_side("is a young man's, on the {side}") == "is a young man's"


def case(*findings: tuple[str, str]) -> dict:
    """A case record in which every region and finding is the same square."""
    item = {"mask": encode_mask(square()), "box": [4, 4, 8, 8]}
    return {
        "findings": [{"kind": kind, "side": side, **item} for kind, side in findings],
        "regions": dict.fromkeys(REGIONS, item),
    }


@given(seed=st.integers(0, 10**6), wording=st.sampled_from([TRAIN, TEST]))
def test_the_other_side_is_asked_for_only_where_it_has_none(seed, wording):
    record = case(("pleural effusion", "left"), ("pleural effusion", "right"), ("mass", "left"), ("cardiomegaly", ""))
    (turn,) = other_side_on(record, wording, np.random.default_rng(seed))
    assert turn.kind == OTHER_SIDE and not turn.masks and not turn.targets
    assert "right mass" in turn.question, "the only finding that is on one side alone, and that no clue gives a side to"
    assert turn.answer.rstrip(".").endswith(("right mass", "right mass is seen", "right mass here"))
    assert other_side_on(case(("cardiomegaly", "")), wording, np.random.default_rng(seed)) == ()


@given(seed=st.integers(0, 10**6))
def test_a_clue_to_the_other_side_tells_it(seed):
    (turn,) = other_side_on(case(("pneumothorax", "right")), TRAIN, np.random.default_rng(seed))
    assert "left" in turn.question and "right" not in turn.question and "left pneumothorax" in turn.answer


@given(seed=st.integers(0, 10**6), wording=st.sampled_from([TRAIN, TEST]))
def test_all_findings_are_asked_for_where_there_is_one_or_none(seed, wording):
    (one,), (none,) = (
        everything_on(case(*own), wording, np.random.default_rng(seed)) for own in ([("mass", "left")], [])
    )
    assert one.kind == none.kind == EVERYTHING and one.question == none.question
    assert "left mass" in one.answer and one.answer.count(SEG) == len(one.masks) == len(one.targets) == 1
    assert "no abnormality" in none.answer.lower() and not none.masks and not none.targets
    assert everything_on(case(("mass", "left"), ("cardiomegaly", "")), wording, np.random.default_rng(seed)) == ()


def test_each_mask_has_its_own_words():
    listed = "There are 2: the left mass in the mid lung zone [SEG] and the cardiomegaly [SEG]."
    assert said_of_masks(listed, 2) == ["the left mass in the mid lung zone", "the cardiomegaly"]
    assert said_of_masks("Fluid is seen. It is here [SEG], there[SEG]", 3) == ["It is here", "there", ""]
    assert said_of_masks("[SEG]", 1) == [""] and said_of_masks("Nothing.", 0) == []


def test_shares_of_questions_about_the_other_side_and_without_one():
    record = case(("pleural effusion", "left"), ("mass", "right"))

    def asked(wording):
        return [turn for seed in range(200) for turn in conversation_on(record, wording, np.random.default_rng(seed))]

    def share(kind, wording):
        counts = [turn.kind for turn in asked(wording)]
        return counts.count(kind) / (counts.count("absent") + counts.count(OTHER_SIDE))

    assert share(OTHER_SIDE, TEST) == 0 and share(OTHER_SIDE, replace(TEST, other_side=1.0)) == 1
    assert 0.35 < share(OTHER_SIDE, TRAIN) < 0.65
    named = [turn for turn in asked(replace(TRAIN, sideless=1.0)) if turn.kind in ("explicit", "implicit", "absent")]
    regions = [turn for turn in named if turn.targets and turn.targets[0].finding in REGIONS]
    assert all("left" not in turn.question and "right" not in turn.question for turn in named if turn not in regions)


def test_the_questions_of_a_test_film_stay_as_published_cards_were_measured_on():
    record = case(("pleural effusion", "left"), ("mass", "right"), ("cardiomegaly", ""))
    turns = [turn for seed in range(50) for turn in conversation_on(record, TEST, np.random.default_rng(seed))]
    assert (
        hashlib.sha256(repr(turns).encode()).hexdigest()
        == "8a54afeac98da016fc8eea19ccf97e70db92ceb5c1a60613df8a92ee2fb5129b"
    )


def test_rendered_questions_are_true_to_their_cases():
    data = ChestDrrMedSegQa(size=32, image_size=64, build_workers=2)
    conversations = data.conversations("train")
    kinds = {turn.kind for conversation in conversations for turn in conversation.turns}
    assert kinds == {*KINDS, OTHER_SIDE, EVERYTHING}
    for turn in (turn for conversation in conversations for turn in conversation.turns):
        assert len(turn.masks) == len(turn.targets) == turn.answer.count(SEG)
        assert all(target.finding in turn.answer.lower() for target in turn.targets)
        assert "{" not in turn.question + turn.answer
        assert all(coco.area(mask) for mask in turn.masks)
    tested = data.conversations("test")
    turns = [turn for conversation in tested for turn in conversation.turns]
    assert {turn.kind for turn in turns} == {*KINDS, OTHER_SIDE, EVERYTHING}
    assert all(len(c.turns) == 1 for c in tested if c.turns[0].kind in (OTHER_SIDE, EVERYTHING))
    sample = data.split("val")[0]
    assert sample["masks"].shape[1:] == sample["image"].shape[1:] == (64, 64)


@given(height=st.integers(8, 90), width=st.integers(8, 90), side=st.sampled_from([32, 64]), seed=st.integers(0, 99))
def test_fitting_and_back_keeps_a_mask_in_its_place(height, width, side, seed):
    rng = np.random.default_rng(seed)
    top, left = int(rng.integers(0, height // 2)), int(rng.integers(0, width // 2))
    mask = torch.zeros(1, height, width)
    mask[0, top : top + height // 2, left : left + width // 2] = 1
    assert fitted(torch.rand(1, height, width), side).shape == (3, side, side)
    small = fitted_mask(mask, side)
    rows, columns = scaled_size((height, width), side)
    assert small[0, rows:].sum() == 0 and small[0, :, columns:].sum() == 0
    back = (unfitted(small * 20 - 10, (height, width)) > 0).float()
    union = ((back + mask) > 0).sum()
    if min(height, width) >= 24:
        assert (back * mask).sum() / union > 0.6
