"""Interleaved reasoning on vision-language models that understand images: the fine-tuned LVLMs of MMRad-22K (arXiv 2602.12843).

Evidence enters as images do in these models: a crop is encoded by the image tower at the tower's own resolution, and its tokens
stand where the box was named. Nothing generates images here (see :mod:`zoo.methods.interleaved_reasoning`). That the whole
radiograph may be seen at a lower resolution than its crops, so that looking closer can tell more, is ours (reconstructed).
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional
from torchvision.transforms.v2 import functional as image_functional

from zoo.constants import IGNORE_INDEX
from zoo.data.io.crops import crop
from zoo.data.io.letterbox import letterbox, scaled_size
from zoo.data.traces.box_frames import BoxFrameName
from zoo.data.traces.records import Box, IvlRecord
from zoo.data.traces.tokens import TraceTokens
from zoo.decoders.evidence import TooLong, VisionLanguageWriter, last_box
from zoo.errors import ArgumentError
from zoo.language.global_context import GlobalContext
from zoo.language.interleaved_generation import Continuation, generate_interleaved
from zoo.language.lora import inject_lora
from zoo.methods.exports import MergedLanguageModel
from zoo.methods.predictions import Report
from zoo.methods.report_generation import PROMPT, ReportGeneration, Swap
from zoo.metrics.clinical import ReportMetricSpec
from zoo.precision import BasePrecision, autocast_to, base_dtype
from zoo.pretrained import fingerprint_of
from zoo.ranges import Dropout, NonNegativeInt, PixelSide, PositiveInt
from zoo.registry import Injected, Slot, register

ImageCache = Literal["features", "pixels", "none"]
"""What of an image is computed once: the frozen tower's features, the tower's input, or nothing."""

_STATEMENT_TOKENS = 48
_BATCH = 64


@register("method", "interleaved_vision_language")
class InterleavedVisionLanguage(MergedLanguageModel, ReportGeneration):
    """Cross-entropy over the text of responses, in one evidence mode: none, text, box or crop.

    The projector trains where the model has one of its own; the language model trains by LoRA, or all of it.
    """

    frozen: ClassVar[tuple[str, ...]] = ("context",)
    base_prefixes: ClassVar[dict[str, str]] = {"clip.": "context.vision.clip.", "unet.": "context.vision."}
    writer: VisionLanguageWriter

    def __init__(
        self,
        context: Annotated[GlobalContext, Slot("language_model")],
        evidence: Literal["crop", "box", "text", "none"] = "crop",
        prompt: Annotated[str, Injected] = PROMPT,
        box_frame: BoxFrameName = 1000,
        film_size: PixelSide | None = None,
        image_dropout: Dropout = 0.0,
        train_vision: bool = False,
        image_cache: ImageCache = "features",
        max_tokens: PositiveInt = 2048,
        max_new_tokens: PositiveInt = 512,
        too_long: TooLong = "drop",
        max_images: NonNegativeInt = 8,
        lora_rank: PositiveInt | None = None,
        lora_alpha: PositiveInt = 32,
        lora_dropout: Dropout = 0.0,
        lora_targets: list[str] | None = None,
        drop_repeats: bool = False,
        report_metrics: list[ReportMetricSpec] | None = None,
        base_precision: BasePrecision | None = None,
    ) -> None:
        """Wire the model.

        Args:
            context: reads images and text, and generates text.
            evidence: what supports each step.
            prompt: with which a report is requested for an image without a record; the dataset's.
            box_frame: of the boxes in the text: a number N for a frame in which each film is N wide and N high, as 1000 of Qwen3-VL,
                or "pixels" for films of one size.
            film_size: longer side in pixels that a whole radiograph is reduced to before the image tower reads it; crops are not.
                None leaves it at the tower's input size.
            image_dropout: share of the training sequences in which every image is blank, so that reports are learned from the
                statements before them (ours). Otherwise a small model reads the images once more for its report. Nothing is blank in
                the mode none, which has no statements.
            train_vision: train the image tower as well (``global_context`` only).
            image_cache: what of the training images is kept on disk; "none" reads them anew in each epoch.
            max_tokens: maximum length of a trace, image tokens included.
            max_new_tokens: maximum number of generated tokens, image tokens not included.
            too_long: "drop" leaves a longer trace out of training; "shorten" leaves out its last steps, never its report.
            max_images: maximum number of crops per radiograph.
            lora_rank: of peft's LoRA; None trains the whole language model.
            lora_alpha: scale of LoRA.
            lora_dropout: of LoRA.
            lora_targets: names of the projections that LoRA adapts; all of attention and feed-forward if None.
            drop_repeats: leave out each sentence of a generated report that stands in it before; small models repeat themselves.
            report_metrics: further metrics of reports, as "radgraph" or {name: chexbert, path: FOLDER}.
            base_precision: of the frozen weights; that of the stored weights if None. Trained weights are float32.

        Raises:
            ArgumentError: features of a tower that trains cannot be cached, or the tower cannot train.
        """
        super().__init__(evidence, prompt, box_frame, max_tokens, too_long, max_images, report_metrics, base_precision)
        if train_vision and image_cache == "features":
            raise ArgumentError("features change while the image tower trains; set image_cache: pixels (or none)")
        if train_vision and not hasattr(context, "vision"):
            raise ArgumentError(f"train_vision needs global_context, not {type(context).__name__}")
        self.context, self.tokenizer, self.film_size = context, context.tokenizer, film_size
        self.train_vision, self.image_cache, self.max_new_tokens = train_vision, image_cache, max_new_tokens
        self.reads_images, self.drop_repeats = image_cache == "none", drop_repeats
        if evidence == "crop":
            context.expect_several_images()
        self.writer = VisionLanguageWriter(context, evidence)
        self.image_dropout = image_dropout if self.writer.mode.steps else 0.0
        self.pad_token_id = context.eos_token_id
        if lora_rank is None:
            context.backbone.requires_grad_(True)
            context.lm.get_output_embeddings().requires_grad_(True)
        else:
            inject_lora(context.lm, lora_rank, lora_alpha, lora_dropout, lora_targets)
        if train_vision:  # convolutions train 1.8 times as fast on a CPU in this layout, and suit tensor cores
            context.vision.requires_grad_(True).to(memory_format=torch.channels_last)

    def fingerprint_base(self) -> str:
        """Hash of all weights that do not train."""
        return fingerprint_of((name, value) for name, value in self.named_parameters() if not value.requires_grad)

    @property
    def image_encoder(self) -> nn.Module:
        """The model: its tower may be anywhere in it."""
        return self.context

    def sharded_modules(self) -> list[nn.Module]:
        """The language model alone; the tower runs where features are not cached."""
        return [self.context.backbone]

    # Images.

    def image_fingerprint(self) -> str:
        """Everything that :meth:`encode_images` depends on; of a frozen tower its weights, too."""
        tower = self.context.vision_fingerprint() if self.image_cache == "features" else ""
        return repr((self.image_cache, self.context.image_size, self.film_size, tower))

    def sequence_fingerprint(self) -> str:
        """Everything that the token ids of a record depend on."""
        words = sorted(self.tokenizer.get_vocab().items())
        example = self.context.tokenize([("?", "!")], self.context.tokens_per_image)[0]
        return repr((self.evidence, self.box_frame.side, self.max_tokens, self.too_long, example, words))

    def prepare_image(self, image: torch.Tensor, whole: bool) -> torch.Tensor:
        """The tower's input (1, side, side) uint8, in grey, of an image (1 or 3, height, width) in [0, 1].

        A whole radiograph is reduced to ``film_size`` before.
        """
        grey = image.mean(dim=0, keepdim=True)
        if whole and self.film_size is not None and max(image.shape[-2:]) > self.film_size:
            grey = image_functional.resize(grey, list(scaled_size(image.shape[-2:], self.film_size)), antialias=True)
        return (letterbox(grey, self.context.image_size)[:1] * 255).round().to(torch.uint8)

    def encode_images(self, images: list[torch.Tensor], whole: Sequence[bool]) -> torch.Tensor:
        """What is cached of images (channels, height, width): pixels (images, 1, side, side), or features of the frozen tower."""
        device = next(self.context.parameters()).device
        pixels = torch.stack([self.prepare_image(image.to(device), w) for image, w in zip(images, whole, strict=True)])
        return pixels if self.image_cache == "pixels" else self.image_features(pixels)

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features (images, patches, vision width) of pixels (images, 1, side, side) uint8.

        Those of a frozen tower are computed in its stored precision, as cached ones are.
        """
        images = list(pixels.float() / 255)
        if self.train_vision:
            return torch.stack(self.context.encode_images(images)).float()
        stored, device = base_dtype(self.context.parameters()), pixels.device.type
        with torch.no_grad(), torch.autocast(device, enabled=False), autocast_to(stored, pixels.device):
            return torch.stack(self.context.encode_images(images)).float()

    def image_embeds(self, images: Sequence[torch.Tensor], whole: Sequence[bool]) -> list[torch.Tensor]:
        """Embeddings (tokens, width) of images (1 or 3, height, width) for the language model."""
        embeds: list[torch.Tensor] = []
        for start in range(0, len(images), _BATCH):
            part = zip(images[start : start + _BATCH], whole[start : start + _BATCH], strict=True)
            pixels = torch.stack([self.prepare_image(image.to(self.device), is_whole) for image, is_whole in part])
            features = self.image_features(pixels)
            if not self.train_vision:
                features = features.half().float()  # as in the cache
            embeds += list(self.context.project(features))
        return embeds

    # Training.

    def transfer_batch_to_device(
        self, batch: dict[str, Any], device: torch.device, dataloader_idx: int
    ) -> dict[str, Any]:
        """Move tensors; image inputs keep their precision, which halves what is copied."""
        image_inputs = batch.get("image_inputs")
        rest = {key: value for key, value in batch.items() if key != "image_inputs"}
        moved = super().transfer_batch_to_device(rest, device, dataloader_idx)
        return moved if image_inputs is None else {**moved, "image_inputs": image_inputs.to(device)}

    def encode_record(self, record: IvlRecord, images: Sequence[torch.Tensor]) -> TraceTokens | None:
        """Token ids, labels and the images that are read, None if the record is left out."""
        placeholders = torch.arange(len(record.images))
        sequence = self.writer.encode(self.with_text_boxes(record), placeholders, self.max_tokens, self.too_long)
        if sequence is None:
            return None
        read = sequence[0].count(self.context.image_token_id) // self.context.tokens_per_image
        order = [*range(record.inputs), *(step.image for step in record.steps)]
        return TraceTokens(*sequence, order[:read])

    def forward(self, input_ids: torch.Tensor, image_inputs: torch.Tensor) -> torch.Tensor:
        """Last hidden states (batch, positions, width).

        Args:
            input_ids: (batch, positions), padded on the right.
            image_inputs: pixels (images, 1, side, side) uint8 or features (images, patches, vision width) of all images of the
                batch, in the order of their placeholders.
        """
        features = self.image_features(image_inputs) if image_inputs.dtype == torch.uint8 else image_inputs.float()
        image_embeds = self.context.project(features)
        if self.training and self.image_dropout:
            seen = torch.rand(len(input_ids), device=input_ids.device) >= self.image_dropout
            tokens = (input_ids == self.context.image_token_id).sum(dim=1).cumsum(dim=0)
            first = torch.arange(len(image_embeds), device=tokens.device) * self.context.tokens_per_image
            image_embeds = image_embeds * seen[torch.searchsorted(tokens, first, right=True)][:, None, None]
        return self.context.hidden_states(input_ids, list(image_embeds))

    def losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Cross-entropy over the labels of a batch padded on the right."""
        hidden_states = self(batch["input_ids"], batch["image_inputs"])
        batch_idx, token_idx = batch["label_batch_idx"], batch["label_token_idx"]
        # Logits only where there is a label: most of a sequence is image.
        logits = self.context.logits(hidden_states[batch_idx, token_idx - 1]).float()
        return {"loss": functional.cross_entropy(logits, batch["labels"][batch_idx, token_idx])}

    # Generation.

    @torch.no_grad()
    def generate(self, images: Sequence[torch.Tensor], prompts: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Generate steps, report and evidence for radiographs.

        Args:
            images: (1 or 3, height, width) in [0, 1].
            prompts: one per image; the method's ``prompt`` if None.

        Returns:
            For each image ``steps`` and ``report``, and ``images``, the boxes that were provided; boxes are in its pixels.
        """
        films = self.image_embeds(images, [True] * len(images))
        texts = prompts or [self.prompt] * len(images)
        prompt_ids = [self.writer.encode_prompt(text, images[:1]) for text in texts]
        crops = _Crops(self, images)
        continuations = generate_interleaved(self.context, prompt_ids, films, self.max_new_tokens, crops)
        items = zip(images, continuations, crops.boxes, strict=True)
        return [{**self.parsed(continuation.texts, image), "images": boxes} for image, continuation, boxes in items]

    @torch.no_grad()
    def swapped_statements(self, swaps: Sequence[Swap]) -> list[tuple[set[str], set[str]]]:
        """See :class:`~zoo.methods.report_generation.ReportGeneration`."""
        prompts: list[list[int]] = []
        embeds: list[torch.Tensor] = []
        for record, step, images, other in swaps:
            record = self.with_text_boxes(record, images[0])
            read = [*range(record.inputs), *(earlier.image for earlier in record.steps[: step + 1])]
            shown = [*(images[index] for index in read), other]
            *own, swapped = self.image_embeds(shown, [*(index < record.inputs for index in read), False])
            placeholders = torch.arange(len(record.images))
            prompt = self.writer.encode_evidence_prompt(record, step, placeholders, placeholders[0])
            prompts += [prompt, prompt]
            embeds += [torch.cat(own), torch.cat([*own[:-1], swapped])]
        continuations = generate_interleaved(self.context, prompts, embeds, _STATEMENT_TOKENS)
        stated = [self.findings_in(_text_of(continuation)) for continuation in continuations]
        return list(zip(stated[::2], stated[1::2], strict=True))

    def report_of(self, image: torch.Tensor, outputs: dict[str, Any]) -> Report:
        """See :class:`~zoo.methods.report_generation.ReportGeneration`; the evidence are crops at the image's resolution."""
        evidence = tuple(crop(image, box).mean(dim=0) for box in outputs["images"])
        return Report(image, outputs["report"], tuple(outputs["steps"]), evidence, mode=self.evidence)

    def example_batch(self) -> dict[str, Any]:
        """One trace of the maximum length, with as many images as it may have."""
        tokens, side = self.context.tokens_per_image, self.context.image_size
        images = 1 + (self.max_images if self.writer.mode.image == "provided" else 0)
        images = max(min(images, (self.max_tokens - 64) // tokens), 1)
        input_ids = torch.full((1, max(self.max_tokens, images * tokens + 64)), 5)
        input_ids[:, 8 : 8 + images * tokens] = self.context.image_token_id
        labels = input_ids.masked_fill(input_ids == self.context.image_token_id, IGNORE_INDEX)
        label_token_idx = torch.arange(8 + images * tokens, input_ids.shape[1])
        return {
            "input_ids": input_ids,
            "labels": labels,
            "label_batch_idx": torch.zeros_like(label_token_idx),
            "label_token_idx": label_token_idx,
            "image_inputs": torch.zeros(images, 1, side, side, dtype=torch.uint8),
        }


class _Crops:
    """Provides the pixels of the boxes that are named, to each sample at most ``max_images`` times."""

    def __init__(self, method: InterleavedVisionLanguage, images: Sequence[torch.Tensor]) -> None:
        self._method, self._images = method, images
        self.boxes: list[list[Box]] = [[] for _ in images]

    def is_due(self, index: int, text: str) -> bool:
        """After the sentence with a box."""
        return len(self.boxes[index]) < self._method.max_images and self._method.writer.is_image_due(text)

    def provide(self, texts: dict[int, str]) -> list[torch.Tensor]:
        """The crop of each box; the whole image, as close as a crop, if the box is malformed."""
        crops = []
        for index, text in texts.items():
            height, width = self._images[index].shape[-2:]
            box = last_box(text)
            pixels = self._method.box_frame.to_pixels(box, (height, width)) if box else (0, 0, width, height)
            self.boxes[index].append(pixels)
            crops.append(crop(self._images[index], pixels))
        return self._method.image_embeds(crops, [False] * len(crops))


def _text_of(continuation: Continuation) -> str:
    return " ".join(continuation.texts)
