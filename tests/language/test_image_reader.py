"""What a processor writes for an image, and how images reach it."""

import pytest
import torch
from transformers import AutoProcessor

from tests.tiny_models.vision_language import gemma3, llava_onevision, qwen
from zoo.errors import ArgumentError
from zoo.language.image_reader import ImageReader


def test_the_processor_sees_letterboxed_images_of_8_bits(tmp_path):
    processor = AutoProcessor.from_pretrained(gemma3(tmp_path))
    reader = ImageReader(processor, "<image_soft_token>", 32)
    image = torch.rand(1, 16, 32, generator=torch.Generator().manual_seed(0))
    square = torch.zeros(3, 32, 32, dtype=torch.uint8)
    square[:, :16] = (image * 255).round().to(torch.uint8)
    expected = processor.image_processor([square], return_tensors="pt")["pixel_values"]
    assert torch.equal(reader.read([image])["pixel_values"], expected)
    assert reader.tokens == 4 and reader.block.startswith("\n\n<start_of_image><image_soft_token>") and not reader.grids


def test_grids_and_placeholders_depend_on_the_side(tmp_path):
    processor = AutoProcessor.from_pretrained(qwen(tmp_path))
    for side, tokens in ((56, 4), (84, 9)):
        reader = ImageReader(processor, "<|image_pad|>", side)
        assert reader.tokens == tokens and reader.grids["image_grid_thw"].tolist() == [[1, side // 14, side // 14]]


def test_one_of_several_images_is_not_cut_into_tiles(tmp_path):
    processor = AutoProcessor.from_pretrained(llava_onevision(tmp_path))
    alone, several = (ImageReader(processor, "<image>", 64, several=value) for value in (False, True))
    assert alone.tokens == 16 + 8 * 9 and several.tokens == 16 + 1
    assert len(several.read([torch.rand(3, 64, 64)])["pixel_values"]) == 2, "it comes twice, to count as several"


def test_a_processor_that_does_not_say_what_it_writes(tmp_path, monkeypatch):
    processor = AutoProcessor.from_pretrained(qwen(tmp_path))
    call = type(processor).__call__
    silent = {"return_text_replacement_offsets": False}
    monkeypatch.setattr(type(processor), "__call__", lambda self, **options: call(self, **{**options, **silent}))
    with pytest.raises(ArgumentError, match="Qwen2_5_VLProcessor does not say which tokens"):
        ImageReader(processor, "<|image_pad|>", 56)
