"""Interleaved reasoning traces in the form of MMRad-IVL-22K (arXiv 2602.12843): records, their reader and its checks.

A record is a line of JSON: ``prompt`` and ``response`` with an ``<image>`` mark for each file in ``images``, the input
first. A response is steps ("First, I need to analyze ... <image> The bounding box of this area is [x0, y0, x1, y1] .
...") and a report after a fixed sentence. Boxes are in pixels of the input image.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.data.io.images import ImageError, image_size
from zoo.data.io.json_lines import numbered_lines
from zoo.errors import ZooError

MARK = "<image>"
SUMMARY = "Summarizing the previous analysis, I will generate the following report:"
BOX = re.compile(r"\s*The bounding box of this area is \[([^\]]*)\]\s*\.?\s*")
_REGION = re.compile(r"(?:analyze|examine|look at) (?:the )?(.+?)\s*$")
_MAX_LINE = 1_000_000

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom exclusive."""


class RecordError(ZooError, ValueError):
    """A record that does not keep to the form; the message begins with file and line."""


@dataclass(frozen=True)
class Step:
    """One look: what is said before it, the index of its image in the record, its box and what is seen."""

    opening: str
    image: int
    box: Box | None
    statement: str

    @property
    def region(self) -> str:
        """The region that the opening names, or the whole opening."""
        named = _REGION.search(self.opening)
        return named.group(1) if named else self.opening


@dataclass(frozen=True)
class IvlRecord:
    """A trace: prompt (with its ``<image>`` marks), steps, report and image files.

    ``findings`` and ``regions`` are structured truth, where the data set has it: (finding, side) pairs, and the true box of
    each region by name.
    """

    prompt: str
    steps: list[Step]
    report: str
    images: list[Path]
    line: int = 0
    findings: list[tuple[str, str]] | None = None
    regions: dict[str, Box] = field(default_factory=dict)


def read_records(path: Path) -> list[IvlRecord]:
    """Read a JSONL file; image paths are relative to its folder.

    Raises:
        RecordError: naming the first line that does not keep to the form.
    """
    return [_parse(path, number, line) for number, line in _lines(path)]


def problems_in(path: Path) -> tuple[list[IvlRecord], list[str]]:
    """All usable records, and what is wrong with each of the others, a line of text each."""
    records, problems = [], []
    for number, line in _lines(path):
        try:
            record = _parse(path, number, line)
            check_images(record, path)
            records.append(record)
        except RecordError as error:
            problems.append(str(error))
    return records, problems


def check_images(record: IvlRecord, path: Path) -> None:
    """Check that a record's images are there, and that its boxes lie in the first one, which is the input.

    Raises:
        RecordError: an image is missing or unreadable, or a box ends outside the first image, as when the list is in
            another order.
    """
    place = f"{path}:{record.line}"
    missing = [str(image) for image in record.images if not image.is_file()]
    if missing:
        raise RecordError(f"{place}: the image {missing[0]} is missing")
    try:
        height, width = image_size(record.images[0])
    except ImageError as error:
        raise RecordError(f"{place}: {error}") from error
    for box in (step.box for step in record.steps if step.box):
        if box[2] > width or box[3] > height:
            raise RecordError(
                f"{place}: the box {list(box)} ends outside the first image, {record.images[0].name} ({width}x{height}); "
                "the input image comes first in the list, then the evidence in the order of its marks"
            )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    if not path.is_file():
        raise RecordError(f"{path}: there is no such file")
    return numbered_lines(path, _MAX_LINE)


def _parse(path: Path, number: int, line: str) -> IvlRecord:
    place = f"{path}:{number}"
    if len(line) > _MAX_LINE:
        raise RecordError(f"{place}: the line is longer than {_MAX_LINE} characters")
    try:
        content = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RecordError(f"{place}: is no JSON: {error}") from error
    problem = _shape_problem(content)
    if problem:
        raise RecordError(f"{place}: {problem}")
    try:
        return _record(content, path.parent, number)
    except ValueError as error:
        raise RecordError(f"{place}: {error}") from error


def _shape_problem(content: Any) -> str | None:
    if not isinstance(content, dict):
        return "is no JSON object"
    for key in ("prompt", "response"):
        if not isinstance(content.get(key), str):
            return f"'{key}' is missing or no text"
    images = content.get("images")
    if not isinstance(images, list) or not all(isinstance(name, str) for name in images):
        return "'images' is missing or no list of file names"
    marks = (content["prompt"] + content["response"]).count(MARK)
    if marks != len(images):
        return f"{marks} {MARK} marks and {len(images)} images; there must be one mark for each"
    if MARK not in content["prompt"]:
        return f"the prompt has no {MARK}: the input image is missing"
    return None


def _record(content: dict[str, Any], folder: Path, number: int) -> IvlRecord:
    first = content["prompt"].count(MARK)
    steps, report = parse_response(content["response"], first)
    findings = content.get("findings")
    return IvlRecord(
        prompt=content["prompt"],
        steps=steps,
        report=report,
        images=[folder / name for name in content["images"]],
        line=number,
        findings=None if findings is None else [(str(kind), str(side)) for kind, side in findings],
        regions={str(name): _box(box) for name, box in (content.get("regions") or {}).items()},
    )


def parse_response(response: str, first_image: int = 1) -> tuple[list[Step], str]:
    """Take a response apart into steps and report; a response without images is a report alone.

    Args:
        response: text with ``<image>`` marks.
        first_image: index of the first rationale in the record's images.

    Raises:
        RecordError: a box is malformed, or steps are not followed by a report.
    """
    texts = response.split(MARK)
    body, summary, report = texts[-1].partition(SUMMARY)
    if not summary:
        if len(texts) > 1:
            raise RecordError(f"no report: the sentence '{SUMMARY}' is missing")
        return [], response.strip()
    texts[-1] = body
    openings, seen = [], []
    for position, text in enumerate(texts):
        statement, opening = (text, "") if position == len(texts) - 1 else _last_sentence(text)
        openings.append(opening)
        seen.append(statement)
    steps = []
    for index in range(len(texts) - 1):
        box = BOX.match(seen[index + 1])
        statement = seen[index + 1][box.end() :] if box else seen[index + 1]
        corners = _box(box.group(1).split(",")) if box else None
        steps.append(Step(openings[index], first_image + index, corners, statement.strip()))
    return steps, report.strip()


def _last_sentence(text: str) -> tuple[str, str]:
    """What comes before the sentence that a text breaks off in, and that sentence."""
    text = text.rstrip()
    end = max((match.end() for match in re.finditer(r"[.!?]\s+", text)), default=0)
    return text[:end], text[end:]


def _box(numbers: Any) -> Box:
    try:
        left, top, right, bottom = (round(float(number)) for number in numbers)
    except (TypeError, ValueError, OverflowError):
        raise RecordError(f"a box is [left, top, right, bottom] in pixels, not {numbers!r}") from None
    if not (0 <= left < right and 0 <= top < bottom):
        raise RecordError(f"the box {[left, top, right, bottom]} is empty or begins outside the image")
    return left, top, right, bottom


def box_text(box: Box) -> str:
    """A box as the official sentence."""
    return f"The bounding box of this area is [{', '.join(map(str, box))}] ."
