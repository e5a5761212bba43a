"""Images fitted into a square and back: SAM's letterbox and SAM 2's squash, as transformers' own pipelines do it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny_models import sam, sam2, sam3
from zoo.constants import IMAGENET_MEAN
from zoo.data.io.letterbox import scaled_size
from zoo.heads.fitting import Fitting, LetterboxFitting, SquashFitting
from zoo.heads.sam2_grounding import Sam2Grounding, Sam3Grounding
from zoo.heads.sam_grounding import SamGrounding


@pytest.mark.parametrize("fitting", [LetterboxFitting(64), SquashFitting(64)], ids=["letterbox", "squash"])
@given(height=st.integers(24, 90), width=st.integers(24, 90), side=st.sampled_from([32, 64]), seed=st.integers(0, 99))
def test_a_mask_keeps_its_place_through_fitting_and_back(fitting: Fitting, height, width, side, seed):
    rng = np.random.default_rng(seed)
    top, left = int(rng.integers(0, height // 2)), int(rng.integers(0, width // 2))
    mask = torch.zeros(1, height, width)
    mask[0, top : top + height // 2, left : left + width // 2] = 1
    resized, inside = fitting.fit_masks(mask, side)
    assert resized.shape == (1, side, side) and not resized[:, ~inside].any()
    restored = (fitting.restore(resized * 20 - 10, (height, width)) > 0).float()
    assert (restored * mask).sum() / ((restored + mask) > 0).sum() > 0.6


def test_the_padding_has_its_colour_and_the_image_keeps_its_own():
    image = torch.rand(3, 20, 40)
    black, grey = LetterboxFitting(32).fit(image), LetterboxFitting(32, IMAGENET_MEAN).fit(image)
    assert scaled_size((20, 40), 32) == (16, 32) and torch.equal(black[:, :16], grey[:, :16])
    assert not black[:, 16:].any()
    torch.testing.assert_close(grey[:, 16:], torch.tensor(IMAGENET_MEAN).view(3, 1, 1).expand(3, 16, 32))


def test_squashing_fills_the_square():
    torch.testing.assert_close(SquashFitting(8).fit(torch.ones(1, 5, 30)), torch.ones(3, 8, 8))


def _processor(head: SamGrounding | Sam2Grounding) -> object:
    from transformers import Sam2ImageProcessor, Sam3ImageProcessor, SamImageProcessor

    side = head.image_size
    if isinstance(head, SamGrounding):
        low = {"height": side // 2, "width": side // 2}
        return SamImageProcessor(
            size={"longest_edge": side},
            pad_size={"height": side, "width": side},
            mask_size={"longest_edge": side // 2},
            mask_pad_size=low,
        )
    kind = Sam3ImageProcessor if isinstance(head, Sam3Grounding) else Sam2ImageProcessor
    return kind(size={"height": side, "width": side})


@torch.no_grad()
@pytest.mark.parametrize("size", [(50, 80), (90, 40), (64, 64), (31, 33)])
@pytest.mark.parametrize(
    ("write", "head_class"), [(sam, SamGrounding), (sam2, Sam2Grounding), (sam3, Sam3Grounding)], ids=["1", "2", "3"]
)
def test_images_and_masks_of_a_prompt_embedding_are_those_of_transformers_pipeline(
    tmp_path, monkeypatch, write, head_class, size
):
    head = head_class(24, str(write(tmp_path))).eval()
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    processor = _processor(head)
    inputs = processor(images=image.permute(1, 2, 0).numpy(), return_tensors="pt")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
    square = inputs["pixel_values"] * std + mean
    ours = head.fitting.fit(image.float() / 255)[None]
    torch.testing.assert_close(ours, square, atol=1.01 / 255, rtol=0.0)  # theirs are rounded to grey levels
    outside = ~head.fitting.fit_masks(torch.ones(1, *size), head.image_size)[1]
    assert torch.equal(ours[0][:, outside], square[0][:, outside])

    prompt = torch.randn(1, 32, generator=torch.Generator().manual_seed(1))
    side = head.image_size // head.sam.config.prompt_encoder_config.patch_size
    dense = head.sam.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1).expand(1, -1, side, side)
    monkeypatch.setattr(head.sam.prompt_encoder, "forward", lambda **_: (prompt[:, None, None], dense))
    masks = head.sam(pixel_values=inputs["pixel_values"], multimask_output=False).pred_masks
    extra = [inputs["reshaped_input_sizes"]] if isinstance(head, SamGrounding) else []
    theirs = processor.post_process_masks(masks, inputs["original_sizes"], *extra, binarize=False)[0][0, 0]
    restored = head.fitting.restore(head.decode_masks(head.encode_images(square), prompt), size)[0]
    torch.testing.assert_close(restored, theirs.float(), atol=1e-4 * float(theirs.std()), rtol=0.0)
