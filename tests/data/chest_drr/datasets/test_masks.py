"""Masks of findings that are present, absent findings and regions, to train a mask head on."""

import torch

from zoo.data.chest_drr.datasets.conversations import ChestDrrMedSegQa
from zoo.data.chest_drr.datasets.masks import ChestDrrMasks
from zoo.data.chest_drr.rendering.spec import RenderSpec
from zoo.data.chest_drr.text.labels import VOCABULARY
from zoo.data.io.masks import decode_masks
from zoo.data.vocabulary import label_name

RENDER = RenderSpec(size=32, image_size=64, render_workers=2)
LABELS, TARGETS = set(VOCABULARY.label_names), set(VOCABULARY.target_names)


def test_every_target_has_a_name():
    data = ChestDrrMedSegQa(render=RENDER)
    targets = {t for c in data.conversations("train") for turn in c.turns for t in turn.targets}
    assert targets and {label_name(target.finding, target.side) for target in targets} <= TARGETS


def test_training_has_masks_of_present_and_absent_findings_and_the_test_asks_questions():
    data, questions = (cls(render=RENDER) for cls in (ChestDrrMasks, ChestDrrMedSegQa))
    (turn,) = data.conversations("train")[5].turns
    names = [label_name(target.finding, target.side) for target in turn.targets]
    record = questions.series("train").record(5)
    present = {label_name(finding["kind"], finding["side"]) for finding in record["findings"]}
    assert present and len(names) == len(set(names)) == len(present) + 4 + 4 and set(names) < TARGETS
    assert present < set(names) and len(set(names) & LABELS) == len(present) + 4
    masks = data.open_split("train")[5]["masks"]
    for name, mask in zip(names, masks, strict=True):
        parts = [f["mask"] for f in record["findings"] if name == label_name(f["kind"], f["side"])]
        parts += [record["regions"][name]["mask"]] if name in record["regions"] else []
        assert torch.equal(mask, decode_masks(parts, (64, 64)).amax(dim=0) if parts else torch.zeros(64, 64))
    assert any(not mask.any() for mask in masks)
    asked, tested = questions.conversations("test"), data.conversations("test")
    left_out = [conversation for conversation in asked if conversation not in tested]
    assert len(tested) == len(questions.series("test"))
    assert [conversation for conversation in asked if conversation in tested] == tested
    assert {turn.kind for conversation in left_out for turn in conversation.turns} == {"other_side", "everything"}
