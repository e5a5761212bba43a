from pycocotools import mask as coco

from zoo.data.chest_drr.datasets.conversations import ChestDrrMedSegQa
from zoo.data.chest_drr.rendering.spec import RenderSpec
from zoo.data.chest_drr.text.contrasts import LISTED
from zoo.data.chest_drr.text.questions import ALL_FINDINGS, CONTRALATERAL, KINDS
from zoo.data.conversations.records import REJ, SEG, rejected_phrases


def test_questions_match_their_cases():
    data = ChestDrrMedSegQa(render=RenderSpec(size=32, image_size=64, render_workers=2))
    conversations = data.conversations("train")
    kinds = {turn.kind for conversation in conversations for turn in conversation.turns}
    assert kinds == {*KINDS, CONTRALATERAL, ALL_FINDINGS}
    for turn in (turn for conversation in conversations for turn in conversation.turns):
        assert len(turn.masks) == len(turn.targets) == turn.answer.count(SEG)
        assert all(target.finding in turn.answer.lower() for target in turn.targets)
        assert "{" not in turn.question + turn.answer
        assert all(coco.area(mask) for mask in turn.masks)
    test_conversations = data.conversations("test")
    turns = [turn for conversation in test_conversations for turn in conversation.turns]
    assert {turn.kind for turn in turns} == {*KINDS, CONTRALATERAL, ALL_FINDINGS}
    assert all(len(c.turns) == 1 for c in test_conversations if c.turns[0].kind in (CONTRALATERAL, ALL_FINDINGS))
    sample = data.split("val")[0]
    assert sample["masks"].shape[1:] == sample["image"].shape[1:] == (64, 64)


def test_rejecting_answers_are_to_the_same_questions():
    render = RenderSpec(size=32, image_size=64, render_workers=2)
    plain, rejecting = (ChestDrrMedSegQa(variants=2, reject=reject, render=render) for reject in (False, True))
    for split in ("train", "test"):
        pairs = list(zip(plain.conversations(split), rejecting.conversations(split), strict=True))
        assert [c.image for c, _ in pairs] == [c.image for _, c in pairs]
        turns = [pair for one, other in pairs for pair in zip(one.turns, other.turns, strict=True)]
        for turn, other in turns:
            assert (turn.question, turn.masks, turn.targets, turn.kind) == (
                other.question,
                other.masks,
                other.targets,
                other.kind,
            )
            assert other.answer.count(REJ) == (not turn.masks) and REJ not in turn.answer
            if turn.masks and turn.kind in ("explicit", "implicit"):
                name, _, place = other.answer.partition(": ")
                assert turn.targets[0].finding in name.lower() and turn.targets[0].name in place
        assert any(rejected_phrases(other.answer) for _, other in turns)


def test_every_second_training_conversation_contrasts():
    render = RenderSpec(size=32, image_size=64, render_workers=2)
    contrasting = ChestDrrMedSegQa(variants=2, reject=True, contrasts=True, render=render)
    plain = ChestDrrMedSegQa(variants=2, reject=True, render=render)
    train, before = contrasting.conversations("train"), plain.conversations("train")
    assert [c.turns for c in train[::2]] == [c.turns for c in before[::2]] and len(train) == len(before)
    turns = [turn for conversation in train[1::2] for turn in conversation.turns]
    assert any(turn.wrong for turn in turns) and any(turn.kind == LISTED for turn in turns)
    assert [c.turns for c in contrasting.conversations("test")] == [c.turns for c in plain.conversations("test")]
    assert not any(turn.wrong for c in contrasting.conversations("val") for turn in c.turns)
    sample = contrasting.split("train")[1]
    assert len(sample["masks"]) == sum(len(turn.masks) for turn in sample["turns"])
