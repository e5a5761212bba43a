"""Images that are given go through the model whole, and nothing else of what is generated changes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.decoders.scripted import scripted
from zoo.decoders.interleaved import InterleavedDecoder
from zoo.decoders.interleaved_generation import ROWS, GenerationSettings, Given, generate, guided, stream
from zoo.decoders.interleaved_models import SmallInterleaved
from zoo.decoders.vq_image import VQImage

GOLDEN = Path(__file__).parent.parent / "golden" / "anole_tiny"
SETTINGS = GenerationSettings(max_new_tokens=90, max_images=3, greedy=True, temperature=1.5, seed=3)
WORDS = [[3, 9, 4, 2], [7, 2, 5], [3, 0, 6]]
"""Samples 0 and 2 begin an image at the same moment, all others at moments of their own; they end one after another."""


def small() -> SmallInterleaved:
    torch.manual_seed(0)
    tokenizer = VQImage(
        resolution=16, codes=32, embed_dim=16, base_channels=32, channel_multiplier=[1, 1, 1], res_blocks=1
    )
    decoder = SmallInterleaved([f"word{n}" for n in range(40)], tokenizer, width=48, layers=2, heads=4, max_length=256)
    for weight in decoder.language.model.layers.parameters():
        weight.data.mul_(4)  # so that what is attended to decides the tokens
    decoder.places.weight.data.mul_(20)
    return decoder.eval()


@pytest.fixture(scope="module", params=["chameleon", "small"])
def decoder(request) -> InterleavedDecoder:
    return InterleavedDecoder.from_official(GOLDEN) if request.param == "chameleon" else small()


def prompts(decoder: InterleavedDecoder) -> list[torch.Tensor]:
    """Of different lengths; the second holds an image."""
    vocabulary = decoder.vocabulary
    image = [vocabulary.begin, *vocabulary.image_ids[:16].tolist(), vocabulary.end]
    word = len(vocabulary.code_of) - 20
    return [
        torch.tensor([vocabulary.start, *ids, vocabulary.separator])
        for ids in ([word, word + 1], [word + 2, *image, word + 3], [word + 4])
    ]


def others(decoder: InterleavedDecoder) -> dict[str, torch.Tensor]:
    start, word = decoder.vocabulary.start, len(decoder.vocabulary.code_of) - 10
    return {"negative": torch.tensor([start, word, word + 1, word + 2]), "original": torch.tensor([start, word + 3])}


def first_images(decoder: InterleavedDecoder) -> Given:
    """Gives a sample's first image, which depends on all that it has said; the model writes the others."""
    image_ids, begin = decoder.vocabulary.image_ids, decoder.vocabulary.begin

    def given(index: int, ids: list[int]) -> torch.Tensor | None:
        if ids.count(begin) > 1:
            return None
        generator = torch.Generator().manual_seed(index + sum(ids))
        return image_ids[torch.randint(len(image_ids), (decoder.codes_an_image,), generator=generator)]

    return given


def sizes_of(decoder: InterleavedDecoder, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """From now on, of everything that goes through the model: rows, positions, and positions with those in the cache."""
    sizes: list[tuple[int, int, int]] = []
    hidden: Callable[..., Any] = decoder.hidden

    def counting(ids: torch.Tensor, mask: torch.Tensor, **kwargs: Any) -> Any:
        sizes.append((*ids.shape, mask.shape[1]))
        return hidden(ids, mask, **kwargs)

    monkeypatch.setattr(decoder, "hidden", counting)
    return sizes


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("guidance", ["none", "normal", "obj", "full"])
def test_a_given_image_taken_whole_equals_one_taken_code_by_code(decoder, guidance, greedy):
    """In a batch and alone; what is written after it, guided images included, depends on it."""
    options = replace(SETTINGS, guidance=guidance, greedy=greedy)
    given, rows = first_images(decoder), others(decoder)
    with scripted(decoder, WORDS, code_by_code=given):
        by_code = generate(decoder, prompts(decoder), options, **rows)
    with scripted(decoder, WORDS):
        whole = generate(decoder, prompts(decoder), options, **rows, given=given)
    assert [ids.tolist() for ids in whole] == [ids.tolist() for ids in by_code]
    for index, prompt in enumerate(prompts(decoder)):
        alone = replace(options, seed=options.seed + index)
        with scripted(decoder, WORDS[index : index + 1]):
            made = generate(decoder, [prompt], alone, **rows, given=lambda _, ids, own=index: given(own, ids))
        assert made[0].tolist() == whole[index].tolist()
        assert int(made[0][-1]) == decoder.vocabulary.stop
        decoder.vocabulary.check(made[0], decoder.codes_an_image)


def test_samples_that_begin_images_when_they_please_are_equal_too(decoder):
    given, begun = first_images(decoder), 0
    for seed in range(0, 60, 10):
        options = replace(SETTINGS, greedy=False, temperature=4.0, top_p=1.0, seed=seed)
        with scripted(decoder, [None] * 3, code_by_code=given):
            by_code = generate(decoder, prompts(decoder), options)
        whole = generate(decoder, prompts(decoder), options, given=given)
        assert [ids.tolist() for ids in whole] == [ids.tolist() for ids in by_code]
        begun += sum(int((ids == decoder.vocabulary.begin).sum()) for ids in whole) - 1  # one is a prompt's
    assert begun > 3


@torch.no_grad()
@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("guidance", ["none", "normal", "obj", "full"])
def test_each_token_is_that_of_whole_sequences(decoder, guidance, opened):
    """One for each row that guidance mixes, written out here, with no cache and no mask; the prompt may open an image."""
    options = replace(SETTINGS, guidance=guidance, max_new_tokens=100, max_images=4)
    given, prompt, rows = first_images(decoder), prompts(decoder)[1], others(decoder)
    if opened:
        prompt = torch.cat([prompt, torch.tensor([decoder.vocabulary.begin])])
    with scripted(decoder, WORDS[:1]):
        made = generate(decoder, [prompt], options, **rows, given=given)[0]
    vocabulary, checked = decoder.vocabulary, 0
    marks = [vocabulary.begin, vocabulary.end, vocabulary.stop]
    is_code, images = vocabulary.is_image(made), (made == vocabulary.begin).cumsum(0)
    in_images = is_code | (made == vocabulary.begin) | (made == vocabulary.end) | (made == vocabulary.start)
    for position in range(len(prompt), len(made)):
        token, before = made[position], made[:position]
        if int(token) in marks or (is_code[position] and images[position] == 2 + opened):
            continue  # scripted or given; image 1 is the prompt's, and 2 if opened there
        logits = decoder(before[None])[0, -1]
        if is_code[position]:
            image = before[int((before == vocabulary.begin).nonzero()[-1]) :]
            lines = {"full": before, "image": before[in_images[:position]], "unconditional": image}
            lines |= {name: torch.cat([ids, image]) for name, ids in rows.items()}
            logits = guided(torch.stack([decoder(lines[name][None])[0, -1] for name in ROWS[guidance]]), options)
        logits[[*marks, vocabulary.pad, vocabulary.placeholder]] = -torch.inf
        logits[vocabulary.is_image(torch.arange(len(logits))) != is_code[position]] = -torch.inf
        assert int(logits.argmax()) == int(token)
        checked += 1
    assert checked == sum(WORDS[0]) + (2 + opened) * decoder.codes_an_image


@pytest.mark.parametrize(
    ("guidance", "rows", "taking"), [("none", 1, 1), ("normal", 3, 2), ("obj", 3, 1), ("full", 5, 2)]
)
def test_a_given_image_is_one_step_and_samples_that_end_leave_the_batch(decoder, monkeypatch, guidance, rows, taking):
    """Rows that forget the image at the next one, as the unconditional, do not take it at all."""
    sizes, options = sizes_of(decoder, monkeypatch), replace(SETTINGS, guidance=guidance)
    with scripted(decoder, WORDS):
        made = generate(
            decoder,
            prompts(decoder),
            options,
            **others(decoder),
            given=lambda index, ids: decoder.vocabulary.image_ids[:16],
        )
    images = [size[:2] for size in sizes[1:] if size[1] > 1]
    assert images == [(2 * taking, 17), *[(taking, 17)] * 5], "a step for each moment at which images begin"
    steps = [size for size in sizes[1:] if size[1] == 1]
    assert len(steps) == sum(WORDS[0]) + 3, "the words of the longest, and the end mark of each of its images"
    batch = [size[0] for size in steps]
    assert sorted(batch, reverse=True) == batch and set(batch) == {3 * rows, 2 * rows, rows}
    assert max(size[2] for size in sizes) <= max(map(len, made)), "no more positions than the longest sample has"


def test_every_number_of_new_tokens_is_kept(decoder, monkeypatch):
    """Cut anywhere, inside a given image too; an image for which there is no room is not asked for."""
    given, prompt, asked = first_images(decoder), prompts(decoder)[0], []
    sizes = sizes_of(decoder, monkeypatch)

    def counted(index: int, ids: list[int]) -> torch.Tensor | None:
        asked.append(len(ids))
        return given(index, ids)

    with scripted(decoder, [[2, 3, 1]]):
        whole = generate(decoder, [prompt], SETTINGS, given=given)[0]
    new = len(whole) - len(prompt)
    assert new == 6 + 2 * 18 + 1
    for most in range(new + 2):
        asked.clear(), sizes.clear()
        with scripted(decoder, [[2, 3, 1]]):
            made = generate(decoder, [prompt], replace(SETTINGS, max_new_tokens=most), given=counted)[0]
        assert made.tolist() == whole[: len(prompt) + most].tolist()
        assert all(length < most for length in asked)
        assert [size[1] for size in sizes[1:]].count(17) == (most > 2 + 18), "an image that is cut is not needed"


def test_the_most_images_hold_for_given_ones_and_only_image_stops_after_one(decoder):
    vocabulary, prompt = decoder.vocabulary, prompts(decoder)[0]
    options = replace(SETTINGS, greedy=False, temperature=50.0, top_p=1.0, max_new_tokens=400, max_images=2)
    for seed in range(5):
        made = generate(
            decoder, [prompt], replace(options, seed=seed), given=lambda index, ids: vocabulary.image_ids[:16]
        )[0]
        assert int((made == vocabulary.begin).sum()) <= 2
    with scripted(decoder, [[2, 5, 5]]):
        made = generate(decoder, [prompt], replace(SETTINGS, only_image=True), given=first_images(decoder))[0]
    assert made[-2:].tolist() == [vocabulary.end, vocabulary.stop] and int((made == vocabulary.begin).sum()) == 1


def test_an_image_with_too_few_codes_is_refused(decoder):
    with (
        scripted(decoder, [[2, 3]]),
        pytest.raises(ValueError, match=r"a given image has 16 codes; \(15,\) were given"),
    ):
        generate(decoder, prompts(decoder)[:1], SETTINGS, given=lambda index, ids: decoder.vocabulary.image_ids[:15])


def test_given_images_are_streamed_as_written_ones_are():
    decoder = small()
    prompt, given = prompts(decoder)[0], first_images(decoder)
    with scripted(decoder, WORDS[:1]):
        whole = generate(decoder, [prompt], SETTINGS, given=given)[0][len(prompt) :]
    with scripted(decoder, WORDS[:1]):
        pieces = list(stream(decoder, prompt, SETTINGS, given=given))
    images = [piece for piece in pieces if isinstance(piece, torch.Tensor)]
    codes = whole[decoder.vocabulary.is_image(whole)].view(3, 16)
    assert torch.equal(torch.stack(images), codes)
    marks = (decoder.vocabulary.begin, decoder.vocabulary.end, decoder.vocabulary.stop)
    words = [int(token) for token in whole if not decoder.vocabulary.is_image(token) and int(token) not in marks]
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == decoder.text.decode(words)
    assert [isinstance(piece, str) for piece in pieces].index(False) > 0, "text comes before the first image"
