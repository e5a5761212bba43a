"""Public forms as traces, whose text is read again as it was written."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.data.annotations.public_forms import BOX, FORMS, film
from zoo.config.building import resolve
from zoo.data.annotations.base import AnnotatedImage, AnnotationError, Region
from zoo.data.io.crops import square_box
from zoo.data.traces.annotated import pixel_box, prompt_of, response_text, to_record, write_crop
from zoo.data.traces.records import read_records


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


def dataset(form, folder, **arguments):
    node = FORMS[form](folder)
    return resolve("dataset", {"name": "annotated_traces", "annotations": node, **arguments}).build()


def test_regions_with_sentences_are_steps(tmp_path):
    data = dataset("chest_imagenome", tmp_path)
    record = data.records("train")[0]
    (step,) = record.steps
    assert step.region == "right lung" and step.box == BOX and step.image == 1
    assert step.statement == "Opacity in the right lung. No effusion."
    assert record.report == "No effusion. Opacity in the right lung." and set(record.regions) == {"right lung", "svc"}
    assert record.findings == [("lung opacity", "")]
    sample = data.split("train")[0]
    assert len(sample["images"]) == 2 and sample["images"][1].shape[-1] == sample["images"][1].shape[-2]
    assert data.metadata()["labeler"].label("There is lung opacity.") == {("lung opacity", "")}


@pytest.mark.parametrize("form", ["chest_imagenome", "padchest_gr", "gemex_thinkvg", "iu_xray"])
def test_the_text_of_a_trace_is_read_again_as_it_was(form, tmp_path):
    arguments = {"prompts": "question"} if form == "gemex_thinkvg" else {}
    (record, *_) = dataset(form, tmp_path / "d", **arguments).records("train")
    line = {"prompt": record.prompt, "response": response_text(record), "images": [str(path) for path in record.images]}
    (tmp_path / "one.jsonl").write_text(json.dumps(line))
    (again,) = read_records(tmp_path / "one.jsonl")
    assert (again.steps, again.report, again.prompt) == (record.steps, record.report, record.prompt)


def test_the_first_steps_are_kept_and_the_report_alone_if_none(tmp_path):
    assert dataset("padchest_gr", tmp_path, max_steps=0).records("train")[0].steps == []


def test_both_views_of_a_study(tmp_path):
    record = dataset("iu_xray", tmp_path, views=2).records("train")[0]
    assert record.inputs == 2 == len(record.images) and record.prompt.count("<image>") == 2
    assert dataset("iu_xray", tmp_path).records("train")[0].inputs == 1


def test_questions_are_prompts(tmp_path):
    (record, *_) = dataset("gemex_thinkvg", tmp_path, prompts="question").records("test")
    assert record.prompt == "What is abnormal? <image>" and record.report == "Pleural effusion"
    with pytest.raises(AnnotationError, match="has no question"):
        prompt_of(AnnotatedImage(tmp_path / "a.png"), "question", "")
    with pytest.raises(AnnotationError, match="must have one <image>"):
        dataset("iu_xray", tmp_path, prompt="Write.")


def test_a_crop_is_the_square_around_its_box_and_written_once(tmp_path):
    Image.fromarray(film()).save(tmp_path / "a.png")
    first = write_crop(tmp_path / "a.png", BOX, tmp_path / "crops")
    left, top, right, bottom = square_box(BOX, *film().shape)
    assert (np.asarray(Image.open(first)) == film()[top:bottom, left:right]).all()
    time = first.stat().st_mtime_ns
    assert write_crop(tmp_path / "a.png", BOX, tmp_path / "crops") == first and first.stat().st_mtime_ns == time
    assert write_crop(tmp_path / "a.png", (0, 0, 9, 9), tmp_path / "crops") != first


def test_boxes_in_whole_pixels_inside_the_image():
    assert pixel_box(Region("x", boxes=((-2, 1.5, 3, 4), (5, 0, 99, 2))), (8, 10)) == (0, 0, 10, 4)
    assert pixel_box(Region("x", boxes=((0.5, 0.5, 1, 1),), relative=True), (8, 10)) == (5, 4, 10, 8)
    assert pixel_box(Region("x"), (8, 8)) is None and pixel_box(Region("x", boxes=((20, 20, 30, 30),)), (8, 8)) is None


def test_an_image_without_a_report_is_no_trace(tmp_path):
    with pytest.raises(AnnotationError, match="has no report, or no file"):
        to_record(AnnotatedImage(tmp_path / "a.png"), "Write. <image>", tmp_path, 3)
