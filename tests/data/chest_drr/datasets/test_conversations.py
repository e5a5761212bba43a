from pycocotools import mask as coco

from zoo.data.chest_drr.datasets.conversations import ChestDrrMedSegQa
from zoo.data.chest_drr.rendering.spec import RenderSpec
from zoo.data.chest_drr.text.questions import ALL_FINDINGS, CONTRALATERAL, KINDS
from zoo.data.conversations.records import SEG


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
