"""Predictions as JSON and as files; their methods' tests and ``zoo predict`` make real ones."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.io.masks import encode_mask
from zoo.data.traces.records import Step
from zoo.errors import OutputExistsError
from zoo.methods.predictions import Classification, NamedMasks, Reconstruction, Report, Segmentation, on_cpu

IMAGE = torch.linspace(0, 1, 32 * 32).view(1, 32, 32)


def test_a_classification_ranks_its_classes(tmp_path):
    prediction = Classification(IMAGE, {"clear": 0.2, "effusion": 0.7, "mass": 0.1})
    assert prediction.label == "effusion"
    assert list(prediction.to_dict()["probabilities"]) == ["effusion", "clear", "mass"]
    assert prediction.save(tmp_path, "p").name == "p.png"


def test_files_are_replaced_only_if_asked(tmp_path):
    masks = torch.zeros(1, 32, 32)
    masks[:, :16] = 1
    prediction = NamedMasks(IMAGE, ("lung",), masks)
    file = prediction.save(tmp_path)
    before = file.read_bytes()
    with pytest.raises(OutputExistsError, match="exists; choose another folder"):
        prediction.save(tmp_path)
    NamedMasks(IMAGE, ("lung",), 1 - masks).save(tmp_path, overwrite=True)
    assert file.read_bytes() != before


def test_named_masks_are_ordered_by_the_share_that_they_cover():
    masks = torch.zeros(2, 32, 32)
    masks[0, :8] = 1
    masks[1, :16] = 1
    shares = NamedMasks(IMAGE, ("small", "large"), masks).to_dict()["share of the image"]
    assert list(shares.items()) == [("large", 0.5), ("small", 0.25)]


def test_a_segmentation_saves_each_mask_and_the_answer(tmp_path):
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[4:12, 6:20] = True
    prediction = Segmentation(IMAGE, "Segment it.", "It is the left nodule [SEG].", True, (encode_mask(mask.numpy()),))
    assert prediction.labels == ["It is the left nodule"]
    page = prediction.save(tmp_path, "s")
    saved = torch.tensor(list(Image.open(tmp_path / "s-mask-1.png").get_flattened_data())).view(32, 32) > 0
    assert page.name == "s.html" and torch.equal(saved, mask)
    assert json.loads((tmp_path / "s.json").read_text())["answer"] == "It is the left nodule [SEG]."


def test_a_report_is_a_page_with_its_steps(tmp_path):
    step = Step("First, I need to analyze the heart", 0, (2, 4, 20, 30), "It is enlarged.")
    prediction = Report(IMAGE, "An enlarged heart.", (step,), (torch.rand(16, 16),), ((1, 2),), "crop")
    assert prediction.to_dict() == {
        "report": "An enlarged heart.",
        "steps": [{"region": "heart", "box": (2, 4, 20, 30), "statement": "It is enlarged.", "evidence": 0}],
        "evidence_ids": [[1, 2]],
    }
    page = prediction.save(tmp_path, "r").read_text()
    assert "An enlarged heart." in page and "It is enlarged." in page and page.count("<img") >= 2


def test_a_reconstruction_shows_both_images(tmp_path):
    one = Reconstruction(IMAGE, (3, 1), 21.5, IMAGE[0] * 2 - 1, IMAGE[0] * 2 - 1)
    assert one.to_dict() == {"psnr": 21.5, "codes": [3, 1]}
    assert one.save(tmp_path, "c").stat().st_size > 1000


def test_images_are_float32_on_the_cpu():
    (image,) = on_cpu([torch.zeros(1, 4, 4, dtype=torch.bfloat16, requires_grad=True)])
    assert image.dtype == torch.float32 and not image.requires_grad


def test_masks_have_areas_and_a_note_where_they_are_next_to_nothing(tmp_path):
    mask, dot, empty = np.zeros((3, 100, 100), dtype=bool)
    mask[:20, :30], dot[3, 3:6] = True, True
    masks = tuple(encode_mask(pixels) for pixels in (mask, dot, empty))
    prediction = Segmentation(torch.zeros(1, 100, 100), "Where?", "Here [SEG], [SEG] and [SEG].", True, masks)
    content = prediction.to_dict()
    assert content["areas"] == [600, 3, 0]
    notes = ["mask 2 has 3 of 10000 pixels: look at it before you believe it", "mask 3 is empty: no pixel of it"]
    assert content["notes"] == notes
    page = prediction.save(tmp_path, "page").read_text()
    assert all(note in page for note in notes)
    assert "notes" not in Segmentation(torch.zeros(1, 100, 100), "Where?", "Here [SEG].", True, masks[:1]).to_dict()
