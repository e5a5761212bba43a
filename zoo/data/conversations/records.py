"""Questions about an image that are answered in words and masks: records after MedSeg-QA (MedSeg-R, arXiv 2506.10465).

MedSeg-QA's own files are not public; the record form here is ours (reconstructed): a line of JSON with ``image``, ``masks``
(COCO run lengths) and ``conversations`` of user and assistant turns, where each ``[SEG]`` in an answer stands for the next
mask. An answer without ``[SEG]`` says that there is nothing to segment. LISA's and COCO's forms are read by
:mod:`zoo.data.conversations.formats`.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.data.io.images import ImageError, image_size
from zoo.data.io.json_lines import numbered_lines
from zoo.data.io.masks import RunLength
from zoo.errors import ZooError

SEG = "[SEG]"
MAX_QUESTION = 2_000
"""Most characters of a question."""
_MAX_LINE = 20_000_000


class QuestionError(ZooError, ValueError):
    """A record or question that cannot be used; of a file, the message begins with file and line."""


@dataclass(frozen=True)
class Target:
    """What a mask is of: finding (or region), side and zone; empty where unknown."""

    finding: str = ""
    side: str = ""
    zone: str = ""


@dataclass(frozen=True)
class Turn:
    """One question with its answer. ``masks`` are those of the answer's ``[SEG]``, in order; ``kind`` groups metrics."""

    question: str
    answer: str
    masks: tuple[RunLength, ...] = field(default=(), repr=False)
    targets: tuple[Target, ...] = ()
    kind: str = ""


@dataclass(frozen=True)
class Conversation:
    """Turns about one image."""

    image: Path
    turns: tuple[Turn, ...]
    line: int = 0


def said_of_masks(answer: str, count: int) -> list[str]:
    """What an answer says of each of ``count`` masks: the words before its ``[SEG]``, in their sentence or list."""
    parts = (re.split(r"[.:]\s", part.strip(" .,;:"))[-1] for part in answer.split(SEG)[:-1])
    said = [part.removeprefix("and ") for part in parts]
    return (said + [""] * count)[:count]


def checked_question(text: str) -> str:
    """A question fit to be asked.

    Raises:
        QuestionError: it is empty, too long, or holds ``[SEG]``, which only answers may.
    """
    question = " ".join(text.split())
    if not question:
        raise QuestionError("the question is empty")
    if len(question) > MAX_QUESTION:
        raise QuestionError(f"the question has {len(question)} characters; the most is {MAX_QUESTION}")
    if SEG in question:
        raise QuestionError(f"the question holds {SEG}, which stands for a mask in answers only")
    return question


def read_conversations(path: Path) -> list[Conversation]:
    """Read a JSONL file; image paths are relative to its folder.

    Raises:
        QuestionError: naming the first line that does not keep to the form, or whose image does not.
    """
    return [_parse(path, number, line) for number, line in _lines(path)]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    if not path.is_file():
        raise QuestionError(f"{path}: there is no such file")
    return numbered_lines(path, _MAX_LINE)


def _parse(path: Path, number: int, line: str) -> Conversation:
    place = f"{path}:{number}"
    try:
        if len(line) > _MAX_LINE:
            raise QuestionError(f"the line is longer than {_MAX_LINE} characters")
        content = json.loads(line)
        if not isinstance(content, dict) or not isinstance(content.get("image"), str):
            raise QuestionError("is no JSON object with an 'image'")
        conversation = Conversation(path.parent / content["image"], tuple(_turns(content)), number)
        check_masks(conversation)
    except (json.JSONDecodeError, RecursionError) as error:
        raise QuestionError(f"{place}: is no JSON: {error}") from error
    except (QuestionError, ImageError) as error:
        raise QuestionError(f"{place}: {error}") from error
    return conversation


def _turns(content: dict[str, Any]) -> Iterator[Turn]:
    said, masks = content.get("conversations"), content.get("masks") or []
    targets, kinds = content.get("targets") or [{}] * len(masks), content.get("kinds") or []
    if not isinstance(said, list) or not said or len(said) % 2 or len(targets) != len(masks):
        raise QuestionError("'conversations' must hold pairs of user and assistant, and 'targets' one for each mask")
    start = 0
    for index in range(0, len(said), 2):
        question, answer = _said(said[index], "user"), _said(said[index + 1], "assistant")
        end = start + answer.count(SEG)
        if end > len(masks):
            raise QuestionError(f"the answers have more {SEG} than the record has masks ({len(masks)})")
        kind = str(kinds[index // 2]) if index // 2 < len(kinds) else ""
        named = tuple(
            Target(**{str(key): str(value) for key, value in target.items()}) for target in targets[start:end]
        )
        yield Turn(checked_question(question), answer, tuple(masks[start:end]), named, kind)
        start = end
    if start != len(masks):
        raise QuestionError(f"the answers have {start} {SEG} and the record has {len(masks)} masks")


def _said(part: Any, role: str) -> str:
    if not isinstance(part, dict) or part.get("role") != role or not isinstance(part.get("content"), str):
        raise QuestionError(f"a turn of the {role} is missing, or has no text under 'content'")
    return part["content"]


def check_masks(conversation: Conversation) -> None:
    """Check that masks are of their image's size and not empty.

    Raises:
        ImageError: the image is missing or unreadable.
        QuestionError: a mask is malformed, of another size, or empty.
    """
    from pycocotools import mask as coco

    if not conversation.image.is_file():
        raise ImageError(f"the image {conversation.image} is missing")
    height, width = image_size(conversation.image)
    for mask in (mask for turn in conversation.turns for mask in turn.masks):
        if not isinstance(mask, dict) or not isinstance(mask.get("counts"), str) or "size" not in mask:
            raise QuestionError("a mask is {'size': [height, width], 'counts': text}, as COCO's compressed run lengths")
        if list(mask["size"]) != [height, width]:
            raise QuestionError(f"a mask is of {mask['size']} and its image of {[height, width]} (height, width)")
        if not int(coco.area(mask)):
            raise QuestionError(f"a mask is empty; an answer about something absent has no {SEG}")


def written(conversation: Conversation, image: str) -> dict[str, Any]:
    """A conversation as a record, its image under another name."""
    return {
        "image": image,
        "masks": [mask for turn in conversation.turns for mask in turn.masks],
        "targets": [vars(target) for turn in conversation.turns for target in turn.targets],
        "kinds": [turn.kind for turn in conversation.turns],
        "conversations": [
            {"role": role, "content": text}
            for turn in conversation.turns
            for role, text in (("user", turn.question), ("assistant", turn.answer))
        ],
    }
