"""Contrastive pretraining: losses, starting weights, and a run."""

import pytest
import torch
from torch.nn import functional

from tests.tiny_models import sentence_encoder
from zoo.config.recipe import read_recipe
from zoo.data.base import Records
from zoo.encoders.sentence_clip import MiniLmClip
from zoo.engine.assembly import load_matching_weights
from zoo.engine.evaluation import evaluate, open_evaluation
from zoo.engine.training import read_log, train
from zoo.errors import ArgumentError
from zoo.methods.clip_pretraining import ClipPretraining
from zoo.methods.grounding_baselines import FindingUnet

TEXTS = ["a small effusion", "an effusion", "no finding"]


@pytest.fixture
def minilm_clip(tmp_path):
    return MiniLmClip(str(sentence_encoder(tmp_path)), image_size=64, width=64, layers=2, embedding=32)


def batch(*facts):
    claims = [frozenset({"small effusion"}), frozenset({"effusion"}), frozenset({"no finding"})]
    return {
        "image": torch.rand(3, 1, 32, 32),
        "text": TEXTS,
        "claims": Records(claims),
        "facts": Records(list(map(frozenset, facts))),
    }


DISTINCT = batch({"small effusion"}, {"effusion"}, {"no finding"})
OVERLAPPING = batch({"small effusion", "effusion"}, {"effusion"}, {"no finding"})


@pytest.mark.parametrize("positives", ["pairs", "claims"])
def test_with_one_text_an_image_the_loss_is_clips(tiny_clip, positives):
    from open_clip.loss import ClipLoss

    method = ClipPretraining(tiny_clip, positives=positives)
    images, texts = method(DISTINCT["image"], TEXTS)
    expected = ClipLoss()(images, texts, tiny_clip.scale)
    torch.testing.assert_close(method.losses(DISTINCT)["loss"], expected)


def test_a_text_that_is_true_of_two_images_is_a_positive_of_both(tiny_clip):
    method = ClipPretraining(tiny_clip, positives="claims")
    images, texts = method(OVERLAPPING["image"], TEXTS)
    logits = tiny_clip.logits(images, texts)
    by_image, by_text = logits.log_softmax(dim=1), logits.log_softmax(dim=0)
    # The first image has the first two texts, the second text has the first two images.
    images_term = -((by_image[0, 0] + by_image[0, 1]) / 2 + by_image[1, 1] + by_image[2, 2]) / 3
    texts_term = -(by_text[0, 0] + (by_text[0, 1] + by_text[1, 1]) / 2 + by_text[2, 2]) / 3
    torch.testing.assert_close(method.losses(OVERLAPPING)["loss"], (images_term + texts_term) / 2)


def test_claims_are_needed_where_they_are_asked_for(tiny_clip):
    method = ClipPretraining(tiny_clip, positives="claims")
    with pytest.raises(ArgumentError, match="captions: true"):
        method.losses({"image": torch.rand(3, 1, 32, 32), "text": TEXTS})


def test_frozen_language_is_the_base_and_not_in_the_trained_weights(minilm_clip, tiny_clip):
    assert ClipPretraining(tiny_clip).base_fingerprint() is None
    method = ClipPretraining(minilm_clip)
    trained = method.trained_state()
    assert not any("text.transformer" in name for name in trained)
    assert any("text.proj" in name for name in trained) and any("running_mean" in name for name in trained)
    fingerprint = method.base_fingerprint()
    minilm_clip.model.visual.head.weight.data += 1
    assert ClipPretraining(minilm_clip).base_fingerprint() == fingerprint
    minilm_clip.model.text.transformer.embeddings.word_embeddings.weight.data += 1
    assert ClipPretraining(minilm_clip).base_fingerprint() != fingerprint


@torch.no_grad()
def test_the_stem_starts_from_a_u_nets_encoder(minilm_clip):
    unet = FindingUnet(image_size=64, channels=[16, 16, 8, 8, 8], label_names=["nodule"]).eval()
    method = ClipPretraining(minilm_clip).eval()
    load_matching_weights(method, unet.trained_state(), "unet")
    images = functional.interpolate(torch.rand(1, 3, 16, 16), size=(64, 64))
    features = minilm_clip.model.visual.trunk.patch_embed.backbone(images)[-1]
    torch.testing.assert_close(features, unet.unet.encoder(images)[4])


def test_training_moves_image_tower_and_projection_alone(minilm_clip):
    method = ClipPretraining(minilm_clip, positives="claims").train()
    method.losses({**OVERLAPPING, "image": torch.rand(3, 1, 64, 64)})["loss"].backward()
    moved = {name for name, value in method.named_parameters() if value.grad is not None and value.grad.abs().sum() > 0}
    assert "clip.model.logit_scale" in moved and "clip.model.text.proj.0.weight" in moved
    assert "clip.model.visual.trunk.patch_embed.backbone.model.conv_stem.weight" in moved
    assert not any("text.transformer" in name for name in moved)


def test_contrastive_pretraining_learns_to_match(tmp_path):
    text = """
seed: 0
data: {name: chest_drr, size: 64, image_size: 32, batch_size: 16, findings: [pleural effusion, cardiomegaly], severity: false, render_workers: 2}
method:
  name: clip_pretraining
  clip: {name: small_clip, image_size: 32, patch_size: 8, width: 64, layers: 2, text_width: 32, text_layers: 2, embedding: 32}
optimizer: {name: adamw, lr: 2.0e-3}
trainer: {max_epochs: 3, enable_progress_bar: false, accelerator: cpu}
"""
    recipe = tmp_path / "pretrain.yaml"
    recipe.write_text(text)
    folder = train(read_recipe(recipe), tmp_path / "run")
    curve = read_log(folder)["train_loss"].dropna().tolist()
    assert len(curve) == 12 and sum(curve[-3:]) < sum(curve[:3])
    assert set(evaluate(open_evaluation(folder), progress=False)) == {
        "auroc",
        "auroc_pleural_effusion",
        "auroc_cardiomegaly",
    }
