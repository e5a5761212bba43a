"""transformers' vision-language models as a global context: their own processor, chat template, positions and merge of images.

A sequence goes through the model's own forward pass. Image features are the model's own too, but computed apart, since the
image tower is frozen: they may come from a cache, and are handed to the forward pass as ``mm_encoder_outputs``.
"""

import hashlib
import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch._subclasses.fake_tensor import is_fake

from zoo.data.conversations.records import SEG
from zoo.encoders.loading import (
    Attention,
    Quantization,
    build_stand_in,
    check_model_type,
    check_quantization,
    checkpoint_activations,
    load_pretrained,
    local_folder,
    stand_in_config,
)
from zoo.errors import ArgumentError, WeightsError
from zoo.language.chat_format import ChatFormat, PrefixFormat
from zoo.language.families import (
    ONE_SIZE,
    PREFIX_ATTENTION,
    SOFTCAPPED,
    VERIFIED,
    image_side,
    planned_tokens,
    published,
)
from zoo.language.global_context import ChatTurn, GlobalContext, resize_vocabulary
from zoo.language.image_reader import ImageReader
from zoo.language.ragged_cache import RaggedCache
from zoo.precision import base_dtype
from zoo.pretrained import fingerprint_of, should_load_weights
from zoo.ranges import PixelSide
from zoo.registry import register

_TOLERANCE = 0.02
"""Largest difference of logits, in standard deviations, of a model that is not among the tested families."""


@register("language_model", "vision_language_context")
class VisionLanguageContext(GlobalContext):
    """Any ``AutoModelForImageTextToText`` of transformers that takes encoded images, frozen; LoRA trains it.

    Verified families: LLaVA-1.5, LLaVA-NeXT, LLaVA-OneVision, Qwen2-VL, Qwen2.5-VL, Qwen3-VL, InternVL3, Gemma 3 and MedGemma,
    PaliGemma 2, Idefics3 and SmolVLM. Images are letterboxed to a square, so that each has the same number of tokens; the
    processor does to the square what it does to any image.

    An image's features are (tokens, width), or (tokens, levels * width) for Qwen3-VL: those of the first layer, and those that
    are added in deeper ones.
    """

    def __init__(
        self,
        source: str,
        image_size: PixelSide | None = None,
        revision: str | None = None,
        attention: Attention | None = None,
        gradient_checkpointing: bool = False,
        quantization: Quantization | None = None,
        family: str | None = None,
    ) -> None:
        """Load (safetensors only), in the precision that the weights are stored in.

        Args:
            source: local folder or hub name, as Qwen/Qwen2.5-VL-7B-Instruct.
            image_size: side of the square in pixels; that of the image tower if None, 448 where the tower takes any size. That of
                LLaVA-1.5, Gemma 3 and PaliGemma 2 is fixed.
            revision: branch, tag or commit on the hub.
            attention: transformers' implementation; the model's own choice if None, sdpa where it can.
            gradient_checkpointing: compute each block's activations again in the backward pass.
            quantization: of the language model's blocks, by bitsandbytes.
            family: deprecated; it is the ``model_type`` in config.json.

        Raises:
            QuantizationError: bitsandbytes is not installed.
            WeightsError: the folder holds another kind of model, or lacks weights or a chat template.
            ArgumentError: the model's forward pass takes no encoded images, or its logits are others here.

        .. versionchanged:: 0.2.0
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor

        super().__init__()
        if family is not None:
            text = "'family' is not read any more: the model's type is taken from its config.json; please remove it"
            warnings.warn(text, FutureWarning, stacklevel=2)
        check_model_type(source, _image_text_types(), "'image text to text'")
        self._several = False
        if not should_load_weights():
            is_local = (Path(source) / "config.json").is_file()
            config, dtype = stand_in_config(source, *((None, torch.float32) if is_local else published(source)))
            self.model = build_stand_in(AutoModelForImageTextToText, config, dtype, attention, quantization)
            self.tokenizer, self._processor = None, None
        else:
            check_quantization(quantization)
            folder = local_folder(source, revision)
            self.model = load_pretrained(AutoModelForImageTextToText, folder, attention, quantization)
            self._processor = AutoProcessor.from_pretrained(folder)
            self.tokenizer = self._processor.tokenizer
        self.model.requires_grad_(False)
        if gradient_checkpointing:
            checkpoint_activations(self.backbone)
        config = self.model.config
        self.name, self.width = f"{source} ({config.model_type})", int(config.get_text_config().hidden_size)
        self.image_size = image_side(config, image_size)
        self.image_token_id = int(config.image_token_id)
        self._inputs = _parameters(self.model.model.forward)
        if "mm_encoder_outputs" not in self._inputs or not hasattr(self.model.model, "get_image_features"):
            raise ArgumentError(
                f"{self.name}: its forward pass in transformers takes no encoded images; use another model"
            )
        self._find_token_ids(source)
        if config.model_type not in VERIFIED and self._processor is not None:
            self._compare_with_own_forward()

    def _find_token_ids(self, source: str) -> None:
        if self.tokenizer is None:  # planned: the ids only have to exist
            self.seg_token_id = self.model.get_input_embeddings().num_embeddings
            resize_vocabulary(self.model, self.seg_token_id + 1)
            self.eos_token_id = 2
            self._tokens = planned_tokens(self.model.config, self.image_size, source)
            return
        self.tokenizer.add_tokens([SEG])
        resize_vocabulary(self.model, len(self.tokenizer))
        self.seg_token_id = int(self.tokenizer.convert_tokens_to_ids(SEG))
        ends = self.model.generation_config.eos_token_id
        self._stops = list(ends) if isinstance(ends, list | tuple) else [] if ends is None else [ends]
        self._read_layout()

    def _read_layout(self) -> None:
        token = self.tokenizer.convert_ids_to_tokens(self.image_token_id)
        self._reader = ImageReader(self._processor, token, self.image_size, self._several)
        self._tokens = self._reader.tokens
        self._chat: ChatFormat | PrefixFormat
        if self.model.config.model_type in PREFIX_ATTENTION:
            self._chat = PrefixFormat(self._processor, self._reader)
        else:
            self._chat = ChatFormat(self._processor, self._reader, self._stops, self.name)
        self.eos_token_id = self._chat.end_token_id

    def expect_several_images(self) -> None:
        """See :class:`GlobalContext`.

        Raises:
            ArgumentError: the model reads images before the question alone.
        """
        self._several = True
        if self._processor is not None:
            self._read_layout()
            self._chat.image_block()

    @torch.no_grad()
    def _compare_with_own_forward(self) -> None:
        """Compare the logits of a prompt with those that the model computes from pixels.

        Raises:
            ArgumentError: they differ.
        """
        warnings.warn(f"{self.name} is not among the tested families; its logits are compared once", stacklevel=3)
        attention = self.model.config._attn_implementation
        if attention == "flash_attention_2":  # weights are still on the CPU
            self.model.set_attn_implementation("sdpa")
        image = torch.rand(3, self.image_size, self.image_size, generator=torch.Generator().manual_seed(0))
        ids = self.tokenize([("What is seen?", None)], self._tokens)[0]
        input_ids = torch.tensor([ids], device=next(self.model.parameters()).device)
        logits = self.logits(self.hidden_states(input_ids, self.encode_images([image.to(input_ids.device)])))
        types = self._is_image(input_ids).int()
        sequence = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
        sequence |= {"token_type_ids": types, "mm_token_type_ids": types}
        accepted, dtype = _parameters(self.model.forward), base_dtype(self.model.parameters())
        inputs = {
            name: value.to(input_ids.device, dtype if value.is_floating_point() else None)
            for name, value in (self._reader.read([image]) | sequence).items()
            if name in accepted
        }
        expected = self.model(**inputs).logits
        if float((logits - expected).abs().max()) > _TOLERANCE * float(expected.std()):
            raise ArgumentError(
                f"{self.name}: its logits here are not those of its own forward pass; use another model"
            )
        self.model.set_attn_implementation(attention)

    @property
    def stop_token_ids(self) -> list[int]:
        """See :class:`GlobalContext`; those of the model's generation configuration too."""
        return [self.eos_token_id, *(token for token in self._stops if token != self.eos_token_id)]

    @property
    def lm(self) -> Any:
        """See :class:`GlobalContext`."""
        return self.model

    @property
    def backbone(self) -> Any:
        """See :class:`GlobalContext`."""
        return self.model.model.get_decoder()

    @property
    def tokens_per_image(self) -> int:
        """See :class:`GlobalContext`."""
        return self._tokens

    def tokenize(self, turns: Sequence[ChatTurn], image_tokens: int) -> tuple[list[int], list[int]]:
        """See :class:`GlobalContext`.

        Raises:
            ArgumentError: an image has another number of tokens.
        """
        self._check_tokens(image_tokens)
        return self._chat.tokenize([(self._without_special_tokens(question), answer) for question, answer in turns])

    def image_block(self, image_tokens: int) -> list[int]:
        """See :class:`GlobalContext`."""
        self._check_tokens(image_tokens)
        return self._chat.image_block()

    def _check_tokens(self, image_tokens: int) -> None:
        if image_tokens != self._tokens:
            raise ArgumentError(f"an image of {self.name} has {self._tokens} tokens here, not {image_tokens}")

    @torch.no_grad()
    def encode_images(self, images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """See :class:`GlobalContext`.

        Raises:
            WeightsError: the model's features are not as many as the tokens that its processor writes.
        """
        if self._processor is None:
            return self._planned_features(len(images), images[0].device)
        dtype, device = base_dtype(self.model.parameters()), images[0].device
        accepted = _parameters(self.model.model.get_image_features)
        inputs = {
            name: value.to(device, dtype if value.is_floating_point() else None)
            for name, value in self._reader.read(images).items()
            if name in accepted
        }
        outputs = self.model.model.get_image_features(**inputs)
        levels = [outputs.pooler_output, *(getattr(outputs, "deepstack_features", None) or [])]
        rows = torch.cat([torch.cat([part.flatten(0, -2) for part in level]) for level in levels], dim=-1)
        if len(rows) % self._tokens or len(rows) // self._tokens < len(images):
            raise WeightsError(
                f"{self.name}: {len(images)} images have {len(rows)} features, and {self._tokens} tokens each"
            )
        return list(rows.unflatten(0, (-1, self._tokens)))[: len(images)]

    def _planned_features(self, images: int, device: torch.device) -> list[torch.Tensor]:
        """The image tower at its full size where it takes squares, without the processor; zeros elsewhere.

        Shapes inside Qwen's towers depend on values, so fake tensors cannot pass through them: a plan's FLOPs leave them out.
        """
        if self.model.config.model_type in ONE_SIZE:
            squares = torch.zeros(images, 3, self.image_size, self.image_size, device=device)
            return list(self.model.model.get_image_features(squares).pooler_output)
        levels = 1 + len(getattr(self.model.config.vision_config, "deepstack_visual_indexes", ()))
        return list(torch.zeros(images, self._tokens, levels * self.width, device=device))

    def hidden_states(self, input_ids: torch.Tensor, image_embeds: Sequence[torch.Tensor]) -> torch.Tensor:
        """See :class:`GlobalContext`; the model's own forward pass."""
        if self.tokenizer is None:
            first = [embeds[..., : self.width] for embeds in image_embeds]
            return super().hidden_states(input_ids, first)
        return self._forward(input_ids, input_ids, image_embeds, use_cache=False, **self._grids(input_ids))

    def continued(
        self, cache: RaggedCache, new: int, position_ids: torch.Tensor, image_embeds: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """See :class:`GlobalContext`; the model's own forward pass."""
        state = {"attention_mask": cache.attention_mask, "cache": cache.key_values, "position_ids": position_ids}
        return self._forward(cache.input_ids[:, -new:], cache.input_ids, image_embeds, use_cache=True, **state)

    def _forward(
        self, input_ids: torch.Tensor, history: torch.Tensor, image_embeds: Sequence[torch.Tensor], **inputs: Any
    ) -> torch.Tensor:
        """Last hidden states of ``input_ids``, the newest of ``history``."""
        self.check_image_tokens(input_ids, image_embeds)
        if len(image_embeds):
            first, *deeper = torch.cat(list(image_embeds)).split(self.width, dim=-1)
            features = SimpleNamespace(
                pooler_output=_Features([first]), deepstack_features=[(part,) for part in deeper]
            )
            inputs |= {"mm_encoder_outputs": {"image": features}, **self._token_types(history)}
        with self._embeddings_in_base_precision():
            hidden_states: torch.Tensor = self.model.model(input_ids=input_ids, **inputs).last_hidden_state
        return hidden_states

    def _token_types(self, history: torch.Tensor) -> dict[str, torch.Tensor]:
        """Which tokens are an image's, for models that ask, or which are an answer's, for those with prefix attention."""
        if isinstance(self._chat, PrefixFormat):
            return {"token_type_ids": self._chat.is_suffix(history).long()}
        names = {"token_type_ids", "mm_token_type_ids"} & self._inputs
        return {name: self._is_image(history).int() for name in names}

    def _is_image(self, input_ids: torch.Tensor) -> torch.Tensor:
        return torch.isin(input_ids, torch.tensor(self._reader.typed_ids, device=input_ids.device))

    def _grids(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """The grids of all images of a batch, for models whose positions depend on them."""
        images = int((input_ids == self.image_token_id).sum()) // self._tokens if self._reader.grids else 0
        return {
            name: grid.to(input_ids.device).repeat(images, 1) for name, grid in self._reader.grids.items() if images
        }

    @contextmanager
    def _embeddings_in_base_precision(self) -> Iterator[None]:
        """Inside, a trained embedding table gives what the frozen blocks take."""
        dtype = base_dtype(self.backbone.parameters())
        table = self.lm.get_input_embeddings()
        handle = table.register_forward_hook(lambda _, __, embeds: embeds.to(dtype))
        try:
            yield
        finally:
            handle.remove()

    def logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """See :class:`GlobalContext`."""
        logits = super().logits(hidden_states)
        cap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        return cap * torch.tanh(logits / cap) if cap and self.model.config.model_type in SOFTCAPPED else logits

    def position_ids(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Position ids; of models with positions in time, rows and columns theirs, (3, batch, positions)."""
        position_ids = super().position_ids(input_ids, attention_mask)
        if not hasattr(self.model.model, "get_rope_index"):
            return position_ids
        grids = {} if self.tokenizer is None or is_fake(input_ids) else self._grids(input_ids)
        if not grids:
            return position_ids.expand(3, -1, -1)
        padding = ~attention_mask.any(dim=1, keepdim=True)  # a row without tokens counts as text
        rope, _ = self.model.model.get_rope_index(
            input_ids,
            mm_token_type_ids=self._is_image(input_ids).int(),
            attention_mask=attention_mask.masked_fill(padding, 1),
            **grids,
        )
        return rope

    def next_position_ids(self, position_ids: torch.Tensor) -> torch.Tensor:
        """See :class:`GlobalContext`; three position ids all continue from the greatest."""
        following = super().next_position_ids(position_ids)
        return following.amax(dim=0, keepdim=True).expand_as(following) if following.ndim == 3 else following

    def vision_fingerprint(self) -> str:
        """See :class:`GlobalContext`; it depends on how images are prepared too."""
        language = {id(value) for value in self.backbone.parameters()}
        weights = fingerprint_of((n, v) for n, v in self.model.model.named_parameters() if id(v) not in language)
        prepared = "" if self._processor is None else self._processor.image_processor.to_json_string()
        layout = repr((self.image_size, self._several, self._tokens, prepared))
        return hashlib.sha256(f"{weights} {layout}".encode()).hexdigest()


class _Features(tuple[torch.Tensor, ...]):
    """Features of a batch's images for forward passes that concatenate a list of them, and for those that take one tensor."""

    def to(self, *options: Any) -> torch.Tensor:
        return torch.cat(self).to(*options)


def _parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


def _image_text_types() -> str:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return " ".join(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
