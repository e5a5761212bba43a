"""Evidence modes: what supports each step of an interleaved trace, in training and in generation.

One interface for the question of MMRad-IVL-22K (arXiv 2602.12843): does a chain of thought with image evidence improve
reports? The paper compares generated images with text; the other modes are ours (reconstructed).
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Literal

import torch

from zoo.constants import IGNORE_INDEX
from zoo.data.traces.records import BOX, IMAGE_PLACEHOLDER, SUMMARY, Box, IvlRecord, Step, format_box
from zoo.decoders.interleaved import ImageVocabulary
from zoo.errors import ArgumentError
from zoo.language.global_context import GlobalContext

EvidenceName = Literal["generated", "crop", "box", "text", "none"]
Images = Sequence[torch.Tensor] | torch.Tensor
TooLong = Literal["drop", "shorten"]
"""What to do with a record of too many tokens: leave it out, or leave out its last steps."""


@dataclass(frozen=True)
class Evidence:
    """What a step contains.

    Attributes:
        image: "generated" by the model, token by token; "provided", the pixels of the box that the model has named; or None.
        box: whether the step names its box: before a provided image, after a generated one as in the official records.
        steps: whether there is a chain of thought at all.
    """

    image: Literal["generated", "provided"] | None
    box: bool
    steps: bool = True


EVIDENCE: dict[EvidenceName, Evidence] = {
    "generated": Evidence(image="generated", box=True),
    "crop": Evidence(image="provided", box=True),
    "box": Evidence(image=None, box=True),
    "text": Evidence(image=None, box=False),
    "none": Evidence(image=None, box=False, steps=False),
}
"""The five modes by name."""

_BOX_AT_END = re.compile(r"The bounding box of this area is \[[^\]]*\]\s*\.\s*$")
_OPENING = re.compile(r"\b(?:First|Next|Then|Now|Finally)\b[^.<]*?\b(?:analyze|examine|look at)\b")


def step_texts(step: Step, mode: Evidence) -> list[str]:
    """A step as a list of texts, with ``<image>`` in the place of its image."""
    box = [format_box(step.box)] if mode.box and step.box else []
    if mode.image == "generated":
        return [step.opening, IMAGE_PLACEHOLDER, " ".join([*box, step.statement])]
    if mode.image == "provided":
        return [" ".join([step.opening, *box]), IMAGE_PLACEHOLDER, step.statement]
    return [" ".join([step.opening, *(box or ["."]), step.statement])]


def last_box(text: str) -> Box | None:
    """The last box in a text; None if there is none or the last one is malformed."""
    box = None
    for match in BOX.finditer(text):
        numbers = [part.strip() for part in match.group(1).split(",")]
        box = tuple(int(number) for number in numbers) if all(map(str.isdigit, numbers)) else None
    if box is None or len(box) != 4 or not (box[0] < box[2] and box[1] < box[3]):
        return None
    return box


class SequenceWriter(ABC):
    """Encodes records as token sequences in one evidence mode, and parses what was generated into steps and report.

    Images are whatever represents them in the model: token ids or features.
    """

    eos_token_id: int
    separator: str = ""
    """Before each text of a response but its first."""

    def __init__(self, tokenizer: Any, evidence: EvidenceName) -> None:
        """Encode with a transformers tokenizer."""
        self.tokenizer, self.mode = tokenizer, EVIDENCE[evidence]

    @abstractmethod
    def encode_prompt(self, prompt: str, images: Images) -> list[int]:
        """Token ids of a prompt with its images in place, up to where the response begins."""

    @abstractmethod
    def image_block(self, image: torch.Tensor) -> list[int]:
        """Token ids of an image, those that delimit it included."""

    @abstractmethod
    def image_targets(self, block: list[int]) -> list[bool]:
        """Whether each token of an image's block in the response is learned."""

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        return list(self.tokenizer.encode(text, add_special_tokens=False)) if text else []

    def encode(
        self, record: IvlRecord, images: Images, max_tokens: int, too_long: TooLong = "drop"
    ) -> tuple[list[int], list[int]] | None:
        """Token ids and labels of a record; labels are ``IGNORE_INDEX`` in the prompt and in provided images.

        A record of more than ``max_tokens`` tokens is left out, as in the official code, or loses whole steps from the end.
        Its report and end-of-sequence token are never cut: a record whose prompt and report alone exceed ``max_tokens`` is
        left out in both cases.

        Args:
            record: the trace.
            images: of the record, in order.
            max_tokens: maximum length.
            too_long: what to do with a longer record.

        Returns:
            None for a record that is left out.
        """
        input_ids = self.encode_prompt(record.prompt, images[: record.inputs])
        labels = [IGNORE_INDEX] * len(input_ids)
        steps = [self._encode_step(record, index, images) for index in range(len(record.steps) * self.mode.steps)]
        report = self._encode_report(record)
        budget = max_tokens - len(input_ids) - len(report[0])
        kept = sum(end <= budget for end in accumulate(len(step) for step, _ in steps))
        if budget < 0 or (kept < len(steps) and too_long == "drop"):
            return None
        for token_ids, is_target in [*steps[:kept], report]:
            input_ids += token_ids
            labels += [token if target else IGNORE_INDEX for token, target in zip(token_ids, is_target, strict=True)]
        return input_ids, labels

    def _encode_step(self, record: IvlRecord, index: int, images: Images) -> tuple[list[int], list[bool]]:
        """Token ids of a step, and whether each is a target."""
        input_ids, is_target = [], []
        step = record.steps[index]
        for position, text in enumerate(step_texts(step, self.mode)):
            if text == IMAGE_PLACEHOLDER:
                token_ids = self.image_block(images[step.image])
                is_target += self.image_targets(token_ids)
            else:
                token_ids = self._encode_part(text, first=index == position == 0)
                is_target += [True] * len(token_ids)
            input_ids += token_ids
        return input_ids, is_target

    def _encode_part(self, text: str, *, first: bool) -> list[int]:
        return self.encode_text(text if first or not text else self.separator + text)

    def _encode_report(self, record: IvlRecord) -> tuple[list[int], list[bool]]:
        text = f"{SUMMARY} {record.report}" if self.mode.steps else record.report
        first = not (self.mode.steps and record.steps)
        input_ids = [*self._encode_part(text, first=first), self.eos_token_id]
        return input_ids, [True] * len(input_ids)

    def encode_evidence_prompt(
        self, record: IvlRecord, index: int, images: Images, evidence: torch.Tensor
    ) -> list[int]:
        """The sequence of a record up to the statement of step ``index``, whose image is replaced by ``evidence``."""
        input_ids = self.encode_prompt(record.prompt, images[: record.inputs])
        for earlier in range(index):
            input_ids += self._encode_step(record, earlier, images)[0]
        step = record.steps[index]
        prefix, _, suffix = step_texts(replace(step, statement=""), self.mode)
        opening = self._encode_part(prefix, first=index == 0)
        return [*input_ids, *opening, *self.image_block(evidence), *self._encode_part(suffix.strip(), first=False)]

    def parse(self, texts: Sequence[str]) -> tuple[list[Step], str]:
        """Parse a response, as the texts between its images, into steps and report.

        A step's ``image`` is an index into the response's images, -1 if it has none. In a response without a report, everything
        after the last complete step is dropped and the report is empty.
        """
        if not self.mode.steps:
            return [], " ".join(texts).strip()
        body, _, report = IMAGE_PLACEHOLDER.join(texts).partition(SUMMARY)
        return _parse_steps(body), report.strip()


class TraceWriter(SequenceWriter):
    """Writes the sequences of an interleaved decoder, whose images are token ids (tokens_per_image)."""

    def __init__(
        self, tokenizer: Any, vocabulary: ImageVocabulary, tokens_per_image: int, evidence: EvidenceName
    ) -> None:
        """Encode with a transformers tokenizer."""
        super().__init__(tokenizer, evidence)
        self.vocabulary, self.tokens_per_image = vocabulary, tokens_per_image
        self.eos_token_id = vocabulary.eos_token_id

    def image_block(self, image: torch.Tensor) -> list[int]:
        """Token ids of an image (tokens_per_image) between its begin-of-image and end-of-image tokens."""
        return [self.vocabulary.boi_token_id, *image.tolist(), self.vocabulary.eoi_token_id]

    def image_targets(self, block: list[int]) -> list[bool]:
        """Of a provided image, only the begin-of-image token is learned."""
        return [True, *[self.mode.image != "provided"] * (len(block) - 1)]

    def encode_prompt(self, prompt: str, images: Images) -> list[int]:
        """Begin-of-sequence token, prompt with its images in place, separator."""
        first, *texts = prompt.split(IMAGE_PLACEHOLDER)
        input_ids = [self.vocabulary.bos_token_id, *self.encode_text(first.strip())]
        for text, image_ids in zip(texts, images, strict=True):
            input_ids += [*self.image_block(image_ids), *self.encode_text(text.strip())]
        return [*input_ids, self.vocabulary.sep_token_id]

    def split(self, generated_ids: Sequence[int]) -> tuple[list[str], list[torch.Tensor]]:
        """Split a response (ids after the separator) into the texts between its images, for :meth:`parse`, and the images' token ids.

        An incomplete last image is dropped.
        """
        texts: list[list[int]] = [[]]
        images: list[list[int]] = []
        current: list[int] = []
        inside = False
        for token in generated_ids:
            if token == self.vocabulary.boi_token_id:
                inside, current = True, []
            elif token == self.vocabulary.eoi_token_id and inside:
                images.append(current)
                texts.append([])
                inside = False
            elif inside:
                current.append(token)
            elif token not in (self.vocabulary.eos_token_id, self.vocabulary.pad_token_id):
                texts[-1].append(token)
        return [self.tokenizer.decode(token_ids) for token_ids in texts], [torch.tensor(image) for image in images]


class VisionLanguageWriter(SequenceWriter):
    """Writes the sequences of a vision-language model, whose images are placeholders for their features.

    A step's image follows the sentence with its box, and no token of it is learned.
    """

    separator = " "

    def __init__(self, context: GlobalContext, evidence: EvidenceName) -> None:
        """Encode for a model."""
        super().__init__(context.tokenizer, evidence)
        self._context, self.eos_token_id = context, context.eos_token_id

    def image_block(self, image: Any) -> list[int]:
        """Placeholders of an image, whatever it shows, between the tokens that the model delimits images by."""
        return self._context.image_block(self._context.tokens_per_image)

    def image_targets(self, block: list[int]) -> list[bool]:
        """None is learned."""
        return [False] * len(block)

    def encode_prompt(self, prompt: str, images: Images) -> list[int]:
        """The prompt in the model's chat template, its image first.

        Raises:
            ArgumentError: the prompt does not have one image.
        """
        if prompt.count(IMAGE_PLACEHOLDER) != 1:
            raise ArgumentError(f"a prompt must have one {IMAGE_PLACEHOLDER} for a vision-language model: {prompt!r}")
        question = " ".join(prompt.replace(IMAGE_PLACEHOLDER, " ").split())
        return self._context.tokenize([(question, None)], self._context.tokens_per_image)[0]

    def is_image_due(self, text: str) -> bool:
        """Whether an image follows a text since the last image: it ends with the sentence that names a box."""
        return self.mode.image == "provided" and _BOX_AT_END.search(text) is not None


def _parse_steps(body: str) -> list[Step]:
    """Steps of a generated chain of thought; each opens with a sentence that names the region to examine."""
    starts = [match.start() for match in _OPENING.finditer(body)]
    steps = []
    for start, end in pairwise([*starts, len(body)]):
        text = body[start:end]
        opening = re.split(rf"{IMAGE_PLACEHOLDER}|The bounding box|\.", text, maxsplit=1)[0].strip()
        statement = BOX.sub(" ", text[text.index(opening) + len(opening) :]).replace(IMAGE_PLACEHOLDER, " ").strip(" .")
        image = body[:start].count(IMAGE_PLACEHOLDER) if IMAGE_PLACEHOLDER in text else -1
        steps.append(Step(opening, image, last_box(text), f"{statement}." if statement else ""))
    return steps
