"""SAM 2 and SAM 3 driven by one token, on tiny models of transformers' classes."""

import pytest
import torch

from tests.tiny_models import sam, sam2, sam3
from zoo.errors import WeightsError
from zoo.heads.sam2_grounding import Sam2Grounding, Sam3Grounding

MODELS = pytest.mark.parametrize(
    ("write", "head_class"), [(sam2, Sam2Grounding), (sam3, Sam3Grounding)], ids=["2", "3"]
)


@MODELS
def test_the_mask_decoder_trains_and_what_belongs_to_the_image_is_frozen(tmp_path, write, head_class):
    head = head_class(24, str(write(tmp_path)))
    trained = [name for name, value in head.named_parameters() if value.requires_grad and name.startswith("sam.")]
    assert trained and all(name.startswith("sam.mask_decoder.") for name in trained)
    assert not any("conv_s0" in name or "conv_s1" in name for name in trained), "features of the image can be cached"


@MODELS
@torch.no_grad()
def test_evaluation_uses_the_mask_that_training_trains(tmp_path, write, head_class):
    head = head_class(24, str(write(tmp_path)))
    head.sam.config.mask_decoder_config.attention_dropout = 0.0
    features = head.encode_images(torch.rand(1, 3, head.image_size, head.image_size))
    prompts = torch.randn(1, 32)
    torch.testing.assert_close(
        head.train().decode_masks(features, prompts), head.eval().decode_masks(features, prompts)
    )


@torch.no_grad()
def test_published_files_are_of_the_video_model(tmp_path):
    images = torch.rand(1, 3, 64, 64)
    head = Sam2Grounding(24, str(sam2(tmp_path, video=True))).eval()
    again = Sam2Grounding(24, str(tmp_path)).eval()
    for one, other in zip(head.encode_images(images), again.encode_images(images), strict=True):
        assert torch.equal(one, other), "all weights come from the file"


def test_another_model_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="type 'sam'"):
        Sam3Grounding(24, str(sam(tmp_path)))


@pytest.mark.parametrize(("size", "millions"), [("tiny", 31.4), ("small", 38.5), ("base_plus", 73.3), ("large", 216.9)])
def test_sizes_are_those_of_the_published_models_without_their_memory(size, millions):
    with torch.device("meta"):
        head = Sam2Grounding(24, size=size)
    assert sum(value.numel() for value in head.sam.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
