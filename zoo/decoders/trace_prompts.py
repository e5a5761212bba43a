"""How a model that was not trained on traces is asked for one: the record's prompt, the form in words, and examples (ours, reconstructed)."""

from collections.abc import Sequence

from zoo.data.io.images import image_size
from zoo.data.traces.box_frames import BoxFrame
from zoo.data.traces.records import IMAGE_PLACEHOLDER, SUMMARY, IvlRecord, Step
from zoo.decoders.evidence import EVIDENCE, Evidence, EvidenceName, step_texts


def instruction(mode: EvidenceName, width: int, height: int) -> str:
    """The form of a response in an evidence mode, in words.

    Args:
        mode: of the evidence.
        width: that the image has in the boxes of a text; see :class:`~zoo.data.traces.box_frames.BoxFrame`.
        height: likewise.
    """
    evidence = EVIDENCE[mode]
    if not evidence.steps:
        return "Answer with the report alone."
    box = (width // 8, height // 8, width // 2, height // 2)
    forms = [f"{word}, I need to analyze the REGION" for word in ("First", "Next")]
    steps = [_text_of(Step(form, 1, box, "WHAT IS SEEN THERE."), evidence) for form in forms]
    parts = [
        f'Before the report, examine the regions that matter, each in this form: "{steps[0]}" and then "{steps[1]}"'
    ]
    if evidence.box:
        parts.append(
            "The numbers are the left, top, right and bottom edge of a box around the region; for them the image is "
            f"{width} wide and {height} high."
        )
    if evidence.image == "provided":
        parts.append("After each box you are shown what is in it, larger; then say what is seen.")
    if evidence.image == "generated":
        parts.append(
            "After each region that you name, generate an image of it; then give its box and say what is seen."
        )
    parts.append(f'Then write "{SUMMARY}" and the report.')
    return " ".join(parts)


def instructed(record: IvlRecord, mode: EvidenceName, frame: BoxFrame, examples: Sequence[IvlRecord] = ()) -> str:
    """The prompt of a record with the form of the response, and with responses to other images as examples.

    Examples are text: their images are not shown.

    Args:
        record: whose prompt it is; images keep their places.
        mode: of the evidence.
        frame: of the boxes in a text.
        examples: records whose responses are shown.

    Raises:
        ImageError: the size of an image cannot be read.
    """
    height, width = image_size(record.images[0]) if frame.side == "pixels" else (frame.side, frame.side)
    examples = [frame.record_to_text(example, image_size(example.images[0])) for example in examples]
    shown = [f"Example of a response to another image: {_response(example, mode)}" for example in examples]
    return "\n".join([record.prompt, instruction(mode, width, height), *shown])


def _response(record: IvlRecord, mode: EvidenceName) -> str:
    evidence = EVIDENCE[mode]
    steps = [_text_of(step, evidence) for step in record.steps * evidence.steps]
    return " ".join([*steps, *([SUMMARY] if evidence.steps else []), record.report])


def _text_of(step: Step, evidence: Evidence) -> str:
    """A step as text, in the order of its parts, without its image."""
    return " ".join(part.strip() for part in step_texts(step, evidence) if part not in (IMAGE_PLACEHOLDER, ""))
