"""Public forms as conversations with masks."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.annotations.public_forms import FORMS, HEIGHT, WIDTH, marked
from zoo.config.building import resolve
from zoo.data.annotations.base import AnnotatedImage, AnnotationError, Region
from zoo.data.conversations.annotated import box_mask, region_masks, to_conversation
from zoo.data.conversations.records import check_masks
from zoo.data.conversations.templates import QuestionTemplates
from zoo.errors import ZooWarning

MASKED = (
    "siim_acr",
    "mask_images",
    "coco_instances",
    "run_length_table",
    "slake",
    "ms_cxr",
    "padchest_gr",
    "vindr_cxr",
    "rsna_pneumonia",
)


def dataset(form, folder, **arguments):
    node = FORMS[form](folder)
    return resolve("dataset", {"name": "annotated_masks", "annotations": node, **arguments}).build()


@pytest.mark.parametrize("form", MASKED)
def test_every_form_with_masks_or_boxes_becomes_questions_about_them(form, tmp_path):
    data = dataset(form, tmp_path)
    train = data.split("train")
    sample = train[0]
    size = (32, 32) if form == "siim_acr" else (HEIGHT, WIDTH)
    assert sample["image"].shape[-2:] == size and sample["masks"].shape[1:] == size and len(sample["masks"]) >= 1
    assert (
        sample["turns"][0].question.startswith(("Segment the ", "Segment what this describes: "))
        and sample["turns"][0].answer == "It is [SEG]."
    )
    expected = np.zeros(size, bool)
    expected[6:18, 4:20] = True
    masks = [mask.bool() for index in range(len(train)) for mask in train[index]["masks"]]
    assert any(torch.equal(mask, torch.from_numpy(expected)) for mask in masks)
    for conversation in data.conversations("val"):
        check_masks(conversation)
    batch = next(iter(data.train_dataloader()))
    assert len(batch["turns"]) == len(batch["masks"])


def test_targets_and_their_names_are_the_regions(tmp_path):
    data = dataset("chexmask", tmp_path)
    metadata = data.metadata()
    assert metadata["label_names"] == ["heart", "left lung", "right lung"] and metadata["region_names"] == []
    assert {target.name for turn in data.conversations("train")[0].turns for target in turn.targets} == set(
        metadata["label_names"]
    )


def test_absent_findings_are_asked_about_and_images_without_any_mask_too(tmp_path):
    data = dataset("run_length_table", tmp_path, absent=1)
    turns = [turn for conversation in data.conversations("train") for turn in conversation.turns]
    assert [turn.kind for turn in turns] == ["explicit", "absent", "explicit"]
    assert turns[1].question == "Segment the nodule." and turns[1].answer == "There is no nodule."
    with pytest.warns(ZooWarning, match=r"left out, with nothing marked: \d of \d+ images; absent=1 asks"):
        assert len(dataset("run_length_table", tmp_path).conversations("train")) == 2


def test_an_empty_mask_says_that_nothing_is_there(tmp_path):
    data = dataset("mask_images", tmp_path)
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(tmp_path / "test" / "masks" / "0.png")
    assert [c.turns[0].kind for c in data.conversations("test")] == ["absent", "explicit"]


def test_questions_in_words_come_along(tmp_path):
    (turn, *_), *_ = [conversation.turns[::-1] for conversation in dataset("slake", tmp_path).conversations("test")]
    assert (turn.question, turn.answer, turn.masks) == ("What is marked?", "Liver", ())


def test_boxes_can_be_ignored(tmp_path):
    assert len(dataset("rsna_pneumonia", tmp_path, boxes="ignore").split("test")) == 0


def test_templates_are_picked_by_the_seed(tmp_path):
    (tmp_path / "q.yaml").write_text("explicit: [" + ", ".join(f"'{i} {{name}}'" for i in range(50)) + "]")

    def questions(seed):
        data = dataset("mask_images", tmp_path / "d", questions=str(tmp_path / "q.yaml"), seed=seed)
        return [conversation.turns[0].question for conversation in data.conversations("train")]

    assert questions(0) == questions(0) != questions(1)


def test_boxes_are_cut_at_the_border_and_shares_are_of_the_image():
    assert np.argwhere(box_mask([(-5, -5, 1.4, 1.6)], (4, 4), relative=False)).tolist() == [[0, 0], [1, 0]]
    assert box_mask([(0.5, 0.0, 1.0, 0.5)], (4, 8), relative=True).sum() == 8
    assert not box_mask([(90, 90, 99, 99)], (4, 4), relative=False).any()


def test_parts_of_one_name_are_one_mask_and_indices_have_none(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    boxes = [
        Region("x", boxes=((0, 0, 2, 2),)),
        Region("x", boxes=((4, 4, 6, 6),)),
        Region("x", "left", ((0, 0, 1, 1),)),
    ]
    image = AnnotatedImage(tmp_path / "a.png", regions=tuple(boxes))
    assert [region.label for region, _ in region_masks(image)] == ["x", "left x"]
    assert (
        to_conversation(AnnotatedImage(tmp_path / "a.png"), QuestionTemplates(), [], np.random.default_rng(0)) is None
    )
    with pytest.raises(AnnotationError, match="masks need image files"):
        region_masks(AnnotatedImage(3, regions=tuple(boxes)))
    assert marked().any()
