"""Conversations in the models' own templates: what is learned, how turns end, and images within text."""

from typing import Any

import pytest
import torch
from transformers import AutoProcessor

from tests.tiny_models.vision_language import FAMILIES, paligemma, qwen, write_numbers
from zoo.constants import IGNORE_INDEX
from zoo.errors import ArgumentError, WeightsError
from zoo.language.chat_format import ChatFormat, PrefixFormat
from zoo.language.image_reader import ImageReader

TURNS = [("Where is it?", "On the left."), ("How large?", "Small.")]
PLACEHOLDERS = {"Qwen": "<|image_pad|>", "Intern": "<IMG_CONTEXT>", "Gemma 3": "<image_soft_token>"}
ENDS = {"LLaVA-1.5": "</s>", "LLaVA-NeXT": "</s>", "Gemma": "<end_of_turn>", "Idefics3": "<end_of_utterance>"}


def format_of(name: str, folder: Any) -> tuple[ChatFormat, Any]:
    write_numbers()
    FAMILIES[name](folder)
    processor = AutoProcessor.from_pretrained(folder)
    token = next((token for start, token in PLACEHOLDERS.items() if name.startswith(start)), "<image>")
    reader = ImageReader(processor, token, 64 if "Qwen" in name else 32)
    stops = processor.tokenizer.convert_tokens_to_ids(
        [t for t in ("<end_of_turn>", processor.tokenizer.eos_token) if t]
    )
    return ChatFormat(processor, reader, stops, name), processor


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "PaliGemma 2"])
def test_turns_are_the_templates_own(name, tmp_path):
    """LLaVA-1.5's template leaves the end of an answer out; LLaVA-OneVision's has a space in past turns alone."""
    chat, processor = format_of(name, tmp_path)
    input_ids, labels = chat.tokenize([*TURNS[:1], (TURNS[1][0], None)])
    messages = [
        {
            "role": role,
            "content": [*([{"type": "image"}] if text == TURNS[0][0] else []), {"type": "text", "text": text}],
        }
        for turn in TURNS
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ][:3]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if name == "LLaVA-1.5":
        text = text.replace("left. USER", "left.</s>USER")
    if name == "LLaVA-OneVision":
        text = text.replace("assistant \n", "assistant\n")
    assert input_ids == chat.encode(text, first=True)
    learned = [token for token in labels if token != IGNORE_INDEX]
    end = next((token for start, token in ENDS.items() if name.startswith(start)), processor.tokenizer.eos_token)
    assert processor.tokenizer.decode(learned).strip() == "On the left." + end
    assert processor.tokenizer.convert_ids_to_tokens(chat.end_token_id) == end
    begin = processor.tokenizer.bos_token_id
    assert begin is None or (input_ids[0] == begin and input_ids.count(begin) == 1)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "PaliGemma 2"])
def test_an_image_within_text_is_as_between_two_texts_of_a_message(name, tmp_path):
    chat, processor = format_of(name, tmp_path)
    parts = [{"type": "text", "text": "One"}, {"type": "image"}, {"type": "text", "text": "Two"}]
    text = processor.apply_chat_template([{"role": "user", "content": parts}], tokenize=False)
    block = processor.tokenizer.decode(chat.image_block())
    expanded = processor.tokenizer.decode(chat.encode(text))
    assert block in expanded
    assert ("One" + block + "Two" in expanded) == (not name.startswith("LLaVA")), "LLaVA's templates put images first"


def test_a_template_that_rewrites_earlier_turns_is_refused(tmp_path):
    chat, processor = format_of("Qwen2.5-VL", tmp_path)
    processor.chat_template += "{% if messages | length > 2 %}!{% endif %}"
    processor.chat_template = "{{ messages | length }}" + processor.chat_template
    chat = ChatFormat(processor, ImageReader(processor, "<|image_pad|>", 56), [], "this model")
    chat.tokenize(TURNS[:1])
    with pytest.raises(ArgumentError, match="of this model rewrites earlier turns"):
        chat.tokenize(TURNS)


def test_a_folder_without_a_template(tmp_path):
    qwen(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    processor = AutoProcessor.from_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="this model has no chat template"):
        ChatFormat(processor, ImageReader(processor, "<|image_pad|>", 56), [], "this model")


def test_a_prefix_ends_with_the_line_feed_after_the_question(tmp_path):
    paligemma(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    chat = PrefixFormat(processor, ImageReader(processor, "<image>", 32))
    input_ids, labels = chat.tokenize([("Where\nis it?", "On the\nleft.")])
    assert processor.tokenizer.decode(input_ids) == "<image>" * 16 + "<bos>Where is it?\nOn the\nleft.<eos>"
    suffix = chat.is_suffix(torch.tensor([input_ids]))[0].tolist()
    assert suffix == [label != IGNORE_INDEX for label in labels]
