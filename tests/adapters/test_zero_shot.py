"""Zero-shot CLIP is cosine similarity with the class prompts."""

import torch

from zoo.adapters.zero_shot import ZeroShot


@torch.no_grad()
def test_logits_are_scaled_cosines_with_the_prompts(tiny_clip):
    adapter = ZeroShot(tiny_clip, ["dots", "stripes"], "an image of {}.")
    assert adapter.prompts == ["an image of dots.", "an image of stripes."]
    images = torch.rand(3, 1, 32, 32)
    cosines = tiny_clip.encode_image(images) @ tiny_clip.encode_text(adapter.prompts).T
    torch.testing.assert_close(adapter(tiny_clip, images), tiny_clip.scale * cosines)
    assert not list(adapter.parameters())
