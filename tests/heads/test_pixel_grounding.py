"""The contract of every mask head, and the losses."""

import math

import pytest
import torch

from tests.tiny_models import sam, sam2, sam3
from zoo.heads.fitting import LetterboxFitting
from zoo.heads.pixel_grounding import PixelGrounding, mask_losses
from zoo.heads.sam2_grounding import Sam2Grounding, Sam3Grounding
from zoo.heads.sam_grounding import SamGrounding
from zoo.heads.unet_grounding import UnetGrounding

WIDTH = 24
SAMS = {"sam": (sam, SamGrounding), "sam2": (sam2, Sam2Grounding), "sam3": (sam3, Sam3Grounding)}


@pytest.fixture(scope="module", params=["sam", "sam2", "sam3", "nothing", "encoder", "all"])
def head(request, tmp_path_factory) -> PixelGrounding:
    """SAM's decoders, and the U-Net with as much of it frozen as it can be."""
    torch.manual_seed(0)
    if request.param in SAMS:
        write, head_class = SAMS[request.param]
        return head_class(WIDTH, str(write(tmp_path_factory.mktemp(request.param)))).eval()
    return UnetGrounding(WIDTH, image_size=64, channels=[16, 8, 8, 8, 8], frozen=request.param).eval()


def images(count: int = 2, side: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def tokens(count: int = 3) -> torch.Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_each_mask_depends_on_its_own_image_and_token_only(head):
    features, prompts, image_idx = head.encode_images(images(side=head.image_size)), tokens(), torch.tensor([0, 1, 1])
    together = head(features, prompts, image_idx)
    assert together.shape[0] == 3 and together.shape[1] == together.shape[2]
    for index in range(3):
        features_alone = head.encode_images(images(side=head.image_size)[image_idx[index] : image_idx[index] + 1])
        alone = head(features_alone, prompts[index : index + 1], torch.tensor([0]))
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-4, rtol=1e-3)
    assert len(head(features, tokens(0), torch.zeros(0, dtype=torch.long))) == 0, "answers without a [SEG]"
    if hasattr(head, "sam"):
        assert not torch.equal(together[1], together[2]), "another token, another mask"


def test_gradients_reach_the_token_and_the_trained_parts_only(head):
    head.train()
    prompts = tokens().requires_grad_()
    head(head.encode_images(images(side=head.image_size)), prompts, torch.tensor([0, 1, 1])).square().mean().backward()
    assert prompts.grad is not None and prompts.grad.abs().sum() > 0
    frozen = head.sam.vision_encoder if hasattr(head, "sam") else head.encoder
    has_gradient = any(parameter.grad is not None for parameter in frozen.parameters())
    assert has_gradient == (not head.cacheable)
    head.eval()


def test_losses_of_a_perfect_and_a_wrong_mask():
    whole, mask = LetterboxFitting(8), torch.zeros(1, 8, 8)
    mask[:, :4] = 1
    right, wrong = mask_losses(mask * 40 - 20, [mask], whole), mask_losses(20 - mask * 40, [mask], whole)
    assert right["bce"] < 1e-6 and right["dice"] < 1e-6 and wrong["dice"] > 0.95 and wrong["bce"] > 10
    half = mask_losses(torch.zeros(1, 8, 8), [mask], whole)["dice"]
    assert half == pytest.approx(1 - (2 * 16 + 1) / (32 + 32 + 1))
    absent = mask_losses(torch.zeros(2, 8, 8), [torch.cat([mask, torch.zeros(1, 8, 8)])], whole)
    assert absent["dice"] == half and absent["bce"] == pytest.approx(math.log(2))
    nothing = mask_losses(torch.zeros(0, 8, 8, requires_grad=True), [torch.zeros(0, 8, 8)], whole)
    assert nothing["bce"] == nothing["dice"] == 0


def test_padding_does_not_count_in_the_losses():
    mask, logits = torch.zeros(1, 4, 8), torch.full((1, 8, 8), -20.0)
    mask[:, :, :4], logits[:, :4, :4] = 1, 20.0
    right = mask_losses(logits, [mask], LetterboxFitting(8))
    logits[:, 4:] = 20.0  # below the image
    padded = mask_losses(logits, [mask], LetterboxFitting(8))
    assert padded == right and right["dice"] < 1e-6 and right["bce"] < 1e-6
    below_a_square = torch.cat([mask, torch.zeros(1, 4, 8)], dim=1)
    assert mask_losses(logits, [below_a_square], LetterboxFitting(8))["bce"] > 5
