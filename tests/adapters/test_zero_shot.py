"""Zero-shot CLIP is cosine similarity with the class prompts."""

import torch

from zoo.adapters.few_shot import ClassPrompts
from zoo.adapters.zero_shot import ZeroShot


@torch.no_grad()
def test_logits_are_scaled_cosines_with_the_prompts(tiny_clip):
    prompts = ["an image of dots.", "an image of stripes."]
    adapter = ZeroShot(tiny_clip, ClassPrompts(["dots", "stripes"], "an image of {}."))
    images = torch.rand(3, 1, 32, 32)
    cosines = tiny_clip.encode_image(images) @ tiny_clip.encode_text(prompts).T
    torch.testing.assert_close(adapter(tiny_clip, images), tiny_clip.scale * cosines)
    assert not list(adapter.parameters())


@torch.no_grad()
def test_an_ensemble_is_the_mean_of_each_classs_texts(tiny_clip):
    texts = {"dots": ["round marks", "small circles", "points"]}
    classes = ClassPrompts(["dots", "stripes"], "an image of {}.", texts, ensemble=True)
    images = torch.rand(3, 1, 32, 32)
    dots = torch.nn.functional.normalize(tiny_clip.encode_text(texts["dots"]).mean(dim=0), dim=-1)
    stripes = tiny_clip.encode_text(["an image of stripes."])[0]
    expected = tiny_clip.logits(tiny_clip.encode_image(images), torch.stack([dots, stripes]))
    torch.testing.assert_close(ZeroShot(tiny_clip, classes)(tiny_clip, images), expected)
