"""Tiny vision-language models in the form that transformers saves them in: config, weights, processor, chat template.

A token is a byte; special tokens, the order of images and text in a turn, and how a turn ends are those of each family. The
templates say the same as the published ones for conversations of text and images.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import processors
from transformers import CLIPImageProcessor, PreTrainedTokenizerFast

from tests.tiny_models.language import SIZES, byte_tokenizer

_TEXT = {**SIZES, "num_hidden_layers": 2}
_CHATML = ("<|im_start|>", "<|im_end|>")
_QWEN_MARKS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_TILES = [[32, 32], [32, 64], [64, 32], [64, 64]]


def _loop(head: str, body: str, tail: str, begin: str = "", prompt: str = "") -> str:
    """A template: ``begin``, then each message between head and tail, then ``prompt``."""
    end = f"{{% if add_generation_prompt %}}{prompt}{{% endif %}}"
    return f"{begin}{{% for message in messages %}}{head}{body}{tail}{{% endfor %}}{end}"


def _parts(image: str, text: str = "{{ part['text'] }}") -> str:
    """Texts and images of a message in their order."""
    return (
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
        f"{{% if part['type'] == 'image' %}}{image}{{% else %}}{text}{{% endif %}}{{% endfor %}}{{% endif %}}"
    )


def _images_first(image: str, text: str) -> str:
    """Images of a message, then its texts."""
    return (
        f"{{% for part in message['content'] %}}{{% if part['type'] == 'image' %}}{image}{{% endif %}}{{% endfor %}}"
        f"{{% for part in message['content'] %}}{{% if part['type'] == 'text' %}}{text}{{% endif %}}{{% endfor %}}"
    )


def _chatml(image: str, system: str = "") -> str:
    begin = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    head = "<|im_start|>{{ message['role'] }}\n"
    return _loop(head, _parts(image), "<|im_end|>\n", begin, "<|im_start|>assistant\n")


QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
_VICUNA = _loop(
    "{{ message['role'].upper() }}: ", _images_first("<image>\n", "{{ part['text'] }} "), "", prompt="ASSISTANT:"
)
_MISTRAL = _loop(
    "{% if message['role'] == 'user' %}[INST] {% else %} {% endif %}",
    _images_first("<image>\n", "{{ part['text'] }}"),
    "{% if message['role'] == 'user' %} [/INST]{% else %}</s> {% endif %}",
)
_ONEVISION = _loop(
    "<|im_start|>{{ message['role'] }} ",
    _images_first("<image>\n", "{{ '\n' + part['text'] }}"),
    "<|im_end|>",
    prompt="<|im_start|>assistant\n",
)
_GEMMA = _loop(
    "<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n",
    _parts("<start_of_image>", "{{ part['text'] | trim }}"),
    "<end_of_turn>\n",
    "<bos>",
    "<start_of_turn>model\n",
)
_IDEFICS = _loop(
    "{{ message['role'].capitalize() }}{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}",
    _parts("<image>"),
    "<end_of_utterance>\n",
    "<|begin_of_text|>",
    "Assistant:",
)


def _tokenizer(*more: str, eos: str = "</s>", bos: str | None = None, **named: str) -> PreTrainedTokenizerFast:
    """A token a byte; ``bos`` begins every text, and ``named`` special tokens are attributes of the tokenizer."""
    extra = {name: token for name, token in {"bos_token": bos, "eos_token": eos, **named}.items() if token}
    tokenizer = byte_tokenizer(*more, *extra.values())
    if bos:
        pair = (bos, tokenizer.convert_tokens_to_ids(bos))
        post = processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[pair])
        tokenizer.backend_tokenizer.post_processor = post
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        pad_token="<pad>",
        eos_token=eos,
        **({"bos_token": bos} if bos else {}),
        **({"extra_special_tokens": named} if named else {}),
    )


def _save(model_class: str, config: Any, processor: Any, folder: Path, dtype: torch.dtype, stops: list[str]) -> Path:
    """Write all files; large initial weights, so that a wrong mask or position shows in the logits."""
    tokenizer = processor.tokenizer
    text = config.get_text_config()
    text.eos_token_id = text.bos_token_id = None
    config.eos_token_id = config.bos_token_id = None
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(config)
    model.generation_config.eos_token_id = [tokenizer.convert_tokens_to_ids(token) for token in stops]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    for name, value in model.named_parameters():
        if value.ndim >= 2 and "position" not in name:
            value.data.mul_(3.0)
    model.to(dtype).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _vision(**sizes: Any) -> dict[str, Any]:
    return {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, **sizes}


def _llama(tokenizer: Any, width: int = 32, **sizes: Any) -> Any:
    return transformers.LlamaConfig(
        vocab_size=len(tokenizer), **{**_TEXT, "hidden_size": width, "intermediate_size": 2 * width, **sizes}
    )


def _qwen2(tokenizer: Any) -> Any:
    return transformers.Qwen2Config(vocab_size=len(tokenizer), **_TEXT)


def llava(folder: Path, *, dtype: torch.dtype = torch.float32, width: int = 32) -> Path:
    """LLaVA-1.5 (llava-hf/llava-1.5-7b-hf is stored in float16): 32 pixels, 16 image tokens.

    bitsandbytes' NF4 on CPUs takes a ``width`` of whole blocks of 64.
    """
    tokenizer = _tokenizer("<image>", bos="<s>")
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**_vision(image_size=32, patch_size=8, projection_dim=32)),
        text_config=_llama(tokenizer, width),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = transformers.LlavaProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_VICUNA,
    )
    return _save("LlavaForConditionalGeneration", config, processor, folder, dtype, ["</s>"])


def llava_next(folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """LLaVA-NeXT (llava-hf/llava-v1.6-mistral-7b-hf): tiles of 32 pixels, at most 2 x 2, and the whole image."""
    tokenizer = _tokenizer("<image>", bos="<s>")
    config = transformers.LlavaNextConfig(
        vision_config=transformers.CLIPVisionConfig(**_vision(image_size=32, patch_size=8, projection_dim=32)),
        text_config=transformers.MistralConfig(vocab_size=len(tokenizer), sliding_window=None, **_TEXT),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        image_grid_pinpoints=_TILES[1:],
    )
    images = transformers.LlavaNextImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=_TILES[1:]
    )
    processor = transformers.LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_MISTRAL,
    )
    return _save("LlavaNextForConditionalGeneration", config, processor, folder, dtype, ["</s>"])


def llava_onevision(folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """LLaVA-OneVision (llava-hf/llava-onevision-qwen2-7b-ov-hf): tiles for an image alone, none for one of several."""
    tokenizer = _tokenizer("<image>", "<video>", *_CHATML[:1], eos="<|im_end|>")
    config = transformers.LlavaOnevisionConfig(
        vision_config=transformers.SiglipVisionConfig(**_vision(image_size=32, patch_size=8), vision_use_head=False),
        text_config=_qwen2(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=_TILES,
    )
    images = transformers.LlavaOnevisionImageProcessor(size={"height": 32, "width": 32}, image_grid_pinpoints=_TILES)
    processor = transformers.LlavaOnevisionProcessor(
        images,
        tokenizer,
        transformers.LlavaOnevisionVideoProcessor(),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=_ONEVISION,
    )
    return _save("LlavaOnevisionForConditionalGeneration", config, processor, folder, dtype, ["<|im_end|>"])


def _qwen_vl(kind: str, vision: dict[str, Any], folder: Path, dtype: torch.dtype, template: str, **image: int) -> Path:
    tokenizer = _tokenizer(*_QWEN_MARKS, _CHATML[0], eos="<|im_end|>")
    ids = tokenizer.convert_tokens_to_ids(list(_QWEN_MARKS))
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    text = {**_TEXT, "vocab_size": len(tokenizer), "rope_parameters": rope}
    text |= {"head_dim": 8} if kind == "Qwen3VL" else {}
    config = getattr(transformers, f"{kind}Config")(
        text_config=text, vision_config=vision, **dict(zip(names, ids, strict=True))
    )
    side = image.get("patch_size", 14) * 2
    images = transformers.Qwen2VLImageProcessor(size={"shortest_edge": side * side, "longest_edge": 448 * 448}, **image)
    video = transformers.Qwen3VLVideoProcessor() if kind == "Qwen3VL" else transformers.Qwen2VLVideoProcessor()
    processor = getattr(transformers, f"{kind}Processor")(images, tokenizer, video, chat_template=template)
    return _save(f"{kind}ForConditionalGeneration", config, processor, folder, dtype, ["<|im_end|>"])


def qwen2_vl(folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """Qwen2-VL (Qwen/Qwen2-VL-7B-Instruct)."""
    vision = {"embed_dim": 32, "hidden_size": 32, "depth": 2, "num_heads": 4, "mlp_ratio": 2}
    template = _chatml(QWEN_IMAGE, "You are a helpful assistant.")
    return _qwen_vl("Qwen2VL", vision, folder, dtype, template)


def qwen(folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """Qwen2.5-VL (Qwen/Qwen2.5-VL-7B-Instruct is stored in bfloat16): patches of 14 pixels, four of them a token."""
    vision = _vision(depth=2, num_heads=4, out_hidden_size=32, fullatt_block_indexes=[1], window_size=56)
    template = _chatml(QWEN_IMAGE, "You are a helpful assistant.")
    return _qwen_vl("Qwen2_5_VL", vision, folder, dtype, template)


def qwen3_vl(folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """Qwen3-VL (Qwen/Qwen3-VL-8B-Instruct): patches of 16 pixels; features of two layers go into the language model's."""
    vision = _vision(
        depth=3, num_heads=4, out_hidden_size=32, deepstack_visual_indexes=[0, 1], num_position_embeddings=64
    )
    return _qwen_vl("Qwen3VL", vision, folder, dtype, _chatml(QWEN_IMAGE), patch_size=16)


def internvl(folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """InternVL3 (OpenGVLab/InternVL3-8B-hf): tiles of 32 pixels and, where there are several, a thumbnail."""
    tokenizer = _tokenizer(
        _CHATML[0],
        eos="<|im_end|>",
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = transformers.InternVLConfig(
        vision_config=transformers.InternVLVisionConfig(
            **_vision(image_size=[32, 32], patch_size=[8, 8], use_mean_pooling=False)
        ),
        text_config=_qwen2(tokenizer),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    images = transformers.GotOcr2ImageProcessor(
        size={"height": 32, "width": 32}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    processor = transformers.InternVLProcessor(
        images,
        tokenizer,
        transformers.InternVLVideoProcessor(),
        image_seq_length=4,
        chat_template=_chatml("<IMG_CONTEXT>\n"),
    )
    return _save("InternVLForConditionalGeneration", config, processor, folder, dtype, ["<|im_end|>"])


def gemma3(folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """Gemma 3 and MedGemma (google/medgemma-4b-it): bidirectional attention inside an image, a window in one of two layers."""
    tokenizer = _tokenizer(
        "<start_of_turn>",
        "<end_of_turn>",
        eos="<eos>",
        bos="<bos>",
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
        image_token="<image_soft_token>",
    )
    marks = ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    boi, eoi, image = tokenizer.convert_tokens_to_ids(marks)
    layers = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16, "head_dim": 8}
    config = transformers.Gemma3Config(
        text_config=transformers.Gemma3TextConfig(
            vocab_size=len(tokenizer), query_pre_attn_scalar=8, pad_token_id=tokenizer.pad_token_id, **layers, **_TEXT
        ),
        vision_config=transformers.SiglipVisionConfig(**_vision(image_size=32, patch_size=8), vision_use_head=False),
        mm_tokens_per_image=4,
        boi_token_index=boi,
        eoi_token_index=eoi,
        image_token_index=image,
    )
    images = transformers.Gemma3ImageProcessor(size={"height": 32, "width": 32})
    processor = transformers.Gemma3Processor(images, tokenizer, chat_template=_GEMMA, image_seq_length=4)
    stops = ["<eos>", "<end_of_turn>"]
    return _save("Gemma3ForConditionalGeneration", config, processor, folder, dtype, stops)


def paligemma(folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """PaliGemma 2 (google/paligemma2-3b-mix-224): attention over image and question in both directions, no chat template."""
    tokenizer = _tokenizer("<image>", eos="<eos>", bos="<bos>", image_token="<image>")
    images = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
    images.image_seq_length = 16
    processor = transformers.PaliGemmaProcessor(images, tokenizer)
    layers = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 64, "head_dim": 8}
    config = transformers.PaliGemmaConfig(
        text_config=transformers.Gemma2Config(
            vocab_size=len(tokenizer), query_pre_attn_scalar=8, pad_token_id=tokenizer.pad_token_id, **layers, **_TEXT
        ),
        vision_config=transformers.SiglipVisionConfig(
            **_vision(image_size=32, patch_size=8, projection_dim=32), vision_use_head=False
        ),
        projection_dim=32,
        hidden_size=32,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return _save("PaliGemmaForConditionalGeneration", config, processor, folder, dtype, ["<eos>"])


_IDEFICS_MARKS = ("<fake_token_around_image>", "<image>", "<global-img>", "<|begin_of_text|>")


def _idefics_sizes(tokenizer: Any) -> dict[str, Any]:
    return {
        "vision_config": _vision(image_size=32, patch_size=8),
        "text_config": _llama(tokenizer, pad_token_id=tokenizer.pad_token_id),
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "pad_token_id": tokenizer.pad_token_id,
        "scale_factor": 2,
    }


def idefics3(folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """Idefics3 (HuggingFaceM4/Idefics3-8B-Llama3): tiles in rows and columns, each named by text, and the whole image."""
    tokenizer = _tokenizer(*_IDEFICS_MARKS, eos="<end_of_utterance>")
    config = transformers.Idefics3Config(**_idefics_sizes(tokenizer))
    images = transformers.Idefics3ImageProcessor(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    processor = transformers.Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=_IDEFICS)
    return _save("Idefics3ForConditionalGeneration", config, processor, folder, dtype, ["<end_of_utterance>"])


def write_numbers() -> None:
    """SmolVLM's processor asks for the package num2words, with which it writes the times of videos alone."""
    from transformers.models.smolvlm import processing_smolvlm

    processing_smolvlm.num2words = processing_smolvlm.num2words or str


def smolvlm(folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """SmolVLM (HuggingFaceTB/SmolVLM2-2.2B-Instruct), which differs from Idefics3 in its first token and its processor."""
    write_numbers()
    tokenizer = _tokenizer(*_IDEFICS_MARKS[:3], "<|im_start|>", "<video>", eos="<end_of_utterance>")
    config = transformers.SmolVLMConfig(**_idefics_sizes(tokenizer))
    images = transformers.SmolVLMImageProcessor(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    template = _IDEFICS.replace("<|begin_of_text|>", "<|im_start|>")
    processor = transformers.SmolVLMProcessor(
        images, tokenizer, transformers.SmolVLMVideoProcessor(), image_seq_len=4, chat_template=template
    )
    return _save("SmolVLMForConditionalGeneration", config, processor, folder, dtype, ["<end_of_utterance>"])


FAMILIES: dict[str, Callable[..., Path]] = {
    "LLaVA-1.5": llava,
    "LLaVA-NeXT": llava_next,
    "LLaVA-OneVision": llava_onevision,
    "Qwen2-VL": qwen2_vl,
    "Qwen2.5-VL": qwen,
    "Qwen3-VL": qwen3_vl,
    "InternVL3": internvl,
    "Gemma 3, MedGemma": gemma3,
    "PaliGemma 2": paligemma,
    "Idefics3": idefics3,
    "SmolVLM": smolvlm,
}
"""Every family that is verified."""
