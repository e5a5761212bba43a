"""Interleaved reasoning: reports whose chain of thought contains image evidence (MMRad-IVL-22K, arXiv 2602.12843).

The official model is Anole-RadCoT: cross-entropy over text and image tokens, the auxiliary codebook loss, LoRA on query,
key and value. The evidence modes other than ``generated``, evidence reliance and the small model are ours (reconstructed).
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from torch import nn
from torchvision.transforms.v2 import functional as image_functional

from zoo.data.io.crops import crop
from zoo.data.traces.datasets import TraceData
from zoo.data.traces.records import IMAGE_PLACEHOLDER, SUMMARY, IvlRecord
from zoo.data.vocabulary import ReportLabeler
from zoo.decoders.evidence import EvidenceName, TooLong, TraceWriter, last_box
from zoo.decoders.interleaved import InterleavedDecoder
from zoo.decoders.interleaved_generation import GenerationSettings, generate
from zoo.errors import ArgumentError
from zoo.methods.base import LossModule, Metric, Outputs
from zoo.methods.predictions import Report, on_cpu
from zoo.metrics.clinical import ReportMetric, ReportMetricName, build_report_metric
from zoo.metrics.reports import (
    bleu_columns,
    box_iou,
    cider,
    corpus_bleu,
    f1,
    label_rows,
    macro_f1,
    rouge_l,
)
from zoo.precision import BasePrecision
from zoo.ranges import Dropout, NonNegativeFloat, NonNegativeInt, PositiveInt
from zoo.registry import Injected, Slot, register

PROMPT = f"Write a report for this chest radiograph. {IMAGE_PLACEHOLDER}"
_STATEMENT_TOKENS = 24
_REPORT_TOKENS = 160


@register("method", "interleaved_reasoning")
class InterleavedReasoning(LossModule):
    """``cross-entropy + auxiliary_weight * auxiliary``, over traces in one evidence mode.

    The image tokenizer is frozen. With ``lora_rank`` only peft's LoRA trains in the language model; without, all of it does.
    """

    frozen: ClassVar[tuple[str, ...]] = ("decoder",)
    base_prefixes: ClassVar[dict[str, str]] = {"tokenizer.": "decoder.language.model.vqmodel."}
    uniform_steps: ClassVar[bool] = True
    task: ClassVar[str] = "image-to-text"
    input_format: ClassVar[str] = "image (1 or 3, height, width) float32 in [0, 1], any size, and a prompt with <image>"
    output_format: ClassVar[str] = "steps (region, box, evidence image, statement) and a report"
    intended_use: ClassVar[str] = "Research on chains of thought with and without image evidence."

    def __init__(
        self,
        decoder: Annotated[InterleavedDecoder, Slot("decoder")],
        evidence: EvidenceName = "generated",
        prompt: Annotated[str, Injected] = PROMPT,
        auxiliary_weight: NonNegativeFloat = 1.0,
        max_tokens: PositiveInt = 5120,
        too_long: TooLong = "drop",
        max_images: NonNegativeInt = 4,
        lora_rank: PositiveInt | None = None,
        lora_alpha: PositiveInt = 32,
        lora_dropout: Dropout = 0.05,
        external_metrics: list[ReportMetricName] | None = None,
        base_precision: BasePrecision | None = None,
    ) -> None:
        """Wire the decoder.

        Args:
            decoder: the interleaved decoder with its text tokenizer.
            evidence: what supports each step.
            prompt: with which a report is requested for an image without a record; the dataset's.
            auxiliary_weight: of the auxiliary codebook loss.
            max_tokens: maximum length of a trace.
            too_long: "drop" leaves a longer trace out of training; "shorten" leaves out its last steps, never its report.
            max_images: maximum number of evidence images per radiograph.
            lora_rank: of peft's LoRA on query, key and value; None trains the whole language model.
            lora_alpha: scale of LoRA.
            lora_dropout: of LoRA.
            external_metrics: names of further report metrics, such as "radgraph" and "chexbert".
            base_precision: of the frozen weights; that of the stored weights if None. Trained weights are float32.
        """
        super().__init__()
        self.base_precision = base_precision
        self.decoder, self.evidence, self.prompt = decoder, evidence, prompt
        self.auxiliary_weight, self.max_images = auxiliary_weight, max_images
        self.max_tokens, self.too_long = max_tokens, too_long
        self.external_metrics: dict[str, ReportMetric] = {
            name: build_report_metric(name) for name in external_metrics or []
        }
        self.writer = TraceWriter(decoder.tokenizer, decoder.vocabulary, decoder.tokens_per_image, evidence)
        self.pad_token_id = decoder.vocabulary.pad_token_id
        if lora_rank is not None:
            _add_lora(decoder.language, lora_rank, lora_alpha, lora_dropout)
        decoder.image_tokenizer.requires_grad_(False)

    def setup(self, stage: str) -> None:
        """Tokenize the traces for training, once, on the trainer's device; the first process fills the cache.

        Raises:
            ArgumentError: the dataset has no traces.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is not None and not isinstance(data, TraceData):
            raise ArgumentError(f"{type(data).__name__} has no traces; use a dataset that does, such as ivl_jsonl")
        super().setup(stage)
        if data is None or stage not in ("fit", "validate"):
            return
        strategy = self.trainer.strategy
        nn.Module.to(self.decoder.image_tokenizer, strategy.root_device)
        if not strategy.is_global_zero:
            strategy.barrier("tokenized")
        data.tokenize(self)
        if strategy.is_global_zero:
            strategy.barrier("tokenized")

    def sharded_modules(self) -> list[nn.Module]:
        """The transformer layers; the image tokenizer runs in evaluation only."""
        return [self.decoder.language.model.layers]

    def image_fingerprint(self) -> str:
        """Hash of the image tokenizer, which determines the codes of an image."""
        return self.decoder.image_tokenizer.fingerprint()

    def sequence_fingerprint(self) -> str:
        """Everything that determines the token ids of a record with tokenized images."""
        words = sorted(self.decoder.tokenizer.get_vocab().items())
        image_ids = self.decoder.vocabulary.image_ids.tolist()
        return repr((self.evidence, self.max_tokens, self.too_long, words, image_ids))

    @torch.no_grad()
    def tokenize_images(self, images: list[torch.Tensor]) -> torch.Tensor:
        """Token ids (images, tokens_per_image), on the CPU, of images (1 or 3, height, width) in [0, 1] of any sizes."""
        image_tokenizer = self.decoder.image_tokenizer
        side, device = image_tokenizer.config.resolution, image_tokenizer.codebook.device
        resized = [
            image_functional.resize(image.to(device), [side, side], antialias=True).clamp(0, 1) for image in images
        ]
        pixel_values = torch.stack([image.expand(3, -1, -1) for image in resized]) * 2 - 1
        image_tokenizer.eval()
        return self.decoder.tokenize_images(pixel_values).cpu()

    def encode_record(self, record: IvlRecord, images: Sequence[torch.Tensor]) -> tuple[list[int], list[int]] | None:
        """Token ids and labels of a record, None if it is left out; see :meth:`TraceWriter.encode`."""
        return self.writer.encode(record, images, self.max_tokens, self.too_long)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (batch, positions, vocabulary) of token ids (batch, positions)."""
        return self.decoder(input_ids, attention_mask)

    def losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Both losses of a batch padded on the right."""
        losses = self.decoder.losses(batch["input_ids"], batch["labels"])
        loss = losses["cross_entropy"] + self.auxiliary_weight * losses["auxiliary"]
        return {"loss": loss, "cross_entropy": losses["cross_entropy"]}

    @torch.no_grad()
    def generate(
        self,
        images: Sequence[torch.Tensor],
        prompts: Sequence[str] | None = None,
        settings: GenerationSettings | None = None,
    ) -> list[dict[str, Any]]:
        """Generate steps, report and evidence for radiographs.

        Args:
            images: (1 or 3, height, width) in [0, 1].
            prompts: one per image; the method's ``prompt`` if None.
            settings: how to generate; greedily, up to ``max_tokens``, if None.

        Returns:
            For each image ``steps``, ``report`` and ``images`` (token ids of each evidence image).
        """
        prompts = prompts or [self.prompt] * len(images)
        image_ids = self.tokenize_images(list(images))
        prompt_ids = [
            torch.tensor(self.writer.encode_prompt(prompt, [ids]))
            for prompt, ids in zip(prompts, image_ids, strict=True)
        ]
        if settings is None:
            longest = max(map(len, prompt_ids))
            settings = GenerationSettings(greedy=True, max_new_tokens=self.max_tokens - longest)
        evidence = self.writer.mode.image
        settings = replace(settings, max_images=0 if evidence is None else self.max_images + 1)

        def crop_named_box(index: int, generated_ids: list[int]) -> torch.Tensor:
            start = _position_after_last(self.decoder.vocabulary.eoi_token_id, generated_ids)
            height, width = images[index].shape[-2:]
            box = last_box(self.decoder.tokenizer.decode(generated_ids[start:])) or (0, 0, width, height)
            return self.tokenize_images([crop(images[index], box)])[0]

        provide_image = crop_named_box if evidence == "provided" else None
        sequences = generate(self.decoder, prompt_ids, settings, provide_image=provide_image)
        results = []
        for prompt, sequence in zip(prompt_ids, sequences, strict=True):
            steps, report, evidence_ids = self.writer.decode(sequence[len(prompt) :].tolist())
            results.append({"steps": steps, "report": report, "images": evidence_ids})
        return results

    def evaluation_step(self, batch: dict[str, Any]) -> Outputs:
        """Columns for the metrics: report scores, findings, boxes, evidence reliance."""
        records: list[IvlRecord] = batch["record"]
        predictions = self.generate([images[0] for images in batch["images"]], [record.prompt for record in records])
        reports, references = [item["report"] for item in predictions], [record.report for record in records]
        outputs = {
            "bleu": bleu_columns(reports, references),
            "rouge_l": rouge_l(reports, references),
            "report_ids": self._padded_ids(reports),
            "reference_ids": self._padded_ids(references),
            "overlap": torch.tensor(
                [_box_overlap(item["steps"], record) for item, record in zip(predictions, records, strict=True)]
            ),
        }
        if self.labeler is not None:
            outputs |= _label_columns(self.labeler, reports, records)
        if self.writer.mode.image is not None:
            outputs["changed"] = torch.tensor(self.evidence_changes(batch))
        return outputs | {name: metric(reports, references) for name, metric in self.external_metrics.items()}

    def _padded_ids(self, texts: Sequence[str]) -> torch.Tensor:
        """Token ids of texts, cut or padded to one length, so that the outputs keep the texts."""
        rows = [self.writer.encode_text(text)[:_REPORT_TOKENS] for text in texts]
        return torch.tensor([row + [self.pad_token_id] * (_REPORT_TOKENS - len(row)) for row in rows])

    def complete_outputs(self, outputs: Outputs) -> Outputs:
        """Add CIDEr, whose document frequencies are those of all references."""
        texts = [
            self.decoder.tokenizer.batch_decode(
                [[token for token in row if token != self.pad_token_id] for row in outputs[name].tolist()]
            )
            for name in ("report_ids", "reference_ids")
        ]
        return {**outputs, "cider": cider(*texts)}

    def evidence_changes(self, batch: dict[str, Any]) -> list[float]:
        """Whether another patient's evidence changes the findings stated at a step: 1, 0, or NaN for a record without a swap."""
        prompts: list[torch.Tensor] = []
        swapped = [index for index, swap in enumerate(batch["swap"]) if swap is not None]
        for index in swapped:
            record, (step, other_image) = batch["record"][index], batch["swap"][index]
            image_ids = self.tokenize_images([*batch["images"][index], other_image])
            for evidence in (image_ids[record.steps[step].image], image_ids[-1]):
                prompt = self.writer.encode_evidence_prompt(record, step, image_ids[:-1], evidence)
                prompts.append(torch.tensor(prompt))
        changes = [float("nan")] * len(batch["swap"])
        if prompts:
            settings = GenerationSettings(greedy=True, max_images=0, max_new_tokens=_STATEMENT_TOKENS)
            sequences = generate(self.decoder, prompts, settings)
            stated = [self.findings_stated(ids[len(prompt) :]) for prompt, ids in zip(prompts, sequences, strict=True)]
            for position, index in enumerate(swapped):
                changes[index] = float(stated[2 * position] != stated[2 * position + 1])
        return changes

    def findings_stated(self, generated_ids: torch.Tensor) -> set[str]:
        """Names of the findings in the statement that a continuation begins with; the statement if there is no labeler."""
        text = self.decoder.tokenizer.decode(generated_ids.tolist())
        statement = text.split(SUMMARY)[0].split("Next,")[0]
        return {statement} if self.labeler is None else {finding for finding, _ in self.labeler.label(statement)}

    def metrics(self) -> dict[str, Metric]:
        """Report metrics; clinical F1 if the dataset has a labeler; mean IoU of boxes and evidence reliance by evidence mode."""
        metrics: dict[str, Metric] = {}
        if self.labeler is not None:
            metrics["clinical_f1"] = lambda o: f1(o["stated"], o["truth"])
            metrics["clinical_macro_f1"] = lambda o: macro_f1(o["stated"], o["truth"])
        metrics |= {
            "bleu4": lambda o: corpus_bleu(o["bleu"]),
            "rouge_l": lambda o: float(o["rouge_l"].mean()),
            "cider": lambda o: float(o["cider"].mean()),
        }
        if self.writer.mode.box:
            metrics["region_iou"] = lambda o: float(o["overlap"][:, 0].sum() / o["overlap"][:, 1].sum().clamp(min=1))
        if self.writer.mode.image is not None:
            metrics["evidence_reliance"] = lambda o: float(o["changed"].nanmean())
        for name in self.external_metrics:
            metrics[name] = partial(_mean, name)
        return metrics

    def predict_images(  # type: ignore[override]
        self, images: Sequence[torch.Tensor], prompts: Sequence[str] | None = None
    ) -> list[Report]:
        """Report, steps and evidence of each image; ``prompts`` default to the method's."""
        predictions = []
        for image, outputs in zip(on_cpu(images), self.generate(images, prompts), strict=True):
            evidence_ids = tuple(tuple(ids.tolist()) for ids in outputs["images"])
            evidence = tuple(self._decode_images(evidence_ids))
            report, steps = outputs["report"], tuple(outputs["steps"])
            predictions.append(Report(image, report, steps, evidence, evidence_ids, self.evidence))
        return predictions

    def images_of(self, batch: dict[str, Any]) -> Sequence[torch.Tensor]:
        """The input image of each record, or the images of a batch without records."""
        return [images[0] for images in batch["images"]] if "record" in batch else batch["image"]

    def prediction_options(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The prompts of the records."""
        return {"prompts": [record.prompt for record in batch["record"]]} if "record" in batch else {}

    @torch.no_grad()
    def _decode_images(self, evidence_ids: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Images (height, width) in [0, 1] of token ids; an incomplete image is left out."""
        complete = [ids for ids in evidence_ids if len(ids) == self.decoder.tokens_per_image]
        if not complete:
            return []
        codes = self.decoder.vocabulary.codes(torch.tensor(complete, dtype=torch.long)).to(self.device)
        return list((self.decoder.image_tokenizer.decode(codes).float().mean(dim=1).cpu() + 1) / 2)

    def example_batch(self) -> dict[str, Any]:
        """One trace of the maximum length."""
        input_ids = torch.full((1, self.max_tokens), self.decoder.vocabulary.boi_token_id)
        return {"input_ids": input_ids, "labels": input_ids.clone()}


def _mean(name: str, outputs: Outputs) -> float:
    return float(outputs[name].mean())


def _label_columns(labeler: ReportLabeler, reports: Sequence[str], records: Sequence[IvlRecord]) -> Outputs:
    """Labels that the reports state, and the true ones: those of the record, or stated by its report if it has none."""
    truth = [labeler.label(record.report) if record.findings is None else set(record.findings) for record in records]
    return {
        "stated": label_rows([labeler.label(report) for report in reports], labeler.labels),
        "truth": label_rows(truth, labeler.labels),
    }


def _add_lora(language: torch.nn.Module, rank: int, alpha: int, dropout: float) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    language.requires_grad_(False)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=["q_proj", "k_proj", "v_proj"], bias="none"
    )
    inject_adapter_in_model(config, language)


def _position_after_last(token: int, token_ids: list[int]) -> int:
    """The position after the last occurrence of a token; 0 if there is none."""
    return len(token_ids) - token_ids[::-1].index(token) if token in token_ids else 0


def _box_overlap(steps: Sequence[Any], record: IvlRecord) -> tuple[float, float]:
    """Sum over the steps of the IoU of the named box with the true box of the named region, and the number of steps.

    A step without a box, or with a region that the record does not have, counts 0.
    """
    scores = [
        box_iou(step.box, record.regions[step.region]) if step.box and step.region in record.regions else 0.0
        for step in steps
    ]
    return sum(scores), float(len(scores))
