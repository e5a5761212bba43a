"""The orthogonal cross-attention adapter against its equations."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from zoo.adapters.oca import OrthogonalCrossAttention


def test_parameter_counts_of_the_docstring():
    counts = [sum(p.numel() for p in OrthogonalCrossAttention(width).parameters()) for width in (768, 512)]
    assert counts == [40_960, 32_768]


def test_the_frozen_model_is_the_start():
    features = torch.randn(2, 5, 24)
    assert torch.equal(OrthogonalCrossAttention(24, synergy=16, rank=4)(features, torch.randn(2, 3, 16)), features)


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


def test_the_incremental_scale_interpolates_to_plain_cross_attention():
    torch.manual_seed(0)
    adapters = [OrthogonalCrossAttention(24, synergy=16, rank=4, incremental_scale=scale) for scale in (0.0, 0.5, 1.0)]
    torch.nn.init.normal_(adapters[0].out.weight)
    for adapter in adapters[1:]:
        adapter.load_state_dict(adapters[0].state_dict())
    features, synergy = torch.randn(2, 5, 24), torch.randn(2, 3, 16)
    orthogonal, half, full = (adapter(features, synergy) for adapter in adapters)
    torch.testing.assert_close(half, (orthogonal + full) / 2)
    attention = (adapters[0].query(features) @ adapters[0].key(synergy).mT / 4**0.5).softmax(dim=-1)
    torch.testing.assert_close(full, features + adapters[0].out(attention @ adapters[0].value(synergy)))


def test_a_zero_token_stays_finite():
    oca = OrthogonalCrossAttention(8, synergy=4, rank=2)
    torch.nn.init.normal_(oca.out.weight)
    assert oca(torch.zeros(1, 2, 8), torch.randn(1, 3, 4)).isfinite().all()
