"""Features of a frozen image tower are computed once for each image, and never outlive the weights."""

import pytest
import torch

from zoo.adapters.image_features import ImageFeatures
from zoo.adapters.zero_shot import ZeroShot
from zoo.methods.clip_classification import ClipClassification


@pytest.fixture
def encoded(tiny_clip, monkeypatch):
    """The number of images that the CLIP encodes, as a list of batch sizes."""
    counts, encode = [], tiny_clip.encode_image
    monkeypatch.setattr(tiny_clip, "encode_image", lambda images: (counts.append(len(images)), encode(images))[1])
    return counts


def images(seed):
    return torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_an_image_is_encoded_once_whatever_its_batch(tiny_clip, encoded):
    features, batch = ImageFeatures(), images(10)
    first = features.encode(tiny_clip, batch)
    assert encoded == [1] * 4 and not first.requires_grad, "a probe and three images"
    again = features.encode(tiny_clip, torch.cat([images(11)[:1], batch.flip(0)]))
    assert encoded == [1] * 5 and torch.equal(again[1:].flip(0), first)
    torch.testing.assert_close(first, tiny_clip.encode_image(batch))


def test_another_adapter_on_the_same_tower_encodes_nothing_again(tiny_clip, encoded):
    first = ImageFeatures().encode(tiny_clip, images(2))
    del encoded[:]
    assert torch.equal(ImageFeatures().encode(tiny_clip, images(2)), first)
    assert encoded == [1], "the probe"


def test_images_of_one_content_and_two_shapes_are_two(tiny_clip):
    features = ImageFeatures()
    wide = torch.rand(1, 1, 16, 64)
    first, second = features.encode(tiny_clip, wide), features.encode(tiny_clip, wide.reshape(1, 1, 64, 16))
    assert not torch.allclose(first, second)


def test_other_weights_or_precision_encode_anew(tiny_clip):
    features, batch = ImageFeatures(), images(0)
    first = features.encode(tiny_clip, batch)
    with torch.no_grad():
        tiny_clip.model.visual.proj.add_(0.1 * torch.randn_like(tiny_clip.model.visual.proj))
    second = features.encode(tiny_clip, batch)
    torch.testing.assert_close(second, tiny_clip.encode_image(batch).detach())
    assert not torch.allclose(first, second)
    with torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal(features.encode(tiny_clip, batch).float(), second)


def test_features_that_validation_has_met_can_be_trained_on(tiny_clip):
    features, batch = ImageFeatures(), images(0)
    with torch.inference_mode():
        features.encode(tiny_clip, batch.clone())
    layer = torch.nn.Linear(32, 2)
    layer(features.encode(tiny_clip, batch)).sum().backward()
    assert layer.weight.grad is not None


def test_a_gradient_of_the_image_is_there(tiny_clip):
    method = ClipClassification(tiny_clip, ZeroShot, ["no finding", "an effusion"])
    batch = images(0).requires_grad_(True)
    method(batch)[:, 0].sum().backward()
    assert batch.grad is not None and batch.grad.abs().sum() > 0
