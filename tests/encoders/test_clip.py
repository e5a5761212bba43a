"""CLIP encoders: features, tokenizing, loading from local folders, planning without weights."""

import json
import warnings

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from tests.tiny_models import openclip_vitb16
from zoo.encoders.clip import BiomedClip, OpenClip, SmallClip
from zoo.encoders.clip_towers import UnsupportedTowerError
from zoo.image_transform import ImageTransform
from zoo.pretrained import without_weights

TEXTS = ["no finding", "a small pleural effusion on the left side of a portable film"]


def test_the_layers_one_by_one_give_the_models_own_features(tiny_clip):
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        expected = tiny_clip.model.encode_image(tiny_clip.normalise(images), normalize=True)
        torch.testing.assert_close(tiny_clip.encode_image(images), expected)
        input_ids = open_clip.SimpleTokenizer(context_length=77)(TEXTS)
        expected = tiny_clip.model.encode_text(input_ids, normalize=True)
        torch.testing.assert_close(tiny_clip.encode_text(TEXTS), expected, atol=1e-6, rtol=1e-5)
    assert tiny_clip.embedding == expected.shape[-1] == 32


def test_trimming_is_to_the_longest_prompt(tiny_clip):
    ids = tiny_clip.tokenize(TEXTS)
    assert 8 < ids.shape[1] < 20 and tiny_clip.tokenize(TEXTS[:1]).shape[1] == 4
    assert tiny_clip.text.is_token(ids).sum(dim=1).max() == ids.shape[1]


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


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({}, ImageTransform((64, 64), "shortest", "bicubic", 0.0)),
        ({"resize_mode": "squash", "interpolation": "bilinear"}, ImageTransform((64, 64), "squash", "bilinear", 0.0)),
        ({"resize_mode": "longest", "fill_color": 51}, ImageTransform((64, 64), "longest", "bicubic", 0.2)),
        ({"interpolation": "random"}, ImageTransform((64, 64), "shortest", "bicubic", 0.0)),
    ],
)
def test_a_clip_prepares_images_as_its_configuration_says(stated, expected, tmp_path):
    """As open_clip does for the same folder, on 8-bit images that are no squares."""
    folder = openclip_vitb16(tmp_path)
    file = folder / "open_clip_config.json"
    config = json.loads(file.read_text())
    config["preprocess_cfg"] |= stated
    file.write_text(json.dumps(config))
    clip = OpenClip(f"local-dir:{folder}").eval()
    assert clip.transform == expected
    official = open_clip.create_model_from_pretrained(f"local-dir:{folder}")[1]
    for shape in ((100, 150, 3), (150, 100, 3), (40, 50, 3)):
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        image = torch.from_numpy(pixels).permute(2, 0, 1) / 255
        levels = (clip.normalise(image[None])[0] - official(Image.fromarray(pixels))).abs() * clip.std * 255
        assert float(levels.max()) < 1.1
        torch.testing.assert_close(clip.normalise(clip.stack([image])), clip.normalise(image[None]))


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("coca_ViT-B-32", "CoCa"),
        ("coca_roberta-ViT-B-32", "CoCa"),
        ("mt5-base-ViT-B-32", "T5"),
        ("nllb-clip-base", "NLLB"),
    ],
)
def test_families_without_layers_are_refused_by_name_before_weights_are_loaded(model, family):
    with pytest.raises(UnsupportedTowerError, match=f"'{model}' has the text tower of {family}"):
        OpenClip(model, pretrained="a tag that nobody has")


@pytest.mark.parametrize(
    ("model", "pretrained", "quick"),
    [
        ("ViT-B-16", "openai", True),
        ("ViT-B-16-quickgelu", "openai", True),
        ("ViT-B-16", "dfn2b", True),
        ("ViT-B-16", "laion2b_s34b_b88k", False),
        ("ViT-B-16", None, False),
    ],
)
def test_weights_run_with_the_activation_that_they_were_trained_with(model, pretrained, quick, tmp_path, monkeypatch):
    """On a tiny model in the place of ViT-B/16's, by open_clip's own table of weights."""
    from open_clip import factory

    folder = openclip_vitb16(tmp_path)
    tiny = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"] | {"quick_gelu": False}
    for name in ("ViT-B-16", "ViT-B-16-quickgelu"):
        monkeypatch.setitem(factory._MODEL_CONFIGS, name, tiny | ({"quick_gelu": True} if "quick" in name else {}))
    weights = str(folder / "open_clip_model.safetensors")
    monkeypatch.setattr(factory, "download_pretrained", lambda *_, **__: weights)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip = OpenClip(model, pretrained).eval()
    blocks = [*clip.model.visual.transformer.resblocks, *clip.model.transformer.resblocks]
    expected = open_clip.transformer.QuickGELU if quick else torch.nn.GELU
    assert {type(block.mlp.gelu) for block in blocks} == {expected}
    if quick:
        known = OpenClip(f"local-dir:{folder}").eval()  # whose configuration says so
        images = torch.rand(1, 3, 64, 64)
        torch.testing.assert_close(clip.encode_image(images), known.encode_image(images))


def test_the_small_clips_squash():
    assert SmallClip(image_size=64, layers=1, text_layers=1).transform == ImageTransform((64, 64), "squash")


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


def test_images_of_any_size_are_resized_and_normalised(tiny_clip):
    for shape in ((1, 1, 8, 90), (1, 3, 64, 64)):
        assert tiny_clip.normalise(torch.rand(shape)).shape == (1, 3, 32, 32)
    image = torch.rand(1, 1, 32, 32)
    expected = ((image - 0.5) / 0.25).expand(-1, 3, -1, -1)  # SmallClip's statistics
    torch.testing.assert_close(tiny_clip.normalise(image), expected)
    stacked = tiny_clip.stack([image[0], torch.rand(3, 50, 40)])
    assert stacked.shape == (2, 3, 32, 32)
    torch.testing.assert_close(stacked[:1], image.expand(-1, 3, -1, -1))
