import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tiny_models.data import medseg_files
from zoo.data.base import LoaderSpec
from zoo.data.conversations.datasets import CocoReferring, MedSegFiles
from zoo.data.conversations.records import QuestionError


def test_a_batch_holds_lists(tmp_path):
    file = str(medseg_files(tmp_path) / "data.jsonl")
    data = MedSegFiles(file, file, file)
    batch = next(iter(data.eval_dataloader("val")))
    assert [len(masks) for masks in batch["masks"]] == [1, 1, 0, 1] and batch["index"] == [0, 1, 2, 3]
    for image, masks in zip(batch["image"], batch["masks"], strict=True):
        expected = masks.amax(dim=0) > 0 if len(masks) else torch.zeros(32, 32, dtype=torch.bool)
        assert torch.equal(image[0] > 0.5, expected)
    assert len(set(batch["image_hash"])) == 3, "the first and the last image are the same"
    assert [turns[0].kind for turns in batch["turns"]] == ["explicit", "explicit", "absent", "explicit"]


def test_validation_losses_are_measured_in_training_batches(tmp_path):
    file = str(medseg_files(tmp_path) / "data.jsonl")
    data = MedSegFiles(file, file, file, loader=LoaderSpec(batch_size=2, eval_batch_size=3))
    assert (data.eval_batch_size("val"), data.eval_batch_size("test")) == (2, 3)


def test_a_thin_image_is_refused(tmp_path):
    Image.fromarray(np.zeros((1, 5000), np.uint8)).save(tmp_path / "a.png")
    messages = [{"role": "user", "content": "Is there fluid?"}, {"role": "assistant", "content": "No."}]
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps({"image": "a.png", "conversations": messages}))
    with pytest.raises(ValueError, match="is 5000x1 pixels"):
        MedSegFiles(str(path), str(path), str(path)).split("test")[0]


def test_a_split_without_references_is_refused(tmp_path: Path):
    (tmp_path / "instances.json").write_text(json.dumps({"images": [], "annotations": []}))
    (tmp_path / "refs.json").write_text("[]")
    data = CocoReferring(str(tmp_path / "instances.json"), str(tmp_path / "refs.json"), str(tmp_path))
    with pytest.raises(QuestionError, match="no references of the split 'val'"):
        data.split("val")
