"""The image tokenizer against values of the official code, and its invariants."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from zoo.decoders.vq_image import UnknownCodeError, VQImage

GOLDEN = Path(__file__).parent.parent / "golden" / "anole_tiny"
FIRST_IMAGE_TOKEN = 4


@pytest.fixture(scope="module")
def tokenizer() -> VQImage:
    return VQImage.from_official(GOLDEN)


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "expected.safetensors")


def test_images_encode_to_the_official_codes(tokenizer, expected):
    assert torch.equal(tokenizer.tokens(expected["pixel_values"]) + FIRST_IMAGE_TOKEN, expected["image_token_ids"])


@torch.no_grad()
def test_codes_decode_to_the_official_pixels(tokenizer, expected):
    torch.testing.assert_close(tokenizer.decode(expected["vq_codes"]), expected["vq_decoded"], atol=1e-4, rtol=0)


def test_all_official_names_are_there_and_no_other(tokenizer):
    official = {
        name.removeprefix("model.vqmodel.") for name in load_file(GOLDEN / "weights.safetensors") if "vqmodel" in name
    }
    assert set(tokenizer.state_dict()) == official


def test_codes_that_are_no_image_are_refused(tokenizer, expected):
    with pytest.raises(UnknownCodeError, match="there are 48"):
        tokenizer.decode(expected["vq_codes"] + 48)
    with pytest.raises(ValueError, match="an image is 16 codes, and 9 are given: it was cut short"):
        tokenizer.decode(expected["vq_codes"][:, :9])


def test_gradients_go_through_the_codebook():
    torch.manual_seed(0)
    model = VQImage(
        resolution=16, codes=8, embed_dim=16, base_channels=32, channel_multiplier=[1, 1], res_blocks=1
    ).double()
    assert model.training and model.grid == 8
    images = torch.rand(2, 3, 16, 16).double() * 2 - 1
    rebuilt, loss, codes = model(images)
    assert rebuilt.shape == images.shape and codes.shape == (2, 64)
    ((rebuilt - images).square().mean() + loss).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with torch.no_grad():
        torch.testing.assert_close(model.decode(codes), rebuilt)


def test_weights_without_a_decoder_are_refused(tmp_path):
    import shutil

    from safetensors.torch import save_file

    shutil.copy(GOLDEN / "config.json", tmp_path)
    with pytest.raises(FileNotFoundError, match="no safetensors files"):
        VQImage.from_official(tmp_path)
    kept = {name: value for name, value in load_file(GOLDEN / "weights.safetensors").items() if "decoder" not in name}
    save_file(kept, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="lacks .* weights of the image tokenizer, as decoder"):
        VQImage.from_official(tmp_path)


def test_full_size_has_the_official_shapes():
    with torch.device("meta"):
        model = VQImage()
    assert model.grid == 32 and model.codebook.shape == (8192, 256)
    assert model.decoder.up[4].block[0].conv1.weight.shape == (512, 512, 3, 3)
