"""Further formats of questions and masks: LISA's ReasonSeg (arXiv 2308.00692) and COCO referring expressions."""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
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
from zoo.errors import ZooError, counted

ANSWER = f"It is {SEG}."
"""The answer where a dataset has masks and no answers; one of several like it in LISA."""


_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
_CIRCLE = 72
"""Corners of a polygon that stands for a circle."""


def read_reason_seg(folder: Path) -> list[Conversation]:
    """Read a ReasonSeg split: ``NAME.json`` beside ``NAME.jpg`` (or .png).

    A file has ``text`` (questions about one target) and ``shapes`` of labelme, polygons, rectangles and circles labelled
    "target", "ignore" or otherwise. As in LISA they are drawn from large to small, so that a target inside something ignored
    counts; each question becomes a separate turn. Files are in UTF-8, or, as some of the official ones, in cp1252.

    Raises:
        QuestionError: a file is malformed, or its image is missing.
    """
    return [_read_reason_seg_file(path, image) for path, image in _reason_seg_files(folder)]


def read_valid_reason_seg(folder: Path) -> tuple[list[Conversation], list[str]]:
    """The valid files of a ReasonSeg split, and a message on each of the others.

    Raises:
        QuestionError: there are no JSON files.
    """
    conversations, problems = [], []
    for path, image in _reason_seg_files(folder):
        try:
            conversations.append(_read_reason_seg_file(path, image))
        except QuestionError as error:
            problems.append(str(error))
    return conversations, problems


def _reason_seg_files(folder: Path) -> list[tuple[Path, Path | None]]:
    """The JSON files of a folder, each with its image if there is one."""
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() == ".json" and path.name[0] != ".")
    if not files:
        raise QuestionError(f"{folder} has no JSON files")
    images = {path.stem: path for path in sorted(folder.glob("*")) if path.suffix.lower() in _SUFFIXES}
    return [(path, images.get(path.stem)) for path in files]


def _read_reason_seg_file(path: Path, image: Path | None) -> Conversation:
    content = _read_json(path, "cp1252")
    if image is None:
        raise QuestionError(f"{path}: the image {path.with_suffix('.jpg')} is missing")
    try:
        mask = _draw_shapes(content["shapes"], image_size(image))
        texts = content["text"]
        questions = [validate_question(text) for text in ([texts] if isinstance(texts, str) else texts)]
        turns = tuple(Turn(question, ANSWER, (encode_mask(mask),), kind="implicit") for question in questions)
        conversation = Conversation(image, turns)
        check_masks(conversation)
    except ZooError as error:
        raise QuestionError(f"{path}: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise QuestionError(f"{path}: is malformed for ReasonSeg: {error!r}") from error
    return conversation


def _draw_shapes(shapes: list[dict[str, Any]], size: tuple[int, int]) -> np.ndarray:
    """The target (height, width): smaller shapes over larger ones, what is ignored left out."""
    drawn = []
    for shape in shapes:
        label = shape["label"].lower()
        if label == "target" or "ignore" in label:
            polygon = _outline(shape.get("shape_type") or "polygon", shape["points"])
            drawn.append((decode_masks([encode_polygons([polygon], size)], size)[0].numpy() > 0, label == "target"))
    target = np.zeros(size, dtype=bool)
    for pixels, is_target in sorted(drawn, key=lambda item: -int(item[0].sum())):
        target[pixels] = is_target
    return target


def _outline(kind: str, points: list[list[float]]) -> list[list[float]]:
    """A labelme shape as the corners of a polygon.

    Raises:
        QuestionError: the shape has no area, or its number of points is wrong.
    """
    if kind == "polygon":
        return points
    if kind not in ("rectangle", "circle") or len(points) != 2:
        raise QuestionError(
            f"a shape of the type '{kind}' has {counted(len(points), 'point')}; expected a polygon, or a rectangle or circle of two points"
        )
    (x, y), (other_x, other_y) = points
    if kind == "rectangle":
        return [[x, y], [other_x, y], [other_x, other_y], [x, other_y]]
    radius = float(np.hypot(other_x - x, other_y - y))
    angles = 2 * np.pi * np.arange(_CIRCLE) / _CIRCLE
    return [[x + radius * float(np.cos(angle)), y + radius * float(np.sin(angle))] for angle in angles]


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


def _read_json(path: Path, *encodings: str) -> Any:
    """JSON in UTF-8, with a byte order mark or without, or in one of the other encodings."""
    try:
        content = path.read_bytes()
        for encoding in ("utf-8-sig", *encodings):
            with suppress(UnicodeDecodeError):
                return json.loads(content.decode(encoding))
        return json.loads(content)  # raises what is wrong
    except (OSError, ValueError, RecursionError) as error:
        raise QuestionError(f"{path}: cannot be read as JSON: {error}") from error
