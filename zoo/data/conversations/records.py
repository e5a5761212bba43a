"""Questions about an image that are answered in words and masks: records after MedSeg-QA (MedSeg-R, arXiv 2506.10465).

The files of MedSeg-QA are not public; the record format here is ours (reconstructed): a line of JSON with ``image``, ``masks``
(COCO run lengths) and ``conversations`` of user and assistant turns, where each ``[SEG]`` in an answer stands for the next
mask. An answer without ``[SEG]`` means that there is nothing to segment; ``[REJ]`` in an answer says of which target. An
assistant turn with ``"wrong": true``, the last of its conversation, affirms what is absent: its ``[SEG]`` have no masks. The
formats of LISA and COCO are read by :mod:`zoo.data.conversations.formats`.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from zoo.data.io.images import ImageError, image_size
from zoo.data.io.json_lines import mistyped_key, read_lines
from zoo.data.io.masks import MaskError, RunLength, check_run_length, mask_area
from zoo.data.vocabulary import label_name
from zoo.errors import ZooError, counted

SEG = "[SEG]"
REJ = "[REJ]"
"""In an answer, stands for a target that was asked for and is absent (GSVA, arXiv 2312.10103)."""
VETO = "(no sign of it)"
"""What stands in an answer for a ``[SEG]`` that was vetoed, or whose mask is empty."""
MAX_QUESTION = 2_000
"""Maximum number of characters of a question."""
_MAX_LINE = 20_000_000
_KEYS = ("image", "masks", "conversations", "targets", "kinds")
_MESSAGE_KEYS = ("role", "content", "wrong")


class QuestionError(ZooError, ValueError):
    """A malformed record or question; for a file, the message begins with file and line."""


@dataclass(frozen=True)
class Target:
    """The finding or region that a mask is of, its side and zone; empty where unknown."""

    finding: str = ""
    side: str = ""
    zone: str = ""

    @property
    def name(self) -> str:
        """The target in words: "left pleural effusion"."""
        return label_name(self.finding, self.side)


@dataclass(frozen=True)
class Turn:
    """One question with its answer. ``masks`` are those of the answer's ``[SEG]``, in order; ``kind`` groups metrics.

    A ``wrong`` answer affirms what is absent. Its words are not learned; that its targets are absent is.
    """

    question: str
    answer: str
    masks: tuple[RunLength, ...] = field(default=(), repr=False)
    targets: tuple[Target, ...] = ()
    kind: str = ""
    wrong: bool = field(default=False, repr=False)


@dataclass(frozen=True)
class Conversation:
    """Turns about one image."""

    image: Path
    turns: tuple[Turn, ...]
    line: int = 0


def mask_phrases(answer: str, count: int) -> list[str]:
    """The phrase for each of ``count`` masks in an answer: the words before its ``[SEG]``, in their sentence or list."""
    parts = (re.split(r"[.:]\s", part.strip(" .,;:"))[-1] for part in answer.split(SEG)[:-1])
    phrases = [part.removeprefix("and ") for part in parts]
    return (phrases + [""] * count)[:count]


def rejected_phrases(answer: str) -> list[str]:
    """The words before each ``[REJ]`` or :data:`VETO` of an answer, in their sentence or list: the targets that are rejected."""
    parts = re.split(f"{re.escape(REJ)}|{re.escape(VETO)}", answer)[:-1]
    parts = [re.split(r"[.:,;]\s", part.split(SEG)[-1].strip(" .,;:"))[-1] for part in parts]
    return [part.removeprefix("and ") for part in parts]


def with_rejection(answer: str) -> str:
    """An answer with ``[REJ]`` before its last full stop, if it has neither ``[SEG]`` nor ``[REJ]``: it denies what was asked for."""
    if SEG in answer or REJ in answer:
        return answer
    text = answer.strip()
    return f"{text.removesuffix('.')} {REJ}{'.' * text.endswith('.')}".lstrip()


def without_rejection(answer: str) -> str:
    """An answer as it is read: without ``[REJ]``."""
    return re.sub(rf"\s*{re.escape(REJ)}", "", answer)


def validate_question(text: str) -> str:
    """A question with its white space normalised.

    Raises:
        QuestionError: it is empty, too long, or contains ``[SEG]`` or ``[REJ]``, which only answers may.
    """
    question = " ".join(text.split())
    if not question:
        raise QuestionError("the question is empty")
    if len(question) > MAX_QUESTION:
        raise QuestionError(f"the question has {len(question)} characters; the maximum is {MAX_QUESTION}")
    if SEG in question:
        raise QuestionError(f"the question contains {SEG}, which stands for a mask in answers only")
    if REJ in question:
        raise QuestionError(f"the question contains {REJ}, which stands for an absent target in answers only")
    return question


def read_conversations(path: Path) -> list[Conversation]:
    """Read a JSONL file; image paths are relative to its folder.

    Raises:
        QuestionError: a record is malformed, or its image or a mask is; the message has file and line.
    """
    return [_parse(path, number, line) for number, line in _lines(path)]


def read_valid_conversations(path: Path) -> tuple[list[Conversation], list[str]]:
    """The valid records of a file, and a message on each of the others.

    Raises:
        QuestionError: there is no such file.
    """
    conversations, problems = [], []
    for number, line in _lines(path):
        try:
            conversations.append(_parse(path, number, line))
        except QuestionError as error:
            problems.append(str(error))
    return conversations, problems


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    if not path.is_file():
        raise QuestionError(f"{path}: there is no such file")
    return read_lines(path, _MAX_LINE)


def _parse(path: Path, number: int, line: bytes) -> Conversation:
    place = f"{path}:{number}"
    try:
        if len(line) > _MAX_LINE:
            raise QuestionError(f"the line is longer than {_MAX_LINE} bytes")
        content = json.loads(line)
        if isinstance(content, dict) and (problem := _key_problem(path, number, content)):
            raise QuestionError(problem)
        if not isinstance(content, dict) or not isinstance(content.get("image"), str):
            raise QuestionError("is not a JSON object with an 'image'")
        conversation = Conversation(path.parent / content["image"], tuple(_turns(content)), number)
        check_masks(conversation)
    except ZooError as error:
        raise QuestionError(f"{place}: {error}") from error
    except (ValueError, RecursionError) as error:  # not JSON, or a number of thousands of digits
        raise QuestionError(f"{place}: is not JSON in UTF-8: {error}") from error
    return conversation


def _key_problem(path: Path, number: int, content: dict[str, Any]) -> str | None:
    """What is wrong with the keys of a record and of its messages."""
    messages = content.get("conversations")
    listed = [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []
    problems = (mistyped_key(path, number, message, _MESSAGE_KEYS) for message in listed)
    return mistyped_key(path, number, content, _KEYS) or next(filter(None, problems), None)


def _turns(content: dict[str, Any]) -> Iterator[Turn]:
    messages, masks, kinds = (_list_of(content, key) for key in ("conversations", "masks", "kinds"))
    targets = [_target(target) for target in _list_of(content, "targets") or [{}] * len(masks)]
    if not messages or len(messages) % 2 or len(targets) != len(masks):
        raise QuestionError("'conversations' must hold pairs of user and assistant, and 'targets' one for each mask")
    start = 0
    for index in range(0, len(messages), 2):
        question, answer = _content(messages[index], "user"), _content(messages[index + 1], "assistant")
        wrong = messages[index + 1].get("wrong") is True
        if wrong and index + 2 < len(messages):
            raise QuestionError("an answer that is marked as wrong must be the last of its conversation")
        end = start + (0 if wrong else answer.count(SEG))
        if end > len(masks):
            raise QuestionError(f"the answers have more {SEG} than the record has masks ({len(masks)})")
        kind = str(kinds[index // 2]) if index // 2 < len(kinds) else ""
        yield Turn(validate_question(question), answer, tuple(masks[start:end]), tuple(targets[start:end]), kind, wrong)
        start = end
    if start != len(masks):
        raise QuestionError(f"the answers have {start} {SEG} and the record has {counted(len(masks), 'mask')}")


def _list_of(content: dict[str, Any], key: str) -> list[Any]:
    value = content.get(key)
    if value is not None and not isinstance(value, list):
        raise QuestionError(f"'{key}' must be a list, not {value!r:.100}")
    return value or []


def _target(content: Any) -> Target:
    names = [item.name for item in fields(Target)]
    if not isinstance(content, dict) or not content.keys() <= set(names):
        raise QuestionError(f"a target must be an object with {', '.join(names)}, not {content!r:.100}")
    return Target(**{key: str(value) for key, value in content.items()})


def _content(message: Any, role: str) -> str:
    if not isinstance(message, dict) or message.get("role") != role or not isinstance(message.get("content"), str):
        raise QuestionError(f"a message of the {role} is missing, or has no text under 'content'")
    return message["content"]


def check_masks(conversation: Conversation) -> None:
    """Check that masks have the size of their image and are not empty.

    Raises:
        ImageError: the image is missing or unreadable.
        QuestionError: a mask is malformed, of another size, or empty.
    """
    if not conversation.image.is_file():
        raise ImageError(f"the image {conversation.image} is missing")
    size = image_size(conversation.image)
    for mask in (mask for turn in conversation.turns for mask in turn.masks):
        try:
            area = mask_area(check_run_length(mask, size))
        except MaskError as error:
            raise QuestionError(str(error)) from error
        if not area:
            raise QuestionError(f"a mask is empty; an answer about an absent target has no {SEG}")


def to_record(conversation: Conversation, image: str) -> dict[str, Any]:
    """A conversation as a record for a JSONL file.

    Args:
        conversation: to write.
        image: path of the image, relative to the file.
    """
    return {
        "image": image,
        "masks": [mask for turn in conversation.turns for mask in turn.masks],
        "targets": [vars(target) for turn in conversation.turns for target in turn.targets],
        "kinds": [turn.kind for turn in conversation.turns],
        "conversations": [
            message
            for turn in conversation.turns
            for message in (
                {"role": "user", "content": turn.question},
                {"role": "assistant", "content": turn.answer, **({"wrong": True} if turn.wrong else {})},
            )
        ],
    }
