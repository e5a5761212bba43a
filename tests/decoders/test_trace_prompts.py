"""Prompts of models that were not trained on traces: what they ask for is what is parsed."""

from dataclasses import replace

import pytest
from PIL import Image

from tests.tiny_trace import RECORD
from zoo.data.traces.box_frames import BoxFrame
from zoo.data.traces.records import SUMMARY
from zoo.decoders.evidence import EVIDENCE, SequenceWriter, last_box
from zoo.decoders.trace_prompts import instructed, instruction


class Parser(SequenceWriter):
    def encode_prompt(self, prompt, images):
        raise NotImplementedError

    image_block = image_targets = encode_prompt


@pytest.fixture
def record(tmp_path):
    Image.new("L", (640, 480)).save(tmp_path / "film.png")
    return replace(RECORD, images=[tmp_path / "film.png", *RECORD.images[1:]])


@pytest.mark.parametrize("mode", ["text", "box", "crop", "generated"])
def test_a_response_in_the_form_that_is_asked_for_is_parsed(mode):
    asked = instruction(mode, 640, 480)
    assert SUMMARY in asked and ("640 wide and 480 high" in asked) == EVIDENCE[mode].box
    assert ("shown what is in it" in asked) == (mode == "crop") and ("generate an image" in asked) == (
        mode == "generated"
    )
    forms = asked.split('"')[1:4:2]
    steps, report = Parser(None, mode).parse([" ".join([*forms, SUMMARY, "All clear."])])
    assert report == "All clear." and [step.region for step in steps] == ["REGION", "REGION"]
    assert all(step.statement == "WHAT IS SEEN THERE." for step in steps)
    assert [step.box for step in steps] == [(80, 60, 320, 240) if EVIDENCE[mode].box else None] * 2


def test_a_report_alone_is_asked_for_without_steps():
    assert instruction("none", 640, 480) == "Answer with the report alone."


def test_the_prompt_keeps_its_image_and_examples_have_none(record):
    pixels, example = BoxFrame("pixels"), replace(RECORD, images=record.images)
    prompt = instructed(record, "crop", pixels, [example, example])
    assert prompt.startswith("Write the report. <image>\n") and prompt.count("<image>") == 1
    assert prompt.count("Example of a response to another image: First, I need to analyze the heart") == 2
    shown = prompt.splitlines()[-1]
    assert last_box(shown) == RECORD.steps[1].box and shown.endswith(f"{SUMMARY} A normal film.")
    assert instructed(record, "none", pixels, [example]).endswith("another image: A normal film.")
    assert instructed(record, "text", pixels).count("Example") == 0


def test_boxes_are_in_the_frame_of_the_text(record):
    prompt = instructed(record, "box", BoxFrame(1000), [replace(RECORD, images=record.images)])
    assert "1000 wide and 1000 high" in prompt and "640" not in prompt
    assert (
        last_box(prompt.splitlines()[-1])
        == BoxFrame(1000).to_text(RECORD.steps[1].box, (480, 640))
        != RECORD.steps[1].box
    )
