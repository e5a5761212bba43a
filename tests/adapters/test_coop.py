"""CoOp's context vectors take the place of the prompt's words."""

import torch

from zoo.adapters.coop import CoOp
from zoo.adapters.few_shot import ClassPrompts
from zoo.methods.clip_classification import ClipClassification

NAMES = ["dots", "a large pneumothorax"]


@torch.no_grad()
def test_with_the_embeddings_of_words_it_is_the_prompt_of_these_words(tiny_clip):
    adapter = CoOp(tiny_clip, ClassPrompts(NAMES), context=3)
    words = tiny_clip.tokenize(["an image of"])
    adapter.context.copy_(tiny_clip.text.embed(words)[0, 1:4])
    images = torch.rand(2, 1, 32, 32)
    prompts = tiny_clip.encode_text([f"an image of {name}." for name in NAMES])
    expected = tiny_clip.logits(tiny_clip.encode_image(images), prompts)
    torch.testing.assert_close(adapter(tiny_clip, images), expected, atol=1e-5, rtol=1e-5)
    from_words = CoOp(tiny_clip, ClassPrompts(NAMES), context_init="an image of")
    torch.testing.assert_close(from_words(tiny_clip, images), expected, atol=1e-5, rtol=1e-5)
    assert from_words.context.shape == (3, 32)


def test_all_classes_share_one_context(tiny_clip):
    adapter = CoOp(tiny_clip, ClassPrompts(NAMES), context=16)
    assert {name: tuple(value.shape) for name, value in adapter.named_parameters()} == {"context": (16, 32)}


def test_class_names_with_unusual_characters_have_different_prompts(tiny_clip):
    names = ["naïve — 100% {normal}", "Ω <b>ß</b> 'x\"", "a\tb", "日本"]
    logits = ClipClassification(tiny_clip, CoOp, names)(torch.zeros(1, 1, 32, 32))
    assert logits.shape == (1, 4) and logits.isfinite().all() and logits.unique().numel() == 4
