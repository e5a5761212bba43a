"""The image tokenizer against values of the official code, and its invariants."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from zoo.decoders.vq_image import UnknownCodeError, VQImage

FIRST_IMAGE_TOKEN = 4


@pytest.fixture(scope="module")
def tokenizer(golden_folder) -> VQImage:
    return VQImage.from_official(golden_folder)


def test_images_encode_to_the_official_codes(tokenizer, golden):
    assert torch.equal(tokenizer.tokenize(golden["pixel_values"]) + FIRST_IMAGE_TOKEN, golden["image_token_ids"])


@torch.no_grad()
def test_codes_decode_to_the_official_pixels(tokenizer, golden):
    torch.testing.assert_close(tokenizer.decode(golden["vq_codes"]), golden["vq_decoded"], atol=1e-4, rtol=0)


def test_state_dict_names_are_the_official_ones(tokenizer, golden_folder):
    weights = load_file(golden_folder / "weights.safetensors")
    official = {name.removeprefix("model.vqmodel.") for name in weights if "vqmodel" in name}
    assert set(tokenizer.state_dict()) == official


def test_invalid_codes_are_refused(tokenizer, golden):
    with pytest.raises(UnknownCodeError, match="the codebook has 48"):
        tokenizer.decode(golden["vq_codes"] + 48)
    with pytest.raises(ValueError, match="an image has 16 codes; got 9"):
        tokenizer.decode(golden["vq_codes"][:, :9])


def test_gradients_pass_through_the_codebook():
    torch.manual_seed(0)
    model = VQImage(
        resolution=16, codes=8, embed_dim=16, base_channels=32, channel_multiplier=[1, 1], res_blocks=1
    ).double()
    assert model.training and model.grid == 8
    images = torch.rand(2, 3, 16, 16).double() * 2 - 1
    reconstruction, loss, codes = model(images)
    assert reconstruction.shape == images.shape and codes.shape == (2, 64)
    ((reconstruction - images).square().mean() + loss).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with torch.no_grad():
        torch.testing.assert_close(model.decode(codes), reconstruction)


def test_a_checkpoint_without_decoder_weights_is_refused(tmp_path, golden_folder):
    shutil.copy(golden_folder / "config.json", tmp_path)
    with pytest.raises(FileNotFoundError, match="no safetensors files"):
        VQImage.from_official(tmp_path)
    weights = load_file(golden_folder / "weights.safetensors")
    save_file({name: value for name, value in weights.items() if "decoder" not in name}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks .* weights of the image tokenizer, e\.g\. decoder"):
        VQImage.from_official(tmp_path)


def test_the_full_size_has_the_official_shapes():
    with torch.device("meta"):
        model = VQImage()
    assert model.grid == 32 and model.codebook.shape == (8192, 256)
    assert model.decoder.up[4].block[0].conv1.weight.shape == (512, 512, 3, 3)
