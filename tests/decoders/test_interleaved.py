"""The interleaved decoder against values of the official code, its losses in any precision, and its vocabulary."""

import pytest
import torch
from transformers import ChameleonConfig

from zoo.constants import IGNORE_INDEX
from zoo.decoders.interleaved import ImageVocabulary, InterleavedDecoder, VocabularyError

HALF = [torch.bfloat16, torch.float16]


@torch.no_grad()
def test_hidden_states_and_logits_are_the_official_ones(official_decoder, golden):
    input_ids = golden["input_ids"]
    attention_mask = (input_ids != official_decoder.vocabulary.pad_token_id).long()
    valid = attention_mask.bool()
    hidden_states = official_decoder.forward_backbone(input_ids, attention_mask).last_hidden_state
    torch.testing.assert_close(hidden_states[valid], golden["last_hidden"][valid], atol=1e-4, rtol=0)
    logits = official_decoder(input_ids, attention_mask)
    torch.testing.assert_close(logits[valid], golden["logits"][valid], atol=1e-4, rtol=0)


@torch.no_grad()
def test_losses_are_the_official_ones(official_decoder, golden):
    losses = official_decoder.losses(golden["input_ids"], golden["labels"])
    torch.testing.assert_close(losses["cross_entropy"], golden["ce_loss"][0], atol=1e-4, rtol=0)
    torch.testing.assert_close(losses["auxiliary"], golden["aux_loss"][0], atol=1e-4, rtol=0)


@torch.no_grad()
def test_padding_on_the_right_does_not_change_the_losses(official_decoder, golden):
    vocabulary, input_ids, labels = official_decoder.vocabulary, golden["input_ids"], golden["labels"]
    length = 53  # ends with a complete image
    padded_ids = torch.full_like(input_ids, vocabulary.pad_token_id)
    padded_labels = torch.full_like(labels, IGNORE_INDEX)
    padded_ids[0], padded_labels[0] = input_ids[0], labels[0]
    padded_ids[1, :length], padded_labels[1, :length] = input_ids[1, :length], labels[1, :length]
    batch = official_decoder.losses(padded_ids, padded_labels)
    singles = [
        official_decoder.losses(input_ids[:1], labels[:1]),
        official_decoder.losses(input_ids[1:, :length], labels[1:, :length]),
    ]
    tokens = [int((row != IGNORE_INDEX).sum()) for row in padded_labels]
    codes = [int((vocabulary.is_image(row) & (row != IGNORE_INDEX)).sum()) for row in padded_labels]
    for name, weights in (("cross_entropy", tokens), ("auxiliary", codes)):
        mean = sum(loss[name] * weight for loss, weight in zip(singles, weights, strict=True)) / sum(weights)
        torch.testing.assert_close(batch[name], mean, atol=1e-5, rtol=1e-5)


def test_a_response_without_images_has_no_auxiliary_loss(official_decoder):
    input_ids = torch.tensor([[3, 70, 54, 71, 72, 2]])
    labels = torch.tensor([[IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX, 71, 72, 2]])
    loss = official_decoder.losses(input_ids, labels)["auxiliary"]
    loss.backward()
    assert loss == 0


def a_batch(decoder: InterleavedDecoder) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels; both samples have an image in the response, the second has padding."""
    vocabulary = decoder.vocabulary
    image = [vocabulary.boi_token_id, *vocabulary.image_ids[:16].tolist(), vocabulary.eoi_token_id]
    line = [vocabulary.bos_token_id, 60, vocabulary.sep_token_id, 61, *image, 62, 63]
    padding = [vocabulary.pad_token_id] * 2
    input_ids = torch.tensor([[*line, vocabulary.eos_token_id], [*line[:-2], vocabulary.eos_token_id, *padding]])
    labels = input_ids.masked_fill(input_ids == vocabulary.pad_token_id, IGNORE_INDEX)
    labels[:, :3] = IGNORE_INDEX
    return input_ids, labels


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("part", ["language", "all"])
def test_losses_are_float32_in_any_precision(small_decoder, dtype, part):
    batch = a_batch(small_decoder)
    expected = small_decoder.losses(*batch)
    (small_decoder if part == "all" else small_decoder.language).to(dtype)
    losses = small_decoder.losses(*batch)
    for name, loss in losses.items():
        assert loss.dtype == torch.float32 and torch.isfinite(loss)
        torch.testing.assert_close(loss, expected[name], atol=0, rtol=0.02)
    sum(losses.values()).backward()
    modules = (small_decoder.auxiliary, small_decoder.places, small_decoder.language.lm_head)
    for weight in (module.weight for module in modules):
        assert weight.grad is not None and weight.grad.dtype == weight.dtype and torch.isfinite(weight.grad).all()


def test_losses_are_computed_on_the_device_of_the_decoder(small_decoder):
    batch = a_batch(small_decoder)
    expected = small_decoder.losses(*batch)
    with torch.device("meta"):  # a tensor created without a device would be on "meta", and fail
        losses = small_decoder.losses(*batch)
    for name, loss in losses.items():
        assert torch.equal(expected[name], loss)


@pytest.mark.parametrize("dtype", HALF)
def test_a_half_precision_model_tokenizes_float32_images(small_decoder, dtype):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    small_decoder.language.to(dtype)
    image_ids = small_decoder.tokenize_images(images)
    assert image_ids.shape == (2, 16) and bool(small_decoder.vocabulary.is_image(image_ids).all())


def test_the_index_in_the_image_counts_codes(official_decoder):
    vocabulary = official_decoder.vocabulary
    codes = vocabulary.image_ids[:16].tolist()
    image = [vocabulary.boi_token_id, *codes, vocabulary.eoi_token_id]
    index = vocabulary.index_in_image(torch.tensor([[60, *image, 61, *image[:4]]]))
    assert index.tolist() == [[-1, -1, *range(16), -1, -1, -1, 0, 1, 2]]


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
def test_malformed_images_are_reported_by_position(official_decoder, golden, change, message):
    input_ids = golden["input_ids"][0]
    official_decoder.vocabulary.check(input_ids, 16)
    with pytest.raises(VocabularyError, match=f"{message}|position .*{message}"):
        official_decoder.vocabulary.check(change(input_ids), 16)


def test_a_vocabulary_without_image_tokens_is_refused(golden_folder):
    config = ChameleonConfig.from_pretrained(golden_folder)
    config.vocabulary_map = {name: value for name, value in config.vocabulary_map.items() if "IMGIMG" not in name}
    with pytest.raises(VocabularyError, match="lacks image tokens"):
        ImageVocabulary.from_config(config)
    config.vocabulary_map = {}
    with pytest.raises(VocabularyError, match="racm3"):
        ImageVocabulary.from_config(config)
