"""Further forms of question and mask: LISA's ReasonSeg (arXiv 2308.00692) and COCO referring expressions."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.conversations.records import SEG, Conversation, QuestionError, Turn, check_masks, checked_question
from zoo.data.io.images import image_size
from zoo.data.io.masks import RunLength, encode_mask

ANSWER = f"It is {SEG}."
"""What is answered where a data set has masks and no answers; LISA's wording is one of several like it."""


def read_reason_seg(folder: Path) -> list[Conversation]:
    """Read a ReasonSeg split: ``NAME.json`` beside ``NAME.jpg`` (or .png).

    A file has ``text`` (questions about one target) and ``shapes``, polygons labelled "target", "ignore" or otherwise. The
    mask is the union of the targets less what is to be ignored; each question becomes a turn of its own.

    Raises:
        QuestionError: a file does not keep to the form, or its image is missing.
    """
    files = sorted(folder.glob("*.json"))
    if not files:
        raise QuestionError(f"{folder} has no JSON files")
    return [_reason_seg(path) for path in files]


def _reason_seg(path: Path) -> Conversation:
    content = _json(path)
    image = next((p for p in (path.with_suffix(end) for end in (".jpg", ".png", ".jpeg")) if p.is_file()), None)
    if image is None:
        raise QuestionError(f"{path}: the image {path.with_suffix('.jpg')} is missing")
    size = image_size(image)
    try:
        shapes, texts = content["shapes"], content["text"]
        target = _filled([s["points"] for s in shapes if s["label"].lower() == "target"], size)
        ignored = _filled([s["points"] for s in shapes if "ignore" in s["label"].lower()], size)
        questions = [checked_question(text) for text in ([texts] if isinstance(texts, str) else texts)]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise QuestionError(f"{path}: does not keep to ReasonSeg's form: {error!r}") from error
    mask = encode_mask(target & ~ignored)
    conversation = Conversation(
        image, tuple(Turn(question, ANSWER, (mask,), kind="implicit") for question in questions)
    )
    check_masks(conversation)
    return conversation


def read_referring(instances: Path, referring: Path, images: Path, split: str) -> list[Conversation]:
    """Read referring expressions on COCO annotations.

    Args:
        instances: COCO's instances JSON (``images``, ``annotations``).
        referring: a JSON list of ``{"image_id", "ann_id", "split", "sentences": [{"sent": text}]}``; the official files are
            pickles of the same list, which the zoo does not load: save it as JSON once.
        images: folder of the images.
        split: which references to read.

    Raises:
        QuestionError: a file does not keep to the form, or an image is missing.
    """
    if referring.suffix != ".json":
        raise QuestionError(f"{referring} is no JSON; the zoo loads no pickles, so save the list of references as JSON")
    coco, references = _json(instances), _json(referring)
    try:
        files = {item["id"]: item["file_name"] for item in coco["images"]}
        annotations = {item["id"]: item for item in coco["annotations"]}
        turns: dict[Any, list[Turn]] = defaultdict(list)
        for reference in (item for item in references if item["split"] == split):
            turns[reference["image_id"]] += _references(reference, annotations, images / files[reference["image_id"]])
        found = [Conversation(images / files[image_id], tuple(made)) for image_id, made in turns.items()]
    except (KeyError, TypeError) as error:
        raise QuestionError(f"{referring}: does not keep to the form of COCO's references: {error!r}") from error
    for conversation in found:
        check_masks(conversation)
    return found


def _references(reference: dict[str, Any], annotations: dict[Any, dict[str, Any]], image: Path) -> Iterator[Turn]:
    if not image.is_file():
        raise QuestionError(f"the image {image} is missing")
    mask = _segmentation(annotations[reference["ann_id"]]["segmentation"], image_size(image))
    for sentence in reference["sentences"]:
        yield Turn(checked_question(f"Segment {sentence['sent']}."), ANSWER, (mask,), kind="explicit")


def _segmentation(segmentation: Any, size: tuple[int, int]) -> RunLength:
    """COCO's polygons, uncompressed or compressed run lengths as compressed ones."""
    from pycocotools import mask as coco

    if isinstance(segmentation, list):
        encoded = coco.merge(coco.frPyObjects(segmentation, *size))
    elif isinstance(segmentation["counts"], list):
        encoded = coco.frPyObjects(segmentation, *segmentation["size"])
    else:
        return segmentation
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}


def _filled(polygons: list[Any], size: tuple[int, int]) -> np.ndarray:
    from pycocotools import mask as coco

    if not polygons:
        return np.zeros(size, dtype=bool)
    flat = [np.asarray(points, dtype=float).ravel().tolist() for points in polygons]
    return coco.decode(coco.merge(coco.frPyObjects(flat, *size))).astype(bool)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise QuestionError(f"{path}: cannot be read as JSON: {error}") from error
