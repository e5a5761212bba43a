"""The base of methods that write a report after a chain of thought: traces, evaluation and predictions.

The evidence modes other than ``generated`` and evidence reliance are ours (reconstructed).
"""

import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn

from zoo.data.io.images import image_size
from zoo.data.traces.box_frames import BoxFrame, BoxFrameName
from zoo.data.traces.datasets import TraceData
from zoo.data.traces.records import IMAGE_PLACEHOLDER, SUMMARY, IvlRecord
from zoo.data.traces.tokens import TraceTokens
from zoo.data.vocabulary import ReportLabeler
from zoo.decoders.evidence import EvidenceName, SequenceWriter, TooLong
from zoo.errors import ArgumentError
from zoo.methods.base import LossModule, Metric, Outputs
from zoo.methods.predictions import Report, on_cpu
from zoo.metrics.clinical import ReportMetric, ReportMetricSpec, Summary, build_report_metrics, summaries_of
from zoo.metrics.reports import (
    bleu_columns,
    box_iou,
    cider,
    corpus_bleu,
    f1,
    f1_of_sizes,
    impression_agreement,
    label_rows,
    macro_f1,
    repeats_sentence,
    rouge_l,
)
from zoo.precision import BasePrecision

PROMPT = f"Write a report for this chest radiograph. {IMAGE_PLACEHOLDER}"
SIZES = {"small": (0.0, 0.01), "medium": (0.01, 0.05), "large": (0.05, 1.01)}
"""Sizes of findings, as ranges of the share of the image that a finding covers."""
_REPORT_TOKENS = 160


class Swap(NamedTuple):
    """A step of a record, the record's images, and another patient's evidence to replace that of the step by."""

    record: IvlRecord
    step: int
    images: Sequence[torch.Tensor]
    other: torch.Tensor


class ReportGeneration(LossModule):
    """A method that writes steps and a report in one evidence mode; a subclass defines how it reads and generates."""

    task: ClassVar[str] = "image-to-text"
    input_format: ClassVar[str] = "image (1 or 3, height, width) float32 in [0, 1], any size, and a prompt with <image>"
    output_format: ClassVar[str] = "steps (region, box, evidence image, statement) and a report"
    intended_use: ClassVar[str] = "Research on chains of thought with and without image evidence."
    uniform_steps: ClassVar[bool] = True
    reads_images: bool = False
    """Whether encoded images are left out of the cache of tokens; see :class:`zoo.data.traces.tokens.TraceCodec`."""

    drop_repeats: bool = False
    """Whether a generated report is without the sentences that it repeats."""

    writer: SequenceWriter
    tokenizer: Any
    pad_token_id: int
    on_reports: Callable[[dict[str, Any], list[dict[str, Any]], Outputs], None] | None = None
    """Called in evaluation with each batch, what :meth:`generate` wrote for it, and the rows of ``report_metrics``."""

    def __init__(
        self,
        evidence: EvidenceName,
        prompt: str,
        box_frame: BoxFrameName,
        max_tokens: int,
        too_long: TooLong,
        max_images: int,
        report_metrics: list[ReportMetricSpec] | None,
        base_precision: BasePrecision | None,
    ) -> None:
        """Set what all such methods have; see their arguments."""
        super().__init__()
        self.base_precision = base_precision
        self.evidence, self.prompt, self.max_images = evidence, prompt, max_images
        self.box_frame = BoxFrame(box_frame)
        self.max_tokens, self.too_long = max_tokens, too_long
        self.report_metrics: dict[str, ReportMetric] = build_report_metrics(report_metrics or [])

    # Defined by subclasses.

    @property
    @abstractmethod
    def image_encoder(self) -> nn.Module:
        """What encodes images when the traces are tokenized."""

    @abstractmethod
    def image_fingerprint(self) -> str:
        """See :class:`zoo.data.traces.tokens.TraceCodec`."""

    @abstractmethod
    def sequence_fingerprint(self) -> str:
        """See :class:`zoo.data.traces.tokens.TraceCodec`."""

    @abstractmethod
    def encode_images(self, images: list[torch.Tensor], whole: Sequence[bool]) -> torch.Tensor:
        """See :class:`zoo.data.traces.tokens.TraceCodec`."""

    @abstractmethod
    def encode_record(self, record: IvlRecord, images: Sequence[torch.Tensor]) -> TraceTokens | None:
        """See :class:`zoo.data.traces.tokens.TraceCodec`."""

    @abstractmethod
    def generate(self, images: Sequence[torch.Tensor], prompts: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Generate ``steps``, ``report``, ``response`` and ``images`` (the evidence) for radiographs; the method's ``prompt`` if None."""

    @abstractmethod
    def swapped_statements(self, swaps: Sequence[Swap]) -> list[tuple[set[str], set[str]]]:
        """Findings stated at each step with its own evidence, and with the other patient's; see :meth:`findings_in`."""

    @abstractmethod
    def report_of(self, image: torch.Tensor, outputs: dict[str, Any]) -> Report:
        """The prediction of an item of :meth:`generate` for an image (1 or 3, height, width), which is on the CPU."""

    def setup(self, stage: str) -> None:
        """Tokenize the traces for training, once, on the trainer's device; the first process fills the cache.

        Raises:
            ArgumentError: the dataset has no traces.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is not None and not isinstance(data, TraceData):
            raise ArgumentError(f"{type(data).__name__} has no traces; use a dataset that does, such as ivl_jsonl")
        super().setup(stage)
        for metric in self.report_metrics.values() if stage == "test" else ():
            for name in ("check", "prepare"):  # what is missing is said before reports are generated
                getattr(metric, name, lambda: None)()
        if data is None or stage not in ("fit", "validate"):
            return
        strategy = self.trainer.strategy
        nn.Module.to(self.image_encoder, strategy.root_device)
        if not strategy.is_global_zero:
            strategy.barrier("tokenized")
        data.tokenize(self)
        if strategy.is_global_zero:
            strategy.barrier("tokenized")

    def prepare_record(self, record: IvlRecord) -> IvlRecord:
        """See :class:`zoo.data.traces.tokens.TraceCodec`; the record itself, where a model sees its whole images."""
        return record

    def prepare_image(self, image: torch.Tensor, whole: bool) -> torch.Tensor:
        """See :class:`zoo.data.traces.tokens.TraceCodec`; needed only where :attr:`reads_images`."""
        raise NotImplementedError

    def with_text_boxes(self, record: IvlRecord, film: torch.Tensor | None = None) -> IvlRecord:
        """A record with its boxes in the frame of the text, as the writer takes it.

        Args:
            record: with boxes in pixels of its first image.
            film: that image (channels, height, width); its size is read from its file if None.

        Raises:
            ArgumentError: the tokenizer does not know the numbers of a box.
        """
        if not (self.writer.mode.box and any(step.box for step in record.steps)):
            return record
        if self.box_frame.side != "pixels":
            height, width = image_size(record.images[0]) if film is None else film.shape[-2:]
            record = self.box_frame.record_to_text(record, (height, width))
        unknown = getattr(self.tokenizer, "unk_token_id", None)
        for box in (step.box for step in record.steps if step.box):
            if unknown is not None and unknown in self.writer.encode_text(" ".join(map(str, box))):
                raise ArgumentError(
                    f"the tokenizer does not know the numbers of the box {list(box)}; set method.box_frame to the frame that its "
                    f"words were made for (data.image_size of chest_drr_ivl); it is {self.box_frame.side}"
                )
        return record

    def parsed(self, texts: Sequence[str], image: torch.Tensor) -> dict[str, Any]:
        """Steps, with boxes in the image's pixels, report and the whole response, of the texts between its images."""
        steps, report = self.writer.parse(texts)
        return {
            "steps": self.box_frame.steps_to_pixels(steps, (image.shape[-2], image.shape[-1])),
            "report": without_repeats(report) if self.drop_repeats else report,
            "response": IMAGE_PLACEHOLDER.join(texts).strip(),
        }

    def evaluation_step(self, batch: dict[str, Any]) -> Outputs:
        """Columns for the metrics: report scores, findings and their sizes, boxes, evidence reliance."""
        records: list[IvlRecord] = batch["record"]
        predictions = self.generate([images[0] for images in batch["images"]], [record.prompt for record in records])
        reports, references = [item["report"] for item in predictions], [record.report for record in records]
        outputs = {
            "bleu": bleu_columns(reports, references),
            "rouge_l": rouge_l(reports, references),
            "report_ids": self._padded_ids(reports),
            "reference_ids": self._padded_ids(references),
            "repeats": repeats_sentence(reports),
            "overlap": torch.tensor(
                [_box_overlap(item["steps"], record) for item, record in zip(predictions, records, strict=True)]
            ),
        }
        if self.labeler is not None:
            outputs |= _label_columns(self.labeler, reports, records)
            outputs["agreement"] = impression_agreement(reports, self.labeler)
            if self.writer.mode.steps:
                found = [self.labeler.label(" ".join(step.statement for step in item["steps"])) for item in predictions]
                outputs["stated_in_steps"] = label_rows(found, self.labeler.labels)
        if self.writer.mode.image is not None:
            outputs["changed"] = torch.tensor(self.evidence_changes(batch))
        missing = torch.tensor([not report for report in reports])
        scores = {name: metric(reports, references) for name, metric in self.report_metrics.items()}
        # What was not written scores 0, whatever a model says of an empty text; labels (n, ...) of it are the metric's own.
        scores = {
            name: row.masked_fill(missing.to(row.device), 0) if row.ndim == 1 else row for name, row in scores.items()
        }
        if self.on_reports is not None:
            self.on_reports(batch, predictions, scores)
        return outputs | scores

    def _padded_ids(self, texts: Sequence[str]) -> torch.Tensor:
        """Token ids of texts, cut or padded to one length, so that the outputs keep the texts."""
        rows = [self.writer.encode_text(text)[:_REPORT_TOKENS] for text in texts]
        return torch.tensor([row + [self.pad_token_id] * (_REPORT_TOKENS - len(row)) for row in rows])

    def complete_outputs(self, outputs: Outputs) -> Outputs:
        """Add CIDEr, whose document frequencies are those of all references."""
        texts = [
            self.tokenizer.batch_decode(
                [[token for token in row if token != self.pad_token_id] for row in outputs[name].tolist()]
            )
            for name in ("report_ids", "reference_ids")
        ]
        return {**outputs, "cider": cider(*texts)}

    def evidence_changes(self, batch: dict[str, Any]) -> list[float]:
        """Whether another patient's evidence changes the findings stated at a step: 1, 0, or NaN for a record without a swap."""
        swapped = [index for index, swap in enumerate(batch["swap"]) if swap is not None]
        changes = [float("nan")] * len(batch["swap"])
        if swapped:
            swaps = [
                Swap(batch["record"][i], batch["swap"][i][0], batch["images"][i], batch["swap"][i][1]) for i in swapped
            ]
            for index, (own, other) in zip(swapped, self.swapped_statements(swaps), strict=True):
                changes[index] = float(own != other)
        return changes

    def findings_in(self, text: str) -> set[str]:
        """Names of the findings in the statement that a text begins with; the statement if there is no labeler."""
        statement = text.split(SUMMARY)[0].split("Next,")[0]
        return {statement} if self.labeler is None else {finding for finding, _ in self.labeler.label(statement)}

    def metrics(self) -> dict[str, Metric]:
        """Report metrics; clinical F1 if the dataset has a labeler; mean IoU of boxes and evidence reliance by evidence mode.

        ``clinical_f1_SIZE`` are over the findings of a range of :data:`SIZES`, where records have areas; ``clinical_f1_steps`` is of
        what the steps state.
        """
        metrics: dict[str, Metric] = {}
        if self.labeler is not None:
            metrics["clinical_f1"] = lambda o: f1(o["stated"], o["truth"])
            metrics["clinical_macro_f1"] = lambda o: macro_f1(o["stated"], o["truth"])
            metrics |= {f"clinical_f1_{name}": partial(_f1_of_size, *bounds) for name, bounds in SIZES.items()}
            if self.writer.mode.steps:
                metrics["clinical_f1_steps"] = lambda o: f1(o["stated_in_steps"], o["truth"])
            metrics["impression_agreement"] = lambda o: float(o["agreement"].nanmean())
        metrics |= {
            "bleu4": lambda o: corpus_bleu(o["bleu"]),
            "rouge_l": lambda o: float(o["rouge_l"].mean()),
            "cider": lambda o: float(o["cider"].mean()),
            "repeated_sentences": lambda o: float(o["repeats"].mean()),
        }
        if self.writer.mode.box:
            metrics["region_iou"] = lambda o: float(o["overlap"][:, 0].sum() / o["overlap"][:, 1].sum().clamp(min=1))
        if self.writer.mode.image is not None:
            metrics["evidence_reliance"] = lambda o: float(o["changed"].nanmean())
        for name, metric in self.report_metrics.items():
            metrics |= {title: partial(_summary, name, s) for title, s in summaries_of(name, metric).items()}
        return metrics

    def predict_images(  # type: ignore[override]
        self, images: Sequence[torch.Tensor], prompts: Sequence[str] | None = None
    ) -> list[Report]:
        """Report, steps and evidence of each image; ``prompts`` default to the method's."""
        outputs = self.generate(images, prompts)
        return [self.report_of(image, item) for image, item in zip(on_cpu(images), outputs, strict=True)]

    def images_of(self, batch: dict[str, Any]) -> Sequence[torch.Tensor]:
        """The input image of each record, or the images of a batch without records."""
        return [images[0] for images in batch["images"]] if "record" in batch else batch["image"]

    def prediction_options(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The prompts of the records."""
        return {"prompts": [record.prompt for record in batch["record"]]} if "record" in batch else {}


def without_repeats(report: str) -> str:
    """A report without each sentence that stands in it before, whatever its case; headings, which end in a colon, stay.

    Example:
        >>> without_repeats("Findings: No mass. Large effusion. No mass. Impression: effusion.")
        'Findings: No mass. Large effusion. Impression: effusion.'
    """
    sentences, seen = re.split(r"((?<=[.:])\s+)", report), set()
    kept = ""
    for sentence, space in zip(sentences[::2], [*sentences[1::2], ""], strict=True):
        if sentence.endswith(":") or sentence.casefold() not in seen:
            kept += sentence + space
        seen.add(sentence.casefold())
    return kept.strip()


def _summary(name: str, summary: Summary, outputs: Outputs) -> float:
    return summary(outputs[name])


def _f1_of_size(smallest: float, largest: float, outputs: Outputs) -> float:
    return f1_of_sizes(outputs["stated"], outputs["truth"], outputs["areas"], smallest, largest)


def _label_columns(labeler: ReportLabeler, reports: Sequence[str], records: Sequence[IvlRecord]) -> Outputs:
    """Labels that the reports state, and the true ones with their areas: those of the record, or else stated by its report."""
    truth = [labeler.label(record.report) if record.findings is None else set(record.findings) for record in records]
    areas = [dict(zip(record.findings or [], record.finding_areas or [], strict=False)) for record in records]
    return {
        "stated": label_rows([labeler.label(report) for report in reports], labeler.labels),
        "truth": label_rows(truth, labeler.labels),
        "areas": torch.tensor([[row.get(label, float("nan")) for label in labeler.labels] for row in areas]),
    }


def _box_overlap(steps: Sequence[Any], record: IvlRecord) -> tuple[float, float]:
    """Sum over the steps of the IoU of the named box with the true box of the named region, and the number of steps.

    A step without a box, or with a region that the record does not have, counts 0.
    """
    scores = [
        box_iou(step.box, record.regions[step.region]) if step.box and step.region in record.regions else 0.0
        for step in steps
    ]
    return sum(scores), float(len(scores))
