import json

import numpy as np
import pytest
from PIL import Image

from zoo.data.conversations.formats import read_reason_seg, read_referring
from zoo.data.conversations.records import QuestionError
from zoo.data.io.masks import decode_masks


def test_reason_seg_without_its_ignored_polygons(tmp_path):
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
    with pytest.raises(QuestionError, match="is malformed for ReasonSeg"):
        read_reason_seg(tmp_path)


@pytest.fixture
def coco_files(tmp_path):
    """COCO annotations and references of one image, and the paths that :func:`read_referring` takes."""
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(tmp_path / "1.png")
    instances = {
        "images": [{"id": 1, "file_name": "1.png"}],
        "annotations": [{"id": 7, "image_id": 1, "segmentation": [[4, 4, 20, 4, 20, 20, 4, 20]]}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(instances))
    references = [{"image_id": 1, "ann_id": 7, "split": "train", "sentences": [{"sent": "the left box"}]}]
    (tmp_path / "refs.json").write_text(json.dumps(references))
    return tmp_path / "instances.json", tmp_path / "refs.json", tmp_path


def test_coco_references_are_questions_with_masks(coco_files):
    (conversation,) = read_referring(*coco_files, "train")
    (turn,) = conversation.turns
    assert turn.question == "Segment the left box." and decode_masks(turn.masks, (24, 32))[0, 10, 10] == 1
    assert read_referring(*coco_files, "val") == []


def test_uncompressed_run_lengths_are_read(coco_files):
    instances, references, images = coco_files
    content = json.loads(instances.read_text())
    content["annotations"][0]["segmentation"] = {"size": [24, 32], "counts": [24 * 4, 24 * 2, 24 * 26]}
    instances.write_text(json.dumps(content))
    (conversation,) = read_referring(instances, references, images, "train")
    mask = decode_masks(conversation.turns[0].masks, (24, 32))[0]
    assert mask.sum() == 48 and mask[:, 4:6].all()


def test_pickles_and_missing_annotations_are_refused(coco_files):
    instances, references, images = coco_files
    with pytest.raises(QuestionError, match="loads no pickles"):
        read_referring(instances, references.with_name("refs(unc).p"), images, "train")
    references.write_text(references.read_text().replace('"ann_id": 7', '"ann_id": 8'))
    with pytest.raises(QuestionError, match="is malformed for COCO references"):
        read_referring(instances, references, images, "train")
    (images / "1.png").unlink()
    with pytest.raises(QuestionError, match="is missing"):
        read_referring(instances, references, images, "train")
