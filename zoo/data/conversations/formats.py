"""Further formats of questions and masks: LISA's ReasonSeg (arXiv 2308.00692) and COCO referring expressions."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.conversations.records import SEG, Conversation, QuestionError, Turn, check_masks, validate_question
from zoo.data.io.images import image_size
from zoo.data.io.masks import (
    MaskError,
    RunLength,
    check_run_length,
    compress_run_lengths,
    decode_masks,
    encode_mask,
    encode_polygons,
)
from zoo.errors import ZooError

ANSWER = f"It is {SEG}."
"""The answer where a dataset has masks and no answers; one of several like it in LISA."""


def read_reason_seg(folder: Path) -> list[Conversation]:
    """Read a ReasonSeg split: ``NAME.json`` beside ``NAME.jpg`` (or .png).

    A file has ``text`` (questions about one target) and ``shapes``, polygons labelled "target", "ignore" or otherwise. The
    mask is the union of the targets without the ignored polygons; each question becomes a separate turn.

    Raises:
        QuestionError: a file is malformed, or its image is missing.
    """
    files = sorted(folder.glob("*.json"))
    if not files:
        raise QuestionError(f"{folder} has no JSON files")
    return [_read_reason_seg_file(path) for path in files]


def _read_reason_seg_file(path: Path) -> Conversation:
    content = _read_json(path)
    image = next((p for p in (path.with_suffix(end) for end in (".jpg", ".png", ".jpeg")) if p.is_file()), None)
    if image is None:
        raise QuestionError(f"{path}: the image {path.with_suffix('.jpg')} is missing")
    size = image_size(image)
    try:
        shapes, texts = content["shapes"], content["text"]
        target = _fill_polygons([s["points"] for s in shapes if s["label"].lower() == "target"], size)
        ignored = _fill_polygons([s["points"] for s in shapes if "ignore" in s["label"].lower()], size)
        questions = [validate_question(text) for text in ([texts] if isinstance(texts, str) else texts)]
    except ZooError as error:
        raise QuestionError(f"{path}: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise QuestionError(f"{path}: is malformed for ReasonSeg: {error!r}") from error
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
        QuestionError: a file is malformed, or an image is missing.
    """
    if referring.suffix != ".json":
        raise QuestionError(f"{referring} is not JSON; the zoo loads no pickles: save the list of references as JSON")
    coco, references = _read_json(instances), _read_json(referring)
    try:
        files = {item["id"]: item["file_name"] for item in coco["images"]}
        annotations = {item["id"]: item for item in coco["annotations"]}
        turns: dict[Any, list[Turn]] = defaultdict(list)
        for reference in (item for item in references if item["split"] == split):
            turns[reference["image_id"]] += _references(reference, annotations, images / files[reference["image_id"]])
        conversations = [Conversation(images / files[image_id], tuple(items)) for image_id, items in turns.items()]
    except (KeyError, TypeError) as error:
        raise QuestionError(f"{referring}: is malformed for COCO references: {error!r}") from error
    for conversation in conversations:
        check_masks(conversation)
    return conversations


def _references(reference: dict[str, Any], annotations: dict[Any, dict[str, Any]], image: Path) -> Iterator[Turn]:
    if not image.is_file():
        raise QuestionError(f"the image {image} is missing")
    annotation = annotations[reference["ann_id"]]
    try:
        mask = _to_run_length(annotation["segmentation"], image_size(image))
    except MaskError as error:
        raise QuestionError(f"annotation {reference['ann_id']} of {image.name}: {error}") from error
    for sentence in reference["sentences"]:
        yield Turn(validate_question(f"Segment {sentence['sent']}."), ANSWER, (mask,), kind="explicit")


def _to_run_length(segmentation: Any, size: tuple[int, int]) -> RunLength:
    """COCO polygons, uncompressed or compressed run lengths as compressed run lengths."""
    if isinstance(segmentation, list):
        return encode_polygons(segmentation, size)
    if isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), list):
        return compress_run_lengths(segmentation, size)
    return check_run_length(segmentation, size)


def _fill_polygons(polygons: list[Any], size: tuple[int, int]) -> np.ndarray:
    return decode_masks([encode_polygons(polygons, size)], size)[0].numpy().astype(bool)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise QuestionError(f"{path}: cannot be read as JSON: {error}") from error
