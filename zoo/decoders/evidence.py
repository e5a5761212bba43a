"""Evidence modes: what stands behind each step of an interleaved trace, in training and while generating.

One interface for the question of MMRad-IVL-22K (arXiv 2602.12843), whether a chain of thought with image evidence gives
better reports than one without. The paper compares generated images with text; the other modes are ours (reconstructed).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Literal

import torch

from zoo.constants import IGNORE_INDEX
from zoo.data.traces.records import BOX, MARK, SUMMARY, Box, IvlRecord, Step, box_text
from zoo.decoders.interleaved import ImageVocabulary

EvidenceName = Literal["generated", "crop", "box", "text", "none"]
TooLong = Literal["drop", "shorten"]
"""What becomes of a record of too many tokens: left out whole, or without its last steps."""


@dataclass(frozen=True)
class Evidence:
    """What a step holds.

    ``image``: "written" by the model, token by token; "given", the true pixels of the box that the model has named; or
    None. ``box``: whether the step names its box; before a given image, after a written one as in the official records.
    ``steps``: whether there is a chain of thought at all.
    """

    image: Literal["written", "given"] | None
    box: bool
    steps: bool = True


EVIDENCE: dict[EvidenceName, Evidence] = {
    "generated": Evidence(image="written", box=True),
    "crop": Evidence(image="given", box=True),
    "box": Evidence(image=None, box=True),
    "text": Evidence(image=None, box=False),
    "none": Evidence(image=None, box=False, steps=False),
}
"""The five modes by name."""

_OPENING = re.compile(r"\b(?:First|Next|Then|Now|Finally)\b[^.<]*?\b(?:analyze|examine|look at)\b")


def step_texts(step: Step, mode: Evidence) -> list[str]:
    """A step as texts, with ``<image>`` alone where its image stands."""
    box = [box_text(step.box)] if mode.box and step.box else []
    if mode.image == "written":
        return [step.opening, MARK, " ".join([*box, step.statement])]
    if mode.image == "given":
        return [" ".join([step.opening, *box]), MARK, step.statement]
    return [" ".join([step.opening, *(box or ["."]), step.statement])]


def last_box(text: str) -> Box | None:
    """The box that a text names last, None where it names none or it is malformed."""
    found = None
    for match in BOX.finditer(text):
        numbers = [part.strip() for part in match.group(1).split(",")]
        found = tuple(int(number) for number in numbers) if all(map(str.isdigit, numbers)) else None
    if found is None or len(found) != 4 or not (found[0] < found[2] and found[1] < found[3]):
        return None
    return found


class TraceWriter:
    """Records to token sequences under one evidence mode, and generated sequences back to steps and report."""

    def __init__(
        self, tokenizer: Any, vocabulary: ImageVocabulary, codes_an_image: int, evidence: EvidenceName
    ) -> None:
        """Write with a transformers tokenizer."""
        self.tokenizer, self.vocabulary = tokenizer, vocabulary
        self.codes_an_image, self.mode = codes_an_image, EVIDENCE[evidence]

    def text_ids(self, text: str) -> list[int]:
        """A text as ids, without marks of beginning and end."""
        return list(self.tokenizer.encode(text, add_special_tokens=False)) if text else []

    def image_block(self, image_ids: torch.Tensor) -> list[int]:
        """Ids of an image's codes (codes) between its marks."""
        return [self.vocabulary.begin, *image_ids.tolist(), self.vocabulary.end]

    def prompt(self, prompt: str, images: Sequence[torch.Tensor] | torch.Tensor) -> list[int]:
        """Beginning, prompt with its images in place, separator."""
        texts = prompt.split(MARK)
        ids = [self.vocabulary.start, *self.text_ids(texts[0].strip())]
        for text, image in zip(texts[1:], images, strict=True):
            ids += [*self.image_block(image), *self.text_ids(text.strip())]
        return [*ids, self.vocabulary.separator]

    def sequence(
        self, record: IvlRecord, images: Sequence[torch.Tensor], limit: int, too_long: TooLong = "drop"
    ) -> tuple[list[int], list[int]] | None:
        """Ids and labels of a record; labels are ``IGNORE_INDEX`` in the prompt and at the codes of given images.

        A record of more than ``limit`` tokens is left out whole, as in the official code, or loses whole steps from the end.
        Its report and stop token always stay, so one whose prompt and report alone are too long is left out in either case.

        Args:
            record: the trace.
            images: ids of each image's codes, in the record's order.
            limit: most tokens.
            too_long: what to do with a record that is longer.

        Returns:
            None for a record that is left out.
        """
        ids = self.prompt(record.prompt, images[: record.prompt.count(MARK)])
        labels = [IGNORE_INDEX] * len(ids)
        steps = [self._step(step, images) for step in record.steps] if self.mode.steps else []
        report = self._report(record)
        room = limit - len(ids) - len(report[0])
        fitting = sum(end <= room for end in accumulate(len(step) for step, _ in steps))
        if room < 0 or (fitting < len(steps) and too_long == "drop"):
            return None
        for part, learned in [*steps[:fitting], report]:
            ids += part
            labels += [token if wanted else IGNORE_INDEX for token, wanted in zip(part, learned, strict=True)]
        return ids, labels

    def _step(self, step: Step, images: Sequence[torch.Tensor] | torch.Tensor) -> tuple[list[int], list[bool]]:
        ids, learned = [], []
        for text in step_texts(step, self.mode):
            part = self.image_block(images[step.image]) if text == MARK else self.text_ids(text)
            given = text == MARK and self.mode.image == "given"
            ids += part
            learned += [True, *[False] * (len(part) - 1)] if given else [True] * len(part)
        return ids, learned

    def _report(self, record: IvlRecord) -> tuple[list[int], list[bool]]:
        text = f"{SUMMARY} {record.report}" if self.mode.steps else record.report
        ids = [*self.text_ids(text), self.vocabulary.stop]
        return ids, [True] * len(ids)

    def evidence_prompt(
        self, record: IvlRecord, index: int, images: Sequence[torch.Tensor] | torch.Tensor, evidence: torch.Tensor
    ) -> list[int]:
        """The sequence of a record up to the statement of step ``index``, with other evidence in that step's image."""
        ids = self.prompt(record.prompt, images[: record.prompt.count(MARK)])
        for step in record.steps[:index]:
            ids += self._step(step, images)[0]
        step = record.steps[index]
        before, _, after = step_texts(replace(step, statement=""), self.mode)
        return [*ids, *self.text_ids(before), *self.image_block(evidence), *self.text_ids(after.strip())]

    def read(self, ids: Sequence[int]) -> tuple[list[Step], str, list[torch.Tensor]]:
        """A generated response (ids after the separator) as steps, report and the images' ids.

        A step's ``image`` is its index in the images, -1 where it has none. What comes after the last whole step of a
        response without report is dropped with it: the report is empty then.
        """
        texts, images = self._split(ids)
        if not self.mode.steps:
            return [], " ".join(texts).strip(), images
        body, _, report = MARK.join(texts).partition(SUMMARY)
        return _steps(body), report.strip(), images

    def _split(self, ids: Sequence[int]) -> tuple[list[str], list[torch.Tensor]]:
        """Texts between whole images, and the images; a last image that is not whole is dropped."""
        texts: list[list[int]] = [[]]
        images: list[list[int]] = []
        current: list[int] = []
        inside = False
        for token in ids:
            if token == self.vocabulary.begin:
                inside, current = True, []
            elif token == self.vocabulary.end and inside:
                images.append(current)
                texts.append([])
                inside = False
            elif inside:
                current.append(token)
            elif token not in (self.vocabulary.stop, self.vocabulary.pad):
                texts[-1].append(token)
        return [self.tokenizer.decode(part) for part in texts], [torch.tensor(image) for image in images]


def _steps(body: str) -> list[Step]:
    """Steps of a generated chain of thought: each opens with a sentence that says what is looked at."""
    starts = [match.start() for match in _OPENING.finditer(body)]
    steps = []
    for start, end in pairwise([*starts, len(body)]):
        text = body[start:end]
        opening = re.split(rf"{MARK}|The bounding box|\.", text, maxsplit=1)[0].strip()
        statement = BOX.sub(" ", text[text.index(opening) + len(opening) :]).replace(MARK, " ").strip(" .")
        image = body[:start].count(MARK) if MARK in text else -1
        steps.append(Step(opening, image, last_box(text), f"{statement}." if statement else ""))
    return steps
