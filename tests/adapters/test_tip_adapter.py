"""Tip-Adapter's cache: filled by the shots, saved, and used as in the paper's equation."""

from functools import partial

import pytest
import torch
from torch.nn import functional

from zoo.adapters.few_shot import ClassPrompts
from zoo.adapters.tip_adapter import TipAdapter, TipAdapterF
from zoo.errors import ZooWarning
from zoo.methods.clip_classification import ClipClassification

NAMES = ["no finding", "a small pleural effusion", "a large pneumothorax"]


def batch(count: int = 5) -> torch.Tensor:
    return torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(2))


def test_tip_adapter_counts_its_shots(tiny_clip):
    adapter = TipAdapter(tiny_clip, ClassPrompts(NAMES), per_class=2, search=False)
    images, labels = batch(5), torch.tensor([0, 0, 1, 1, 2])
    adapter.observe(tiny_clip, [{"image": images, "label": labels}], [])
    assert adapter.labels.sum(dim=0).tolist() == [2, 2, 1]
    torch.testing.assert_close(adapter.keys[2], tiny_clip.encode_image(images)[2])
    with pytest.raises(ValueError, match="and per_class is 2"):
        adapter.observe(tiny_clip, [{"image": images, "label": torch.zeros(5, dtype=torch.long)}], [])


@pytest.mark.parametrize("adapter", [TipAdapter, TipAdapterF])
def test_a_filled_cache_is_saved(tiny_clip, adapter):
    filled, empty = (ClipClassification(tiny_clip, adapter, NAMES) for _ in range(2))
    shots = [{"image": batch(3), "label": torch.tensor([0, 1, 2])}]
    filled.adapter.observe(tiny_clip, shots, shots)
    with torch.no_grad():
        assert not torch.allclose(filled(batch()), empty(batch()))
        empty.load_trained_state(filled.trained_state())
        torch.testing.assert_close(filled(batch()), empty(batch()))


def test_the_keys_of_the_best_epoch_are_kept(tiny_clip):
    adapter = TipAdapterF(tiny_clip, ClassPrompts(NAMES), per_class=1, alpha=100.0, beta=20.0, search=False)
    shots = [{"image": batch(3), "label": torch.tensor([0, 1, 2])}]
    adapter.observe(tiny_clip, shots, shots)
    with torch.no_grad():
        predictions = adapter(tiny_clip, batch(3)).argmax(dim=-1)
        val = [{"image": batch(3), "label": predictions}]
        best = adapter.keys.clone()
        adapter.end_epoch(tiny_clip, val)
        adapter.keys.copy_(best.roll(1, dims=0))
        assert not torch.equal(adapter(tiny_clip, batch(3)).argmax(dim=-1), predictions)
        adapter.end_epoch(tiny_clip, val)
        adapter.finish(tiny_clip, val)
    torch.testing.assert_close(adapter.keys.detach(), best)


def test_tip_adapter_against_its_equation(tiny_clip):
    adapter = TipAdapter(tiny_clip, ClassPrompts(NAMES), per_class=1, alpha=0.7, beta=3.0, search=False)
    images = batch(3)
    adapter.observe(tiny_clip, [{"image": images, "label": torch.tensor([2, 0, 1])}], [])
    with torch.no_grad():
        queries, texts = tiny_clip.encode_image(batch(2)), tiny_clip.encode_text(NAMES)
        keys = tiny_clip.encode_image(images)
        values = functional.one_hot(torch.tensor([2, 0, 1]), 3).float()
        expected = tiny_clip.scale * queries @ texts.T + 0.7 * torch.exp(-3.0 * (1 - queries @ keys.T)) @ values
        torch.testing.assert_close(adapter(tiny_clip, batch(2)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("adapter", [TipAdapter, TipAdapterF])
def test_without_validation_images_alpha_and_beta_stay_as_given(tiny_clip, adapter):
    method = ClipClassification(tiny_clip, partial(adapter, per_class=1, alpha=3.0, beta=2.0), NAMES)
    shots = [{"image": batch(3), "label": torch.tensor([0, 1, 2])}]
    with pytest.warns(ZooWarning, match="no validation images: alpha stays 3, beta 2"):
        method.adapter.observe(tiny_clip, shots, [])
        method.adapter.end_epoch(tiny_clip, [])
        method.adapter.finish(tiny_clip, [])
    assert (float(method.adapter.alpha), float(method.adapter.beta)) == (3, 2)
    assert method.adapter.labels.sum() == 3
