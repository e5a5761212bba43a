"""Typed predictions: each holds its image, converts to JSON and saves itself as files to look at."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from zoo.data.conversations.records import mask_phrases
from zoo.data.io.masks import RunLength, decode_masks, mask_area
from zoo.data.traces.records import Step
from zoo.decoders.evidence import EvidenceName
from zoo.errors import OutputExistsError
from zoo.visualization.figures import plot_contact_sheet, plot_probabilities
from zoo.visualization.pages import render_overlay, write_answer_page, write_trace_page

SMALL_MASK = 0.0005
"""Share of the image under which a mask is noted as small: ten pixels are no heart."""


@dataclass(frozen=True)
class Prediction(ABC):
    """A prediction for one ``image`` (1 or 3, height, width) in [0, 1], on the CPU."""

    image: torch.Tensor = field(repr=False)
    suffix: ClassVar[str] = ".png"
    """Suffix of the main file that :meth:`save` writes."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The prediction as JSON-serializable values."""

    @abstractmethod
    def _save(self, file: Path) -> None:
        """Write ``file``, which has :attr:`suffix`, and accompanying files, whose names begin with its stem."""

    def save(self, folder: Path | str, name: str = "prediction", *, overwrite: bool = False) -> Path:
        """Save the prediction as files to look at.

        Args:
            folder: created if it does not exist.
            name: with which the files' names begin.
            overwrite: replace files of this name.

        Returns:
            The main file.

        Raises:
            OutputExistsError: the file exists, and ``overwrite`` is off.
        """
        folder = Path(folder)
        file = folder / f"{name}{self.suffix}"
        if file.exists() and not overwrite:
            raise OutputExistsError(f"{file} exists; choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        self._save(file)
        return file


@dataclass(frozen=True)
class Classification(Prediction):
    """Probabilities of mutually exclusive classes.

    ``attention`` (rows, columns) is a map over the part ``attention_box`` (left, top, right, bottom) of the image, in its
    pixels; over all of it if None.
    """

    probabilities: dict[str, float] = field(default_factory=dict)
    attention: torch.Tensor | None = field(default=None, repr=False)
    attention_box: tuple[float, float, float, float] | None = field(default=None, repr=False)

    @property
    def label(self) -> str:
        """The most likely class."""
        return max(self.probabilities, key=self.probabilities.__getitem__)

    def to_dict(self) -> dict[str, Any]:
        """``class``, and ``probabilities`` in descending order."""
        ranked = dict(sorted(self.probabilities.items(), key=lambda item: -item[1]))
        return {"class": self.label, "probabilities": ranked}

    def _save(self, file: Path) -> None:
        plot_probabilities(self.image, self.to_dict()["probabilities"], file, self.attention, self.attention_box)


@dataclass(frozen=True)
class Findings(Prediction):
    """Probabilities of findings, which do not exclude one another."""

    findings: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """``findings``."""
        return {"findings": self.findings}

    def _save(self, file: Path) -> None:
        plot_probabilities(self.image, self.findings, file)


@dataclass(frozen=True)
class Segmentation(Prediction):
    """An answer to a question and its masks (COCO run lengths), one for each ``[SEG]``; ``ended`` is False if it was cut off.

    ``rejected`` holds the targets that the answer says are absent, in its words; None from a method that does not tell them.
    """

    question: str = ""
    answer: str = ""
    ended: bool = True
    masks: tuple[RunLength, ...] = field(default=(), repr=False)
    rejected: tuple[str, ...] | None = None
    suffix: ClassVar[str] = ".html"

    @property
    def labels(self) -> list[str]:
        """The phrase of the answer that each mask belongs to."""
        return mask_phrases(self.answer, len(self.masks))

    @property
    def areas(self) -> list[int]:
        """Pixels of each mask."""
        return [mask_area(mask) for mask in self.masks]

    @property
    def notes(self) -> list[str]:
        """Why a mask should not be believed: it is empty, or smaller than :data:`SMALL_MASK` of the image."""
        pixels = self.image.shape[-2] * self.image.shape[-1]
        small = [(n, area) for n, area in enumerate(self.areas, start=1) if area < SMALL_MASK * pixels]
        doubtful = "look at it before you believe it"
        return [
            f"mask {number} has {area} of {pixels} pixels: {doubtful}"
            if area
            else f"mask {number} is empty: no pixel of it"
            for number, area in small
        ]

    def to_dict(self) -> dict[str, Any]:
        """``question``, ``answer``, ``ended``, ``masks`` and their ``areas`` in pixels; ``notes``, ``rejected`` where there are any."""
        content = {"question": self.question, "answer": self.answer, "ended": self.ended, "masks": list(self.masks)}
        content |= {"areas": self.areas, **({"notes": self.notes} if self.notes else {})}
        return content if self.rejected is None else {**content, "rejected": list(self.rejected)}

    def _save(self, file: Path) -> None:
        """A page with question, answer and overlay; next to it the overlay, each mask, and the answer as JSON."""
        write_answer_page(self.image, [self.to_dict()], file)
        masks = decode_masks(self.masks, (self.image.shape[-2], self.image.shape[-1]))
        render_overlay(self.image, masks).save(file.with_name(f"{file.stem}-overlay.png"))
        for number, mask in enumerate(masks, start=1):
            pixels = (mask.numpy() * 255).astype(np.uint8)
            Image.fromarray(pixels).save(file.with_name(f"{file.stem}-mask-{number}.png"))
        text = json.dumps(self.to_dict(), indent=2) + "\n"
        file.with_name(f"{file.stem}.json").write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class NamedMasks(Prediction):
    """Masks (names, height, width) of 0 and 1, each with the name of its target."""

    names: tuple[str, ...] = ()
    masks: torch.Tensor = field(default_factory=lambda: torch.zeros(0), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """``share of the image`` that each mask covers, in descending order."""
        shares = zip(self.names, self.masks.mean(dim=(1, 2)).tolist(), strict=True)
        return {"share of the image": dict(sorted(shares, key=lambda item: -item[1]))}

    def _save(self, file: Path) -> None:
        render_overlay(self.image, self.masks).save(file)


@dataclass(frozen=True)
class Report(Prediction):
    """A report with the steps of its chain of thought.

    ``evidence`` holds images (height, width) in [0, 1] and ``evidence_ids`` their token ids; a step's ``image`` is an index
    into them, -1 if it has none. ``mode`` is the evidence mode.
    """

    report: str = ""
    steps: tuple[Step, ...] = ()
    evidence: tuple[torch.Tensor, ...] = field(default=(), repr=False)
    evidence_ids: tuple[tuple[int, ...], ...] = field(default=(), repr=False)
    mode: EvidenceName = "none"
    suffix: ClassVar[str] = ".html"

    def to_dict(self) -> dict[str, Any]:
        """``report``, ``steps`` (region, box, statement, evidence) and ``evidence_ids``."""
        steps = [
            {"region": step.region, "box": step.box, "statement": step.statement, "evidence": step.image}
            for step in self.steps
        ]
        return {"report": self.report, "steps": steps, "evidence_ids": [list(ids) for ids in self.evidence_ids]}

    def _save(self, file: Path) -> None:
        """A page: the radiograph with the box of each step, the evidence next to its statement, and the report."""
        write_trace_page(self.image, self.to_dict(), self.evidence, self.mode, file)


@dataclass(frozen=True)
class Reconstruction(Prediction):
    """A reconstruction from codes.

    ``reconstruction`` (height, width) in [-1, 1]; ``prepared`` is the same for the image that was encoded.
    """

    codes: tuple[int, ...] = field(default=(), repr=False)
    psnr: float = 0.0
    prepared: torch.Tensor = field(default_factory=lambda: torch.zeros(0), repr=False)
    reconstruction: torch.Tensor = field(default_factory=lambda: torch.zeros(0), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """``psnr`` in decibels, and ``codes``."""
        return {"psnr": self.psnr, "codes": list(self.codes)}

    def _save(self, file: Path) -> None:
        title = f"decoded from {len(self.codes)} codes, {self.psnr:.1f} dB"
        plot_contact_sheet([self.prepared.numpy(), self.reconstruction.numpy()], ["input", title], [[], []], file)


def on_cpu(images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Images as float32 on the CPU, as predictions hold them."""
    return [image.detach().float().cpu() for image in images]
