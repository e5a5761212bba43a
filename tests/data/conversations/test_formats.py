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


def write_labelme(folder, *shapes, text="Where is it?", name="a.json", image="a.jpg", encoding="utf-8"):
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((100, 80), np.uint8)).save(folder / image)
    content = {"text": [text], "shapes": [dict(zip(("label", "shape_type", "points"), s, strict=True)) for s in shapes]}
    (folder / name).write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    return folder


def mask_of(folder):
    return decode_masks(read_reason_seg(folder)[0].turns[0].masks, (100, 80))[0].numpy() > 0


SQUARE = ("target", "polygon", [[10, 20], [30, 20], [30, 40], [10, 40]])
RECTANGLE = ("target", "rectangle", [[30, 40], [10, 20]])
FAR = ("target", "polygon", [[50, 60], [60, 60], [60, 70], [50, 70]])
AROUND = ("ignore", "polygon", [[0, 0], [70, 0], [70, 90], [0, 90]])
INSIDE = ("ignore", "rectangle", [[10, 20], [20, 40]])


@pytest.mark.parametrize(
    ("shapes", "area"),
    [
        ([SQUARE], 400),
        ([RECTANGLE], 400),
        ([FAR, RECTANGLE], 500),
        ([AROUND, SQUARE], 400),
        ([SQUARE, AROUND], 400),
        ([SQUARE, INSIDE], 200),
        ([AROUND, SQUARE, INSIDE], 200),
        ([SQUARE, ("lung", "point", [[1, 1]])], 400),
    ],
)
def test_labelme_shapes_are_drawn_from_large_to_small(tmp_path, shapes, area):
    mask = mask_of(write_labelme(tmp_path, *shapes))
    rows, columns = mask[:45].nonzero()
    assert mask.sum() == area and (rows.min(), rows.max()) == (20, 39) and columns.max() == 29


def test_a_circle_is_its_centre_and_a_point_on_it(tmp_path):
    mask = mask_of(write_labelme(tmp_path, ("target", "circle", [[40, 50], [40, 60]])))
    rows, columns = mask.nonzero()
    assert mask.sum() == pytest.approx(np.pi * 100, rel=0.03)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (40, 59, 30, 49)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([("target", "point", [[15, 25]])], "a shape of the type 'point' has 1 point"),
        ([("target", "linestrip", [[15, 25], [20, 20], [30, 30]])], "a shape of the type 'linestrip'"),
        ([("target", "rectangle", [[15, 25]])], "expected a polygon, or a rectangle or circle of two points"),
        ([("target", "circle", [[15, 25], [None, 3]])], "is malformed for ReasonSeg"),
        ([SQUARE, ("ignore", "rectangle", [[9, 19], [31, 41]])], None),
        ([("target", "polygon", [[1, 1], [2, 2]])], "at least three points"),
        ([("ignore", *SQUARE[1:])], "a mask is empty"),
    ],
)
def test_every_refusal_names_the_file(tmp_path, shapes, message):
    folder = write_labelme(tmp_path, *shapes)
    if message is None:
        assert mask_of(folder).sum() == 400
        return
    with pytest.raises(QuestionError, match=rf"a\.json: .*{message}"):
        read_reason_seg(folder)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_files_in_encodings_of_the_official_ones(tmp_path, encoding):
    folder = write_labelme(tmp_path, SQUARE, text="the dog’s “collar”", encoding=encoding)
    assert read_reason_seg(folder)[0].turns[0].question == "the dog’s “collar”"


def test_suffixes_in_capitals_and_hidden_files(tmp_path):
    folder = write_labelme(tmp_path, SQUARE, name="a.JSON", image="a.JPG")
    (folder / "._a.json").write_bytes(b"\0")
    assert mask_of(folder).sum() == 400


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
