"""Interleaved reasoning: reports whose chain of thought holds image evidence (MMRad-IVL-22K, arXiv 2602.12843).

The official model is Anole-RadCoT: cross-entropy over text and image tokens, the auxiliary codebook loss, LoRA on query,
key and value. The evidence modes beside ``generated``, evidence reliance and the small model are ours (reconstructed).
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from torch import nn
from torchvision.transforms.v2 import functional as image_functional

from zoo.data.chest_drr.text.labels import stated_findings
from zoo.data.io.crops import close_up
from zoo.data.traces.datasets import TraceData
from zoo.data.traces.records import MARK, SUMMARY, IvlRecord
from zoo.decoders.evidence import EvidenceName, TooLong, TraceWriter, last_box
from zoo.decoders.interleaved import InterleavedDecoder
from zoo.decoders.interleaved_generation import GenerationSettings, generate
from zoo.errors import ArgumentError
from zoo.methods.base import LossModule, Metric, Outputs
from zoo.methods.predictions import Report, on_cpu
from zoo.metrics.reports import (
    External,
    bleu_columns,
    box_iou,
    cider,
    corpus_bleu,
    external_scores,
    f1,
    label_rows,
    macro_f1,
    rouge_l,
)
from zoo.precision import BasePrecision
from zoo.registry import Slot, register

PROMPT = f"Write a report for this chest radiograph. {MARK}"
_STATEMENT_TOKENS = 24
_REPORT_TOKENS = 160


@register("method", "interleaved_reasoning")
class InterleavedReasoning(LossModule):
    """``cross-entropy + auxiliary_weight * auxiliary``, over traces in one evidence mode.

    The image tokenizer is frozen. With ``lora_rank`` the language model is frozen too but for peft's LoRA; without, all of it
    trains.
    """

    frozen: ClassVar[tuple[str, ...]] = ("decoder",)
    base_prefixes: ClassVar[dict[str, str]] = {"tokenizer.": "decoder.language.model.vqmodel."}
    uniform_steps: ClassVar[bool] = True
    task: ClassVar[str] = "image-to-text"
    input_format: ClassVar[str] = "image (1 or 3, height, width) float32 in [0, 1], any size, and a prompt with <image>"
    output_format: ClassVar[str] = "steps (region, box, evidence image, statement) and a report"
    intended_use: ClassVar[str] = "Comparing chains of thought with and without image evidence on rendered radiographs."

    def __init__(
        self,
        decoder: Annotated[InterleavedDecoder, Slot("decoder")],
        evidence: EvidenceName = "generated",
        auxiliary_weight: float = 1.0,
        max_tokens: int = 5120,
        too_long: TooLong = "drop",
        max_images: int = 4,
        lora_rank: int | None = None,
        lora_alpha: int = 32,
        lora_dropout: float = 0.05,
        external_metrics: list[External] | None = None,
        base_precision: BasePrecision | None = None,
    ) -> None:
        """Wire the decoder.

        Args:
            decoder: the interleaved decoder with its text tokenizer.
            evidence: what stands behind each step.
            auxiliary_weight: of the auxiliary codebook loss.
            max_tokens: most tokens of a trace.
            too_long: "drop" leaves a longer trace out of training; "shorten" leaves out its last steps, never its report.
            max_images: most images that are generated for a film.
            lora_rank: of peft's LoRA on query, key and value; None trains the whole language model.
            lora_alpha: scale of LoRA.
            lora_dropout: of LoRA.
            external_metrics: RadGraph F1 and CheXbert F1, where their packages are installed.
            base_precision: how what is frozen is held; as it is stored if None. What trains is float32.
        """
        super().__init__()
        self.base_precision = base_precision
        self.decoder, self.evidence = decoder, evidence
        self.auxiliary_weight, self.max_images = auxiliary_weight, max_images
        self.max_tokens, self.too_long = max_tokens, too_long
        self.external_metrics = external_metrics or []
        self.writer = TraceWriter(decoder.text, decoder.vocabulary, decoder.codes_an_image, evidence)
        self.pad = decoder.vocabulary.pad
        if lora_rank is not None:
            _add_lora(decoder.language, lora_rank, lora_alpha, lora_dropout)
        decoder.tokenizer.requires_grad_(False)

    def setup(self, stage: str) -> None:
        """Tokenize the traces for training, once, on the trainer's device; the first process makes what the cache lacks.

        Raises:
            ArgumentError: the data set has no traces.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is not None and not isinstance(data, TraceData):
            raise ArgumentError(f"{type(data).__name__} has no traces; use ivl_jsonl or chest_drr_ivl")
        super().setup(stage)
        if data is None or stage not in ("fit", "validate"):
            return
        strategy = self.trainer.strategy
        nn.Module.to(self.decoder.tokenizer, strategy.root_device)
        if not strategy.is_global_zero:
            strategy.barrier("tokenized")
        data.tokenize(self)
        if strategy.is_global_zero:
            strategy.barrier("tokenized")

    def sharded_modules(self) -> list[nn.Module]:
        """The transformer; the image tokenizer serves evaluation."""
        return [self.decoder.language.model.layers]

    def image_fingerprint(self) -> str:
        """Hash of the image tokenizer, which decides the codes of an image."""
        return self.decoder.tokenizer.fingerprint()

    def sequence_fingerprint(self) -> str:
        """What decides the ids of a record, given its images' codes."""
        words = sorted(self.decoder.text.get_vocab().items())
        image_ids = self.decoder.vocabulary.image_ids.tolist()
        return repr((self.evidence, self.max_tokens, self.too_long, words, image_ids))

    @torch.no_grad()
    def image_ids(self, images: list[torch.Tensor]) -> torch.Tensor:
        """Images (1 or 3, height, width) in [0, 1] of any sizes to ids (images, codes), on the CPU."""
        side, codebook = self.decoder.tokenizer.config.resolution, self.decoder.tokenizer.codebook
        resized = [
            image_functional.resize(image.to(codebook.device), [side, side], antialias=True).clamp(0, 1)
            for image in images
        ]
        batch = torch.stack([image.expand(3, -1, -1) for image in resized])
        self.decoder.tokenizer.eval()
        return self.decoder.image_ids(batch * 2 - 1).cpu()

    def sequence(self, record: IvlRecord, images: Sequence[torch.Tensor]) -> tuple[list[int], list[int]] | None:
        """A record to ids and labels, None if it is left out; see :meth:`TraceWriter.sequence`."""
        return self.writer.sequence(record, images, self.max_tokens, self.too_long)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (batch, positions, vocabulary) of ids (batch, positions)."""
        return self.decoder(ids, mask)

    def losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Both losses over a right-padded batch."""
        parts = self.decoder.losses(batch["ids"], batch["labels"])
        loss = parts["cross_entropy"] + self.auxiliary_weight * parts["auxiliary"]
        return {"loss": loss, "cross_entropy": parts["cross_entropy"]}

    @torch.no_grad()
    def write(
        self,
        images: Sequence[torch.Tensor],
        prompts: Sequence[str] | None = None,
        settings: GenerationSettings | None = None,
    ) -> list[dict[str, Any]]:
        """Steps, report and evidence of films.

        Args:
            images: films (1 or 3, height, width) in [0, 1].
            prompts: one each; the data set's own if None.
            settings: how to generate; greedily if None.

        Returns:
            For each film ``steps``, ``report`` and ``images`` (ids of each evidence image).
        """
        prompts = prompts or [PROMPT] * len(images)
        codes = self.image_ids(list(images))
        starts = [torch.tensor(self.writer.prompt(prompt, [own])) for prompt, own in zip(prompts, codes, strict=True)]
        wanted = settings or GenerationSettings(greedy=True)
        wants_images = self.writer.mode.image is not None
        wanted = replace(
            wanted,
            max_images=self.max_images + 1 if wants_images else 0,
            max_new_tokens=self.max_tokens - max(map(len, starts)) if settings is None else wanted.max_new_tokens,
        )

        def look(index: int, ids: list[int]) -> torch.Tensor:
            text = self.decoder.text.decode(ids[_last_end(ids, self.decoder.vocabulary.end) :])
            height, width = images[index].shape[-2:]
            box = last_box(text) or (0, 0, width, height)
            return self.image_ids([close_up(images[index], box)])[0]

        given = look if self.writer.mode.image == "given" else None
        made = generate(self.decoder, starts, wanted, given=given)
        results = []
        for start, ids in zip(starts, made, strict=True):
            steps, report, seen = self.writer.read(ids[len(start) :].tolist())
            results.append({"steps": steps, "report": report, "images": seen})
        return results

    def evaluation_step(self, batch: dict[str, Any]) -> Outputs:
        """Columns for the metrics: report scores, findings, boxes, evidence reliance."""
        records: list[IvlRecord] = batch["record"]
        made = self.write([images[0] for images in batch["images"]], [record.prompt for record in records])
        reports, references = [item["report"] for item in made], [record.report for record in records]
        truth = [
            stated_findings(record.report) if record.findings is None else set(record.findings) for record in records
        ]
        outputs = {
            "bleu": bleu_columns(reports, references),
            "rouge_l": rouge_l(reports, references),
            "stated": label_rows([stated_findings(report) for report in reports]),
            "truth": label_rows(truth),
            "report_ids": self._padded(reports),
            "reference_ids": self._padded(references),
            "overlap": torch.tensor(
                [_overlap(item["steps"], record) for item, record in zip(made, records, strict=True)]
            ),
        }
        if self.writer.mode.image is not None:
            outputs["changed"] = torch.tensor(self._changed(batch))
        for name in self.external_metrics:
            outputs[name] = external_scores(name, reports, references)
        return outputs

    def _padded(self, texts: Sequence[str]) -> torch.Tensor:
        """Ids of texts, cut or padded to one length, so that texts survive among the outputs."""
        rows = [self.writer.text_ids(text)[:_REPORT_TOKENS] for text in texts]
        return torch.tensor([row + [self.pad] * (_REPORT_TOKENS - len(row)) for row in rows])

    def complete_outputs(self, outputs: Outputs) -> Outputs:
        """Add CIDEr, whose document frequencies are those of all references."""
        texts = [
            self.decoder.text.batch_decode(
                [[token for token in row if token != self.pad] for row in outputs[name].tolist()]
            )
            for name in ("report_ids", "reference_ids")
        ]
        return {**outputs, "cider": cider(*texts)}

    def _changed(self, batch: dict[str, Any]) -> list[float]:
        """1 where another patient's evidence changes the findings stated at a step, 0 where not, NaN where none was tried."""
        prompts: list[torch.Tensor] = []
        tried = [index for index, swap in enumerate(batch["swap"]) if swap is not None]
        for index in tried:
            record, (step, other) = batch["record"][index], batch["swap"][index]
            codes = self.image_ids([*batch["images"][index], other])
            own = codes[record.steps[step].image]
            for evidence in (own, codes[-1]):
                prompts.append(torch.tensor(self.writer.evidence_prompt(record, step, codes[:-1], evidence)))
        changed = [float("nan")] * len(batch["swap"])
        if prompts:
            settings = GenerationSettings(greedy=True, max_images=0, max_new_tokens=_STATEMENT_TOKENS)
            made = generate(self.decoder, prompts, settings)
            said = [self._kinds_stated(ids[len(start) :]) for start, ids in zip(prompts, made, strict=True)]
            for position, index in enumerate(tried):
                changed[index] = float(said[2 * position] != said[2 * position + 1])
        return changed

    def _kinds_stated(self, ids: torch.Tensor) -> set[str]:
        """Kinds of findings in the statement that a continuation begins with."""
        text = self.decoder.text.decode(ids.tolist())
        statement = text.split(SUMMARY)[0].split("Next,")[0]
        return {kind for kind, _ in stated_findings(statement)}

    def metrics(self) -> dict[str, Metric]:
        """Report metrics, clinical F1, and what the evidence mode has: mean IoU of boxes, evidence reliance."""
        measured: dict[str, Metric] = {
            "clinical_f1": lambda o: f1(o["stated"], o["truth"]),
            "clinical_macro_f1": lambda o: macro_f1(o["stated"], o["truth"]),
            "bleu4": lambda o: corpus_bleu(o["bleu"]),
            "rouge_l": lambda o: float(o["rouge_l"].mean()),
            "cider": lambda o: float(o["cider"].mean()),
        }
        if self.writer.mode.box:
            measured["region_iou"] = lambda o: float(o["overlap"][:, 0].sum() / o["overlap"][:, 1].sum().clamp(min=1))
        if self.writer.mode.image is not None:
            measured["evidence_reliance"] = lambda o: float(o["changed"].nanmean())
        for name in self.external_metrics:
            measured[name] = partial(_mean_of, name)
        return measured

    def predict_images(  # type: ignore[override]
        self, images: Sequence[torch.Tensor], prompts: Sequence[str] | None = None
    ) -> list[Report]:
        """Report, steps and evidence of each image; ``prompts`` are the data set's own if None."""
        predictions = []
        for image, made in zip(on_cpu(images), self.write(images, prompts), strict=True):
            ids = tuple(tuple(codes.tolist()) for codes in made["images"])
            evidence = tuple(self._decoded(ids))
            predictions.append(Report(image, made["report"], tuple(made["steps"]), evidence, ids, self.evidence))
        return predictions

    def images_of(self, batch: dict[str, Any]) -> Sequence[torch.Tensor]:
        """The input image of each record, or the images of a batch without records."""
        return [images[0] for images in batch["images"]] if "record" in batch else batch["image"]

    def prediction_options(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The prompts of the records."""
        return {"prompts": [record.prompt for record in batch["record"]]} if "record" in batch else {}

    @torch.no_grad()
    def _decoded(self, evidence_ids: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Images (height, width) in [0, 1] of evidence ids; none where the last image was cut off."""
        whole = [ids for ids in evidence_ids if len(ids) == self.decoder.codes_an_image]
        if not whole:
            return []
        codes = self.decoder.vocabulary.codes(torch.tensor(whole, dtype=torch.long)).to(self.device)
        return list((self.decoder.tokenizer.decode(codes).float().mean(dim=1).cpu() + 1) / 2)

    def example_batch(self) -> dict[str, Any]:
        """One trace of the greatest length."""
        ids = torch.full((1, self.max_tokens), self.decoder.vocabulary.begin)
        return {"ids": ids, "labels": ids.clone()}


def _mean_of(name: str, outputs: Outputs) -> float:
    return float(outputs[name].mean())


def _add_lora(language: torch.nn.Module, rank: int, alpha: int, dropout: float) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    language.requires_grad_(False)
    settings = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=["q_proj", "k_proj", "v_proj"], bias="none"
    )
    inject_adapter_in_model(settings, language)


def _last_end(ids: list[int], end: int) -> int:
    """Position after the last image."""
    return len(ids) - ids[::-1].index(end) if end in ids else 0


def _overlap(steps: Sequence[Any], record: IvlRecord) -> tuple[float, float]:
    """Sum of the IoU of each named box with the true box of the region named, and the number of steps.

    A step without box, or with a region that the film does not have, counts 0.
    """
    scores = [
        box_iou(step.box, record.regions[step.region]) if step.box and step.region in record.regions else 0.0
        for step in steps
    ]
    return sum(scores), float(len(scores))
