"""Evidence modes: records to token sequences and back."""

from dataclasses import replace

import pytest
import torch

from tests.tiny_trace import RECORD, WORDS
from zoo.constants import IGNORE_INDEX
from zoo.decoders.evidence import EVIDENCE, TraceWriter, last_box
from zoo.decoders.interleaved_models import SmallInterleaved
from zoo.decoders.vq_image import VQImage


@pytest.fixture(scope="module")
def decoder() -> SmallInterleaved:
    torch.manual_seed(0)
    tokenizer = VQImage(
        resolution=16, codes=16, embed_dim=16, base_channels=32, channel_multiplier=[1, 1, 1], res_blocks=1
    )
    return SmallInterleaved(WORDS, tokenizer, width=32, layers=2, heads=2, max_length=256).eval()


@pytest.fixture(scope="module")
def images(decoder) -> list[torch.Tensor]:
    codes = torch.randint(16, (3, 16), generator=torch.Generator().manual_seed(1))
    return list(decoder.vocabulary.image_ids[codes])


@pytest.fixture(params=list(EVIDENCE))
def writer(request, decoder) -> TraceWriter:
    return TraceWriter(decoder.tokenizer, decoder.vocabulary, decoder.tokens_per_image, request.param)


def test_an_encoded_record_decodes_to_itself(decoder, images, writer):
    input_ids, labels = writer.encode(RECORD, images, 1000)
    decoder.vocabulary.check(torch.tensor(input_ids), decoder.tokens_per_image)
    start = input_ids.index(decoder.vocabulary.sep_token_id) + 1
    texts, evidence = writer.split(input_ids[start:])
    steps, report = writer.parse(texts)
    assert report == RECORD.report and labels[-1] == decoder.vocabulary.eos_token_id
    if not writer.mode.steps:
        assert steps == [] and evidence == []
        return
    assert [step.region for step in steps] == ["heart", "left lung"]
    assert [step.statement for step in steps] == ["It is enlarged.", "Clear."]
    assert [step.box for step in steps] == [step.box if writer.mode.box else None for step in RECORD.steps]
    expected = images[1:] if writer.mode.image else []
    assert [ids.tolist() for ids in evidence] == [ids.tolist() for ids in expected]
    assert [step.image for step in steps] == ([0, 1] if writer.mode.image else [-1, -1])


def test_the_prompt_and_provided_images_are_no_targets(decoder, images, writer):
    input_ids, labels = map(torch.tensor, writer.encode(RECORD, images, 1000))
    start = input_ids.tolist().index(decoder.vocabulary.sep_token_id) + 1
    assert (labels[:start] == IGNORE_INDEX).all()
    is_target = labels[start:] != IGNORE_INDEX
    assert torch.equal(labels[start:][is_target], input_ids[start:][is_target])
    ignored = input_ids[start:][~is_target]
    provided = writer.mode.image == "provided"
    assert len(ignored) == (2 * (16 + 1) if provided else 0), "codes and end-of-image token of two images"
    assert int(decoder.vocabulary.is_image(labels).sum()) == (32 if writer.mode.image == "generated" else 0)


def test_a_trace_that_is_too_long_is_dropped_or_loses_its_last_steps(decoder, images, writer):
    """At every limit: complete or not at all, or as many steps as fit and always the report."""
    shorter = [replace(RECORD, steps=RECORD.steps[:count]) for count in range(len(RECORD.steps) + 1)]
    expected = [writer.encode(record, images, 1000) for record in shorter]
    complete, lengths = expected[-1], [len(input_ids) for input_ids, _ in expected]
    assert lengths == sorted(lengths) and (not writer.mode.steps or len(set(lengths)) == 3)
    for limit in range(len(complete[0]) + 2):
        assert writer.encode(RECORD, images, limit) == (complete if limit >= lengths[-1] else None)
        assert writer.encode(RECORD, images, limit, "drop") == writer.encode(RECORD, images, limit)
        shortened = writer.encode(RECORD, images, limit, "shorten")
        count = sum(length <= limit for length in lengths)
        assert shortened == (expected[count - 1] if count else None)
        if shortened is None:
            continue
        input_ids, labels = shortened
        decoder.vocabulary.check(torch.tensor(input_ids), decoder.tokens_per_image)
        assert len(input_ids) == len(labels) <= limit and labels[-1] == decoder.vocabulary.eos_token_id
        texts, _ = writer.split(input_ids[input_ids.index(decoder.vocabulary.sep_token_id) + 1 :])
        steps, report = writer.parse(texts)
        assert report == RECORD.report and len(steps) == (count - 1 if writer.mode.steps else 0)


@pytest.mark.parametrize("mode", ["generated", "crop"])
def test_an_evidence_prompt_ends_before_the_statement_and_contains_other_evidence(decoder, images, mode):
    writer = TraceWriter(decoder.tokenizer, decoder.vocabulary, decoder.tokens_per_image, mode)
    prompt = writer.encode_evidence_prompt(RECORD, 1, images, images[0])
    same = writer.encode_evidence_prompt(RECORD, 1, images, images[2])
    input_ids, _ = writer.encode(RECORD, images, 1000)
    assert input_ids[: len(same)] == same
    assert decoder.tokenizer.decode(input_ids[len(same) :]).strip().startswith("Clear.")
    changed = [position for position, (a, b) in enumerate(zip(prompt, same, strict=True)) if a != b]
    block = range(len(same)) if mode == "generated" else range(len(same) - 17, len(same) - 1)
    assert changed and set(changed) <= set(block)
    assert sum(decoder.vocabulary.is_image(torch.tensor(prompt)).tolist()) == 3 * 16


def test_a_response_that_is_cut_off_keeps_its_complete_steps(decoder, images):
    writer = TraceWriter(decoder.tokenizer, decoder.vocabulary, decoder.tokens_per_image, "crop")
    input_ids, _ = writer.encode(RECORD, images, 1000)
    response = input_ids[input_ids.index(decoder.vocabulary.sep_token_id) + 1 :]
    last_image = len(response) - response[::-1].index(decoder.vocabulary.boi_token_id)
    texts, evidence = writer.split(response[: last_image + 5])
    steps, report = writer.parse(texts)
    assert [step.region for step in steps] == ["heart", "left lung"] and steps[1].statement == ""
    assert report == "" and len(evidence) == 1


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (
            "The bounding box of this area is [1, 2, 3, 4] . The bounding box of this area is [5 , 6 , 7 , 8] .",
            (5, 6, 7, 8),
        ),
        ("The bounding box of this area is [5, 6, 5, 8] .", None),
        ("The bounding box of this area is [5, 6, 7] .", None),
        ("The bounding box of this area is [a, b, c, d] .", None),
        ("nothing", None),
    ],
)
def test_the_last_box_of_a_text(text, box):
    assert last_box(text) == box
