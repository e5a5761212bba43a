"""MedSeg-R: reasoning segmentation (arXiv 2506.10465). A language model answers, and its ``[SEG]`` tokens drive a mask head.

From the paper: a global context module that gives multi-modal tokens, a pixel grounding module that draws from them, trained
end to end. From LISA (arXiv 2308.00692), on whose line it builds: the ``[SEG]`` mechanism, loss weights, LoRA and schedule.
What the modules are made of is reconstructed.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from zoo.constants import IGNORE_INDEX
from zoo.data.conversations.datasets import ConversationData
from zoo.data.conversations.records import Turn, checked_question
from zoo.data.io.letterbox import fitted, unfitted
from zoo.data.io.masks import encode_mask
from zoo.embedding_cache import EmbeddingCache
from zoo.encoders.vision import merged, projector
from zoo.errors import ArgumentError
from zoo.heads.pixel_grounding import Features, PixelGrounding, mask_losses
from zoo.language.global_context import Answer, Exchange, GlobalContext
from zoo.methods.base import LossModule, Metric, Outputs
from zoo.methods.distributed import index_of_rows
from zoo.methods.predictions import Segmentation, on_cpu
from zoo.metrics.answers import PARTS, answer_row
from zoo.metrics.segmentation import ciou, dice, giou, giou_by_target, giou_where, question_row, target_index
from zoo.precision import BasePrecision
from zoo.pretrained import fingerprint_of
from zoo.registry import Slot, register

QUESTION = "Segment all abnormalities."
KINDS = ("explicit", "implicit", "several", "absent", "other_side", "everything", "")
"""Kinds of question; the last is that of data sets that do not say."""


@register("method", "medseg_r")
class MedSegR(LossModule):
    """``text_weight CE + bce_weight BCE + dice_weight Dice`` over conversations with masks.

    Language model and image encoders are frozen but for LoRA; LoRA, the rows of new tokens, the projector and the mask head
    train.
    """

    frozen: ClassVar[tuple[str, ...]] = ("context",)
    base_prefixes: ClassVar[dict[str, str]] = {"clip.": "context.vision.clip.", "unet.": "grounding."}
    task: ClassVar[str] = "image-segmentation"
    input_format: ClassVar[str] = "image (1 or 3, height, width) float32 in [0, 1], any size, and a question"
    answers_questions: ClassVar[bool] = True
    output_format: ClassVar[str] = "an answer in words, and a mask (height, width) for each [SEG] in it"
    intended_use: ClassVar[str] = "Comparing ways of grounding answers in masks on rendered radiographs."

    def __init__(
        self,
        context: Annotated[GlobalContext, Slot("language_model")],
        grounding: Annotated[Callable[..., PixelGrounding], Slot("head")],
        text_weight: float = 1.0,
        bce_weight: float = 2.0,
        dice_weight: float = 0.5,
        lora_rank: int = 8,
        lora_alpha: int = 16,
        lora_dropout: float = 0.05,
        train_vocabulary: Literal["new", "all"] = "new",
        shared_levels: int = 0,
        max_new_tokens: int = 96,
        cache_limit_gb: float = 20.0,
        base_precision: BasePrecision | None = None,
    ) -> None:
        """Wire the modules.

        Args:
            context: reads image and conversation and answers.
            grounding: builder of the mask head.
            text_weight: of the cross-entropy over answers.
            bce_weight: of the masks' binary cross-entropy.
            dice_weight: of the masks' Dice loss.
            lora_rank: of peft's LoRA on query and value; 0 for none.
            lora_alpha: scale of LoRA.
            lora_dropout: of LoRA.
            train_vocabulary: train the embeddings and output rows of new tokens only, or of all tokens (LISA's way).
            shared_levels: so many of the mask head's coarsest feature maps, pooled and projected, are added to the language
                model's image tokens, so that what is learnt from masks tells it what is there (ours).
            max_new_tokens: most tokens of an answer.
            cache_limit_gb: of frozen image embeddings kept on disk; 0 for none.
            base_precision: how what is frozen is held; as it is stored if None. What trains is float32.
        """
        super().__init__()
        self.base_precision = base_precision
        self.context = context
        self.grounding = grounding(language_width=context.width)
        self.weights = {"text": text_weight, "bce": bce_weight, "dice": dice_weight}
        self.max_new_tokens, self.cache_limit = max_new_tokens, int(cache_limit_gb * 1e9)
        self.shared_levels = shared_levels
        shared_width = sum(self.grounding.feature_widths[-shared_levels:]) * context.merge**2 if shared_levels else 0
        self.shared = projector(shared_width, context.width) if shared_levels else None
        _add_lora(context, lora_rank, lora_alpha, lora_dropout, train_vocabulary)
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
            raise ArgumentError(f"{type(data).__name__} has no conversations; use medseg_files or chest_drr_medseg_qa")
        if stage == "fit" and self.cache_limit:
            self.open_caches()
        super().setup(stage)

    def sharded_modules(self) -> list[torch.nn.Module]:
        """The language model; processes call image encoders for what their caches lack, and the mask head where a target is."""
        return [self.context.language]

    def open_caches(self) -> None:
        """Keep the embeddings of frozen image encoders on disk from now on, by the encoders' stored weights and precision."""
        frozen = self.grounding.named_parameters()
        drawn = fingerprint_of((name, value) for name, value in frozen if not value.requires_grad)
        keys = {"seen": self.context.vision_fingerprint(), "drawn": drawn}
        self._caches = {name: EmbeddingCache(key, self.cache_limit) for name, key in keys.items()}

    def seen(
        self, images: Sequence[torch.Tensor], features: Features, hashes: Sequence[str] | None = None
    ) -> list[torch.Tensor]:
        """Image tokens (tokens, width) of each image for the language model; ``features`` are the mask head's."""

        def make(indices: list[int]) -> list[list[torch.Tensor]]:
            return [[tokens] for tokens in self.context.look([images[index] for index in indices])]

        looked = torch.stack([parts[0].float() for parts in self._cached("seen", make, len(images), hashes)])
        tokens = self.context.project(looked)
        if self.shared is None:
            return list(tokens)
        side = math.isqrt(looked.shape[1])
        own = [functional.adaptive_avg_pool2d(level, side) for level in features[-self.shared_levels :]]
        return list(tokens + self.shared(merged(torch.cat(own, dim=1), self.context.merge)))

    def features(self, images: Sequence[torch.Tensor], hashes: Sequence[str] | None = None) -> Features:
        """What the mask head sees of images."""

        def make(indices: list[int]) -> list[list[torch.Tensor]]:
            squares = torch.stack([fitted(images[index], self.grounding.image_size) for index in indices])
            looked = self.grounding.look(squares.to(self.device))
            return [
                [part.half() if self._caches and kept else part for part in parts]
                for parts in zip(*looked, strict=True)
            ]

        kept = hashes if self.grounding.cacheable else None
        return [
            torch.stack([part.float() for part in parts])
            for parts in zip(*self._cached("drawn", make, len(images), kept), strict=True)
        ]

    def _cached(
        self,
        name: str,
        make: Callable[[list[int]], list[list[torch.Tensor]]],
        count: int,
        hashes: Sequence[str] | None,
    ) -> list[list[torch.Tensor]]:
        if self._caches is None or hashes is None:
            return make(list(range(count)))
        return self._caches[name].take(hashes, make, self.device)

    def tokenized(self, turns: Sequence[Sequence[Turn]], seen: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Ids and labels (batch, positions), and row and position of the answers' tokens and of each ``[SEG]`` in them."""
        pairs = [
            self.context.sequence([(turn.question, turn.answer) for turn in said], len(tokens))
            for said, tokens in zip(turns, seen, strict=True)
        ]
        ids = pad_sequence([torch.tensor(ids) for ids, _ in pairs], batch_first=True, padding_value=self.context.stop)
        labels = pad_sequence([torch.tensor(row) for _, row in pairs], batch_first=True, padding_value=IGNORE_INDEX)
        row, position = (labels == self.context.seg).nonzero(as_tuple=True)
        told_row, told_position = (labels != IGNORE_INDEX).nonzero(as_tuple=True)
        made = {
            "ids": ids,
            "labels": labels,
            "row": row,
            "position": position,
            "told_row": told_row,
            "told_position": told_position,
        }
        return {name: value.to(self.device) for name, value in made.items()}

    def forward(
        self, tokens: dict[str, torch.Tensor], seen: Sequence[torch.Tensor], features: Features
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states (batch, positions, width) and mask logits (n, side, side) of what :meth:`tokenized` gives."""
        hidden = self.context.hidden(tokens["ids"], seen)
        return hidden, self.grounding(features, hidden[tokens["row"], tokens["position"]], tokens["row"])

    def losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The weighted sum of the three losses, and each."""
        hashes = batch.get("image_hash")
        features = self.features(batch["image"], hashes)
        seen = self.seen(batch["image"], features, hashes)
        tokens = batch if "ids" in batch else self.tokenized(batch["turns"], seen)
        hidden, drawn = self(tokens, seen, features)
        row, position = tokens["told_row"], tokens["told_position"]
        # Logits over the vocabulary only where a label wants them: most of a sequence is image and question.
        logits = self.context.logits(hidden[row, position - 1]).float()
        text = functional.cross_entropy(logits, tokens["labels"][row, position])
        parts = {"text": text, **mask_losses(drawn, batch["masks"])}
        loss = torch.stack([self.weights[name] * part for name, part in parts.items()]).sum()
        return {"loss": loss, **parts}

    @torch.no_grad()
    def ask(
        self, images: Sequence[torch.Tensor], conversations: Sequence[Sequence[Exchange]]
    ) -> list[tuple[Answer, torch.Tensor]]:
        """Answer the last question of each conversation (its answer is None).

        Args:
            images: (1 or 3, height, width) in [0, 1], one a conversation.
            conversations: questions and answers so far.

        Returns:
            For each the answer, and a mask of 0 and 1 (n, height, width) for each of its ``[SEG]``.
        """
        placed = [image.to(self.device) for image in images]
        features = self.features(placed)
        seen = self.seen(placed, features)
        prompts = [
            self.context.sequence(said, len(tokens))[0] for said, tokens in zip(conversations, seen, strict=True)
        ]
        answers = self.context.answer(prompts, seen, self.max_new_tokens)
        owner = torch.tensor([i for i, a in enumerate(answers) for _ in a.tokens], dtype=torch.long, device=self.device)
        if not len(owner):
            return [(answer, torch.zeros(0, *image.shape[-2:])) for answer, image in zip(answers, images, strict=True)]
        drawn = self.grounding(features, torch.cat([answer.tokens for answer in answers]), owner)
        return [
            (answer, (unfitted(drawn[owner == index], image.shape[-2:]) > 0).float().cpu())
            for index, (answer, image) in enumerate(zip(answers, images, strict=True))
        ]

    def evaluation_step(self, batch: dict[str, Any]) -> Outputs:
        """A row a question: areas, what the answer states, ``[SEG]`` missing and superfluous, and the question's kind."""
        images: list[torch.Tensor] = []
        said: list[list[Exchange]] = []
        asked: list[tuple[Turn, torch.Tensor]] = []
        for image, turns, masks in zip(batch["image"], batch["turns"], batch["masks"], strict=True):
            start = 0
            for index, turn in enumerate(turns):
                images.append(image)
                said.append([*((t.question, t.answer) for t in turns[:index]), (turn.question, None)])
                asked.append((turn, masks[start : start + len(turn.masks)]))
                start += len(turn.masks)
        made = self.ask(images, said)
        rows = list(zip(asked, made, strict=True))
        return {
            **index_of_rows(batch, [len(turns) for turns in batch["turns"]]),
            "areas": torch.tensor([question_row(drawn, true.cpu()) for (_, true), (_, drawn) in rows]),
            "answers": torch.tensor([answer_row(answer.text, turn.targets) for (turn, _), (answer, _) in rows]),
            "seg": torch.tensor([[len(true) - len(drawn), len(true)] for (_, true), (_, drawn) in rows]),
            "kind": torch.tensor([KINDS.index(turn.kind) for (turn, _), _ in rows]),
            "target": torch.tensor([target_index(turn.targets) for (turn, _), _ in rows]),
            "ended": torch.tensor([float(answer.ended) for _, (answer, _) in rows]),
        }

    def metrics(self) -> dict[str, Metric]:
        """GIoU (whole, by kind of question, by target), cIoU, Dice, absent targets and sides recognised, right answers, wrong numbers of ``[SEG]``."""
        measured: dict[str, Metric] = {
            "giou": lambda o: giou(o["areas"]),
            **{f"giou_{kind}": giou_where("kind", index) for index, kind in enumerate(KINDS[:3])},
            "absent_recognised": giou_where("kind", KINDS.index("absent")),
            "other_side_recognised": giou_where("kind", KINDS.index("other_side")),
            "giou_everything": giou_where("kind", KINDS.index("everything")),
            "ciou": lambda o: ciou(o["areas"]),
            "dice": lambda o: dice(o["areas"]),
            **giou_by_target(),
            **{f"{part}_accuracy": partial(_share_right, column) for column, part in enumerate(PARTS)},
            "missing_seg": lambda o: float((o["seg"][:, 0] > 0).float().mean()),
            "superfluous_seg": lambda o: float((o["seg"][:, 0] < 0).float().mean()),
        }
        return measured

    def predict_images(  # type: ignore[override]
        self,
        images: Sequence[torch.Tensor],
        questions: Sequence[str] | None = None,
        histories: Sequence[Sequence[Exchange]] | None = None,
    ) -> list[Segmentation]:
        """Answer and masks for a question about each image.

        Args:
            images: (1 or 3, height, width) in [0, 1].
            questions: one each; all abnormalities are asked for if None.
            histories: questions and answers before each.

        Raises:
            QuestionError: a question is empty, too long, or holds ``[SEG]``.
        """
        asked = [checked_question(question) for question in questions or [QUESTION] * len(images)]
        before = histories or [()] * len(images)
        said = [[*history, (question, None)] for history, question in zip(before, asked, strict=True)]
        return [
            Segmentation(
                image, question, answer.text, answer.ended, tuple(encode_mask(mask.numpy() > 0) for mask in masks)
            )
            for image, question, (answer, masks) in zip(on_cpu(images), asked, self.ask(images, said), strict=True)
        ]

    def predict_image(  # type: ignore[override]
        self, image: torch.Tensor, question: str = QUESTION, history: Sequence[Exchange] = ()
    ) -> Segmentation:
        """Answer and masks for one question about one image; ``history`` are questions and answers before it."""
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
        count = self.context.project(torch.stack(self.context.look([image]))).shape[1]
        ids = torch.full((1, count + 96), 5)
        ids[:, 8 : 8 + count] = self.context.image
        labels = ids.clone()
        return {
            "ids": ids,
            "labels": labels,
            "row": torch.zeros(1, dtype=torch.long),
            "position": torch.full((1,), count + 90),
            "told_row": torch.zeros(32, dtype=torch.long),
            "told_position": torch.arange(count + 64, count + 96),
            "image": [image],
            "masks": [torch.ones(1, side, side)],
        }


def _share_right(column: int, outputs: Outputs) -> float:
    """Share of right answers among questions where the part is asked for (the others are NaN)."""
    return float(outputs["answers"][:, column].nanmean())


def _add_lora(context: GlobalContext, rank: int, alpha: int, dropout: float, vocabulary: str) -> None:
    """Put LoRA on the language model's queries and values, and let the vocabulary's new or all rows train."""
    from peft import LoraConfig, inject_adapter_in_model

    model = context.whole
    names = {name for name, _ in model.named_modules() if name.rsplit(".", 1)[-1] in ("q_proj", "v_proj")}
    ours = [name for name in names if "vision" not in name and "visual" not in name]
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    places = {name: [context.seg] for name, part in model.named_modules() if part is inputs or part is outputs}
    tied = inputs.weight is outputs.weight
    if rank and ours:
        rows = {name: ids for name, ids in places.items() if not (tied and model.get_submodule(name) is outputs)}
        settings = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            target_modules=ours,
            bias="none",
            trainable_token_indices=rows if vocabulary == "new" else None,
        )
        inject_adapter_in_model(settings, model)
    if vocabulary == "all":
        inputs.weight.requires_grad_(True)
        outputs.weight.requires_grad_(True)
