"""Tiny CLIPs as folders that open_clip reads (``local-dir:FOLDER``): OpenAI's ViT-B/16 and BiomedCLIP."""

import json
import string
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from zoo.constants import CLIP_MEAN, CLIP_STD

BIOMEDBERT = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"


def openclip_vitb16(folder: Path) -> Path:
    """ViT-B/16's layout (class token, 16 pixel patches, causal text, QuickGELU as OpenAI's weights have it) at 64 pixels."""
    import open_clip

    torch.manual_seed(0)
    config = {
        "embed_dim": 32,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "layers": 3, "width": 64, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3},
    }
    return _write(folder, open_clip.CLIP(**config), config)


def biomedclip(folder: Path) -> Path:
    """BiomedCLIP's layout: timm's ViT at 160 pixels with a linear projection, BERT with an MLP, a WordPiece tokenizer.

    As on the hub, open_clip_config.json names BERT's own repository; its config.json lies beside it.
    """
    import open_clip
    from transformers import BertConfig

    torch.manual_seed(0)
    tokenizer = wordpiece_tokenizer()
    tokenizer.save_pretrained(folder)
    BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    ).save_pretrained(folder)
    text = {
        "hf_model_name": str(folder),
        "hf_tokenizer_name": BIOMEDBERT,
        "hf_proj_type": "mlp",
        "hf_pooler_type": "cls_last_hidden_state_pooler",
        "context_length": 64,
    }
    vision = {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160}
    config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}
    model = open_clip.CustomTextCLIP(32, vision, {**text, "hf_model_pretrained": False})
    return _write(folder, model, {**config, "text_cfg": {**text, "hf_model_name": BIOMEDBERT}})


def biomedclip_layout() -> nn.Module:
    """open_clip's classes of BiomedCLIP at tiny sizes, without files: timm's ViT at 224 pixels, BERT with 64 token ids."""
    import open_clip
    from open_clip.hf_model import HFTextEncoder
    from transformers import BertConfig

    vision = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "", "timm_proj": "linear", "image_size": 224}
    model = open_clip.CustomTextCLIP(16, vision, {"width": 32, "heads": 2, "layers": 1, "vocab_size": 8})
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    pooling = {"pooler_type": "cls_last_hidden_state_pooler", "proj_type": "mlp"}
    model.text = HFTextEncoder("", 16, config=BertConfig(**sizes, vocab_size=64), **pooling)
    return model.eval()


def wordpiece_tokenizer() -> Any:
    """An uncased BERT tokenizer that spells every word: any printable ASCII text has tokens of its own."""
    from transformers import BertTokenizer

    letters = string.ascii_lowercase + string.digits
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *string.punctuation, *(f"##{c}" for c in letters)]
    return BertTokenizer(vocab={piece: index for index, piece in enumerate(pieces)})


def _write(folder: Path, model: nn.Module, config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": CLIP_MEAN, "std": CLIP_STD}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


def sentence_encoder(folder: Path) -> Path:
    """A sentence encoder's layout: BERT's config.json, model.safetensors with names as MiniLM's, tokenizer.json."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    tokenizer = wordpiece_tokenizer()
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder)
    return folder
