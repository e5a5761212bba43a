"""Generation against values of the official code; provided images, streaming, devices and precisions."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.decoders.scripted import scripted
from tests.fake_device import KINDS, cuda
from zoo.decoders.interleaved import InterleavedDecoder
from zoo.decoders.interleaved_generation import (
    GUIDANCE_ROWS,
    GenerationSettings,
    ImageProvider,
    apply_guidance,
    generate,
    sample_token,
    stream,
)

GUIDANCE = list(GUIDANCE_ROWS)
GREEDY = GenerationSettings(max_new_tokens=48, greedy=True)
SETTINGS = GenerationSettings(max_new_tokens=90, max_images=3, greedy=True, temperature=1.5, seed=3)
WORDS = [[3, 9, 4, 2], [7, 2, 5], [3, 0, 6]]
"""Words before each image and the end: samples 0 and 2 begin an image in the same step, and no two end in the same step."""


@pytest.fixture(params=["official", "small"])
def decoder(request, official_decoder, small_decoder) -> InterleavedDecoder:
    """In double precision: two ways to one sequence of sampled tokens differ by rounding, on some processors by a token."""
    if request.param == "official":
        return deepcopy(official_decoder).double()
    for weight in small_decoder.language.model.layers.parameters():
        weight.data.mul_(4)  # so that the tokens depend on what is attended to
    small_decoder.places.weight.data.mul_(20)
    return small_decoder.double()


def prompts_of(decoder: InterleavedDecoder) -> list[torch.Tensor]:
    """Of different lengths; the second has an image."""
    vocabulary = decoder.vocabulary
    image = [vocabulary.boi_token_id, *vocabulary.image_ids[:16].tolist(), vocabulary.eoi_token_id]
    word = len(vocabulary.code_of) - 20
    return [
        torch.tensor([vocabulary.bos_token_id, *ids, vocabulary.sep_token_id])
        for ids in ([word, word + 1], [word + 2, *image, word + 3], [word + 4])
    ]


def row_prompts_of(decoder: InterleavedDecoder) -> dict[str, torch.Tensor]:
    start, word = decoder.vocabulary.bos_token_id, len(decoder.vocabulary.code_of) - 10
    negative, original = torch.tensor([start, word, word + 1, word + 2]), torch.tensor([start, word + 3])
    return {"negative_prompt": negative, "original_prompt": original}


def first_images(decoder: InterleavedDecoder) -> ImageProvider:
    """Provides a sample's first image, which depends on all its tokens so far; the model generates the others."""
    image_ids, boi_token_id = decoder.vocabulary.image_ids, decoder.vocabulary.boi_token_id

    def provide_image(index: int, generated_ids: list[int]) -> torch.Tensor | None:
        if generated_ids.count(boi_token_id) > 1:
            return None
        generator = torch.Generator().manual_seed(index + sum(generated_ids))
        return image_ids[torch.randint(len(image_ids), (decoder.tokens_per_image,), generator=generator)]

    return provide_image


@pytest.mark.parametrize(
    ("prompt", "result", "options"),
    [
        ("prompt_ids", "greedy_interleaved", {}),
        ("image_prompt_ids", "greedy_image_only", {"only_image": True}),
        ("image_prompt_ids", "greedy_cfg_normal", {"only_image": True, "guidance": "normal"}),
    ],
)
def test_greedy_generation_is_the_official_one_token_for_token(official_decoder, golden, prompt, result, options):
    sequences = generate(official_decoder, [golden[prompt][0]], replace(GREEDY, **options))
    assert sequences[0].tolist() == golden[result][0].tolist()


@pytest.mark.parametrize(("mode", "count"), [("normal", 3), ("obj", 3), ("full", 5)])
def test_guidance_mixes_logits_as_the_official_code_does(golden, mode, count):
    rows = golden["cfg_logits_in"][: 2 * count].view(count, 2, -1)
    for sample in range(2):
        logits = apply_guidance(rows[:, sample], GenerationSettings(guidance=mode, negative_scale=0.5))
        torch.testing.assert_close(logits, golden[f"cfg_{mode}"][sample], atol=1e-4, rtol=0)


def test_a_missing_guidance_prompt_is_reported(official_decoder, golden):
    with pytest.raises(ValueError, match="guidance 'full' needs a prompt for: original"):
        generate(official_decoder, [golden["prompt_ids"][0]], replace(GREEDY, guidance="full"), torch.tensor([3, 60]))


@torch.no_grad()
def test_the_cache_does_not_change_the_tokens(official_decoder, golden):
    """Each greedy token is recomputed from the full sequence before it."""
    prompt, vocabulary, inside = golden["image_prompt_ids"][0], official_decoder.vocabulary, 0
    sequence = generate(official_decoder, [prompt], replace(GREEDY, max_new_tokens=40))[0]
    for position in range(len(prompt), len(sequence)):
        logits = official_decoder(sequence[None, :position])[0, -1]
        if 0 <= inside < official_decoder.tokens_per_image:
            best = int(vocabulary.image_ids[logits[vocabulary.image_ids].argmax()])
            inside += 1
        elif inside == official_decoder.tokens_per_image:
            best, inside = vocabulary.eoi_token_id, -1
        else:
            logits[vocabulary.image_ids] = -torch.inf
            logits[[vocabulary.eoi_token_id, vocabulary.pad_token_id, vocabulary.image_token_id]] = -torch.inf
            best = int(logits.argmax())
        assert best == int(sequence[position])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000), temperature=st.floats(0.3, 3.0), guidance=st.sampled_from(["none", "normal"]))
def test_sampled_sequences_are_well_formed_and_reproducible(official_decoder, golden, seed, temperature, guidance):
    options = GenerationSettings(max_new_tokens=60, max_images=2, seed=seed, temperature=temperature, guidance=guidance)
    first, second = (generate(official_decoder, [golden["image_prompt_ids"][0]], options)[0] for _ in range(2))
    assert torch.equal(first, second)
    vocabulary, begun = official_decoder.vocabulary, first == official_decoder.vocabulary.boi_token_id
    unfinished = int(begun.sum()) > int((first == vocabulary.eoi_token_id).sum())
    vocabulary.check(first[: int(begun.nonzero()[-1])] if unfinished else first, official_decoder.tokens_per_image)
    assert int(begun.sum()) <= 1 + 2


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("guidance", GUIDANCE)
def test_an_image_provided_at_once_equals_one_generated_code_by_code(decoder, guidance, greedy):
    """In a batch and alone; what is generated after it, guided images included, depends on it."""
    options = replace(SETTINGS, guidance=guidance, greedy=greedy)
    provide_image, row_prompts = first_images(decoder), row_prompts_of(decoder)
    with scripted(decoder, WORDS, code_by_code=provide_image):
        expected = generate(decoder, prompts_of(decoder), options, **row_prompts)
    with scripted(decoder, WORDS):
        batch = generate(decoder, prompts_of(decoder), options, **row_prompts, provide_image=provide_image)
    assert [ids.tolist() for ids in batch] == [ids.tolist() for ids in expected]
    for index, prompt in enumerate(prompts_of(decoder)):

        def provide_at_index(_: int, generated_ids: list[int], index: int = index) -> torch.Tensor | None:
            return provide_image(index, generated_ids)

        with scripted(decoder, WORDS[index : index + 1]):
            single = generate(
                decoder,
                [prompt],
                replace(options, seed=options.seed + index),
                **row_prompts,
                provide_image=provide_at_index,
            )
        assert single[0].tolist() == batch[index].tolist()
        assert int(single[0][-1]) == decoder.vocabulary.eos_token_id
        decoder.vocabulary.check(single[0], decoder.tokens_per_image)


def test_images_may_begin_wherever_the_model_begins_them(decoder):
    provide_image, begun = first_images(decoder), 0
    for seed in range(0, 60, 10):
        options = replace(SETTINGS, greedy=False, temperature=4.0, top_p=1.0, seed=seed)
        with scripted(decoder, [None] * 3, code_by_code=provide_image):
            expected = generate(decoder, prompts_of(decoder), options)
        sequences = generate(decoder, prompts_of(decoder), options, provide_image=provide_image)
        assert [ids.tolist() for ids in sequences] == [ids.tolist() for ids in expected]
        begun += sum(int((ids == decoder.vocabulary.boi_token_id).sum()) for ids in sequences) - 1  # a prompt's
    assert begun > 3


@torch.no_grad()
@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("guidance", GUIDANCE)
def test_each_token_is_that_of_full_sequences(decoder, guidance, opened):
    """One sequence for each row that guidance mixes, without a cache or mask; the prompt may open an image."""
    options = replace(SETTINGS, guidance=guidance, max_new_tokens=100, max_images=4)
    prompt, row_prompts, vocabulary = prompts_of(decoder)[1], row_prompts_of(decoder), decoder.vocabulary
    boi, eoi, eos = vocabulary.boi_token_id, vocabulary.eoi_token_id, vocabulary.eos_token_id
    if opened:
        prompt = torch.cat([prompt, torch.tensor([boi])])
    with scripted(decoder, WORDS[:1]):
        sequence = generate(decoder, [prompt], options, **row_prompts, provide_image=first_images(decoder))[0]
    is_code, images, checked = vocabulary.is_image(sequence), (sequence == boi).cumsum(0), 0
    in_images = is_code | torch.isin(sequence, torch.tensor([boi, eoi, vocabulary.bos_token_id]))
    for position in range(len(prompt), len(sequence)):
        token, prefix = sequence[position], sequence[:position]
        if int(token) in (boi, eoi, eos) or (is_code[position] and images[position] == 2 + opened):
            continue  # scripted or provided; image 1 is the prompt's, and 2 too if it is opened there
        logits = decoder(prefix[None])[0, -1]
        if is_code[position]:
            image = prefix[int((prefix == boi).nonzero()[-1]) :]
            rows = {"full": prefix, "image": prefix[in_images[:position]], "unconditional": image}
            rows |= {name.split("_")[0]: torch.cat([ids, image]) for name, ids in row_prompts.items()}
            row_logits = [decoder(rows[name][None])[0, -1] for name in GUIDANCE_ROWS[guidance]]
            logits = apply_guidance(torch.stack(row_logits), options)
        logits[[boi, eoi, eos, vocabulary.pad_token_id, vocabulary.image_token_id]] = -torch.inf
        logits[vocabulary.is_image(torch.arange(len(logits))) != is_code[position]] = -torch.inf
        assert int(logits.argmax()) == int(token)
        checked += 1
    assert checked == sum(WORDS[0]) + (2 + opened) * decoder.tokens_per_image


def test_max_new_tokens_is_exact_and_cuts_provided_images_too(decoder):
    """An image for which no token is left is not requested."""
    provide_image, prompt, requests = first_images(decoder), prompts_of(decoder)[0], []

    def counted(index: int, generated_ids: list[int]) -> torch.Tensor | None:
        requests.append(len(generated_ids))
        return provide_image(index, generated_ids)

    with scripted(decoder, [[2, 3, 1]]):
        complete = generate(decoder, [prompt], SETTINGS, provide_image=provide_image)[0]
    new = len(complete) - len(prompt)
    assert new == 6 + 2 * 18 + 1
    for limit in range(new + 2):
        requests.clear()
        with scripted(decoder, [[2, 3, 1]]):
            options = replace(SETTINGS, max_new_tokens=limit)
            sequence = generate(decoder, [prompt], options, provide_image=counted)[0]
        assert sequence.tolist() == complete[: len(prompt) + limit].tolist()
        assert all(length < limit for length in requests)


def test_max_images_counts_provided_images_and_only_image_stops_after_one(decoder):
    vocabulary, prompt = decoder.vocabulary, prompts_of(decoder)[0]
    options = replace(SETTINGS, greedy=False, temperature=50.0, top_p=1.0, max_new_tokens=400, max_images=2)
    for seed in range(5):
        sequence = generate(
            decoder, [prompt], replace(options, seed=seed), provide_image=lambda index, ids: vocabulary.image_ids[:16]
        )[0]
        assert int((sequence == vocabulary.boi_token_id).sum()) <= 2
    only_image = replace(SETTINGS, only_image=True)
    with scripted(decoder, [[2, 5, 5]]):
        sequence = generate(decoder, [prompt], only_image, provide_image=first_images(decoder))[0]
    assert sequence[-2:].tolist() == [vocabulary.eoi_token_id, vocabulary.eos_token_id]
    assert int((sequence == vocabulary.boi_token_id).sum()) == 1


def test_a_provided_image_of_the_wrong_size_is_refused(decoder):
    with (
        scripted(decoder, [[2, 3]]),
        pytest.raises(ValueError, match=r"a provided image must have shape \(16,\); got \(15,\)"),
    ):
        image_ids = decoder.vocabulary.image_ids[:15]
        generate(decoder, prompts_of(decoder)[:1], SETTINGS, provide_image=lambda index, ids: image_ids)


def test_streaming_yields_text_as_it_comes_and_complete_images(small_decoder):
    prompt, vocabulary = prompts_of(small_decoder)[0], small_decoder.vocabulary
    provide_image = first_images(small_decoder)
    with scripted(small_decoder, WORDS[:1]):
        generated = generate(small_decoder, [prompt], SETTINGS, provide_image=provide_image)[0][len(prompt) :]
    with scripted(small_decoder, WORDS[:1]):
        pieces = list(stream(small_decoder, prompt, SETTINGS, provide_image=provide_image))
    images = [piece for piece in pieces if isinstance(piece, torch.Tensor)]
    assert torch.equal(torch.stack(images), generated[vocabulary.is_image(generated)].view(3, 16))
    special = (vocabulary.boi_token_id, vocabulary.eoi_token_id, vocabulary.eos_token_id)
    words = [int(token) for token in generated if not vocabulary.is_image(token) and int(token) not in special]
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == small_decoder.tokenizer.decode(words)
    assert [isinstance(piece, str) for piece in pieces].index(False) > 0, "text comes before the first image"


@contextmanager
def another_default_device() -> Iterator[None]:
    """A tensor that is created without a device is on "meta", and fails with those of the decoder."""
    with torch.device("meta"):
        yield


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("guidance", GUIDANCE)
def test_generation_runs_on_the_device_of_the_decoder(small_decoder, guidance, greedy):
    options = replace(SETTINGS, guidance=guidance, greedy=greedy)
    prompts, row_prompts = prompts_of(small_decoder)[:2], row_prompts_of(small_decoder)
    image_ids = small_decoder.vocabulary.image_ids[7:23]

    def run() -> list[torch.Tensor]:
        with scripted(small_decoder, WORDS):
            return generate(small_decoder, prompts, options, **row_prompts, provide_image=lambda index, ids: image_ids)

    expected = run()
    with another_default_device():
        sequences = run()
    assert all(ids.device.type == "cpu" for ids in sequences)
    assert [ids.tolist() for ids in sequences] == [ids.tolist() for ids in expected]


def test_streaming_runs_on_the_device_of_the_decoder(small_decoder):
    prompt = torch.tensor([0, 60, small_decoder.vocabulary.boi_token_id])
    expected = next(stream(small_decoder, prompt, SETTINGS))
    with another_default_device():
        image = next(stream(small_decoder, prompt, SETTINGS))
    assert isinstance(image, torch.Tensor) and image.tolist() == expected.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("guidance", GUIDANCE)
def test_generation_on_a_gpu(small_decoder, guidance, kind):
    """Prompts and provided images come from the CPU; a seed makes the samples reproducible."""
    options = replace(SETTINGS, guidance=guidance, greedy=False)
    prompts, row_prompts = prompts_of(small_decoder)[:2], row_prompts_of(small_decoder)
    image_ids, results = small_decoder.vocabulary.image_ids[7:23], []
    with cuda(kind) as device:
        small_decoder.to(device)
        for _ in range(2):
            with scripted(small_decoder, WORDS):
                results.append(
                    generate(small_decoder, prompts, options, **row_prompts, provide_image=lambda index, ids: image_ids)
                )
        prompt = torch.tensor([0, 60, small_decoder.vocabulary.boi_token_id])
        assert next(stream(small_decoder, prompt, SETTINGS)).device.type == "cpu"
    for first, second in zip(*results, strict=True):
        assert first.device.type == "cpu" and torch.equal(first, second)
        small_decoder.vocabulary.check(first, 16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("guidance", GUIDANCE)
def test_half_precision_generates(small_decoder, dtype, guidance):
    vocabulary = small_decoder.vocabulary
    small_decoder.language.to(dtype)
    for greedy in (True, False):
        options = replace(SETTINGS, guidance=guidance, greedy=greedy)
        with scripted(small_decoder, WORDS):
            sequences = generate(
                small_decoder,
                prompts_of(small_decoder),
                options,
                **row_prompts_of(small_decoder),
                provide_image=first_images(small_decoder),
            )
        for ids, images in zip(sequences, (3, 3, 2), strict=True):
            vocabulary.check(ids, 16)
            assert int((ids == vocabulary.boi_token_id).sum()) == images and int(ids[-1]) == vocabulary.eos_token_id


def test_the_official_negative_scale_ignores_the_negative_prompt(official_decoder, golden):
    """It is 0 by default; a large one steers away from the prompt."""
    start = golden["image_prompt_ids"][0]
    options = replace(GREEDY, guidance="obj", only_image=True)
    prompts = [torch.tensor([3, 60, 61]), torch.tensor([3, 62])]

    def images(scale: float) -> list[list[int]]:
        chosen = replace(options, negative_scale=scale)
        return [generate(official_decoder, [start], chosen, prompt)[0].tolist() for prompt in prompts]

    ignored, pushed = images(options.negative_scale), images(20.0)
    assert options.negative_scale == 0.0 and ignored[0] == ignored[1]
    assert pushed[0] != pushed[1] and ignored[0] not in pushed


def test_images_are_sampled_without_the_nucleus_of_text(official_decoder, golden):
    """With a nucleus of one token, text is greedy; image tokens still vary with the seed, unless theirs is as small."""
    start = golden["image_prompt_ids"][0]
    options = GenerationSettings(max_new_tokens=17, top_p=1e-6, only_image=True, guidance="normal", negative_scale=0.0)
    greedy = generate(official_decoder, [start], replace(options, greedy=True))[0].tolist()

    def sampled(image_top_p: float) -> set[tuple[int, ...]]:
        chosen = replace(options, image_top_p=image_top_p)
        seeds = [replace(chosen, seed=seed) for seed in range(3)]
        return {tuple(generate(official_decoder, [start], one)[0].tolist()) for one in seeds}

    assert options.image_top_p == 1.0 and len(sampled(options.image_top_p)) == 3
    assert sampled(1e-6) == {tuple(greedy)}
    text = [torch.tensor([3, 60, 61])]
    last = replace(options, max_images=0, only_image=False)
    continued = [generate(official_decoder, text, replace(last, seed=seed))[0].tolist() for seed in range(3)]
    assert continued[0] == continued[1] == continued[2]


def test_tokens_are_sampled_from_the_top_k_and_then_the_nucleus():
    logits = torch.tensor([0.7, 0.1, 0.15, 0.05]).log()

    def drawn(**options: float) -> set[int]:
        chosen, generator = GenerationSettings(**options), torch.Generator().manual_seed(0)
        return {int(sample_token(logits, chosen, generator)) for _ in range(400)}

    assert drawn(top_k=0, top_p=1.0) == drawn(top_k=9, top_p=1.0) == {0, 1, 2, 3}
    assert drawn(top_k=2, top_p=1.0) == {0, 2}
    assert drawn(top_k=0, top_p=0.75) == {0, 2} and drawn(top_k=2, top_p=0.75) == {0}, "0.7 of 0.85 is above 0.75"
