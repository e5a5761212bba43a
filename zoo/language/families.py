"""What of vision-language families cannot be derived from their own code: which are verified, and the published sizes."""

from pathlib import Path
from typing import Any

import torch

from zoo.errors import MissingWeightsError
from zoo.language.image_reader import ImageReader

VERIFIED = frozenset(
    "llava llava_next llava_onevision qwen2_vl qwen2_5_vl qwen3_vl internvl gemma3 paligemma idefics3 smolvlm".split()
)
"""``model_type`` of the families whose logits and generation are tested to be those of transformers."""
PREFIX_ATTENTION = frozenset({"paligemma"})
"""Image and question attend to each other in both directions; there is no chat template."""
SOFTCAPPED = frozenset({"paligemma"})
"""The output layer is followed by ``cap * tanh(logits / cap)``, cap being ``final_logit_softcapping``."""
ONE_SIZE = frozenset({"llava", "gemma3", "paligemma"})
"""The processor resizes every image to the tower's square."""
_DEFAULT_SIDE = 448


def image_side(config: Any, requested: int | None) -> int:
    """Side in pixels of a model's images.

    Args:
        config: of the model.
        requested: side that is used unless the model has one size; that of its image tower if None, 448 where it takes any.
    """
    if requested is not None and config.model_type not in ONE_SIZE:
        return requested
    size = getattr(config.vision_config, "image_size", None) or _DEFAULT_SIDE
    return int(size if isinstance(size, int) else max(size))


def planned_tokens(config: Any, side: int, source: str) -> int:
    """Image tokens of a square, for planning: from the configuration, or else from the processor's files in a local folder.

    Raises:
        MissingWeightsError: the processor says them, and its files are not there.
    """
    vision, kind = config.vision_config, config.model_type
    if kind == "gemma3":
        return int(config.mm_tokens_per_image)
    if kind in ("llava", "paligemma"):
        return int((vision.image_size // vision.patch_size) ** 2)
    if kind in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
        return int((side // (vision.patch_size * vision.spatial_merge_size)) ** 2)
    if not any((Path(source) / name).is_file() for name in ("processor_config.json", "preprocessor_config.json")):
        raise MissingWeightsError(
            f"the image tokens of a model of type {kind} are its processor's: plan from a local folder"
        )
    with torch.device("cpu"):  # a plan's tensors are on none
        from transformers import AutoProcessor

        processor = AutoProcessor.from_pretrained(source)
        token = processor.tokenizer.convert_ids_to_tokens(int(config.image_token_id))
        return ImageReader(processor, token, side).tokens


def published(source: str) -> tuple[Any, torch.dtype]:
    """Configuration and stored precision of a published model.

    Raises:
        MissingWeightsError: its sizes are not known here.
    """
    import transformers

    name = source.rsplit("/", 1)[-1].lower()
    for part, (kind, options, dtype) in _PUBLISHED.items():
        if part in name:
            return getattr(transformers, kind)(**options), dtype
    raise MissingWeightsError(f"the sizes of {source} are not known; plan from a local folder with its config.json")


_QWEN3_VISION = {"hidden_size": 1152, "depth": 27, "out_hidden_size": 4096, "deepstack_visual_indexes": [8, 16, 24]}
_SIGLIP = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
_PUBLISHED: dict[str, tuple[str, dict[str, Any], torch.dtype]] = {
    "llava-med": (
        "LlavaConfig",
        {"text_config": {"model_type": "mistral", "vocab_size": 32064, "sliding_window": None}},
        torch.bfloat16,
    ),
    "llava-1.5-7b": ("LlavaConfig", {}, torch.float16),
    "qwen2.5-vl-7b": (
        "Qwen2_5_VLConfig",
        {
            "text_config": {
                "vocab_size": 152064,
                "hidden_size": 3584,
                "intermediate_size": 18944,
                "num_hidden_layers": 28,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
            },
            "vision_config": {"hidden_size": 1280, "out_hidden_size": 3584},
        },
        torch.bfloat16,
    ),
    "qwen3-vl-8b": (
        "Qwen3VLConfig",
        {
            "text_config": {
                "vocab_size": 151936,
                "hidden_size": 4096,
                "intermediate_size": 12288,
                "num_hidden_layers": 36,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]},
            },
            "vision_config": _QWEN3_VISION,
        },
        torch.bfloat16,
    ),
    "medgemma-4b": (
        "Gemma3Config",
        {
            "text_config": {
                "hidden_size": 2560,
                "intermediate_size": 10240,
                "num_hidden_layers": 34,
                "num_attention_heads": 8,
                "num_key_value_heads": 4,
                "sliding_window": 1024,
            },
            "vision_config": {**_SIGLIP, "image_size": 896, "patch_size": 14, "vision_use_head": False},
        },
        torch.bfloat16,
    ),
}
"""By a part of the name on the hub: configuration, and stored precision."""
