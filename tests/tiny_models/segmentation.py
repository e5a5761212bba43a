"""Tiny SAMs in the form of those on the hub: config.json and model.safetensors."""

from pathlib import Path

import torch
from transformers import SamConfig, SamModel

_DECODER = {
    "hidden_size": 32,
    "mlp_dim": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "iou_head_hidden_dim": 32,
}


def sam(folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """In the form of facebook/sam-vit-huge: 64 pixels, 8 x 8 patches; windowed attention in the first layer, global in the second."""
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
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=_DECODER)
    SamModel(config).to(dtype).save_pretrained(folder)
    return folder


def sam2(folder: Path, *, video: bool = False) -> Path:
    """64 pixels; in the form of facebook/sam2.1-hiera-tiny, whose published files are of the video model."""
    from transformers import Sam2Config, Sam2Model, Sam2VideoConfig, Sam2VideoModel

    torch.manual_seed(0)
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "image_size": [64, 64],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [4, 2, 2, 2],
        "global_attention_blocks": [3],
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 32,
    }
    parts = {"prompt_encoder_config": {"hidden_size": 32, "image_size": 64}, "mask_decoder_config": _DECODER}
    if video:
        memory = {"memory_attention_hidden_size": 32, "memory_attention_feed_forward_hidden_size": 32}
        memory |= {
            "memory_attention_num_layers": 1,
            "memory_encoder_hidden_size": 32,
            "memory_encoder_output_channels": 16,
        }
        memory |= {"mask_downsampler_embed_dim": 32, "memory_fuser_embed_dim": 32, "memory_fuser_intermediate_dim": 32}
        config = Sam2VideoConfig(vision_config={"model_type": "sam2_vision_model", **vision}, **parts, **memory)
        Sam2VideoModel(config).save_pretrained(folder)
    else:
        Sam2Model(Sam2Config(vision_config=vision, **parts)).save_pretrained(folder)
    return folder


def sam3(folder: Path) -> Path:
    """56 pixels, 4 x 4 patches; in the form of the tracker of facebook/sam3."""
    from transformers import Sam3TrackerConfig, Sam3TrackerModel

    torch.manual_seed(0)
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "pretrain_image_size": 28,
        "window_size": 2,
        "global_attn_indexes": [1],
    }
    vision = {
        "model_type": "sam3_vision_model",
        "backbone_config": backbone,
        "fpn_hidden_size": 32,
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    }
    prompt = {"hidden_size": 32, "image_size": 56, "patch_size": 14}
    config = Sam3TrackerConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=_DECODER)
    Sam3TrackerModel(config).save_pretrained(folder)
    return folder
