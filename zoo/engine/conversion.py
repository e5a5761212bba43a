"""``zoo data convert``: the annotated images of any public form as files of conversations or traces, reviewed by a person."""

import csv
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zoo.config.building import resolve
from zoo.config.recipe import COMMAND_LINE, parse_overrides
from zoo.data.annotations.base import AnnotationSource
from zoo.data.base import LoaderSpec
from zoo.data.conversations.annotated import AnnotatedMasks, Boxes
from zoo.data.conversations.records import Conversation, QuestionError, Turn, read_conversations, to_record
from zoo.data.io.tables import SPLITS, read_table
from zoo.data.traces.annotated import PROMPT, AnnotatedTraces, Prompts, prompt_of, response_text
from zoo.data.traces.annotated import to_record as to_trace
from zoo.data.traces.records import IvlRecord
from zoo.engine.rewriting import Rewriter
from zoo.errors import OutputExistsError
from zoo.files import replacing

REVIEW = "review.csv"
DRAFTS = "drafts"
_COLUMNS = ("accept", "split", "line", "turn", "image", "kind", "target", "question", "answer")
_YES, _NO = ("yes", "y", "1", "true", "x"), ("", "no", "n", "0", "false")


@dataclass(frozen=True)
class Conversion:
    """What was written: files by split with their number of records, and the table to review, if there is one."""

    counts: dict[str, int]
    folder: Path
    review: Path | None = None
    kept: int = 0
    """Turns that a rewriter left as they were."""


def build_source(name: str, settings: Iterable[str]) -> AnnotationSource:
    """An annotation source from ``key=value`` settings.

    Raises:
        RecipeError: unknown form or argument.
    """
    node = {"name": name, **parse_overrides(list(settings))}
    source: AnnotationSource = resolve("annotation_source", node, "annotations", COMMAND_LINE).build()
    return source


def convert_to_conversations(
    source: AnnotationSource,
    out: Path,
    *,
    questions: Path | None = None,
    absent: int = 0,
    boxes: Boxes = "fill",
    seed: int = 0,
    rewriter: Rewriter | None = None,
    review: bool = False,
) -> Conversion:
    """Write ``train.jsonl``, ``val.jsonl`` and ``test.jsonl`` of conversations with masks, or drafts with a table to review.

    Args:
        source: of annotated images.
        out: folder, empty or new.
        questions: file of templates; the default ones if None.
        absent: questions about absent findings an image.
        boxes: "fill" or "ignore"; see :class:`~zoo.data.conversations.annotated.AnnotatedMasks`.
        seed: picks templates, and divides a source without splits.
        rewriter: words each turn anew; None leaves the templates' words.
        review: write drafts and :data:`REVIEW`, in which a person accepts turns; :func:`accept` makes the files of them.

    Raises:
        AnnotationError: the source has problems.
        OutputExistsError: ``out`` has files already.
        EndpointError: the rewriter's endpoint does not reply; what it replied before is kept, and used by the next run.
    """
    _check_empty(out)
    data = AnnotatedMasks(source, str(questions) if questions else None, boxes, absent, LoaderSpec(seed=seed))
    folder = out / DRAFTS if review else out
    counts = {}
    for split in SPLITS:
        conversations = (data.conversation(split, index) for index in range(len(data.listed[split])))
        reworded = (_reworded(item, rewriter) for item in _track(conversations, len(data.listed[split]), split))
        records = (to_record(item, _relative(item.image, folder)) for item in reworded)
        counts[split] = write_lines(folder / f"{split}.jsonl", records)
    table = write_review(out) if review else None
    return Conversion(counts, out, table, rewriter.kept if rewriter else 0)


def _reworded(conversation: Conversation, rewriter: Rewriter | None) -> Conversation:
    if rewriter is None:
        return conversation
    return replace(conversation, turns=tuple(map(rewriter.rewrite, conversation.turns)))


def write_review(out: Path) -> Path:
    """Write the table of the drafts' turns, none of them accepted; spreadsheets open it."""
    file = out / REVIEW
    with file.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.writer(stream)
        writer.writerow(_COLUMNS)
        for split in SPLITS:
            for conversation in _drafts(out, split):
                for number, turn in enumerate(conversation.turns, start=1):
                    targets = ", ".join(target.name for target in turn.targets)
                    cells = (conversation.image.name, turn.kind, targets, turn.question, turn.answer)
                    writer.writerow(["", split, conversation.line, number, *cells])
    return file


def accept(out: Path, everything_else: bool = False) -> Conversion:
    """Write the accepted turns of reviewed drafts as ``train.jsonl``, ``val.jsonl`` and ``test.jsonl``.

    Words of the question and the answer may have been changed in the table; masks are those of the drafts.

    Args:
        out: folder of a conversion with ``review``.
        everything_else: accept rows whose ``accept`` is blank too, so that only those to reject are marked "no".

    Raises:
        QuestionError: the table has another form, or a changed answer another number of ``[SEG]``.
        OutputExistsError: the files are there already.
    """
    for split in SPLITS:
        if (out / f"{split}.jsonl").exists():
            raise OutputExistsError(f"{out / f'{split}.jsonl'} exists; move it away to accept again")
    rows = _reviewed(out / REVIEW, everything_else)
    counts = {}
    for split in SPLITS:
        records = (
            to_record(replace(item, turns=turns), _relative(item.image, out))
            for item in _drafts(out, split)
            if (turns := tuple(_accepted(item, split, rows)))
        )
        counts[split] = write_lines(out / f"{split}.jsonl", records)
    return Conversion(counts, out)


def _reviewed(table: Path, everything_else: bool) -> dict[tuple[str, str, str], tuple[str, str, str]]:
    """Place, question and answer of the accepted rows, by split, line and turn."""
    rows = {}
    for line, row in read_table(table, _COLUMNS):
        answer = row["accept"].lower()
        if answer not in (*_YES, *_NO):
            raise QuestionError(f"{table}: line {line}: accept is '{row['accept']}'; write yes or no")
        if answer in _YES or (everything_else and not answer):
            rows[row["split"], row["line"], row["turn"]] = f"{table}: line {line}", row["question"], row["answer"]
    return rows


def _accepted(
    conversation: Conversation, split: str, rows: dict[tuple[str, str, str], tuple[str, str, str]]
) -> Iterator[Turn]:
    for number, turn in enumerate(conversation.turns, start=1):
        row = rows.get((split, str(conversation.line), str(number)))
        if row is None:
            continue
        place, question, answer = row
        if answer.count("[SEG]") != len(turn.masks):
            raise QuestionError(f"{place}: the answer needs {len(turn.masks)} [SEG], one for each mask")
        yield replace(turn, question=question, answer=answer)


def _drafts(out: Path, split: str) -> list[Conversation]:
    return read_conversations(out / DRAFTS / f"{split}.jsonl")


def convert_to_traces(
    source: AnnotationSource,
    out: Path,
    *,
    prompts: Prompts = "report",
    prompt: str = PROMPT,
    max_steps: int = 8,
    seed: int = 0,
) -> Conversion:
    """Write ``train.jsonl``, ``val.jsonl`` and ``test.jsonl`` of traces, and the crops of their boxes beside them.

    Args:
        source: of annotated images with reports.
        out: folder, empty or new.
        prompts: "report", or "question" where images have questions.
        prompt: the request for a report.
        max_steps: steps of a trace at most.
        seed: divides a source without splits.

    Raises:
        AnnotationError: the source has problems.
        OutputExistsError: ``out`` has files already.
    """
    _check_empty(out)
    data = AnnotatedTraces(source, prompts, prompt, max_steps, loader=LoaderSpec(seed=seed))
    counts = {}
    for split in SPLITS:
        images = [image for image in data.images[split] if image.report]
        records = (
            _trace_line(to_trace(image, prompt_of(image, data.prompts, prompt), out / "crops", max_steps), out)
            for image in _track(images, len(images), split)
        )
        counts[split] = write_lines(out / f"{split}.jsonl", records)
    return Conversion(counts, out)


def _trace_line(record: IvlRecord, out: Path) -> dict[str, Any]:
    line: dict[str, Any] = {
        "prompt": record.prompt,
        "response": response_text(record),
        "images": [_relative(path, out) for path in record.images],
    }
    if record.findings is not None:
        line["findings"] = record.findings
    return line | ({"regions": record.regions} if record.regions else {})


def write_lines(file: Path, records: Iterable[dict[str, Any]]) -> int:
    """Write JSON Lines, complete or not at all; returns the number of records."""
    file.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with replacing(file) as partial, partial.open("w", encoding="utf-8") as stream:
        for record in records:
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    return count


def _check_empty(out: Path) -> None:
    taken = [name for name in (*(f"{split}.jsonl" for split in SPLITS), DRAFTS, REVIEW) if (out / name).exists()]
    if taken:
        raise OutputExistsError(f"{out / taken[0]} exists; choose another folder with --out")


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def _track(items: Iterable[Any], total: int, split: str) -> Iterable[Any]:
    from rich.progress import track

    return track(items, description=split, total=total, transient=True)
