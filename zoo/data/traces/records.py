"""Interleaved reasoning traces in the format of MMRad-IVL-22K (arXiv 2602.12843): records, their reader and its checks.

A record is a line of JSON: ``prompt`` and ``response`` with an ``<image>`` placeholder for each file in ``images``, the input
first. A response is steps ("First, I need to analyze ... <image> The bounding box of this area is [x0, y0, x1, y1] .
...") and a report after a fixed sentence. Boxes are in pixels of the input image.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.data.io.images import ImageError, image_size, read_image
from zoo.data.io.json_lines import mistyped_key, read_lines
from zoo.errors import ZooError, counted

IMAGE_PLACEHOLDER = "<image>"
SUMMARY = "Summarizing the previous analysis, I will generate the following report:"
BOX = re.compile(r"\s*The bounding box of this area is \[([^\]]*)\]\s*\.?\s*")
_REGION = re.compile(r"(?:analyze|examine|look at) (?:the )?(.+?)\s*$")
_MAX_LINE = 1_000_000
_KEYS = ("prompt", "response", "images", "findings", "finding_areas", "regions", "close_up")

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom exclusive."""


class RecordError(ZooError, ValueError):
    """A malformed record; the message begins with file and line."""


@dataclass(frozen=True)
class Step:
    """One step: its opening sentence, the index of its image in the record, its box, and the statement of its findings."""

    opening: str
    image: int
    box: Box | None
    statement: str

    @property
    def region(self) -> str:
        """The region that the opening names, or all of the opening."""
        match = _REGION.search(self.opening)
        return match.group(1) if match else self.opening


@dataclass(frozen=True)
class IvlRecord:
    """A trace: prompt (with its ``<image>`` placeholders), steps, report and image files.

    ``findings``, ``finding_areas`` and ``regions`` are the ground truth, where the dataset has it: (finding, side) pairs, the share
    of the image that each of them covers, and the true box of each region by name. ``close_up`` marks a record whose input is not
    a whole radiograph.
    """

    prompt: str
    steps: list[Step]
    report: str
    images: list[Path]
    line: int = 0
    findings: list[tuple[str, str]] | None = None
    regions: dict[str, Box] = field(default_factory=dict)
    finding_areas: list[float] | None = None
    close_up: bool = False

    @property
    def inputs(self) -> int:
        """Number of input images, which come first in ``images``."""
        return self.prompt.count(IMAGE_PLACEHOLDER)


def read_records(path: Path) -> list[IvlRecord]:
    """Read a JSONL file; image paths are relative to its folder.

    Raises:
        RecordError: a record is malformed; the message has file and line.
    """
    return [_parse_record(path, number, line) for number, line in _lines(path)]


def read_valid_records(path: Path) -> tuple[list[IvlRecord], list[str]]:
    """The valid records of a file, and a message on each of the others."""
    records, problems = [], []
    for number, line in _lines(path):
        try:
            record = _parse_record(path, number, line)
            check_images(record, path, decode=True)
            records.append(record)
        except RecordError as error:
            problems.append(str(error))
    return records, problems


def check_images(record: IvlRecord, path: Path, *, decode: bool = False) -> None:
    """Check that a record's images exist, and that its boxes are inside the first one, which is the input.

    Args:
        record: to check.
        path: of its file, for messages.
        decode: read every image whole, and not the size of the first alone.

    Raises:
        RecordError: an image is missing or unreadable, or a box ends outside the first image, as when the images are not in
            order.
    """
    place = f"{path}:{record.line}"
    missing = [str(image) for image in record.images if not image.is_file()]
    if missing:
        raise RecordError(f"{place}: the image {missing[0]} is missing")
    try:
        height, width = image_size(record.images[0])
        for image in record.images if decode else ():
            read_image(image)
    except ImageError as error:
        raise RecordError(f"{place}: {error}") from error
    for name, box in record.regions.items():
        if box[2] > width or box[3] > height:
            raise RecordError(
                f"{place}: the box {list(box)} of region '{name}' ends outside the image ({width}x{height})"
            )
    for box in (step.box for step in record.steps if step.box):
        if box[2] > width or box[3] > height:
            raise RecordError(
                f"{place}: the box {list(box)} ends outside the first image, {record.images[0].name} ({width}x{height}); "
                "the input image comes first in the list, then the evidence in the order of its placeholders"
            )


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    if not path.is_file():
        raise RecordError(f"{path}: there is no such file")
    return read_lines(path, _MAX_LINE)


def _parse_record(path: Path, number: int, line: bytes) -> IvlRecord:
    place = f"{path}:{number}"
    if len(line) > _MAX_LINE:
        raise RecordError(f"{place}: the line is longer than {_MAX_LINE} bytes")
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:  # not JSON, or a number of thousands of digits
        raise RecordError(f"{place}: is not JSON in UTF-8: {error}") from error
    unknown = mistyped_key(path, number, content, _KEYS) if isinstance(content, dict) else None
    problem = unknown or _shape_problem(content)
    if problem:
        raise RecordError(f"{place}: {problem}")
    try:
        return _build_record(content, path.parent, number)
    except ValueError as error:
        raise RecordError(f"{place}: {error}") from error


def _shape_problem(content: Any) -> str | None:
    if not isinstance(content, dict):
        return "is not a JSON object"
    for key in ("prompt", "response"):
        if not isinstance(content.get(key), str):
            return f"'{key}' is missing or not text"
    images = content.get("images")
    if not isinstance(images, list) or not all(isinstance(name, str) for name in images):
        return "'images' is missing or not a list of file names"
    placeholders = (content["prompt"] + content["response"]).count(IMAGE_PLACEHOLDER)
    if placeholders != len(images):
        return (
            f"{placeholders} {IMAGE_PLACEHOLDER} and {counted(len(images), 'image')}; there must be one for each image"
        )
    if IMAGE_PLACEHOLDER not in content["prompt"]:
        return f"the prompt has no {IMAGE_PLACEHOLDER}: the input image is missing"
    return None


def _build_record(content: dict[str, Any], folder: Path, number: int) -> IvlRecord:
    first = content["prompt"].count(IMAGE_PLACEHOLDER)
    steps, report = parse_response(content["response"], first)
    for step in steps:
        if BOX.search(step.statement):
            raise RecordError(f"the step '{step.region}' has more than one box; give each a step of its own")
    findings = _parse_findings(content.get("findings"))
    regions = content.get("regions") or {}
    if not isinstance(regions, dict):
        raise RecordError(f"'regions' must map names to boxes, not {regions!r:.100}")
    return IvlRecord(
        prompt=content["prompt"],
        steps=steps,
        report=report,
        images=[folder / name for name in content["images"]],
        line=number,
        findings=findings,
        regions={name: _parse_box(box) for name, box in regions.items()},
        finding_areas=_parse_areas(content.get("finding_areas"), findings),
        close_up=bool(content.get("close_up", False)),
    )


def _parse_findings(findings: Any) -> list[tuple[str, str]] | None:
    if findings is None:
        return None
    if not isinstance(findings, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair) for pair in findings
    ):
        raise RecordError(f"'findings' must be a list of [finding, side], not {findings!r:.100}")
    return [(finding, side) for finding, side in findings]


def _parse_areas(areas: Any, findings: list[tuple[str, str]] | None) -> list[float] | None:
    if areas is None:
        return None
    if not isinstance(areas, list) or not all(type(area) in (int, float) and 0 <= area <= 1 for area in areas):
        raise RecordError(f"'finding_areas' must be shares of the image from 0 to 1, not {areas!r:.100}")
    if findings is None or len(areas) != len(findings):
        raise RecordError(f"'finding_areas' must have a number for each of 'findings', not {areas!r:.100}")
    return [float(area) for area in areas]


def parse_response(response: str, first_image: int = 1) -> tuple[list[Step], str]:
    """Parse a response into steps and report; a response without images is a report.

    Args:
        response: text with ``<image>`` placeholders.
        first_image: index of the first step's image in the record's images.

    Raises:
        RecordError: a box is malformed, or steps are not followed by a report.
    """
    texts = response.split(IMAGE_PLACEHOLDER)
    body, summary, report = texts[-1].partition(SUMMARY)
    if not summary:
        if len(texts) > 1:
            raise RecordError(f"no report: the sentence '{SUMMARY}' is missing")
        return [], response.strip()
    texts[-1] = body
    openings, statements = [], []
    for position, text in enumerate(texts):
        statement, opening = (text, "") if position == len(texts) - 1 else _split_last_sentence(text)
        openings.append(opening)
        statements.append(statement)
    steps = []
    for index in range(len(texts) - 1):
        box = BOX.match(statements[index + 1])
        statement = statements[index + 1][box.end() :] if box else statements[index + 1]
        corners = _parse_box(box.group(1).split(",")) if box else None
        steps.append(Step(openings[index], first_image + index, corners, statement.strip()))
    return steps, report.strip()


def _split_last_sentence(text: str) -> tuple[str, str]:
    """The text before its last, unfinished sentence, and that sentence."""
    text = text.rstrip()
    end = max((match.end() for match in re.finditer(r"[.!?]\s+", text)), default=0)
    return text[:end], text[end:]


def _parse_box(numbers: Any) -> Box:
    try:
        left, top, right, bottom = (round(float(number)) for number in numbers)
    except (TypeError, ValueError, OverflowError):
        raise RecordError(f"a box must be [left, top, right, bottom] in pixels, not {numbers!r:.100}") from None
    if not (0 <= left < right and 0 <= top < bottom):
        raise RecordError(f"the box {[left, top, right, bottom]} is empty or begins outside the image")
    return left, top, right, bottom


def format_box(box: Box) -> str:
    """The sentence for a box in the format's wording."""
    return f"The bounding box of this area is [{', '.join(map(str, box))}] ."
