import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from zoo.data.io.crops import square_box
from zoo.data.traces.records import (
    RecordError,
    check_images,
    format_box,
    parse_response,
    read_records,
    read_valid_records,
)
from zoo.errors import ZooWarning

RESPONSE = (
    "First, I need to analyze the right lung <image> The bounding box of this area is [2, 4, 20, 30] . Clear. "
    "Next, I need to analyze the heart <image> The bounding box of this area is [12, 10, 28, 26] . It is enlarged. "
    "Summarizing the previous analysis, I will generate the following report: Cardiomegaly."
)
RECORD = {"prompt": "Write a report. <image>", "response": RESPONSE, "images": ["a.png", "b.png", "c.png"]}


def write(folder: Path, *records: object) -> Path:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (32, 32), dtype=np.uint8)
    Image.fromarray(image).save(folder / "a.png")
    for name, box in (("b", (2, 4, 20, 30)), ("c", (12, 10, 28, 26))):
        left, top, right, bottom = square_box(box, 32, 32)
        Image.fromarray(image[top:bottom, left:right]).save(folder / f"{name}.png")
    path = folder / "records.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in records))
    return path


def test_a_record_is_parsed_into_steps_and_report(tmp_path):
    (record,) = read_records(write(tmp_path, RECORD))
    assert [(step.region, step.box, step.statement, step.image) for step in record.steps] == [
        ("right lung", (2, 4, 20, 30), "Clear.", 1),
        ("heart", (12, 10, 28, 26), "It is enlarged.", 2),
    ]
    assert record.report == "Cardiomegaly." and record.findings is None and record.images[2].name == "c.png"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": ["a.png", "b.png"]}, "3 <image> and 2 images"),
        ({"images": ["a.png", "b.png", "c.png", "d.png"]}, "3 <image> and 4 images"),
        ({"prompt": "Write."}, "2 <image> and 3 images"),
        ({"prompt": "Write.", "images": ["b.png", "c.png"]}, "the input image is missing"),
        ({"response": RESPONSE.split("Summarizing")[0]}, "no report"),
        ({"response": RESPONSE.replace("[2, 4, 20, 30]", "[2, 4, 20]")}, "box"),
        ({"response": RESPONSE.replace("[2, 4, 20, 30]", "[20, 4, 2, 30]")}, "is empty or begins outside"),
        ({"response": RESPONSE.replace("[2, 4, 20, 30]", "[two, 4, 20, 1e999]")}, "in pixels, not"),
        ({"response": 3}, "'response' is missing or not text"),
        ({"images": "a.png"}, "'images' is missing or not a list"),
    ],
)
def test_errors_name_the_line(tmp_path, change, message):
    path = write(tmp_path, RECORD, {**RECORD, **change})
    with pytest.raises(RecordError, match="records.jsonl:2: ") as caught:
        read_records(path)
    assert message in str(caught.value)
    records, problems = read_valid_records(path)
    assert len(records) == 1 and len(problems) == 1


def test_a_region_outside_the_image_is_reported(tmp_path):
    path = write(tmp_path, RECORD, {**RECORD, "regions": {"left lung": [1, 1, 900, 4]}})
    records, problems = read_valid_records(path)
    assert (
        len(records) == 1
        and "records.jsonl:2: the box [1, 1, 900, 4] of region 'left lung' ends outside" in problems[0]
    )


def test_images_in_another_order_are_reported(tmp_path):
    good = write(tmp_path, RECORD)
    assert read_valid_records(good)[1] == []
    path = write(tmp_path, RECORD, {**RECORD, "images": ["c.png", "b.png", "a.png"]})
    with pytest.raises(RecordError, match=r"records.jsonl:2: the box .* ends outside the first image, c.png"):
        check_images(read_records(path)[1], path)
    records, problems = read_valid_records(path)
    assert len(records) == 1 and "the input image comes first" in problems[0]


def test_a_malformed_line_is_named(tmp_path):
    with pytest.raises(RecordError, match=r"records.jsonl:3: is not JSON"):
        read_records(write(tmp_path, RECORD, "", '{"prompt": '))
    with pytest.raises(RecordError, match="there is no such file"):
        read_records(tmp_path / "gone.jsonl")


def test_a_report_without_evidence_has_no_steps(tmp_path):
    record = {"prompt": "Write. <image>", "response": "The lungs are clear.", "images": ["a.png"]}
    (read,) = read_records(write(tmp_path, record))
    assert read.steps == [] and read.report == "The lungs are clear."


@given(st.text(max_size=300))
def test_any_response_is_parsed_or_refused(text):
    try:
        steps, _ = parse_response(text)
    except ValueError:
        return
    assert len(steps) == text.count("<image>")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["heart", "left lung", "carina"]),
            st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(10, 99), st.integers(10, 99)),
            st.sampled_from(["Clear.", "A mass. It is large.", ""]),
        ),
        max_size=4,
    )
)
def test_formatted_steps_are_parsed_back(items):
    steps_text = [f"Next, I need to analyze the {r} <image> {format_box(box)} {s}" for r, box, s in items]
    summary = "Summarizing the previous analysis, I will generate the following report:"
    steps, report = parse_response(" ".join([*steps_text, summary, "Normal."]))
    assert [(step.region, step.box, step.statement) for step in steps] == items and report == "Normal."


def test_areas_belong_to_findings_and_close_ups_are_marked(tmp_path):
    findings = {"findings": [["nodule", "left"], ["mass", "right"]]}
    path = write(tmp_path, {**RECORD, **findings, "finding_areas": [0.002, 0.1], "close_up": True}, RECORD)
    with_areas, plain = read_records(path)
    assert with_areas.finding_areas == [0.002, 0.1] and with_areas.close_up and with_areas.inputs == 1
    assert plain.finding_areas is None and not plain.close_up
    with pytest.raises(RecordError, match=r"'finding_areas' must have a number for each of 'findings'"):
        read_records(write(tmp_path, {**RECORD, **findings, "finding_areas": [0.1]}))


def test_text_that_is_not_utf_8_is_refused_with_its_line_and_a_byte_order_mark_left_out(tmp_path):
    write(tmp_path)
    line = json.dumps({**RECORD, "prompt": "Où? <image>"}, ensure_ascii=False)
    path = tmp_path / "records.jsonl"
    path.write_bytes(f"{line}\n".encode("utf-8-sig") + line.encode("cp1252"))
    records, problems = read_valid_records(path)
    assert [record.prompt for record in records] == ["Où? <image>"]
    assert len(problems) == 1 and "records.jsonl:2: is not JSON in UTF-8" in problems[0]


def test_a_step_with_two_boxes_is_refused(tmp_path):
    first = "The bounding box of this area is [2, 4, 20, 30] ."
    record = {**RECORD, "response": RESPONSE.replace(first, f"{first} {first}")}
    with pytest.raises(RecordError, match=r"records\.jsonl:1: the step 'right lung' has more than one box"):
        read_records(write(tmp_path, record))


@pytest.mark.parametrize(
    ("key", "like"),
    [("finding", "findings"), ("region", "regions"), ("closeup", "close_up"), ("finding_area", "finding_areas")],
)
def test_a_key_that_is_like_one_that_is_missing_is_refused_with_its_line(tmp_path, key, like):
    path = write(tmp_path, RECORD, {**RECORD, key: []})
    with pytest.raises(RecordError, match=rf"{path.name}:2: unknown key '{key}'; did you mean '{like}'\?"):
        read_records(path)


def test_a_key_that_is_not_read_is_named_once_with_its_line(tmp_path):
    path = write(tmp_path, RECORD, {**RECORD, "mask": "a.png"}, {**RECORD, "mask": "b.png"})
    with pytest.warns(ZooWarning) as caught:
        assert len(read_records(path)) == 3
    (message,) = [str(item.message) for item in caught]
    assert message.startswith(f"{path}:2: the key 'mask' is not read; a record has prompt, response, images")
