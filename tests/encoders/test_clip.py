import json

import pytest
import torch

from zoo.encoders.clip import BiomedClip, OpenClip
from zoo.encoders.clip_towers import UnsupportedTowerError, text_tower, vision_tower
from zoo.pretrained import without_weights

TEXTS = ["no finding", "a small pleural effusion on the left side of a portable film"]


def test_the_layers_one_by_one_give_the_models_own_features(tiny_clip):
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        own = tiny_clip.model.encode_image(tiny_clip.normalise(images), normalize=True)
        torch.testing.assert_close(tiny_clip.encode_image(images), own)
        own = tiny_clip.model.encode_text(tiny_clip._tokenizer(TEXTS), normalize=True)
        torch.testing.assert_close(tiny_clip.encode_text(TEXTS), own, atol=1e-6, rtol=1e-5)
    assert tiny_clip.embedding == own.shape[-1] == 32


def test_trimming_is_to_the_longest_prompt(tiny_clip):
    ids = tiny_clip.tokenize(TEXTS)
    assert 8 < ids.shape[1] < 20 and tiny_clip.tokenize(TEXTS[:1]).shape[1] == 4
    assert tiny_clip.text.is_token(ids).sum(dim=1).max() == ids.shape[1]


def custom_text_clip():
    import open_clip

    vision = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2}
    return open_clip.CustomTextCLIP(
        16, vision, {"width": 32, "heads": 2, "layers": 2, "vocab_size": 64, "context_length": 12}
    ).eval()


def biomedclip_layout():
    import open_clip
    from open_clip.hf_model import HFTextEncoder
    from transformers import BertConfig

    vision = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "", "timm_proj": "linear", "image_size": 224}
    model = open_clip.CustomTextCLIP(16, vision, {"width": 32, "heads": 2, "layers": 1, "vocab_size": 8})
    sizes = {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "vocab_size": 64,
    }
    pooling = {"pooler_type": "cls_last_hidden_state_pooler", "proj_type": "mlp"}
    model.text = HFTextEncoder("", 16, config=BertConfig(**sizes), **pooling)
    return model.eval()


@pytest.mark.parametrize("make", [custom_text_clip, biomedclip_layout])
@torch.no_grad()
def test_other_tower_kinds_give_the_models_own_features(make):
    torch.manual_seed(0)
    model = make()
    vision, text = vision_tower(model), text_tower(model)
    size = model.visual.image_size
    images = torch.rand(
        2, 3, size[0] if isinstance(size, tuple) else size, size[1] if isinstance(size, tuple) else size
    )
    tokens = vision.start(images)
    assert tokens.shape[1] == vision.prefix + vision.grid[0] * vision.grid[1] and tokens.shape[2] == vision.width
    for layer in range(vision.depth):
        tokens = vision.layer(layer, tokens)
    torch.testing.assert_close(vision.finish(tokens), model.encode_image(images), atol=1e-5, rtol=1e-4)

    ids = torch.tensor([[1, 5, 9, 62, 0, 0, 0, 0, 0, 0, 0, 0], [1, 4, 8, 9, 3, 63, 0, 0, 0, 0, 0, 0]])
    trimmed = text.trim(ids)
    assert trimmed.shape[1] == 6
    tokens, mask = text.start(text.embed(trimmed), trimmed)
    for layer in range(text.depth):
        tokens = text.layer(layer, tokens, mask)
    torch.testing.assert_close(text.finish(tokens, trimmed), model.encode_text(ids), atol=1e-5, rtol=1e-4)


def test_bidirectional_text_without_padding_mask_is_not_trimmed():
    import open_clip

    text = {
        "width": 32,
        "heads": 2,
        "layers": 1,
        "vocab_size": 64,
        "context_length": 12,
        "no_causal_mask": True,
        "pool_type": "last",
    }
    tower = text_tower(
        open_clip.CustomTextCLIP(16, {"image_size": 32, "patch_size": 8, "width": 64, "layers": 1}, text)
    )
    ids = torch.tensor([[1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]])
    assert tower.trim(ids).shape == ids.shape


def test_a_tower_without_layers_is_a_clear_error():
    with without_weights(), torch.device("meta"), pytest.raises(UnsupportedTowerError, match="choose a ViT model"):
        OpenClip("RN50")


def test_weights_in_a_local_folder_load_as_from_the_hub(tmp_path, tiny_clip):
    """The real open_clip loading code, on a tiny folder in the hub's format."""
    from safetensors.torch import save_file

    vision = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 3}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 3}
    config = {
        "model_cfg": {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    save_file(
        {name: value.contiguous() for name, value in tiny_clip.model.state_dict().items()},
        tmp_path / "open_clip_model.safetensors",
    )
    loaded = OpenClip(f"local-dir:{tmp_path}").eval()
    assert loaded.fingerprint() == tiny_clip.fingerprint()
    images = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(loaded.encode_image(images), tiny_clip.encode_image(images))
    torch.testing.assert_close(loaded.encode_text(TEXTS), tiny_clip.encode_text(TEXTS))


def test_biomedclip_is_planned_with_its_own_classes_and_sizes():
    with without_weights(), torch.device("meta"):
        clip = BiomedClip()
    assert sum(parameter.numel() for parameter in clip.parameters()) == 195_902_721
    assert (clip.vision.width, clip.text.width, clip.vision.depth, clip.text.depth, clip.embedding) == (
        768,
        768,
        12,
        12,
        512,
    )


def test_the_fingerprint_follows_the_weights(tiny_clip):
    before = tiny_clip.fingerprint()
    assert before == tiny_clip.fingerprint()
    with torch.no_grad():
        tiny_clip.model.positional_embedding[3, 3] += 1e-3
    assert tiny_clip.fingerprint() != before


def test_images_of_any_size_are_brought_to_the_models(tiny_clip):
    for shape in ((1, 1, 8, 90), (1, 3, 64, 64)):
        assert tiny_clip.normalise(torch.rand(shape)).shape == (1, 3, 32, 32)
