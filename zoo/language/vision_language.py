"""transformers' vision-language models as a global context: LLaVA-class models and Qwen2.5-VL as they are."""

from collections.abc import Sequence
from typing import Any, Literal

import torch

from zoo.data.conversations.records import SEG
from zoo.data.io.letterbox import letterbox
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
from zoo.language.causal_lm import CHAT_TEMPLATE
from zoo.language.global_context import IMAGE, GlobalContext, resize_vocabulary
from zoo.precision import base_dtype
from zoo.pretrained import fingerprint_of, should_load_weights
from zoo.ranges import PositiveInt
from zoo.registry import register

_MODEL_TYPES = {"llava": "llava", "qwen2_5_vl": "qwen2_5_vl qwen2_vl"}
"""Prefixes of transformers' ``model_type`` for each family."""


@register("language_model", "vision_language_context")
class VisionLanguageContext(GlobalContext):
    """transformers' LLaVA-class models and Qwen2.5-VL as they are, frozen; LoRA trains them.

    Images are letterboxed to a square of the model's size, so that each has the same number of tokens.
    """

    def __init__(
        self,
        source: str,
        family: Literal["llava", "qwen2_5_vl"] = "llava",
        image_size: PositiveInt = 448,
        revision: str | None = None,
        attention: Attention = "sdpa",
        gradient_checkpointing: bool = False,
        quantization: Quantization | None = None,
    ) -> None:
        """Load (safetensors only), in the precision that the weights are stored in.

        Args:
            source: local folder or hub name, as llava-hf/llava-1.5-7b-hf or Qwen/Qwen2.5-VL-7B-Instruct.
            family: how images and positions are laid out.
            image_size: side of the square in pixels for Qwen2.5-VL, a multiple of 28; LLaVA's is fixed.
            revision: branch, tag or commit on the hub.
            attention: transformers' implementation.
            gradient_checkpointing: compute each block's activations again in the backward pass.
            quantization: of the language model's blocks, by bitsandbytes.

        Raises:
            QuantizationError: bitsandbytes is not installed.
            WeightsError: the folder holds another kind of model, or lacks weights.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor

        super().__init__()
        self.family = family
        check_model_type(source, _MODEL_TYPES[family])
        if not should_load_weights():
            config, dtype = stand_in_config(source, *_published(family))
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
        self.width = int(config.get_text_config().hidden_size)
        self.image_size = image_size if family == "qwen2_5_vl" else int(config.vision_config.image_size)
        patch = config.vision_config.patch_size * (getattr(config.vision_config, "spatial_merge_size", 1))
        self.grid = self.image_size // patch
        self.image_token_id = int(config.image_token_id)
        self._find_token_ids()

    def _find_token_ids(self) -> None:
        if self.tokenizer is None:  # planned: the ids only have to exist
            self.seg_token_id = self.model.get_input_embeddings().num_embeddings
            resize_vocabulary(self.model, self.seg_token_id + 1)
            self.eos_token_id = 2
            return
        self.tokenizer.chat_template = (
            CHAT_TEMPLATE if self.family == "llava" else self.tokenizer.chat_template or CHAT_TEMPLATE
        )
        self.tokenizer.add_tokens([SEG])
        resize_vocabulary(self.model, len(self.tokenizer))
        self.seg_token_id = int(self.tokenizer.convert_tokens_to_ids(SEG))
        self.eos_token_id = int(self.tokenizer.eos_token_id)

    def _encode(self, text: str, image_tokens: int) -> list[int]:
        if self.family == "qwen2_5_vl":
            text = text.replace(IMAGE, "<|vision_start|><|image_pad|><|vision_end|>")
        return super()._encode(text, image_tokens)

    @property
    def lm(self) -> Any:
        """See :class:`GlobalContext`."""
        return self.model

    @property
    def backbone(self) -> Any:
        """See :class:`GlobalContext`."""
        return self.model.model.language_model

    @property
    def tokens_per_image(self) -> int:
        """See :class:`GlobalContext`."""
        return self.grid**2

    @torch.no_grad()
    def encode_images(self, images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """See :class:`GlobalContext`."""
        squares = [letterbox(image, self.image_size) for image in images]
        if self._processor is None:
            return self._planned_features(squares)
        processed = self._processor.image_processor(
            images=squares, do_rescale=False, do_resize=self.family == "llava", return_tensors="pt"
        )
        dtype = base_dtype(self.model.parameters())
        inputs = {
            name: value.to(squares[0].device, dtype if value.is_floating_point() else None)
            for name, value in processed.items()
        }
        return list(self.model.model.get_image_features(**inputs).pooler_output)

    def _planned_features(self, squares: list[torch.Tensor]) -> list[torch.Tensor]:
        """The image tower at its full size, processor and normalisation left out.

        Shapes inside Qwen2.5-VL's tower depend on values, so fake tensors cannot pass through it: zeros stand in for its result,
        and a plan's FLOPs leave the frozen tower out.
        """
        if self.family == "llava":
            return list(self.model.model.get_image_features(torch.stack(squares)).pooler_output)
        return list(torch.zeros(len(squares), self.grid**2, self.width, device=squares[0].device))

    def position_ids(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Position ids; Qwen2.5-VL's are (3, batch, positions): time, row and column inside an image's square.

        A token of text is one step after the one before it, and ``grid`` steps after the beginning of an image before it.
        """
        if self.family != "qwen2_5_vl":
            return super().position_ids(input_ids, attention_mask)
        is_image = input_ids == self.image_token_id
        is_text = ~is_image & attention_mask.bool()
        count = is_image.cumsum(dim=1) - is_image.long()  # image tokens before
        inside = torch.where(is_image, count % self.grid**2, 0)
        before = is_text.cumsum(dim=1) - is_text.long()
        time = before + self.grid * (count // self.grid**2)
        return torch.stack([time, time + inside // self.grid, time + inside % self.grid])

    def next_position_ids(self, position_ids: torch.Tensor) -> torch.Tensor:
        """See :class:`GlobalContext`; Qwen2.5-VL's three position ids all continue from the greatest."""
        following = super().next_position_ids(position_ids)
        return following.amax(dim=0, keepdim=True).expand_as(following) if following.ndim == 3 else following

    def vision_fingerprint(self) -> str:
        """See :class:`GlobalContext`."""
        parts = self.model.model.named_parameters()
        return fingerprint_of((name, value) for name, value in parts if not name.startswith("language_model."))


def _published(family: str) -> tuple[Any, torch.dtype]:
    """Configuration and stored precision of llava-hf/llava-1.5-7b-hf and of Qwen/Qwen2.5-VL-7B-Instruct."""
    from transformers import LlavaConfig, Qwen2_5_VLConfig

    if family == "llava":
        return LlavaConfig(), torch.float16
    text = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
    config = Qwen2_5_VLConfig(
        text_config={**text, "num_key_value_heads": 4}, vision_config={"hidden_size": 1280, "out_hidden_size": 3584}
    )
    return config, torch.bfloat16
