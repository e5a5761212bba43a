"""MedSeg-R: reasoning segmentation (arXiv 2506.10465). A language model answers, and its ``[SEG]`` tokens drive a mask head.

From the paper: a global context module that gives multi-modal tokens, a pixel grounding module that decodes masks from them,
trained end to end. From LISA (arXiv 2308.00692), on whose line it builds: the ``[SEG]`` mechanism, loss weights, LoRA and schedule.
The layers of both modules are reconstructed. ``[REJ]`` for absent targets is GSVA's (arXiv 2312.10103).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from zoo.constants import IGNORE_INDEX
from zoo.data.conversations.datasets import ConversationData
from zoo.data.conversations.records import Turn, rejected_phrases, validate_question, with_rejection, without_rejection
from zoo.data.io.masks import encode_mask
from zoo.embedding_cache import EmbeddingCache
from zoo.encoders.vision import build_projector, pool_to_tokens
from zoo.errors import ArgumentError
from zoo.finite import check_finite
from zoo.heads.pixel_grounding import Features, PixelGrounding, mask_losses
from zoo.heads.presence import PresenceHead, presence_loss
from zoo.language.global_context import Answer, ChatTurn, GlobalContext
from zoo.language.lora import LoraTargets, add_lora
from zoo.methods.answered_questions import (
    confirm,
    question_metrics,
    question_outputs,
    questions_of,
    without_last_answer,
)
from zoo.methods.base import LossModule, Metric, Outputs
from zoo.methods.exports import MergedLanguageModel
from zoo.methods.predictions import Segmentation, on_cpu
from zoo.precision import BasePrecision
from zoo.pretrained import fingerprint_of
from zoo.ranges import Dropout, Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt
from zoo.registry import Slot, register

QUESTION = "Segment all abnormalities."


@register("method", "medseg_r")
class MedSegR(MergedLanguageModel, LossModule):
    """``text_weight CE + bce_weight BCE + dice_weight Dice + presence_weight BCE`` over conversations with masks.

    Language model and image encoders are frozen but for LoRA; LoRA, the rows of new tokens, the projector and the mask head
    train.
    """

    frozen: ClassVar[tuple[str, ...]] = ("context",)
    base_prefixes: ClassVar[dict[str, str]] = {"clip.": "context.vision.clip.", "unet.": "grounding."}
    extended_weights: ClassVar[tuple[str, ...]] = ("trainable_tokens_delta.default",)
    task: ClassVar[str] = "image-segmentation"
    surface_tolerance: float | None = None
    """Tolerance of the NSD in pixels and millimetres; outlines are not measured if None, as for cards."""
    input_format: ClassVar[str] = "image (1 or 3, height, width) float32 in [0, 1], any size, and a question"
    answers_questions: ClassVar[bool] = True
    output_format: ClassVar[str] = "an answer in words, and a mask (height, width) for each [SEG] in it"
    intended_use: ClassVar[str] = "Research on answers that are grounded in masks."

    def __init__(
        self,
        context: Annotated[GlobalContext, Slot("language_model")],
        grounding: Annotated[Callable[..., PixelGrounding], Slot("head")],
        text_weight: NonNegativeFloat = 1.0,
        bce_weight: NonNegativeFloat = 2.0,
        dice_weight: NonNegativeFloat = 0.5,
        lora_rank: NonNegativeInt = 8,
        lora_alpha: PositiveInt = 16,
        lora_dropout: Dropout = 0.05,
        lora_targets: LoraTargets = "qv",
        train_vocabulary: Literal["new", "all"] = "new",
        shared_levels: NonNegativeInt = 0,
        reject_token: bool = False,
        presence_weight: NonNegativeFloat = 0.0,
        presence_threshold: Fraction = 0.5,
        max_new_tokens: PositiveInt = 96,
        cache_limit_gb: NonNegativeFloat = 20.0,
        base_precision: BasePrecision | None = None,
    ) -> None:
        """Connect the modules.

        Args:
            context: reads image and conversation, and generates the answer.
            grounding: builder of the mask head.
            text_weight: of the cross-entropy over answers.
            bce_weight: of the masks' binary cross-entropy.
            dice_weight: of the masks' Dice loss.
            lora_rank: of peft's LoRA; 0 for none.
            lora_alpha: scale of LoRA.
            lora_dropout: of LoRA.
            lora_targets: query and value, or all projections of the language model's blocks.
            train_vocabulary: train the embedding and output rows of new tokens only, or of all tokens as LISA does.
            shared_levels: number of the mask head's coarsest feature maps that, pooled and projected, are added to the language
                model's image tokens, so that the answer profits from features learned from masks (ours).
            reject_token: answers hold ``[REJ]`` for each target that was asked for and is absent. An answer of the data that has
                neither ``[SEG]`` nor ``[REJ]`` gets one at its end.
            presence_weight: of the cross-entropy of each ``[SEG]``'s presence, over true and wrong answers; 0 for no presence head.
            presence_threshold: a generated ``[SEG]`` whose presence is lower is vetoed; chosen on validation data.
            max_new_tokens: maximum number of tokens of an answer.
            cache_limit_gb: size of the disk cache of frozen image embeddings; 0 disables it.
            base_precision: of frozen weights; as stored if None. Trained weights are float32.
        """
        super().__init__()
        self.base_precision = base_precision
        self.context = context
        self.grounding = grounding(language_width=context.width)
        self.weights = {"text": text_weight, "bce": bce_weight, "dice": dice_weight, "presence": presence_weight}
        self.presence = PresenceHead(context.width) if presence_weight else None
        self.presence_threshold, self.reject_token = presence_threshold, reject_token
        self.rejects = reject_token or self.presence is not None
        self.max_new_tokens, self.cache_limit = max_new_tokens, int(cache_limit_gb * 1e9)
        self.shared_levels = shared_levels
        shared_width = sum(self.grounding.feature_widths[-shared_levels:]) * context.merge**2 if shared_levels else 0
        self.shared = build_projector(shared_width, context.width) if shared_levels else None
        if reject_token:
            context.add_reject_token()
        add_lora(context, lora_rank, lora_alpha, lora_dropout, lora_targets, train_vocabulary)
        self._caches: dict[str, EmbeddingCache] | None = None

    def fingerprint_base(self) -> str:
        """Hash of all weights that do not train."""
        return fingerprint_of((name, value) for name, value in self.named_parameters() if not value.requires_grad)

    def setup(self, stage: str) -> None:
        """For training, open the cache of embeddings.

        Raises:
            ArgumentError: the data set has no conversations.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is not None and not isinstance(data, ConversationData):
            raise ArgumentError(f"{type(data).__name__} has no conversations; use one that has, such as medseg_files")
        if stage == "fit" and self.cache_limit:
            self.open_caches()
        super().setup(stage)

    def sharded_modules(self) -> list[torch.nn.Module]:
        """The language model alone: processes run image encoders where their caches miss, and the mask head where a target is."""
        return [self.context.backbone]

    def open_caches(self) -> None:
        """Keep the embeddings of frozen image encoders on disk from now on, by the encoders' stored weights and precision."""
        keys = {"context": self.context.vision_fingerprint(), "grounding": self.grounding.image_fingerprint()}
        self._caches = {name: EmbeddingCache(key, self.cache_limit) for name, key in keys.items()}

    def encode_images(
        self, images: Sequence[torch.Tensor], mask_features: Features, hashes: Sequence[str] | None = None
    ) -> list[torch.Tensor]:
        """Image embeddings (tokens, width) of each image for the language model.

        Args:
            images: (1 or 3, height, width) in [0, 1].
            mask_features: theirs from :meth:`encode_mask_features`, of which ``shared_levels`` are added.
            hashes: of the images, where the frozen encoder's result may be cached.
        """

        def encode(indices: list[int]) -> list[list[torch.Tensor]]:
            return [[features] for features in self.context.encode_images([images[index] for index in indices])]

        cached = self._cached("context", encode, len(images), hashes)
        image_features = torch.stack([parts[0].float() for parts in cached])
        image_embeds = self.context.project(image_features)
        if self.shared is None:
            return list(image_embeds)
        levels = mask_features[-self.shared_levels :]
        shared = self.shared(pool_to_tokens(levels, image_features.shape[1], self.context.merge))
        deeper = image_embeds.shape[-1] - shared.shape[-1]  # features of deeper layers, which stay as they are
        return list(image_embeds + functional.pad(shared, (0, deeper)))

    def encode_mask_features(self, images: Sequence[torch.Tensor], hashes: Sequence[str] | None = None) -> Features:
        """Image features of the mask head; see :meth:`zoo.heads.pixel_grounding.PixelGrounding.encode_images`."""
        hashes = hashes if self.grounding.cacheable else None

        def encode(indices: list[int]) -> list[list[torch.Tensor]]:
            squares = torch.stack([self.grounding.fitting.fit(images[index]) for index in indices])
            features = self.grounding.encode_images(squares.to(self.device))
            return [
                [part.half() if self._caches and hashes else part for part in parts]
                for parts in zip(*features, strict=True)
            ]

        cached = self._cached("grounding", encode, len(images), hashes)
        return [torch.stack([part.float() for part in parts]) for parts in zip(*cached, strict=True)]

    def _cached(
        self,
        name: str,
        encode: Callable[[list[int]], list[list[torch.Tensor]]],
        count: int,
        hashes: Sequence[str] | None,
    ) -> list[list[torch.Tensor]]:
        if self._caches is None or hashes is None:
            return encode(list(range(count)))
        return self._caches[name].get_or_compute(hashes, encode, self.device)

    def tokenize(
        self, conversations: Sequence[Sequence[Turn]], image_embeds: Sequence[torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Conversations as tensors on the method's device.

        Returns:
            ``input_ids`` and ``labels`` (batch, positions); ``seg_batch_idx`` and ``seg_token_idx`` (n), where each ``[SEG]``
            of an answer is, those of wrong answers only where there is a presence head; ``label_batch_idx`` and
            ``label_token_idx`` (m), where each token of a true answer is. Where there is a presence head, ``present`` (n), 1 for
            the ``[SEG]`` of a true answer, else 0, and ``present_idx``, the indices of the former among the n.
        """
        pairs = [
            self.context.tokenize([(turn.question, self._answer(turn.answer)) for turn in turns], len(embeds))
            for turns, embeds in zip(conversations, image_embeds, strict=True)
        ]
        ids, answers = zip(*pairs, strict=True)
        learned = [
            without_last_answer(row) if turns[-1].wrong else row
            for row, turns in zip(answers, conversations, strict=True)
        ]
        input_ids = pad_sequence(
            [torch.tensor(row) for row in ids], batch_first=True, padding_value=self.context.eos_token_id
        )
        labels, judged = (
            pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=IGNORE_INDEX)
            for rows in (learned, learned if self.presence is None else answers)
        )
        seg_batch_idx, seg_token_idx = (judged == self.context.seg_token_id).nonzero(as_tuple=True)
        label_batch_idx, label_token_idx = (labels != IGNORE_INDEX).nonzero(as_tuple=True)
        tokens = {
            "input_ids": input_ids,
            "labels": labels,
            "seg_batch_idx": seg_batch_idx,
            "seg_token_idx": seg_token_idx,
            "label_batch_idx": label_batch_idx,
            "label_token_idx": label_token_idx,
        }
        if self.presence is not None:
            present = labels[seg_batch_idx, seg_token_idx] != IGNORE_INDEX
            tokens |= {"present": present.float(), "present_idx": present.nonzero()[:, 0]}
        return {name: value.to(self.device) for name, value in tokens.items()}

    def _answer(self, text: str | None) -> str | None:
        """An answer as the language model learns it."""
        if text is None:
            return None
        return with_rejection(text) if self.reject_token else without_rejection(text)

    def forward(
        self, tokens: dict[str, torch.Tensor], image_embeds: Sequence[torch.Tensor], mask_features: Features
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states (batch, positions, width) and mask logits (n, side, side) of what :meth:`tokenize` gives."""
        hidden_states = self.context.hidden_states(tokens["input_ids"], image_embeds)
        batch_idx, token_idx = tokens["seg_batch_idx"], tokens["seg_token_idx"]
        return hidden_states, self.grounding(mask_features, hidden_states[batch_idx, token_idx], batch_idx)

    def losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The weighted sum of the losses, and each."""
        hashes = batch.get("image_hash")
        mask_features = self.encode_mask_features(batch["image"], hashes)
        image_embeds = self.encode_images(batch["image"], mask_features, hashes)
        tokens = batch if "input_ids" in batch else self.tokenize(batch["turns"], image_embeds)
        hidden_states, mask_logits = self(tokens, image_embeds, mask_features)
        batch_idx, token_idx = tokens["label_batch_idx"], tokens["label_token_idx"]
        # Logits only where there is a label: most of a sequence is image and question.
        logits = self.context.logits(hidden_states[batch_idx, token_idx - 1]).float()
        labels = tokens["labels"][batch_idx, token_idx]
        parts = {"text": functional.cross_entropy(logits, labels) if len(labels) else logits.sum() * 0.0}
        if self.presence is None:
            parts |= mask_losses(mask_logits, batch["masks"], self.grounding.fitting)
        else:
            seg_hidden_states = hidden_states[tokens["seg_batch_idx"], tokens["seg_token_idx"]]
            parts |= mask_losses(mask_logits[tokens["present_idx"]], batch["masks"], self.grounding.fitting)
            parts["presence"] = presence_loss(self.presence(seg_hidden_states, mask_logits), tokens["present"])
        loss = torch.stack([self.weights[name] * part for name, part in parts.items()]).sum()
        return {"loss": loss, **parts}

    @torch.no_grad()
    def generate(
        self, images: Sequence[torch.Tensor], conversations: Sequence[Sequence[ChatTurn]]
    ) -> list[tuple[Answer, torch.Tensor]]:
        """Answer the last question of each conversation (its answer is None).

        Args:
            images: (1 or 3, height, width) in [0, 1], one a conversation.
            conversations: questions and answers, oldest first.

        Returns:
            For each the answer, and a mask of 0 and 1 (n, height, width) for each of its ``[SEG]``. Where answers may reject,
            those that are vetoed are gone; see :func:`zoo.methods.answered_questions.confirm`.
        """
        inputs = [image.to(self.device) for image in images]
        mask_features = self.encode_mask_features(inputs)
        image_embeds = self.encode_images(inputs, mask_features)
        prompts = [
            self.context.tokenize([(question, self._answer(answer)) for question, answer in turns], len(embeds))[0]
            for turns, embeds in zip(conversations, image_embeds, strict=True)
        ]
        answers = self.context.generate(prompts, image_embeds, self.max_new_tokens)
        seg_hidden_states = [answer.seg_hidden_states for answer in answers]
        image_idx = torch.tensor(
            [index for index, states in enumerate(seg_hidden_states) for _ in states],
            dtype=torch.long,
            device=self.device,
        )
        if not len(image_idx):
            return [(answer, torch.zeros(0, *image.shape[-2:])) for answer, image in zip(answers, images, strict=True)]
        states = torch.cat(seg_hidden_states)
        mask_logits = check_finite(self.grounding(mask_features, states, image_idx), "the logits of the masks")
        if self.presence is not None:
            scores = self.presence(states, mask_logits).sigmoid().split([len(part) for part in seg_hidden_states])
            answers = [replace(answer, presence=score) for answer, score in zip(answers, scores, strict=True)]
        restore = self.grounding.fitting.restore
        generated = [
            (answer, (restore(mask_logits[image_idx == index], image.shape[-2:]) > 0).float().cpu())
            for index, (answer, image) in enumerate(zip(answers, images, strict=True))
        ]
        return [confirm(*pair, self.presence_threshold) for pair in generated] if self.rejects else generated

    def evaluation_step(self, batch: dict[str, Any]) -> Outputs:
        """One row for each question; see :func:`zoo.methods.answered_questions.question_outputs`."""
        questions = questions_of(batch)
        answers = self.generate([image for image, *_ in questions], [turns for _, turns, *_ in questions])
        options: dict[str, Any] = {"rejects": self.rejects, "surface_tolerance": self.surface_tolerance}
        return question_outputs(batch, answers, self.vocabulary, self.labeler, **options)

    def metrics(self) -> dict[str, Metric]:
        """See :func:`zoo.methods.answered_questions.question_metrics`."""
        surfaces = self.surface_tolerance is not None
        return question_metrics(self.vocabulary, rejects=self.rejects, surfaces=surfaces)

    def predict_images(  # type: ignore[override]
        self,
        images: Sequence[torch.Tensor],
        questions: Sequence[str] | None = None,
        histories: Sequence[Sequence[ChatTurn]] | None = None,
    ) -> list[Segmentation]:
        """Answer and masks for a question about each image.

        Args:
            images: (1 or 3, height, width) in [0, 1].
            questions: one for each image; :data:`QUESTION` if None.
            histories: earlier questions and answers of each.

        Raises:
            QuestionError: a question is empty, too long, or holds ``[SEG]`` or ``[REJ]``.
        """
        questions = [validate_question(question) for question in questions or [QUESTION] * len(images)]
        histories = histories or [()] * len(images)
        conversations = [[*turns, (question, None)] for turns, question in zip(histories, questions, strict=True)]
        generated = self.generate(images, conversations)
        return [
            Segmentation(
                image,
                question,
                without_rejection(answer.text),
                answer.ended,
                tuple(encode_mask(mask.numpy() > 0) for mask in masks),
                tuple(rejected_phrases(answer.text)) if self.rejects else None,
            )
            for image, question, (answer, masks) in zip(on_cpu(images), questions, generated, strict=True)
        ]

    def predict_image(  # type: ignore[override]
        self, image: torch.Tensor, question: str = QUESTION, history: Sequence[ChatTurn] = ()
    ) -> Segmentation:
        """Answer and masks for one question about one image; ``history`` holds earlier questions and answers."""
        prediction = super().predict_image(image, questions=[question], histories=[history])
        assert isinstance(prediction, Segmentation)
        return prediction

    def prediction_options(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The questions of a batch; of a conversation, its first."""
        if "turns" in batch:
            return {"questions": [turns[0].question for turns in batch["turns"]]}
        return {"questions": batch["question"]} if "question" in batch else {}

    def example_batch(self) -> dict[str, Any]:
        """One image, a question and an answer with one mask, tokenized."""
        side = self.grounding.image_size
        image = torch.zeros(3, side, side)
        count = self.context.project(torch.stack(self.context.encode_images([image]))).shape[1]
        input_ids = torch.full((1, count + 96), 5)
        input_ids[:, 8 : 8 + count] = self.context.image_token_id
        return {
            "input_ids": input_ids,
            "labels": input_ids.clone(),
            "seg_batch_idx": torch.zeros(1, dtype=torch.long),
            "seg_token_idx": torch.full((1,), count + 90),
            "label_batch_idx": torch.zeros(32, dtype=torch.long),
            "label_token_idx": torch.arange(count + 64, count + 96),
            "image": [image],
            "masks": [torch.ones(1, side, side)],
            "present": torch.ones(1),
            "present_idx": torch.zeros(1, dtype=torch.long),
        }
