"""The interleaved decoder and its generation against values of the official code, token for token."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import ChameleonConfig

from zoo.constants import IGNORE_INDEX
from zoo.decoders.interleaved import ImageVocabulary, InterleavedDecoder, VocabularyError
from zoo.decoders.interleaved_generation import GenerationSettings, generate, guided

GOLDEN = Path(__file__).parent.parent / "golden" / "anole_tiny"
GREEDY = GenerationSettings(max_new_tokens=48, greedy=True)


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "expected.safetensors")


@pytest.fixture(scope="module")
def decoder(expected) -> InterleavedDecoder:
    made = InterleavedDecoder.from_official(GOLDEN)
    with torch.no_grad():
        made.auxiliary.weight.copy_(expected["aux_proj_weight"])
        made.auxiliary.bias.copy_(expected["aux_proj_bias"])
    return made


@torch.no_grad()
def test_hidden_states_and_logits_are_the_official_ones(decoder, expected):
    ids = expected["input_ids"]
    mask = (ids != decoder.vocabulary.pad).long()
    hidden = decoder.hidden(ids, mask).last_hidden_state
    torch.testing.assert_close(hidden[mask.bool()], expected["last_hidden"][mask.bool()], atol=1e-4, rtol=0)
    torch.testing.assert_close(decoder(ids, mask)[mask.bool()], expected["logits"][mask.bool()], atol=1e-4, rtol=0)


@torch.no_grad()
def test_losses_are_the_official_ones(decoder, expected):
    losses = decoder.losses(expected["input_ids"], expected["labels"])
    torch.testing.assert_close(losses["cross_entropy"], expected["ce_loss"][0], atol=1e-4, rtol=0)
    torch.testing.assert_close(losses["auxiliary"], expected["aux_loss"][0], atol=1e-4, rtol=0)


@torch.no_grad()
def test_right_padded_batches_give_each_sample_the_loss_it_has_alone(decoder, expected):
    ids, labels = expected["input_ids"], expected["labels"]
    cut = 53  # ends with a whole image
    short_ids, short_labels = ids[1, :cut].clone(), labels[1, :cut].clone()
    padded_ids = torch.full_like(ids, decoder.vocabulary.pad)
    padded_labels = torch.full_like(labels, IGNORE_INDEX)
    padded_ids[0], padded_labels[0] = ids[0], labels[0]
    padded_ids[1, :cut], padded_labels[1, :cut] = short_ids, short_labels
    together = decoder.losses(padded_ids, padded_labels)
    alone = [decoder.losses(ids[:1], labels[:1]), decoder.losses(short_ids[None], short_labels[None])]
    tokens = [int((row != IGNORE_INDEX).sum()) for row in padded_labels]
    images = [int((decoder.vocabulary.is_image(row) & (row != IGNORE_INDEX)).sum()) for row in padded_labels]
    for name, weights in (("cross_entropy", tokens), ("auxiliary", images)):
        mean = sum(loss[name] * weight for loss, weight in zip(alone, weights, strict=True)) / sum(weights)
        torch.testing.assert_close(together[name], mean, atol=1e-5, rtol=1e-5)


def test_a_response_without_images_has_no_auxiliary_loss(decoder):
    ids = torch.tensor([[3, 70, 54, 71, 72, 2]])
    labels = torch.tensor([[IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX, 71, 72, 2]])
    loss = decoder.losses(ids, labels)["auxiliary"]
    loss.backward()
    assert loss == 0


@pytest.mark.parametrize(
    ("prompt", "result", "options"),
    [
        ("prompt_ids", "greedy_interleaved", {}),
        ("image_prompt_ids", "greedy_image_only", {"only_image": True}),
        ("image_prompt_ids", "greedy_cfg_normal", {"only_image": True, "guidance": "normal"}),
    ],
)
def test_greedy_generation_is_the_official_one_token_for_token(decoder, expected, prompt, result, options):
    made = generate(decoder, [expected[prompt][0]], replace(GREEDY, **options))
    assert made[0].tolist() == expected[result][0].tolist()


@pytest.mark.parametrize(("mode", "count"), [("normal", 3), ("obj", 3), ("full", 5)])
def test_guidance_mixes_logits_as_the_official_code(expected, mode, count):
    rows = expected["cfg_logits_in"][: 2 * count].view(count, 2, -1)
    for sample in range(2):
        mixed = guided(rows[:, sample], GenerationSettings(guidance=mode))
        torch.testing.assert_close(mixed, expected[f"cfg_{mode}"][sample], atol=1e-4, rtol=0)


def test_prompts_that_guidance_needs_must_be_given(decoder, expected):
    with pytest.raises(ValueError, match="guidance 'full' needs a prompt for: original"):
        generate(decoder, [expected["prompt_ids"][0]], replace(GREEDY, guidance="full"), negative=torch.tensor([3, 60]))


def test_batches_of_any_lengths_give_what_each_prompt_gives_alone(decoder, expected):
    prompts = [expected["prompt_ids"][0], expected["image_prompt_ids"][0], torch.tensor([3, 80, 81, 54])]
    others = {"negative": torch.tensor([3, 60, 61]), "original": torch.tensor([3, 70])}
    for guidance in ("none", "normal", "obj", "full"):
        settings_ = replace(GREEDY, guidance=guidance, max_new_tokens=30)
        together = generate(decoder, prompts, settings_, **others)
        for prompt, made in zip(prompts, together, strict=True):
            assert made.tolist() == generate(decoder, [prompt], settings_, **others)[0].tolist()


@torch.no_grad()
def test_the_cache_changes_nothing(decoder, expected):
    """Each greedy token again, from the whole sequence before it."""
    prompt = expected["image_prompt_ids"][0]
    made = generate(decoder, [prompt], replace(GREEDY, max_new_tokens=40))[0]
    vocabulary, inside = decoder.vocabulary, 0
    for position in range(len(prompt), len(made)):
        logits = decoder(made[None, :position])[0, -1]
        if 0 <= inside < decoder.codes_an_image:
            best = int(vocabulary.image_ids[logits[vocabulary.image_ids].argmax()])
            inside += 1
        elif inside == decoder.codes_an_image:
            best, inside = vocabulary.end, -1
        else:
            logits[vocabulary.image_ids] = -torch.inf
            logits[[vocabulary.end, vocabulary.pad, vocabulary.placeholder]] = -torch.inf
            best = int(logits.argmax())
        assert best == int(made[position])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000), temperature=st.floats(0.3, 3.0), guidance=st.sampled_from(["none", "normal"]))
def test_sampled_sequences_are_always_well_formed(decoder, expected, seed, temperature, guidance):
    options = GenerationSettings(max_new_tokens=60, max_images=2, seed=seed, temperature=temperature, guidance=guidance)
    first, again = (generate(decoder, [expected["image_prompt_ids"][0]], options)[0] for _ in range(2))
    assert torch.equal(first, again), "a seed fixes the draw"
    whole = first
    if int((first == decoder.vocabulary.begin).sum()) > int((first == decoder.vocabulary.end).sum()):
        whole = first[: int((first == decoder.vocabulary.begin).nonzero()[-1])]
    decoder.vocabulary.check(whole, decoder.codes_an_image)
    assert int((first == decoder.vocabulary.begin).sum()) <= 1 + 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids: ids[:30], "ends inside an image"),
        (lambda ids: torch.cat([ids[:27], ids[28:]]), "image tokens outside an image"),
        (lambda ids: torch.cat([ids[:30], ids[31:]]), "an image is cut short after 15 of 16 codes"),
        (lambda ids: torch.cat([ids[:30], ids[29:]]), "more than 16 codes"),
        (lambda ids: torch.cat([ids[:28], ids[27:]]), "begins inside an image"),
        (lambda ids: torch.cat([ids, torch.tensor([52])]), "image tokens outside an image"),
    ],
)
def test_unbalanced_sequences_are_named_by_position(decoder, expected, change, message):
    ids = expected["input_ids"][0]
    decoder.vocabulary.check(ids, 16)
    with pytest.raises(VocabularyError, match=f"{message}|position .*{message}"):
        decoder.vocabulary.check(change(ids), 16)


def test_a_vocabulary_without_image_tokens_is_refused():
    config = ChameleonConfig.from_pretrained(GOLDEN)
    config.vocabulary_map = {name: value for name, value in config.vocabulary_map.items() if "IMGIMG" not in name}
    with pytest.raises(VocabularyError, match="lacks image tokens"):
        ImageVocabulary.from_config(config)
    config.vocabulary_map = {}
    with pytest.raises(VocabularyError, match="racm3"):
        ImageVocabulary.from_config(config)
