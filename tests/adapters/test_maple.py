"""MaPLe's prompts: in both towers, coupled, down to a depth."""

import pytest
import torch

from zoo.adapters.few_shot import ClassPrompts
from zoo.adapters.maple import MaPLe

NAMES = ["dots", "stripes"]


@torch.no_grad()
def test_each_layers_prompts_reach_the_logits_through_both_towers(tiny_clip):
    torch.manual_seed(0)
    adapter = MaPLe(tiny_clip, ClassPrompts(NAMES), context=2)
    images = torch.rand(2, 1, 32, 32)
    before = adapter(tiny_clip, images)
    for layer in range(3):
        for place in (
            adapter.prompts_by_layer[layer],
            adapter.couplings[layer].bias,
        ):  # the second is of the image alone
            kept = place.clone()
            place += torch.randn_like(place)
            assert not torch.allclose(adapter(tiny_clip, images), before, atol=1e-4), f"layer {layer}"
            place.copy_(kept)
    torch.testing.assert_close(adapter(tiny_clip, images), before)


@pytest.mark.parametrize(("prompt_depth", "expected"), [(1, 1), (2, 2), (9, 3)])
def test_prompts_are_learned_down_to_a_depth_and_no_deeper_than_the_towers(tiny_clip, prompt_depth, expected):
    adapter = MaPLe(tiny_clip, ClassPrompts(NAMES), context=4, prompt_depth=prompt_depth)
    assert adapter.prompts_by_layer.shape == (expected, 4, tiny_clip.text.width)
    assert len(adapter.couplings) == expected
