import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from zoo.adapters.nearl import NearlAdapter, _layers_before
from zoo.adapters.oca import OrthogonalCrossAttention
from zoo.adapters.useformer import USEformer
from zoo.encoders.clip import OpenClip, SmallClip
from zoo.methods.nearl_clip import NearlClip
from zoo.pretrained import without_weights

NAMES = ["no finding", "a small pleural effusion", "a large pneumothorax"]


def test_the_papers_parameter_count_on_vit_b_16():
    with without_weights(), torch.device("meta"):
        method = NearlClip(OpenClip("ViT-B-16"), NAMES)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in method.adapter.named_children()}
    assert count == {"useformer": 573_696, "image_oca": 491_520, "text_oca": 393_216}
    assert sum(p.numel() for p in method.parameters() if p.requires_grad) == 1_458_432


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 1e3))
def test_the_update_is_orthogonal_to_each_token(seed, scale):
    torch.manual_seed(seed)
    oca = OrthogonalCrossAttention(24, synergy=16, rank=4).double()
    torch.nn.init.normal_(oca.out.weight)
    features, synergy = torch.randn(2, 5, 24).double() * scale, torch.randn(2, 3, 16).double()
    update = oca(features, synergy) - features
    cosine = functional.cosine_similarity(update, features, dim=-1)
    assert update.abs().max() > 0 and cosine.abs().max() < 1e-3


def test_the_incremental_part_interpolates_to_the_whole_update():
    torch.manual_seed(0)
    parts = [OrthogonalCrossAttention(24, synergy=16, rank=4, incremental_scale=scale) for scale in (0.0, 0.5, 1.0)]
    torch.nn.init.normal_(parts[0].out.weight)
    for part in parts[1:]:
        part.load_state_dict(parts[0].state_dict())
    features, synergy = torch.randn(2, 5, 24), torch.randn(2, 3, 16)
    none, half, whole = (part(features, synergy) for part in parts)
    torch.testing.assert_close(half, (none + whole) / 2)
    attention = (parts[0].query(features) @ parts[0].key(synergy).mT / 4**0.5).softmax(dim=-1)
    torch.testing.assert_close(whole, features + parts[0].out(attention @ parts[0].value(synergy)))


def test_a_zero_token_stays_finite():
    oca = OrthogonalCrossAttention(8, synergy=4, rank=2)
    torch.nn.init.normal_(oca.out.weight)
    assert oca(torch.zeros(1, 2, 8), torch.randn(1, 3, 4)).isfinite().all()


def test_computing_only_the_queries_of_the_last_block_is_exact():
    torch.manual_seed(0)
    module = USEformer(12, 10, layers=2, width=16, depth=3, queries=4, synergy=8).eval()
    image, text = torch.randn(2, 5, 12), torch.randn(2, 6, 10)
    padding = torch.tensor([[False] * 4 + [True] * 2] * 2)
    tokens = torch.cat([module.queries[1].expand(2, -1, -1), module.from_image(image), module.from_text(text)], dim=1)
    hidden = torch.cat([torch.zeros(2, 9, dtype=torch.bool), padding], dim=1)
    for block in module.blocks:
        tokens = block(tokens, src_key_padding_mask=hidden)
    gathered = module.norm(tokens[:, :4])
    for_image, for_text = module(1, image, text, padding)
    torch.testing.assert_close(for_image, module.to_image(gathered), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(for_text, module.to_text(gathered), atol=1e-5, rtol=1e-5)


def test_padding_is_not_seen_and_tokens_are():
    torch.manual_seed(0)
    module = USEformer(12, 10, layers=1, width=16, queries=2, synergy=8).eval()
    image, text = torch.randn(1, 5, 12), torch.randn(1, 4, 10)
    padding = torch.tensor([[False, False, False, True]])
    other = text.clone()
    other[:, 3] += 1
    torch.testing.assert_close(module(0, image, text, padding), module(0, image, other, padding))
    other[:, 0] += 1
    assert not torch.allclose(module(0, image, text, padding)[0], module(0, image, other, padding)[0])


def adapter_for(clip, **options):
    torch.manual_seed(3)
    method = NearlClip(clip, NAMES, **options)
    with torch.no_grad():
        for parameter in method.adapter.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return method


@torch.no_grad()
def test_each_modality_sees_the_other(tiny_clip):
    images = torch.rand(2, 1, 32, 32)
    text_of = {}
    for ways in ("both", "image_to_text", "text_to_image"):
        method = adapter_for(tiny_clip, ways=ways).eval()
        adapter = method.adapter
        assert (adapter.image_oca is None, adapter.text_oca is None) == (
            ways == "image_to_text",
            ways == "text_to_image",
        )
        text_of[ways] = method(images)
    assert not torch.allclose(text_of["both"], text_of["image_to_text"])


@torch.no_grad()
def test_prototype_interaction_caches_class_embeddings_and_drops_them_in_training(tiny_clip):
    method = adapter_for(tiny_clip, interaction="prototype")
    images = torch.rand(4, 1, 32, 32)
    method.train()
    method(images)
    assert method.adapter.seen == 1 and method.adapter.prototype.abs().sum() > 0
    method.eval()
    first = method(images)
    cached = method.adapter._cached_text
    assert cached is not None
    torch.testing.assert_close(method(images), first)
    assert method.adapter._cached_text is cached
    torch.testing.assert_close(torch.cat([method(image[None]) for image in images]), first, atol=2e-5, rtol=1e-5)
    method.train()
    assert method.adapter._cached_text is None


def test_prototype_interaction_trains_every_part(tiny_clip):
    method = adapter_for(tiny_clip, interaction="prototype").train()
    for _ in range(2):
        functional.cross_entropy(method(torch.rand(3, 1, 32, 32)), torch.tensor([0, 1, 2])).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in method.adapter.parameters())


def test_the_prototype_is_the_mean_of_the_first_batch_and_then_moves_slowly(tiny_clip):
    adapter = NearlClip(tiny_clip, NAMES, interaction="prototype").adapter
    ones = torch.ones_like(adapter.prototype[0])
    for point in range(adapter.points):
        adapter._follow(point, ones)
    torch.testing.assert_close(adapter.prototype, torch.ones_like(adapter.prototype))
    adapter._follow(0, 2 * ones)
    torch.testing.assert_close(adapter.prototype[0], 1.01 * ones)


def test_towers_of_unequal_depth():
    clip = SmallClip(image_size=32, patch_size=8, width=64, layers=5, text_width=32, text_layers=2, embedding=32).eval()
    assert [list(_layers_before(point, 2, 5)) for point in range(2)] == [[0, 1], [2, 3, 4]]
    method = NearlClip(clip, NAMES).eval()
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            method(images),
            clip.logits(clip.encode_image(images), clip.encode_ids(method.adapter.ids)),
            atol=1e-5,
            rtol=1e-5,
        )


def test_attention_maps_are_shares_of_the_image(tiny_clip):
    method = adapter_for(tiny_clip).eval()
    with torch.no_grad():
        maps = method.adapter.attention_maps(tiny_clip, torch.rand(2, 1, 32, 32))
    assert maps.shape == (2, 3, 4, 4) and (maps >= 0).all() and (maps.sum(dim=(-1, -2)) <= 1).all()
    prototype = NearlAdapter(tiny_clip, NAMES, "{}", interaction="prototype")
    with pytest.raises(ValueError, match="instance interaction"):
        prototype.attention_maps(tiny_clip, torch.rand(1, 1, 32, 32))


def test_without_mixing_no_token_is_seen():
    module = USEformer(12, 10, layers=1, width=16, queries=2, synergy=8, mix=False).eval()
    text = torch.randn(1, 4, 10)
    torch.testing.assert_close(module(0, torch.randn(1, 5, 12), text), module(0, torch.randn(1, 5, 12), text))


@torch.no_grad()
def test_biomedclips_layout_is_adapted(tiny_clip):
    from tests.encoders.test_clip import biomedclip_layout
    from zoo.encoders.clip import ClipEncoder

    ids = torch.tensor([[1, 5, 9, 2], [1, 5, 2, 0], [1, 7, 2, 0]])
    clip = ClipEncoder(biomedclip_layout(), lambda texts: ids[: len(texts)], (224, 224), [0.5] * 3, [0.5] * 3).eval()
    images = torch.rand(2, 1, 224, 224)
    for interaction in ("instance", "prototype"):
        method = NearlClip(clip, NAMES, interaction=interaction).eval()
        torch.testing.assert_close(
            method(images), clip.logits(clip.encode_image(images), clip.encode_ids(ids)), atol=1e-4, rtol=1e-4
        )
