"""Interleaved reasoning: reports whose chain of thought contains image evidence (MMRad-IVL-22K, arXiv 2602.12843).

The official model is Anole-RadCoT: cross-entropy over text and image tokens, the auxiliary codebook loss, LoRA on query,
key and value. The evidence modes other than ``generated``, evidence reliance and the small model are ours (reconstructed).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import nn

from zoo.data.io.crops import crop
from zoo.data.io.images import image_size
from zoo.data.traces.box_frames import BoxFrameName
from zoo.data.traces.records import IvlRecord
from zoo.data.traces.tokens import TraceTokens
from zoo.decoders.evidence import EvidenceName, TooLong, TraceWriter, last_box
from zoo.decoders.image_transforms import visible_box
from zoo.decoders.interleaved import InterleavedDecoder
from zoo.decoders.interleaved_generation import GenerationSettings, generate
from zoo.language.lora import inject_lora
from zoo.methods.exports import MergedLanguageModel
from zoo.methods.predictions import Report
from zoo.methods.report_generation import PROMPT, ReportGeneration, Swap
from zoo.metrics.clinical import ReportMetricSpec
from zoo.precision import BasePrecision
from zoo.ranges import Dropout, NonNegativeFloat, NonNegativeInt, PositiveInt
from zoo.registry import Injected, Slot, register

_STATEMENT_TOKENS = 24


@register("method", "interleaved_reasoning")
class InterleavedReasoning(MergedLanguageModel, ReportGeneration):
    """``cross-entropy + auxiliary_weight * auxiliary``, over traces in one evidence mode.

    The image tokenizer is frozen. With ``lora_rank`` only peft's LoRA trains in the language model; without, all of it does.
    """

    frozen: ClassVar[tuple[str, ...]] = ("decoder",)
    base_prefixes: ClassVar[dict[str, str]] = {"tokenizer.": "decoder.language.model.vqmodel."}
    extended_weights: ClassVar[tuple[str, ...]] = ("embed_tokens.weight", "lm_head.weight")
    writer: TraceWriter

    def __init__(
        self,
        decoder: Annotated[InterleavedDecoder, Slot("decoder")],
        evidence: EvidenceName = "generated",
        prompt: Annotated[str, Injected] = PROMPT,
        box_frame: BoxFrameName = 1000,
        auxiliary_weight: NonNegativeFloat = 1.0,
        max_tokens: PositiveInt = 5120,
        too_long: TooLong = "drop",
        max_images: NonNegativeInt = 4,
        lora_rank: PositiveInt | None = None,
        lora_alpha: PositiveInt = 32,
        lora_dropout: Dropout = 0.05,
        report_metrics: list[ReportMetricSpec] | None = None,
        base_precision: BasePrecision | None = None,
        max_length: PositiveInt | None = None,
        greedy: bool = True,
        guidance: Literal["none", "normal"] = "none",
    ) -> None:
        """Wire the decoder.

        Args:
            decoder: the interleaved decoder with its text tokenizer.
            evidence: what supports each step.
            prompt: with which a report is requested for an image without a record; the dataset's.
            box_frame: of the boxes in the text: a number N for a frame in which each film is N wide and N high, or "pixels", as in
                the official code, for films of one size.
            auxiliary_weight: of the auxiliary codebook loss.
            max_tokens: maximum length of a trace.
            too_long: "drop" leaves a longer trace out of training; "shorten" leaves out its last steps, never its report.
            max_images: maximum number of evidence images per radiograph.
            lora_rank: of peft's LoRA on query, key and value; None trains the whole language model.
            lora_alpha: scale of LoRA.
            lora_dropout: of LoRA.
            report_metrics: further metrics of reports, as "radgraph" or {name: chexbert, path: FOLDER}.
            base_precision: of the frozen weights; that of the stored weights if None. Trained weights are float32.
            max_length: maximum length in generation, prompt included; ``max_tokens`` if None.
            greedy: generate the most likely tokens; otherwise sample, as the official code does.
            guidance: of generated images, "normal" in the official code; see :class:`GenerationSettings`.
        """
        super().__init__(evidence, prompt, box_frame, max_tokens, too_long, max_images, report_metrics, base_precision)
        self.decoder, self.tokenizer, self.auxiliary_weight = decoder, decoder.tokenizer, auxiliary_weight
        self.max_length, self.greedy, self.guidance = max_length or max_tokens, greedy, guidance
        self.writer = TraceWriter(decoder.tokenizer, decoder.vocabulary, decoder.tokens_per_image, evidence)
        self.pad_token_id = decoder.vocabulary.pad_token_id
        if lora_rank is not None:
            inject_lora(decoder.language, lora_rank, lora_alpha, lora_dropout, ("q_proj", "k_proj", "v_proj"))
        decoder.image_tokenizer.requires_grad_(False).eval()

    @property
    def image_encoder(self) -> nn.Module:
        """The image tokenizer."""
        return self.decoder.image_tokenizer

    def sharded_modules(self) -> list[nn.Module]:
        """The transformer layers; the image tokenizer runs in evaluation only."""
        return [self.decoder.language.model.layers]

    def train(self, mode: bool = True) -> "InterleavedReasoning":
        """Switch mode; the frozen image tokenizer stays in evaluation mode."""
        super().train(mode)
        self.decoder.image_tokenizer.eval()
        return self

    def merged_model(self) -> tuple[Any, Any]:
        """The decoder, image tokenizer included, as transformers' Chameleon reads it."""
        return self.decoder.language, self.decoder.tokenizer

    def image_fingerprint(self) -> str:
        """Of the image tokenizer and transform, which determine the codes of an image."""
        return self.decoder.image_fingerprint()

    def sequence_fingerprint(self) -> str:
        """Everything that determines the token ids of a record with tokenized images."""
        words = sorted(self.decoder.tokenizer.get_vocab().items())
        image_ids = self.decoder.vocabulary.image_ids.tolist()
        return repr((self.evidence, self.box_frame.side, self.max_tokens, self.too_long, words, image_ids))

    @torch.no_grad()
    def tokenize_images(self, images: list[torch.Tensor]) -> torch.Tensor:
        """Token ids (images, tokens_per_image), on the CPU, of images (1 or 3, height, width) in [0, 1] of any sizes."""
        return self.decoder.tokenize_images(torch.stack([self.decoder.prepare_image(image) for image in images])).cpu()

    def encode_images(self, images: list[torch.Tensor], whole: Sequence[bool]) -> torch.Tensor:
        """As :meth:`tokenize_images`: radiographs and close-ups are read alike."""
        return self.tokenize_images(images)

    def prepare_record(self, record: IvlRecord) -> IvlRecord:
        """A record with the part of each box that the decoder's image transform leaves visible, in the same coordinates."""
        if self.decoder.image_transform == "squash" or not any(step.box for step in record.steps):
            return record
        size = image_size(record.images[0])
        return replace(
            record,
            steps=[replace(step, box=step.box and visible_box(step.box, *size)) for step in record.steps],
        )

    def encode_record(self, record: IvlRecord, images: Sequence[torch.Tensor]) -> TraceTokens | None:
        """Token ids and labels of a record, None if it is left out; see :meth:`SequenceWriter.encode`."""
        sequence = self.writer.encode(self.with_text_boxes(record), images, self.max_tokens, self.too_long)
        return None if sequence is None else TraceTokens(*sequence)

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
            settings: how to generate; as the method's arguments say if None.

        Returns:
            For each image ``steps`` with boxes in its pixels, ``report`` and ``images`` (token ids of each evidence image).
        """
        prompts = prompts or [self.prompt] * len(images)
        image_ids = self.tokenize_images(list(images))
        prompt_ids = [
            torch.tensor(self.writer.encode_prompt(prompt, [ids]))
            for prompt, ids in zip(prompts, image_ids, strict=True)
        ]
        if settings is None:
            remaining = self.max_length - max(map(len, prompt_ids))
            settings = GenerationSettings(remaining, greedy=self.greedy, guidance=self.guidance)
        evidence = self.writer.mode.image
        settings = replace(settings, max_images=0 if evidence is None else self.max_images)

        def crop_named_box(index: int, generated_ids: list[int]) -> torch.Tensor:
            start = _position_after_last(self.decoder.vocabulary.eoi_token_id, generated_ids)
            height, width = images[index].shape[-2:]
            box = last_box(self.decoder.tokenizer.decode(generated_ids[start:]))
            pixels = self.box_frame.to_pixels(box, (height, width)) if box else (0, 0, width, height)
            return self.tokenize_images([crop(images[index], pixels)])[0]

        provide_image = crop_named_box if evidence == "provided" else None
        sequences = generate(self.decoder, prompt_ids, settings, provide_image=provide_image)
        results = []
        for image, prompt, sequence in zip(images, prompt_ids, sequences, strict=True):
            texts, evidence_ids = self.writer.split(sequence[len(prompt) :].tolist())
            results.append({**self.parsed(texts, image), "images": evidence_ids})
        return results

    def swapped_statements(self, swaps: Sequence[Swap]) -> list[tuple[set[str], set[str]]]:
        """See :class:`~zoo.methods.report_generation.ReportGeneration`."""
        prompts: list[torch.Tensor] = []
        for record, step, images, other in swaps:
            record = self.with_text_boxes(record, images[0])
            image_ids = self.tokenize_images([*images, other])
            for evidence in (image_ids[record.steps[step].image], image_ids[-1]):
                prompt = self.writer.encode_evidence_prompt(record, step, image_ids[:-1], evidence)
                prompts.append(torch.tensor(prompt))
        settings = GenerationSettings(greedy=True, max_images=0, max_new_tokens=_STATEMENT_TOKENS)
        sequences = generate(self.decoder, prompts, settings)
        stated = [self.findings_stated(ids[len(prompt) :]) for prompt, ids in zip(prompts, sequences, strict=True)]
        return list(zip(stated[::2], stated[1::2], strict=True))

    def findings_stated(self, generated_ids: torch.Tensor) -> set[str]:
        """The findings in the statement that a continuation begins with."""
        return self.findings_in(self.decoder.tokenizer.decode(generated_ids.tolist()))

    def report_of(self, image: torch.Tensor, outputs: dict[str, Any]) -> Report:
        """See :class:`~zoo.methods.report_generation.ReportGeneration`."""
        evidence_ids = tuple(tuple(ids.tolist()) for ids in outputs["images"])
        evidence = tuple(self._decode_images(evidence_ids))
        return Report(image, outputs["report"], tuple(outputs["steps"]), evidence, evidence_ids, self.evidence)

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


def _position_after_last(token: int, token_ids: list[int]) -> int:
    """The position after the last occurrence of a token; 0 if there is none."""
    return len(token_ids) - token_ids[::-1].index(token) if token in token_ids else 0
