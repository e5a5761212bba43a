"""Generation and losses of an interleaved decoder on a device that is not the default one, and in half precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from tests.decoders.scripted import scripted
from tests.fake_device import KINDS, cuda
from zoo.constants import IGNORE_INDEX
from zoo.decoders.interleaved import InterleavedDecoder
from zoo.decoders.interleaved_generation import GenerationSettings, generate, stream
from zoo.decoders.interleaved_models import SmallInterleaved
from zoo.decoders.vq_image import VQImage

GUIDANCE = ["none", "normal", "obj", "full"]
SETTINGS = GenerationSettings(max_new_tokens=60, max_images=2, temperature=2.0)
WORDS = [[2, 5, 3], [4, 1]]
OTHERS = {"negative": torch.tensor([0, 60, 61]), "original": torch.tensor([0, 62])}
PROMPTS = [torch.tensor([0, 60, 61, 38]), torch.tensor([0, 63, 38])]


@pytest.fixture
def decoder() -> SmallInterleaved:
    torch.manual_seed(0)
    tokenizer = VQImage(
        resolution=16, codes=32, embed_dim=16, base_channels=32, channel_multiplier=[1, 1, 1], res_blocks=1
    )
    words = [f"word{n}" for n in range(40)]
    return SmallInterleaved(words, tokenizer, width=48, layers=2, heads=4, max_length=256).eval()


def a_batch(decoder: InterleavedDecoder) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels, with an image in the response and padding in the second."""
    vocabulary = decoder.vocabulary
    image = [vocabulary.begin, *vocabulary.image_ids[:16].tolist(), vocabulary.end]
    line = [vocabulary.start, 60, vocabulary.separator, 61, *image, 62, 63]
    ids = torch.tensor([[*line, vocabulary.stop], [*line[:-2], vocabulary.stop, vocabulary.pad, vocabulary.pad]])
    labels = ids.masked_fill(ids == vocabulary.pad, IGNORE_INDEX)
    labels[:, :3] = IGNORE_INDEX
    return ids, labels


@contextmanager
def another_default_device() -> Iterator[None]:
    """All that is made without a device is on "meta", where it fails with what the decoder has on the CPU."""
    with torch.device("meta"):
        yield


def first_image(decoder: InterleavedDecoder, index: int, ids: list[int]) -> torch.Tensor | None:
    return decoder.vocabulary.image_ids[7:23] if ids.count(decoder.vocabulary.begin) == 1 else None


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("guidance", GUIDANCE)
def test_all_that_generation_makes_is_on_the_device_of_the_decoder(decoder, guidance, greedy):
    options = replace(SETTINGS, guidance=guidance, greedy=greedy)

    def run() -> list[torch.Tensor]:
        with scripted(decoder, WORDS):
            return generate(
                decoder, PROMPTS, options, **OTHERS, given=lambda index, ids: first_image(decoder, index, ids)
            )

    expected = run()
    with another_default_device():
        made = run()
    assert all(ids.device.type == "cpu" for ids in made)
    assert [ids.tolist() for ids in made] == [ids.tolist() for ids in expected]


def test_all_that_streaming_and_losses_make_is_on_the_device_of_the_decoder(decoder):
    prompt, batch = torch.tensor([0, 60, decoder.vocabulary.begin]), a_batch(decoder)
    expected, losses = next(stream(decoder, prompt, SETTINGS)), decoder.losses(*batch)
    with another_default_device():
        image, losses_there = next(stream(decoder, prompt, SETTINGS)), decoder.losses(*batch)
    assert isinstance(image, torch.Tensor) and image.tolist() == expected.tolist()
    for name, loss in losses.items():
        assert torch.equal(losses_there[name], loss)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("guidance", GUIDANCE)
def test_generation_on_a_gpu(decoder, guidance, kind):
    """Prompts and given images come from the CPU; a seed fixes the draw."""
    options = replace(SETTINGS, guidance=guidance)
    with cuda(kind) as device:
        decoder.to(device)
        results = []
        for _ in range(2):
            with scripted(decoder, WORDS):
                results.append(
                    generate(
                        decoder, PROMPTS, options, **OTHERS, given=lambda index, ids: first_image(decoder, index, ids)
                    )
                )
        assert next(stream(decoder, torch.tensor([0, 60, decoder.vocabulary.begin]), SETTINGS)).device.type == "cpu"
    for ids, again in zip(*results, strict=True):
        assert ids.device.type == "cpu" and torch.equal(ids, again)
        decoder.vocabulary.check(ids, 16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("part", ["language", "all"])
def test_losses_are_float32_whatever_the_precision(decoder, dtype, part):
    batch = a_batch(decoder)
    expected = decoder.losses(*batch)
    (decoder if part == "all" else decoder.language).to(dtype)
    losses = decoder.losses(*batch)
    for name, loss in losses.items():
        assert loss.dtype == torch.float32 and torch.isfinite(loss)
        torch.testing.assert_close(loss, expected[name], atol=0, rtol=0.02)
    sum(losses.values()).backward()
    for weight in (decoder.auxiliary.weight, decoder.places.weight, decoder.language.lm_head.weight):
        assert weight.grad is not None and weight.grad.dtype == weight.dtype and torch.isfinite(weight.grad).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("guidance", GUIDANCE)
def test_half_precision_generates(decoder, dtype, guidance):
    decoder.language.to(dtype)
    for greedy in (True, False):
        options = replace(SETTINGS, guidance=guidance, greedy=greedy)
        with scripted(decoder, WORDS):
            made = generate(
                decoder, PROMPTS, options, **OTHERS, given=lambda index, ids: first_image(decoder, index, ids)
            )
        for ids, images in zip(made, (2, 1), strict=True):
            decoder.vocabulary.check(ids, 16)
            assert int((ids == decoder.vocabulary.begin).sum()) == images and int(ids[-1]) == decoder.vocabulary.stop


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_tokenizes_images_in_float32(decoder, dtype):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    decoder.language.to(dtype)
    ids = decoder.image_ids(images)
    assert ids.shape == (2, 16) and bool(decoder.vocabulary.is_image(ids).all())
