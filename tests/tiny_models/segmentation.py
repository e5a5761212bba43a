"""A tiny SAM in the form of facebook/sam-vit-huge on the hub: config.json and model.safetensors."""

from pathlib import Path

import torch
from transformers import SamConfig, SamModel


def sam(folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """64 pixels, 8 x 8 patches; windowed attention in the first layer, global in the second."""
    torch.manual_seed(0)
    vision = {
        "hidden_size": 32,
        "mlp_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 8,
        "output_channels": 32,
        "window_size": 4,
        "global_attn_indexes": [1],
        "num_pos_feats": 16,
    }
    prompt = {"hidden_size": 32, "image_size": 64, "patch_size": 8, "mask_input_channels": 8}
    decoder = {
        "hidden_size": 32,
        "mlp_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "iou_head_hidden_dim": 32,
    }
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    SamModel(config).to(dtype).save_pretrained(folder)
    return folder
