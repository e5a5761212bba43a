"""Global context understanding: a language model that reads an image and a conversation and answers with ``[SEG]`` tokens.

MedSeg-R (arXiv 2506.10465) names the module and gives no parts; this one follows LISA (arXiv 2308.00692) and LLaVA (arXiv
2304.08485), so it is reconstructed. ``[SEG]`` joins the vocabulary, and a mask is decoded from its last hidden state. Input
ids hold one placeholder for each image token, so a position in them is the position in the merged sequence: no offset depends
on how many image tokens a model has. ``[REJ]``, in place of ``[SEG]`` for a target that is absent, is GSVA's (arXiv 2312.10103).
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import is_fake

from zoo.constants import IGNORE_INDEX
from zoo.data.conversations.records import REJ, SEG
from zoo.data.io.letterbox import letterbox
from zoo.encoders.vision import VisionEncoder, build_projector, merge_patches
from zoo.errors import ArgumentError
from zoo.finite import check_finite
from zoo.language.causal_lm import LanguageModel
from zoo.language.ragged_cache import RaggedCache
from zoo.precision import base_dtype
from zoo.pretrained import fingerprint_of
from zoo.ranges import PositiveInt
from zoo.registry import Slot, register

IMAGE = "<image>"
"""Placeholder of the image in a prompt."""
ChatTurn = tuple[str, str | None]
"""A question and its answer; None where the answer is to be generated."""


@dataclass(frozen=True)
class Answer:
    """What was generated for one prompt: the text, the hidden states (n, width) of its ``[SEG]``, and whether it ended.

    ``presence`` (n) in [0, 1] scores each ``[SEG]``, where a method does.
    """

    text: str
    seg_hidden_states: torch.Tensor
    ended: bool
    presence: torch.Tensor | None = None


class GlobalContext(nn.Module):
    """A language model over image tokens and text; ``width`` is that of its hidden states.

    Squares of ``merge`` x ``merge`` patches are one image token. Input ids hold ``image_token_id`` once for each image token;
    :meth:`embed` puts the projected image embeddings in these places.
    """

    width: int
    image_size: int
    """Side in pixels of the square that an image is letterboxed into."""
    merge: int = 1
    seg_token_id: int
    rej_token_id: int | None = None
    """Of ``[REJ]``; None until :meth:`add_reject_token`."""
    image_token_id: int
    eos_token_id: int
    """Ends an answer, and pads."""
    tokenizer: Any
    """transformers' tokenizer; None while the model is planned without weights."""

    @property
    def stop_token_ids(self) -> list[int]:
        """Ids of the tokens that end what is generated."""
        return [self.eos_token_id]

    @property
    @abstractmethod
    def backbone(self) -> Any:
        """The transformer without its output layer: ``inputs_embeds`` to ``last_hidden_state`` after the final norm."""

    @property
    @abstractmethod
    def lm(self) -> Any:
        """The transformers model with embedding and output layer; LoRA is injected into it."""

    @property
    def has_window(self) -> bool:
        """Whether a layer attends to the last tokens alone."""
        config = self.lm.config.get_text_config()
        layers = getattr(config, "layer_types", None)
        return "sliding_attention" in layers if layers else getattr(config, "sliding_window", None) is not None

    @property
    @abstractmethod
    def tokens_per_image(self) -> int:
        """Image tokens of an image."""

    def expect_several_images(self) -> None:
        """Be told that sequences may have several images, before any is encoded: some models read those otherwise."""

    @abstractmethod
    def encode_images(self, images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Images (1 or 3, height, width) in [0, 1] to image features (patches, vision width) each; frozen, so cacheable."""

    def project(self, image_features: torch.Tensor) -> torch.Tensor:
        """Image features (..., patches, vision width) to image embeddings (..., tokens, width); the identity by default.

        Models whose own forward has projected already keep the default.
        """
        return image_features

    def vision_fingerprint(self) -> str:
        """Hash of all weights that decide the result of :meth:`encode_images`."""
        raise NotImplementedError

    def position_ids(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Position ids (batch, positions) of a prompt."""
        return (attention_mask.cumsum(dim=1) - 1).clamp(min=0)

    def next_position_ids(self, position_ids: torch.Tensor) -> torch.Tensor:
        """Position ids (batch, 1) of the token after a sequence with these."""
        return position_ids.amax(dim=-1, keepdim=True) + 1

    def hidden_states(self, input_ids: torch.Tensor, image_embeds: Sequence[torch.Tensor]) -> torch.Tensor:
        """Last hidden states (batch, positions, width).

        Args:
            input_ids: (batch, positions), padded on the right if at all: attention is causal, so padding needs no mask.
            image_embeds: projected image tokens (tokens, width) of each sequence, in order.
        """
        position_ids = self.position_ids(input_ids, torch.ones_like(input_ids))
        inputs_embeds = self.embed(input_ids, image_embeds)
        outputs = self.backbone(inputs_embeds=inputs_embeds, position_ids=position_ids)
        hidden_states: torch.Tensor = outputs.last_hidden_state
        return hidden_states

    def continued(
        self, cache: RaggedCache, new: int, position_ids: torch.Tensor, image_embeds: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Last hidden states (rows, new, width) of the newest tokens of a cache, which keeps their keys and values.

        Args:
            cache: with all token ids, the new ones included.
            new: number of the new ones.
            position_ids: theirs.
            image_embeds: projected image tokens (tokens, width) among the new ones, in order.
        """
        outputs = self.backbone(
            inputs_embeds=self.embed(cache.input_ids[:, -new:], image_embeds),
            attention_mask=cache.attention_mask,
            position_ids=position_ids,
            cache=cache.key_values,
        )
        hidden_states: torch.Tensor = outputs.last_hidden_state
        return hidden_states

    def embed(self, input_ids: torch.Tensor, image_embeds: Sequence[torch.Tensor]) -> torch.Tensor:
        """Input embeddings (batch, positions, width), projected image tokens (tokens, width) in their places."""
        dtype = base_dtype(self.backbone.parameters())  # the backbone's, whatever that of a trained embedding table
        inputs_embeds: torch.Tensor = self.lm.get_input_embeddings()(input_ids).to(dtype)
        self.check_image_tokens(input_ids, image_embeds)
        if not len(image_embeds):
            return inputs_embeds
        is_image = (input_ids == self.image_token_id)[..., None]
        return inputs_embeds.masked_scatter(is_image, torch.cat(list(image_embeds)).to(dtype))

    def check_image_tokens(self, input_ids: torch.Tensor, image_embeds: Sequence[torch.Tensor]) -> None:
        """Check that there is a placeholder for each image token, and an image token for each placeholder.

        Raises:
            ArgumentError: the numbers differ.
        """
        if is_fake(input_ids):  # planned: there are no values
            return
        placeholders, tokens = int((input_ids == self.image_token_id).sum()), sum(map(len, image_embeds))
        if placeholders != tokens:
            raise ArgumentError(f"the sequences have {placeholders} placeholders, the images {tokens} tokens")

    def logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Logits (..., vocabulary) of hidden states (..., width)."""
        output_layer = self.lm.get_output_embeddings()
        logits: torch.Tensor = output_layer(hidden_states.to(output_layer.weight.dtype))
        return logits

    def tokenize(self, turns: Sequence[ChatTurn], image_tokens: int) -> tuple[list[int], list[int]]:
        """Input ids and labels of a conversation; labels are ``IGNORE_INDEX`` except at answers and their ends.

        Args:
            turns: questions and answers; the last answer may be None.
            image_tokens: number of image tokens, which stand before the first question.
        """
        messages: list[dict[str, Any]] = []
        input_ids: list[int] = []
        labels: list[int] = []
        rendered = ""
        for question, answer in turns:
            question = self._without_special_tokens(question)
            messages.append({"role": "user", "content": question if messages else f"{IMAGE}\n{question}"})
            prompt = self._apply_chat_template(messages, add_generation_prompt=True)
            input_ids += self._encode(prompt.removeprefix(rendered), image_tokens)
            labels += [IGNORE_INDEX] * (len(input_ids) - len(labels))
            if answer is None:
                break
            messages.append({"role": "assistant", "content": answer})
            rendered = self._apply_chat_template(messages, add_generation_prompt=False)
            answer_ids = self.tokenizer.encode(rendered.removeprefix(prompt), add_special_tokens=False)
            answer_ids = answer_ids if self.eos_token_id in answer_ids else [*answer_ids, self.eos_token_id]
            input_ids, labels = [*input_ids, *answer_ids], [*labels, *answer_ids]
        return input_ids, labels

    def image_block(self, image_tokens: int) -> list[int]:
        """Input ids of an image within text: its placeholders, and the tokens that delimit it where the model has such."""
        return self._encode(IMAGE, image_tokens)

    def _apply_chat_template(self, messages: list[dict[str, Any]], add_generation_prompt: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
        )

    def _encode(self, text: str, image_tokens: int) -> list[int]:
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return [copy for token in ids for copy in [token] * (image_tokens if token == self.image_token_id else 1)]

    def _without_special_tokens(self, question: str) -> str:
        """Special tokens in a question would act as such."""
        for token in (*self.tokenizer.all_special_tokens, IMAGE, SEG, REJ):
            question = question.replace(token, " ")
        return question

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Sequence[int]], image_embeds: Sequence[torch.Tensor], max_new_tokens: int = 96
    ) -> list[Answer]:
        """Greedy answers, with one key-value cache; the hidden state of each ``[SEG]`` is kept as it is computed.

        Args:
            prompts: input ids of each, as :meth:`tokenize` gives them.
            image_embeds: projected image tokens (tokens, width) of each.
            max_new_tokens: after so many tokens an answer is cut off, and its ``ended`` is False.
        """
        device = image_embeds[0].device
        cache = RaggedCache(self, len(prompts), device)
        last = cache.append(prompts, image_embeds)
        generated_ids: list[torch.Tensor] = []
        hidden_states: list[torch.Tensor] = []
        stops = torch.tensor(self.stop_token_ids, device=device)
        finished = torch.zeros(len(prompts), dtype=torch.bool, device=device)
        while len(generated_ids) < max_new_tokens and not bool(finished.all()):
            next_ids = self.next_token_ids(last).masked_fill(finished, self.eos_token_id)
            finished = finished | torch.isin(next_ids, stops)
            generated_ids.append(next_ids)
            last = cache.append(next_ids[:, None].tolist(), [])
            hidden_states.append(last)
        return self._answers(torch.stack(generated_ids, dim=1), torch.stack(hidden_states, dim=1))

    def next_token_ids(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The most probable next token (batch) after hidden states (batch, width); never the image token."""
        logits = check_finite(self.logits(hidden_states), "the logits of the next token")
        logits[:, self.image_token_id] = -torch.inf
        return logits.argmax(dim=-1)

    def _answers(self, generated_ids: torch.Tensor, hidden_states: torch.Tensor) -> list[Answer]:
        answers = []
        for ids, states in zip(generated_ids, hidden_states, strict=True):
            ends = torch.isin(ids, torch.tensor(self.stop_token_ids, device=ids.device)).nonzero().flatten().tolist()
            kept = ids[: ends[0]] if ends else ids
            seg_hidden_states = states[: len(kept)][kept == self.seg_token_id]
            answers.append(Answer(self.tokenizer.decode(kept.tolist()).strip(), seg_hidden_states, bool(ends)))
        return answers

    def fingerprint(self) -> str:
        """sha256 over the names, shapes and float32 bytes of all weights that are not trained."""
        return fingerprint_of((name, value) for name, value in self.named_parameters() if not value.requires_grad)

    def add_reject_token(self) -> None:
        """Add ``[REJ]``, after the tokens that every model has, so that their rows stay where they are."""
        if self.tokenizer is None:  # planned: the id only has to exist
            self.rej_token_id = int(self.lm.get_input_embeddings().num_embeddings)
            resize_vocabulary(self.lm, self.rej_token_id + 1)
            return
        self.tokenizer.add_tokens([REJ])
        resize_vocabulary(self.lm, len(self.tokenizer))
        self.rej_token_id = int(self.tokenizer.convert_tokens_to_ids(REJ))

    @property
    def new_token_ids(self) -> list[int]:
        """Ids of the tokens whose rows train: ``[SEG]``, and ``[REJ]`` where it was added."""
        return [self.seg_token_id] if self.rej_token_id is None else [self.seg_token_id, self.rej_token_id]

    def _add_special_tokens(self) -> None:
        """Add ``[SEG]`` and, where the tokenizer has none, the image token; old embedding rows stay bit for bit."""
        if self.tokenizer is None:  # planned: the ids only have to exist
            size = self.lm.get_input_embeddings().num_embeddings
            resize_vocabulary(self.lm, size + 2)
            self.seg_token_id, self.image_token_id, self.eos_token_id = size, size + 1, 2
            return
        self.tokenizer.add_tokens([SEG])
        if IMAGE not in self.tokenizer.get_vocab():
            self.tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
        resize_vocabulary(self.lm, len(self.tokenizer))
        self.seg_token_id, self.image_token_id = self.tokenizer.convert_tokens_to_ids([SEG, IMAGE])
        self.eos_token_id = int(self.tokenizer.eos_token_id)


def resize_vocabulary(model: Any, size: int) -> None:
    """Resize a model to ``size`` tokens; new rows are the mean of the old ones, which stay bit for bit."""
    old_size = model.get_input_embeddings().num_embeddings
    if size <= old_size:
        return
    model.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            layer.weight[old_size:] = layer.weight[:old_size].mean(dim=0)


@register("language_model", "global_context")
class CausalContext(GlobalContext):
    """Any vision encoder, LLaVA-1.5's projector (Linear, GELU, Linear), any causal language model.

    Vision encoder and language model are frozen; the projector trains.
    """

    def __init__(
        self,
        vision: Annotated[VisionEncoder, Slot("vision_encoder")],
        model: Annotated[LanguageModel, Slot("language_model")],
        merge: PositiveInt = 1,
    ) -> None:
        """Connect them.

        Args:
            vision: image encoder with a square grid of tokens.
            model: language model that reads them.
            merge: squares of merge x merge image tokens become one, so that sequences are shorter.

        Raises:
            ArgumentError: the grid does not divide into such squares.
        """
        super().__init__()
        side = math.isqrt(vision.tokens)
        if side % merge:
            raise ArgumentError(f"merge is {merge}, of {side} x {side} tokens")
        self.merge, self.image_size = merge, vision.image_size
        self.vision, self.model = vision.requires_grad_(False).eval(), model.requires_grad_(False)
        self.width, self.tokenizer = model.width, model.tokenizer
        self.projector = build_projector(vision.width * merge**2, self.width)
        self._add_special_tokens()

    def train(self, mode: bool = True) -> "CausalContext":
        """Switch mode; the vision encoder stays in evaluation mode."""
        super().train(mode)
        self.vision.eval()
        return self

    @property
    def lm(self) -> Any:
        """See :class:`GlobalContext`."""
        return self.model.model

    @property
    def backbone(self) -> Any:
        """See :class:`GlobalContext`."""
        return self.model.model.model

    @property
    def tokens_per_image(self) -> int:
        """See :class:`GlobalContext`."""
        return self.vision.tokens // self.merge**2

    def encode_images(self, images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """See :class:`GlobalContext`; with gradients where the vision encoder trains."""
        trains = any(parameter.requires_grad for parameter in self.vision.parameters())
        with torch.set_grad_enabled(trains and torch.is_grad_enabled()):
            return list(self.vision(torch.stack([letterbox(image, self.image_size) for image in images])))

    def project(self, image_features: torch.Tensor) -> torch.Tensor:
        """See :class:`GlobalContext`."""
        side = math.isqrt(image_features.shape[-2])
        feature_maps = image_features.transpose(-1, -2).reshape(*image_features.shape[:-2], -1, side, side)
        merged = merge_patches(feature_maps, self.merge)
        image_embeds: torch.Tensor = self.projector(merged.to(next(self.projector.parameters()).dtype))
        return image_embeds

    def vision_fingerprint(self) -> str:
        """See :class:`GlobalContext`."""
        return sha256(f"evaluation mode {self.vision.fingerprint()}".encode()).hexdigest()  # it was not always
