"""Interleaved records: the reader, its errors, the rendered traces, the token cache."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from zoo.data.base import ResumableSampler
from zoo.data.chest_drr.datasets.traces import ChestDrrIvl
from zoo.data.chest_drr.rendering.findings import SEVERITIES, draw_finding
from zoo.data.chest_drr.text.labels import LABELS, stated_findings
from zoo.data.chest_drr.text.reports import describe, write_report
from zoo.data.chest_drr.text.traces import words_of_traces
from zoo.data.io.crops import close_up, square_around
from zoo.data.traces.datasets import IvlJsonl, TokenTraces
from zoo.data.traces.records import RecordError, box_text, parse_response, problems_in, read_records

RESPONSE = (
    "First, I need to analyze the right lung <image> The bounding box of this area is [2, 4, 20, 30] . Clear. "
    "Next, I need to analyze the heart <image> The bounding box of this area is [12, 10, 28, 26] . It is enlarged. "
    "Summarizing the previous analysis, I will generate the following report: Cardiomegaly."
)
RECORD = {"prompt": "Write a report. <image>", "response": RESPONSE, "images": ["a.png", "b.png", "c.png"]}


def write(folder: Path, *records: object) -> Path:
    rng = np.random.default_rng(0)
    film = rng.integers(0, 255, (32, 32), dtype=np.uint8)
    Image.fromarray(film).save(folder / "a.png")
    for name, box in (("b", (2, 4, 20, 30)), ("c", (12, 10, 28, 26))):
        left, top, right, bottom = square_around(box, 32, 32)
        Image.fromarray(film[top:bottom, left:right]).save(folder / f"{name}.png")
    path = folder / "records.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in records))
    return path


def test_an_official_record_is_taken_apart(tmp_path):
    (record,) = read_records(write(tmp_path, RECORD))
    assert [(step.region, step.box, step.statement, step.image) for step in record.steps] == [
        ("right lung", (2, 4, 20, 30), "Clear.", 1),
        ("heart", (12, 10, 28, 26), "It is enlarged.", 2),
    ]
    assert record.report == "Cardiomegaly." and record.findings is None and record.images[2].name == "c.png"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": ["a.png", "b.png"]}, "3 <image> marks and 2 images"),
        ({"images": ["a.png", "b.png", "c.png", "d.png"]}, "3 <image> marks and 4 images"),
        ({"prompt": "Write."}, "2 <image> marks and 3 images"),
        ({"prompt": "Write.", "images": ["b.png", "c.png"]}, "the input image is missing"),
        ({"response": RESPONSE.split("Summarizing")[0]}, "no report"),
        ({"response": RESPONSE.replace("[2, 4, 20, 30]", "[2, 4, 20]")}, "box"),
        ({"response": RESPONSE.replace("[2, 4, 20, 30]", "[20, 4, 2, 30]")}, "is empty or begins outside"),
        ({"response": RESPONSE.replace("[2, 4, 20, 30]", "[two, 4, 20, 1e999]")}, "in pixels, not"),
        ({"response": 3}, "'response' is missing or no text"),
        ({"images": "a.png"}, "'images' is missing or no list"),
    ],
)
def test_errors_name_the_line(tmp_path, change, message):
    path = write(tmp_path, RECORD, {**RECORD, **change})
    with pytest.raises(RecordError, match="records.jsonl:2: ") as caught:
        read_records(path)
    assert message in str(caught.value)
    records, problems = problems_in(path)
    assert len(records) == 1 and len(problems) == 1


def test_images_in_another_order_are_noticed(tmp_path):
    good = write(tmp_path, RECORD)
    assert problems_in(good)[1] == []
    path = write(tmp_path, RECORD, {**RECORD, "images": ["c.png", "b.png", "a.png"]})
    with pytest.raises(RecordError, match=r"records.jsonl:2: the box .* ends outside the first image, c.png"):
        IvlJsonl(str(path), str(path), str(path)).records("train")
    records, problems = problems_in(path)
    assert len(records) == 1 and "the input image comes first" in problems[0]


def test_a_broken_line_is_named(tmp_path):
    with pytest.raises(RecordError, match=r"records.jsonl:3: is no JSON"):
        read_records(write(tmp_path, RECORD, "", '{"prompt": '))
    with pytest.raises(RecordError, match="there is no such file"):
        read_records(tmp_path / "gone.jsonl")


def test_a_report_without_evidence_has_no_steps(tmp_path):
    record = {"prompt": "Write. <image>", "response": "The lungs are clear.", "images": ["a.png"]}
    (read,) = read_records(write(tmp_path, record))
    assert read.steps == [] and read.report == "The lungs are clear."


@given(st.text(max_size=300))
def test_any_response_gives_steps_or_an_error_of_ours(text):
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
def test_what_is_written_is_read(items):
    said = [f"Next, I need to analyze the {r} <image> {box_text(box)} {s}" for r, box, s in items]
    summary = "Summarizing the previous analysis, I will generate the following report:"
    steps, report = parse_response(" ".join([*said, summary, "Normal."]))
    assert [(step.region, step.box, step.statement) for step in steps] == items and report == "Normal."


def test_missing_images_are_named(tmp_path):
    path = str(write(tmp_path, RECORD))
    (tmp_path / "c.png").unlink()
    with pytest.raises(RecordError, match=r"records.jsonl:1: the image .*c.png is missing"):
        IvlJsonl(path, path, path).records("train")


@given(seed=st.integers(0, 10_000), kinds=st.lists(st.sampled_from(list(SEVERITIES)), max_size=3, unique=True))
def test_the_labeller_reads_what_reports_state(seed, kinds):
    rng = np.random.default_rng(seed)
    findings = [draw_finding(kind, rng) for kind in kinds]
    stated = {(finding.kind, finding.side) for finding in findings}
    assert stated_findings(write_report(findings, list(SEVERITIES), rng)) == stated <= set(LABELS)
    assert stated_findings(" ".join(describe(finding, rng) for finding in findings)) == stated


def test_the_labeller_keeps_to_sentences():
    assert stated_findings("No pneumothorax. Small left effusion; the heart is enlarged.") == {
        ("pleural effusion", "left"),
        ("cardiomegaly", ""),
    }


@given(
    box=st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 300), st.integers(1, 300)),
    height=st.integers(8, 64),
    width=st.integers(8, 64),
)
def test_a_close_up_is_always_a_square_inside_the_film(box, height, width):
    box = (box[0], box[1], box[0] + box[2], box[1] + box[3])
    left, top, right, bottom = square_around(box, height, width)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height and right - left == bottom - top
    assert close_up(torch.rand(1, height, width), box, 16).shape == (1, 16, 16)


@pytest.fixture(scope="module")
def traces():
    return ChestDrrIvl(size=32, image_size=64, build_workers=2)


def test_rendered_traces_are_true_to_their_cases(traces):
    records = traces.records("train")
    words = set(words_of_traces(64))
    assert len(records) == 32 and len({step.region for record in records for step in record.steps}) >= 12
    for record in records:
        assert stated_findings(record.report) == set(record.findings)
        impression = record.report.removeprefix("Impression:").split(" Findings:")[0]
        assert stated_findings(impression) == set(record.findings)
        for step in record.steps:
            true = record.regions[step.region]
            assert step.box[0] <= true[0] and step.box[1] <= true[1] and step.box[2] >= true[2]
            assert stated_findings(step.statement) <= set(record.findings)
            assert set(re.findall(r"\w+|[^\w\s]", step.statement)) <= words
        with Image.open(record.images[0]) as film, Image.open(record.images[1]) as piece:
            left, top, right, bottom = square_around(record.steps[0].box, 64, 64)
            assert np.array_equal(np.asarray(film)[top:bottom, left:right], np.asarray(piece))


def test_pairs_list_what_their_picture_shows():
    sizes = {"size": 32, "image_size": 64, "build_workers": 2}
    pairs, traces = (ChestDrrIvl(pairs=on, variants=2, **sizes).records("train") for on in (True, False))
    words = set(words_of_traces(64))
    films = [record for record in pairs if record.prompt.startswith("Which")]
    assert len(pairs) == 2 * len(films) == 2 * 64 and all(record.steps == [] for record in pairs)
    for index, record in enumerate(pairs):
        listed = stated_findings(record.report)
        truth = set(traces[index // 2].findings)
        assert listed == truth if record in films else listed <= truth
        assert set(record.report.replace(".", " .").replace(";", " ;").split()) <= words
        with Image.open(record.images[0]) as picture:
            assert picture.width == picture.height <= 64


def test_swapped_evidence_shows_another_finding(traces):
    dataset = traces.split("test")
    records, same_region = dataset.records, 0
    for index in range(20):
        step, other, position = dataset.swap(index)
        own, donor = records[index].steps[step], records[other].steps[position]
        assert other != index and stated_findings(own.statement) != stated_findings(donor.statement)
        same_region += own.region == donor.region
    assert same_region >= 15


class CountingCodec:
    """Stands for a method: four codes an image, a token a word."""

    pad, encoded = 1, 0

    def __init__(self, mode: str, max_tokens: int = 100) -> None:
        self.mode, self.max_tokens = mode, max_tokens

    def image_fingerprint(self):
        return "mean"

    def sequence_fingerprint(self):
        return self.mode

    def image_ids(self, images):
        CountingCodec.encoded += len(images)
        return torch.stack([(image.mean() * 255).long().expand(4) for image in images])

    def sequence(self, record, images):
        ids = [*images[0].tolist(), *range(300, 300 + len(record.steps))]
        return (ids, [-100] * 4 + ids[4:]) if len(ids) <= self.max_tokens else None


def test_images_are_encoded_once_for_all_modes(traces):
    CountingCodec.encoded = 0
    traces.tokenize(CountingCodec("one"))
    images = sum(len(record.images) for split in ("train", "val") for record in traces.records(split))
    assert CountingCodec.encoded == images
    again = ChestDrrIvl(size=32, image_size=64)
    again.tokenize(CountingCodec("two"))
    again.tokenize(CountingCodec("one"))
    assert CountingCodec.encoded == images
    tokens = again.split("train")
    assert isinstance(tokens, TokenTraces) and len(tokens) == 32
    assert tokens.lengths == [len(tokens[index]["input_ids"]) for index in range(32)]
    batch = next(iter(again.eval_dataloader("val")))
    assert torch.equal(batch["labels"][:, :4], torch.full((16, 4), -100))
    assert (batch["input_ids"] == 1).any() and (batch["labels"][batch["input_ids"] == 1] == -100).all()


def test_traces_that_are_too_long_are_left_out_with_one_warning_a_split():
    data = ChestDrrIvl(size=32, image_size=64)
    lengths = {name: [4 + len(record.steps) for record in data.records(name)] for name in ("train", "val")}
    limit = min(map(min, lengths.values()))
    for _ in range(2):  # made, and read again from the cache
        with pytest.warns(UserWarning, match="are longer than max_tokens") as warned:
            data.tokenize(CountingCodec("short", limit))
        kept = {name: sum(length <= limit for length in own) for name, own in lengths.items()}
        assert [str(warning.message) for warning in warned if "max_tokens" in str(warning.message)] == [
            f"{name}: {len(own) - kept[name]} of {len(own)} traces are longer than max_tokens={limit} and left out"
            for name, own in lengths.items()
        ]
        for name, count in kept.items():
            assert 0 < len(data.split(name)) == count < len(lengths[name])
            assert set(data.split(name).lengths) == {limit}
    with pytest.raises(ValueError, match="all 32 traces are longer than max_tokens=3; raise it"):
        data.tokenize(CountingCodec("none", 3))


class Lengthy(list):
    """A data set whose samples are their own lengths."""

    @property
    def lengths(self) -> list[int]:
        return list(self)


def test_samples_of_a_step_are_alike_in_length_in_any_number_of_processes():
    data = Lengthy(np.random.default_rng(0).integers(10, 500, 256).tolist())
    one = list(ResumableSampler(data, 1, 0, 3, 16, (2, 0)))
    assert sorted(one) == list(range(256))
    spread = [np.ptp([data[index] for index in one[start : start + 16]]) for start in range(0, 256, 16)]
    assert np.mean(spread) < 100 < np.ptp(data) and one != list(ResumableSampler(data, 1, 0, 3, 16, (1, 0)))
    two = [list(ResumableSampler(data, 2, rank, 3, 8, (2, 0))) for rank in (0, 1)]
    assert [index for pair in zip(*two, strict=True) for index in pair] == one
    assert list(ResumableSampler(data, 1, 0, 3, 16, (2, 5))) == one[80:]
