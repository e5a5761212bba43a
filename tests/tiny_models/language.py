"""A tiny causal language model, LLaVA and Qwen2.5-VL in the form that transformers saves them in."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from zoo.language.causal_lm import CHAT_TEMPLATE

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}


def byte_tokenizer(*more: str) -> PreTrainedTokenizerFast:
    """A token a byte, as byte-level BPE without merges has it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: index for index, symbol in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>")
    if more:
        made.add_special_tokens({"additional_special_tokens": list(more)})
    return made


def causal_lm(folder: Path, *, tied: bool = True, dtype: torch.dtype = torch.float32) -> Path:
    """Llama, as SmolLM2 is one; ``tied`` embeddings are the output layer too."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    config = LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=tied, **SIZES)
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def llava(folder: Path, *, dtype: torch.dtype = torch.float32, width: int = 32) -> Path:
    """LLaVA-1.5 (llava-hf/llava-1.5-7b-hf is stored in float16): 32 pixels, 16 image tokens.

    bitsandbytes' NF4 on CPUs takes a ``width`` of whole blocks of 64.
    """
    torch.manual_seed(0)
    tokenizer = byte_tokenizer("<image>")
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        projection_dim=32,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(
            vocab_size=len(tokenizer), **{**SIZES, "hidden_size": width, "intermediate_size": 2 * width}
        ),
        image_token_id=image_id,
        image_token_index=image_id,
        vision_feature_layer=-1,
    )
    LlavaForConditionalGeneration(config).to(dtype).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    LlavaProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1
    ).save_pretrained(folder)
    return folder


def qwen(folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """Qwen2.5-VL (Qwen/Qwen2.5-VL-7B-Instruct is stored in bfloat16): patches of 14 pixels, four of them a token."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    start, end, image, video = tokenizer.convert_tokens_to_ids(
        ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    )
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "depth": 2,
        "num_heads": 4,
        "out_hidden_size": 32,
        "fullatt_block_indexes": [1],
        "window_size": 56,
    }
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = Qwen2_5_VLConfig(
        text_config={**SIZES, "vocab_size": len(tokenizer), "rope_parameters": rope},
        vision_config=vision,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    Qwen2_5_VLForConditionalGeneration(config).to(dtype).save_pretrained(folder)
    images = Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=448 * 448)
    Qwen2_5_VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(), chat_template=CHAT_TEMPLATE).save_pretrained(folder)
    return folder
