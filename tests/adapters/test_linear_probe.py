"""A linear probe is a linear classifier on unit image features."""

import torch

from zoo.adapters.few_shot import ClassPrompts
from zoo.adapters.linear_probe import LinearProbe


@torch.no_grad()
def test_the_classifier_starts_at_zero_and_reads_image_features_alone(tiny_clip):
    images = torch.rand(3, 1, 32, 32)
    names = ["dots", "stripes"]
    probe, other_prompts = (LinearProbe(tiny_clip, ClassPrompts(names, template)) for template in ("{}", "no {}"))
    assert not probe(tiny_clip, images).any()
    torch.nn.init.normal_(probe.classifier.weight)
    other_prompts.load_state_dict(probe.state_dict())
    expected = tiny_clip.scale * tiny_clip.encode_image(images) @ probe.classifier.weight.T
    torch.testing.assert_close(probe(tiny_clip, images), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(other_prompts(tiny_clip, images), probe(tiny_clip, images))
