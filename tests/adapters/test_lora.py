"""LoRA in both towers of a CLIP: which weights, and the update's equation."""

import pytest
import torch

from tests.tiny_models import biomedclip_layout
from zoo.adapters.few_shot import ClassPrompts
from zoo.adapters.lora import LoRA, LowRankUpdate
from zoo.encoders.clip import ClipEncoder
from zoo.image_transform import ImageTransform

NAMES = ["dots", "stripes"]


def test_the_update_is_one_product_for_each_stacked_matrix():
    torch.manual_seed(0)
    update = LowRankUpdate(torch.randn(6, 4), blocks=3, rank=2, alpha=6.0, dropout=0.0)
    inputs = torch.randn(5, 4)
    assert update(inputs).shape == (5, 6) and not update(inputs).any()
    torch.nn.init.normal_(update.lora_b)
    products = [6.0 / 2**0.5 * update.lora_b[block] @ update.lora_a[block] for block in range(3)]
    torch.testing.assert_close(update(inputs), inputs @ torch.cat(products).T)


def test_dropout_is_of_training_alone(tiny_clip):
    adapter = LoRA(tiny_clip, ClassPrompts(NAMES), dropout=0.5)
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        for parameter in adapter.clip_parameters(tiny_clip):
            parameter += 0.2
        tiny_clip.eval()
        adapter.train()
        assert not torch.allclose(adapter(tiny_clip, images), adapter(tiny_clip, images))
        adapter.eval()
        torch.testing.assert_close(adapter(tiny_clip, images), adapter(tiny_clip, images))


@pytest.mark.parametrize(("layout", "matrices"), [("open_clip", 3 * 2), ("biomedclip", 12 + 2 * 3)])
def test_query_key_and_value_of_every_layer_of_both_towers_are_adapted(tiny_clip, layout, matrices):
    ids = torch.tensor([[1, 5, 9, 2], [1, 5, 2, 0]])
    if layout == "biomedclip":
        clip = ClipEncoder(
            biomedclip_layout(), lambda texts: ids, ImageTransform((224, 224)), [0.5] * 3, [0.5] * 3
        ).eval()
    else:
        clip = tiny_clip
    adapter = LoRA(clip, ClassPrompts(NAMES), rank=2)
    assert len(adapter.clip_parameters(clip)) == 2 * matrices
    images = torch.rand(2, 1, *clip.image_size)
    before = adapter(clip, images)
    with torch.no_grad():
        for parameter in adapter.clip_parameters(clip):
            parameter += 0.05 * torch.randn_like(parameter)
    assert not torch.allclose(adapter(clip, images), before)


def test_the_fingerprint_of_the_base_leaves_the_updates_out(tiny_clip):
    before = tiny_clip.fingerprint()
    LoRA(tiny_clip, ClassPrompts(NAMES))
    assert tiny_clip.fingerprint() == before
