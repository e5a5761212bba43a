"""The contract of every mask head, and the losses."""

import math

import pytest
import torch

from tests.tiny_models import sam
from zoo.heads.pixel_grounding import PixelGrounding, mask_losses
from zoo.heads.sam_grounding import SamGrounding
from zoo.heads.unet_grounding import UnetGrounding

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
    features, prompts, image_idx = head.encode_images(images()), tokens(), torch.tensor([0, 1, 1])
    together = head(features, prompts, image_idx)
    assert together.shape[0] == 3 and together.shape[1] == together.shape[2]
    for index in range(3):
        features_alone = head.encode_images(images()[image_idx[index] : image_idx[index] + 1])
        alone = head(features_alone, prompts[index : index + 1], torch.tensor([0]))
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-4, rtol=1e-3)
    assert len(head(features, tokens(0), torch.zeros(0, dtype=torch.long))) == 0, "answers without a [SEG]"
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
