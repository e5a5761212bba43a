"""A linear probe is a linear classifier on unit image features."""

import pytest
import torch
from torch.nn import functional

from zoo.adapters.few_shot import ClassPrompts
from zoo.adapters.linear_probe import LinearProbe, LogisticProbe, fit_logistic_regression


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


def clusters(count, seed, noise=1.0):
    """Unit features (count, 6) of three classes in turn, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    features = functional.one_hot(labels, 6) + noise * torch.randn(count, 6, generator=generator)
    return functional.normalize(features.double(), dim=-1), labels


@pytest.mark.parametrize("penalty", [1e-2, 1.0, 1e2])
def test_logistic_regression_is_at_the_minimum_of_its_objective(penalty):
    """``C sum CE + |W|^2 / 2``: the gradient by W is W - C sum (onehot - p) f', and that by b the sum of (onehot - p)."""
    features, labels = clusters(60, 0)
    fitted = fit_logistic_regression(features, labels, 3, penalty)
    error = functional.one_hot(labels, 3) - (features @ fitted[:, :-1].T + fitted[:, -1]).softmax(dim=-1)
    gradient = torch.cat([fitted[:, :-1] - penalty * error.T @ features, -penalty * error.sum(dim=0)[:, None]], dim=1)
    assert gradient.abs().max() < 2e-4 * penalty * len(labels)
    strict, loose = fitted[:, :-1].norm(), fit_logistic_regression(features, labels, 3, penalty * 10)[:, :-1].norm()
    assert loose > strict


def test_the_penalty_is_the_one_that_is_best_on_validation_images(tiny_clip):
    torch.manual_seed(0)
    images, labels = torch.rand(24, 1, 32, 32), torch.arange(24) % 2
    images = images * 0.2
    images[labels == 1, :, :16] += 0.7
    train, val = ([{"image": images[part], "label": labels[part]}] for part in (slice(0, 12), slice(12, 24)))
    probe = LogisticProbe(tiny_clip, ClassPrompts(["dark above", "bright above"]))
    probe.observe(tiny_clip, train, val)
    assert (probe(tiny_clip, val[0]["image"]).argmax(dim=-1) == val[0]["label"]).all()
    unsearched = LogisticProbe(tiny_clip, ClassPrompts(["dark above", "bright above"]))
    unsearched.observe(tiny_clip, train, [])
    features, labels = unsearched.encode_batches(tiny_clip, train)
    expected = fit_logistic_regression(features.double(), labels, 2, 0.316)
    torch.testing.assert_close(unsearched.weight, expected[:, :-1].float())
    assert unsearched.weight.norm() < probe.weight.norm(), "weights of unit features want less decay than C = 0.316"
