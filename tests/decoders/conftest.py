"""Decoders of the tests here: the tiny official one with its golden values, and a small one with a text tokenizer."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from zoo.decoders.interleaved import InterleavedDecoder
from zoo.decoders.interleaved_models import SmallInterleaved
from zoo.decoders.vq_image import VQImage

GOLDEN = Path(__file__).parent.parent / "golden" / "anole_tiny"


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    return GOLDEN


@pytest.fixture(scope="session")
def golden() -> dict[str, torch.Tensor]:
    """Outputs of the official code on the checkpoint in the golden folder."""
    return load_file(GOLDEN / "expected.safetensors")


@pytest.fixture(scope="session")
def official_decoder(golden) -> InterleavedDecoder:
    decoder = InterleavedDecoder.from_official(GOLDEN)
    with torch.no_grad():
        decoder.auxiliary.weight.copy_(golden["aux_proj_weight"])
        decoder.auxiliary.bias.copy_(golden["aux_proj_bias"])
    return decoder


@pytest.fixture
def small_decoder() -> SmallInterleaved:
    torch.manual_seed(0)
    tokenizer = VQImage(
        resolution=16, codes=32, embed_dim=16, base_channels=32, channel_multiplier=[1, 1, 1], res_blocks=1
    )
    words = [f"word{n}" for n in range(40)]
    return SmallInterleaved(words, tokenizer, width=48, layers=2, heads=4, max_length=256).eval()
