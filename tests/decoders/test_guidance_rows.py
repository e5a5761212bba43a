"""The cached rows of guidance give what full passes over what each row attends to give, at the size of the longest sample."""

import pytest
import torch

from tests.decoders.scripted import scripted
from zoo.decoders.guidance_rows import GrowingLayer, GuidanceRows
from zoo.decoders.interleaved_generation import GUIDANCE_ROWS, GenerationSettings, generate

NEGATIVE, ORIGINAL = [0, 60, 61, 62], [0, 63]
ROW_PROMPTS = {"negative": torch.tensor(NEGATIVE), "original": torch.tensor(ORIGINAL)}
NAMES = ("full", "image", "unconditional", "negative", "original")


def image_of(decoder, first: int) -> list[int]:
    vocabulary = decoder.vocabulary
    return [vocabulary.boi_token_id, *vocabulary.image_ids[first : first + 16].tolist()]


@torch.no_grad()
def test_the_logits_of_each_row_are_those_of_a_full_pass(small_decoder):
    """Through a prefill, a provided image, its end, a word and the beginning of another image."""
    vocabulary = small_decoder.vocabulary
    eoi, boi, start = vocabulary.eoi_token_id, vocabulary.boi_token_id, vocabulary.bos_token_id
    prompts = [[start, 60, *image_of(small_decoder, 0), eoi, 61, vocabulary.sep_token_id], [start, 62]]
    rows = GuidanceRows(small_decoder, NAMES, prompts, ROW_PROMPTS)
    rows.prefill()
    rows.insert({0: image_of(small_decoder, 7)})
    rows.append([eoi, 63])
    logits = rows.append([boi, boi])
    images = [start, *image_of(small_decoder, 0), eoi, *image_of(small_decoder, 7), eoi, boi]
    attended = [
        [[*prompts[0], *image_of(small_decoder, 7), eoi, boi], images, [boi], [*NEGATIVE, boi], [*ORIGINAL, boi]],
        [[*prompts[1], 63, boi], [start, boi], [boi], [*NEGATIVE, boi], [*ORIGINAL, boi]],
    ]
    for sample, sequences in enumerate(attended):
        for row, input_ids in enumerate(sequences):
            expected = small_decoder(torch.tensor([input_ids]))[0, -1]
            torch.testing.assert_close(logits[sample, row], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_samples_that_are_kept_go_on_as_before(small_decoder):
    prompts = [[0, 60, 61, 62], [0, 63], [0, 64, 65]]
    rows = GuidanceRows(small_decoder, ("full",), prompts, {})
    rows.prefill()
    rows.keep([1, 2])
    logits = rows.append([66, 67])
    for sample, input_ids in enumerate(([0, 63, 66], [0, 64, 65, 67])):
        expected = small_decoder(torch.tensor([input_ids]))[0, -1]
        torch.testing.assert_close(logits[sample, 0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("guidance", "forwarded"), [("none", 1), ("normal", 2), ("obj", 1), ("full", 2)])
def test_a_provided_image_is_one_step_and_finished_samples_leave_the_batch(
    small_decoder, monkeypatch, guidance, forwarded
):
    """Of a sample's rows only ``forwarded`` take the image: the others forget it when the next one begins."""
    sizes, forward = [], small_decoder.forward_backbone

    def counting(input_ids, attention_mask, **kwargs):
        sizes.append((*input_ids.shape, attention_mask.shape[1]))
        return forward(input_ids, attention_mask, **kwargs)

    monkeypatch.setattr(small_decoder, "forward_backbone", counting)
    words = [[3, 9, 4, 2], [7, 2, 5], [3, 0, 6]]  # samples 0 and 2 begin an image in the same step
    settings = GenerationSettings(max_new_tokens=90, max_images=3, greedy=True, guidance=guidance)
    prompts = [torch.tensor([0, 60, 61]), torch.tensor([0, 62, *image_of(small_decoder, 0), 36, 63]), torch.tensor([0])]
    with scripted(small_decoder, words):
        sequences = generate(
            small_decoder,
            prompts,
            settings,
            ROW_PROMPTS["negative"],
            ROW_PROMPTS["original"],
            provide_image=lambda index, ids: small_decoder.vocabulary.image_ids[:16],
        )
    rows = len(GUIDANCE_ROWS[guidance])
    images = [size[:2] for size in sizes[1:] if size[1] > 1]
    assert images == [(2 * forwarded, 17), *[(forwarded, 17)] * 5], "one step whenever images begin"
    steps = [size for size in sizes[1:] if size[1] == 1]
    assert len(steps) == sum(words[0]) + 3, "the words of the longest sample, and the end of each of its images"
    batch_sizes = [size[0] for size in steps]
    assert sorted(batch_sizes, reverse=True) == batch_sizes and set(batch_sizes) == {3 * rows, 2 * rows, rows}
    assert max(size[2] for size in sizes) <= max(map(len, sequences)), "no more positions than the longest sample has"


def test_a_growing_layer_returns_everything_it_has_taken():
    generator = torch.Generator().manual_seed(0)
    states = torch.rand(2, 3, 700, 4, generator=generator)
    layer = GrowingLayer()
    start = 0
    for count in (300, 1, 255, 1, 143):
        keys, values = layer.update(*[states[:, :, start : start + count]] * 2)
        start += count
        assert torch.equal(keys, states[:, :, :start]) and torch.equal(values, keys)
    selected = layer.select(torch.tensor([1]), 500)
    assert torch.equal(selected.keys, states[1:, :, 200:])
