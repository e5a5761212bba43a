"""NEARL's adapter on a tiny CLIP: directions and kinds of interaction, the prototype, towers of unequal depth."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.tiny_models import biomedclip_layout
from zoo.adapters.few_shot import ClassPrompts
from zoo.adapters.nearl import MANY_CLASSES, NearlAdapter
from zoo.encoders.clip import ClipEncoder, OpenClip, SmallClip
from zoo.errors import ZooWarning
from zoo.image_transform import ImageTransform
from zoo.methods.nearl_clip import NearlClip
from zoo.pretrained import without_weights

NAMES = ["no finding", "a small pleural effusion", "a large pneumothorax"]
OTHER_NAMES = ["finding no", "effusion pleural small a", "pneumothorax large a"]
"""Other names with as many tokens each, so that nothing but the tokens differs."""


def with_random_weights(clip: ClipEncoder, names: list[str] = NAMES, **options: Any) -> NearlClip:
    """The method with the same random adapter weights whatever the class names, so that no zero initialisation hides a path."""
    torch.manual_seed(3)
    method = NearlClip(clip, names, template="{}", **options)
    with torch.no_grad():
        for parameter in method.adapter.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return method.eval()


@contextmanager
def recorded(module: torch.nn.Module, calls: list[str], name: str) -> Iterator[None]:
    """Inside, each forward pass of a module adds its name to the calls."""
    handle = module.register_forward_pre_hook(lambda *_: calls.append(name))
    try:
        yield
    finally:
        handle.remove()


def test_the_papers_parameter_count_on_vit_b_16():
    with without_weights(), torch.device("meta"):
        method = NearlClip(OpenClip("ViT-B-16"), NAMES)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in method.adapter.named_children()}
    assert count == {"useformer": 573_696, "image_oca": 491_520, "text_oca": 393_216}
    assert sum(p.numel() for p in method.parameters() if p.requires_grad) == 1_458_432


@torch.no_grad()
def features_of(
    clip: ClipEncoder, monkeypatch: pytest.MonkeyPatch, images: torch.Tensor, names: list[str], **options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Adapted image features (batch, embedding) and class features, whose cosines are the logits.

    With the interaction "prototype", the images are those that the prototype is the mean of, too.
    """
    method = with_random_weights(clip, names, **options)
    if options["interaction"] == "prototype":
        method.train()(images)
        method.eval()
    pairs = []
    with monkeypatch.context() as patch:
        logits = clip.logits
        patch.setattr(clip, "logits", lambda image, text: pairs.append((image, text)) or logits(image, text))
        method(images)
    image_features, text_features = pairs[0]
    return image_features.flatten(0, -2), text_features


@pytest.mark.parametrize("interaction", ["instance", "prototype"])
@pytest.mark.parametrize("direction", ["both", "image_to_text", "text_to_image"])
def test_each_direction_adapts_its_tower_by_the_other_and_leaves_the_other_frozen(
    tiny_clip, monkeypatch, direction, interaction
):
    images, other_images = torch.rand(2, 2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    options = {"direction": direction, "interaction": interaction}
    image, text = features_of(tiny_clip, monkeypatch, images, NAMES, **options)
    _, text_of_other_images = features_of(tiny_clip, monkeypatch, other_images, NAMES, **options)
    image_of_other_names, _ = features_of(tiny_clip, monkeypatch, images, OTHER_NAMES, **options)
    frozen_image, frozen_text = tiny_clip.encode_image(images), tiny_clip.encode_text(NAMES).expand_as(text)
    adapts_text, adapts_image = direction != "text_to_image", direction != "image_to_text"
    same = {"atol": 1e-5, "rtol": 0.0}
    assert torch.allclose(text, frozen_text, **same) != adapts_text
    assert torch.allclose(image, frozen_image, **same) != adapts_image
    assert torch.allclose(text, text_of_other_images, **same) != adapts_text, "text depends on the image"
    assert torch.allclose(image, image_of_other_names, **same) != adapts_image, "the image depends on the text"


@torch.no_grad()
def test_prototype_interaction_caches_class_embeddings_until_training(tiny_clip):
    method = with_random_weights(tiny_clip, interaction="prototype")
    images = torch.rand(4, 1, 32, 32)
    calls: list[str] = []
    with recorded(tiny_clip.model.transformer.resblocks[0], calls, "text"):
        first = method(images)
        assert len(calls) == 1
        torch.testing.assert_close(method(images), first)
        torch.testing.assert_close(torch.cat([method(image[None]) for image in images]), first, atol=2e-5, rtol=1e-5)
        assert len(calls) == 1, "class embeddings are cached"
        method.train().eval()(images)
        assert len(calls) == 2, "and dropped, since training may have changed the weights"
        method.double().float()(images)
        assert len(calls) == 3, "and when the module is moved or cast"


def test_prototype_interaction_trains_every_parameter(tiny_clip):
    method = with_random_weights(tiny_clip, interaction="prototype").train()
    for _ in range(2):
        functional.cross_entropy(method(torch.rand(3, 1, 32, 32)), torch.tensor([0, 1, 2])).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in method.adapter.parameters())


@torch.no_grad()
def test_the_prototype_is_the_mean_of_the_first_batch_and_then_a_moving_average(tiny_clip):
    method = NearlClip(tiny_clip, NAMES, interaction="prototype").train()
    batches = torch.rand(2, 3, 1, 32, 32)
    means = []
    for images in batches:
        tokens = tiny_clip.vision.layer(0, tiny_clip.vision.start(tiny_clip.normalise(images)))
        class_token, patches = tokens[:, :1], tokens[:, 1:].view(3, 2, 2, 2, 2, -1)  # 4 x 4 patches, two by two
        means.append(torch.cat([class_token, patches.mean(dim=(2, 4)).flatten(1, 2)], dim=1).mean(dim=0))
    method(batches[0])
    torch.testing.assert_close(method.adapter.prototype[0], means[0], atol=1e-5, rtol=1e-5)
    method(batches[1])
    torch.testing.assert_close(method.adapter.prototype[0], 0.99 * means[0] + 0.01 * means[1], atol=1e-5, rtol=1e-5)
    assert method.adapter.seen == 2 and method.adapter.prototype.flatten(1).any(dim=1).all()


@torch.no_grad()
@pytest.mark.parametrize("interaction", ["instance", "prototype"])
def test_towers_of_unequal_depth_are_adapted_at_evenly_spaced_points(interaction):
    clip = SmallClip(image_size=32, patch_size=8, width=64, layers=5, text_width=32, text_layers=2, embedding=32).eval()
    method = NearlClip(clip, NAMES, template="{}", interaction=interaction).eval()
    assert method.adapter.points == 2
    layers: list[str] = []
    named = {f"image {i}": block for i, block in enumerate(clip.model.visual.transformer.resblocks)}
    named |= {f"text {i}": block for i, block in enumerate(clip.model.transformer.resblocks)}
    named |= {f"image adapter {i}": oca for i, oca in enumerate(method.adapter.image_oca)}
    handles = [
        block.register_forward_pre_hook(lambda *_, name=name: layers.append(name)) for name, block in named.items()
    ]
    images = torch.rand(2, 1, 32, 32)
    logits = method(images)
    for handle in handles:
        handle.remove()
    assert [name for name in layers if name.startswith("image")] == [
        *("image 0", "image 1", "image adapter 0"),
        *("image 2", "image 3", "image 4", "image adapter 1"),
    ]
    assert [name for name in layers if name.startswith("text")] == ["text 0", "text 1"]
    torch.testing.assert_close(
        logits, clip.logits(clip.encode_image(images), clip.encode_text(NAMES)), atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_candidates_are_the_likeliest_classes_and_the_others_keep_their_frozen_embeddings(tiny_clip, monkeypatch):
    images = torch.rand(5, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    names = [f"{letter} finding" for letter in "abcdefg"]
    frozen = tiny_clip.encode_text(names)
    likeliest = (tiny_clip.encode_image(images) @ frozen.T).topk(2).indices
    _, text = features_of(tiny_clip, monkeypatch, images, names, interaction="instance", candidates=2)
    for row, kept in zip(text, likeliest, strict=True):
        changed = [index for index in range(len(names)) if not torch.allclose(row[index], frozen[index], atol=1e-4)]
        assert changed == sorted(kept.tolist())
    every = with_random_weights(tiny_clip, names)(images)
    for count in (7, 20):
        torch.testing.assert_close(with_random_weights(tiny_clip, names, candidates=count)(images), every)
    alone = with_random_weights(tiny_clip, names, candidates=2)
    together = alone(images)
    torch.testing.assert_close(torch.cat([alone(image[None]) for image in images]), together, atol=2e-5, rtol=1e-5)


def test_of_many_classes_the_likeliest_interact_and_a_warning_says_so(tiny_clip):
    names = [f"finding {index}" for index in range(MANY_CLASSES + 1)]
    with pytest.warns(ZooWarning, match="the 32 likeliest of 33 classes; candidates=33 lets it interact with all"):
        adapter = with_random_weights(tiny_clip, names).adapter
    assert adapter.candidates == MANY_CLASSES
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exact = with_random_weights(tiny_clip, names, candidates=len(names)).adapter
        few = with_random_weights(tiny_clip, names[:-1]).adapter
        with_random_weights(tiny_clip, names, interaction="prototype")
    assert (exact.candidates, few.candidates) == (33, 32)


def test_candidates_train_every_parameter(tiny_clip):
    method = with_random_weights(tiny_clip, candidates=1).train()
    functional.cross_entropy(method(torch.rand(3, 1, 32, 32)), torch.tensor([0, 1, 2])).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in method.adapter.parameters())


def test_attention_maps_are_shares_of_the_image(tiny_clip):
    method = with_random_weights(tiny_clip)
    with torch.no_grad():
        maps = method.adapter.attention_maps(tiny_clip, torch.rand(2, 1, 32, 32))
    assert maps.shape == (2, 3, 4, 4) and (maps >= 0).all() and (maps.sum(dim=(-1, -2)) <= 1).all()
    prototype = NearlAdapter(tiny_clip, ClassPrompts(NAMES), interaction="prototype")
    with pytest.raises(ValueError, match="instance interaction"):
        prototype.attention_maps(tiny_clip, torch.rand(1, 1, 32, 32))


@torch.no_grad()
@pytest.mark.parametrize("interaction", ["instance", "prototype"])
def test_biomedclips_towers_are_adapted(interaction):
    ids = torch.tensor([[1, 5, 9, 2], [1, 5, 2, 0], [1, 7, 2, 0]])
    clip = ClipEncoder(
        biomedclip_layout(), lambda texts: ids[: len(texts)], ImageTransform((224, 224)), [0.5] * 3, [0.5] * 3
    ).eval()
    images = torch.rand(2, 1, 224, 224)
    frozen = clip.logits(clip.encode_image(images), clip.encode_ids(ids))
    torch.testing.assert_close(
        NearlClip(clip, NAMES, interaction=interaction).eval()(images), frozen, atol=1e-4, rtol=1e-4
    )
    adapted = with_random_weights(clip, interaction=interaction)(images)
    assert adapted.isfinite().all() and not torch.allclose(adapted, frozen, atol=1e-3)
