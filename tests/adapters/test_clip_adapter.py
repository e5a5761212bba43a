"""CLIP-Adapter against its equation."""

import pytest
import torch
from torch.nn import functional

from zoo.adapters.clip_adapter import ClipAdapter
from zoo.adapters.few_shot import ClassPrompts


@torch.no_grad()
@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize("ratio", [0.0, 0.2, 1.0])
def test_the_bottleneck_is_mixed_into_the_image_feature(tiny_clip, ratio, renormalize):
    torch.manual_seed(0)
    adapter = ClipAdapter(tiny_clip, ClassPrompts(["dots", "stripes"]), 4, ratio, renormalize)
    images = torch.rand(3, 1, 32, 32)
    features, classes = tiny_clip.encode_image(images), tiny_clip.encode_text(["dots", "stripes"])
    first, second = (layer.weight for layer in adapter.bottleneck if hasattr(layer, "weight"))
    assert first.shape == (8, 32) and second.shape == (32, 8)
    mixed = ratio * (features @ first.T).relu().matmul(second.T).relu() + (1 - ratio) * features
    mixed = functional.normalize(mixed, dim=-1) if renormalize else mixed
    expected = tiny_clip.scale * mixed @ classes.T
    torch.testing.assert_close(adapter(tiny_clip, images), expected, atol=1e-5, rtol=1e-5)
