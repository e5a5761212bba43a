"""Image encoders that give tokens, and the merging of their tokens."""

import pytest
import torch

from zoo.encoders.vision import (
    ClipVision,
    TimmVisionEncoder,
    UnetVision,
    build_projector,
    merge_patches,
    pool_to_tokens,
)
from zoo.errors import ArgumentError


def test_timm_gives_patch_tokens():
    vision = TimmVisionEncoder("vit_tiny_patch16_224", image_size=32)
    assert vision(torch.rand(2, 3, 32, 32)).shape == (2, vision.tokens, vision.width) == (2, 4, 192)


@torch.no_grad()
def test_clip_gives_the_patch_tokens_before_its_last_layer(tiny_clip):
    images = torch.rand(2, 3, 32, 32)
    tokens = tiny_clip.vision.start(tiny_clip.normalise(images))
    for layer in range(2):  # of three
        tokens = tiny_clip.vision.layer(layer, tokens)
    vision = ClipVision(tiny_clip)
    torch.testing.assert_close(vision(images), tokens[:, 1:])
    assert (vision.tokens, vision.width, vision.image_size) == (16, 64, 32)
    torch.testing.assert_close(ClipVision(tiny_clip, before_last=0)(images), tiny_clip.vision.layer(2, tokens)[:, 1:])
    with pytest.raises(ValueError, match="before_last is 3 of 3 layers"):
        ClipVision(tiny_clip, before_last=3)


def test_a_merged_token_holds_its_square_of_patches():
    patches = torch.arange(16.0).reshape(1, 4, 4)
    tokens = merge_patches(torch.cat([patches, patches + 100]), 2)
    assert tokens[1].tolist() == [2.0, 3.0, 6.0, 7.0, 102.0, 103.0, 106.0, 107.0]
    assert tokens.shape == (4, 8) and sorted(tokens.flatten().tolist()) == [*range(16), *range(100, 116)]


def test_the_projector_is_llavas():
    projector = build_projector(8, 12)
    hidden = torch.nn.functional.gelu(projector[0](torch.ones(8)))
    torch.testing.assert_close(projector(torch.ones(8)), projector[2](hidden))
    assert projector[2](hidden).shape == (12,)


def test_a_unets_encoder_gives_a_token_for_each_pixel_of_its_coarsest_map():
    torch.manual_seed(0)
    vision = UnetVision(encoder="tu-efficientnet_lite0", levels=2, image_size=64).eval()
    images = torch.rand(2, 3, 64, 64)
    tokens = vision(images)
    assert tokens.shape == (2, vision.tokens, vision.width) == (2, 4, 320 + 4 * 112)
    normalized = torch.stack([(image - vision.mean) / vision.std for image in images])
    finer, coarsest = vision.encoder(normalized)[-2:]
    torch.testing.assert_close(tokens[:, 1, :320], coarsest[:, :, 0, 1])
    squares = finer[:, :, 0:2, 2:4].reshape(2, -1)  # the same place at twice the resolution
    torch.testing.assert_close(tokens[:, 1, 320:], squares)
    with pytest.raises(ArgumentError, match="image_size is 60"):
        UnetVision(image_size=60)


def test_feature_maps_are_pooled_to_a_square_of_tokens():
    coarse, fine = torch.rand(2, 3, 2, 2), torch.rand(2, 5, 8, 8)
    tokens = pool_to_tokens([coarse, fine], 16, 2)
    assert tokens.shape == (2, 4, 8 * 4)
    torch.testing.assert_close(tokens[:, 0, 12:].mean(), fine[:, :, :4, :4].mean())
    with pytest.raises(ArgumentError, match="not with 24 in tiles"):
        pool_to_tokens([coarse], 24, 1)
