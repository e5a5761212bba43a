import pytest
import torch

from tests.tiny_models.data import ivl_traces
from zoo.data.base import LoaderSpec
from zoo.data.chest_drr.datasets.traces import ChestDrrIvl
from zoo.data.chest_drr.rendering.spec import RenderSpec
from zoo.data.chest_drr.text.labels import LABELER
from zoo.data.traces.datasets import IvlJsonl, Traces
from zoo.data.traces.records import RecordError
from zoo.data.traces.tokens import TokenTraces, TraceTokens

RENDER = RenderSpec(size=32, image_size=64, render_workers=2)


@pytest.fixture(scope="module")
def traces():
    return ChestDrrIvl(render=RENDER)


def test_missing_images_are_named(tmp_path):
    path = str(ivl_traces(tmp_path) / "data.jsonl")
    (tmp_path / "film_1_0.png").unlink()
    with pytest.raises(RecordError, match=r"data.jsonl:2: the image .*film_1_0.png is missing"):
        IvlJsonl(path, path, path).records("train")


def test_swapped_evidence_shows_another_finding(traces):
    dataset = traces.split("test")
    records, same_region = dataset.records, 0
    for index in range(20):
        position, other, donor_position = dataset.swap(index)
        step, donor = records[index].steps[position], records[other].steps[donor_position]
        assert other != index and LABELER.label(step.statement) != LABELER.label(donor.statement)
        same_region += step.region == donor.region
    assert same_region >= 15


def test_without_a_labeler_steps_differ_by_their_text(tmp_path):
    path = str(ivl_traces(tmp_path) / "data.jsonl")
    dataset = IvlJsonl(path, path, path).split("test")
    position, other, donor_position = dataset.swap(0)
    assert (position, other, donor_position) == (0, 1, 0), "the same region, with another statement"
    assert Traces(dataset.records[:1]).swap(0) is None


class CountingCodec:
    """In place of a method: four codes per image, one token per step."""

    pad_token_id, encoded = 1, 0

    def __init__(self, mode: str, max_tokens: int = 100) -> None:
        self.mode, self.max_tokens = mode, max_tokens

    def image_fingerprint(self):
        return "mean"

    def sequence_fingerprint(self):
        return self.mode

    reads_images = False

    def encode_images(self, images, whole):
        CountingCodec.encoded += len(images)
        return torch.stack([(image.mean() * 255).long().expand(4) for image in images])

    def encode_record(self, record, images):
        ids = [*images[0].tolist(), *range(300, 300 + len(record.steps))]
        return TraceTokens(ids, [-100] * 4 + ids[4:]) if len(ids) <= self.max_tokens else None


def test_images_are_encoded_once_for_all_modes(traces):
    CountingCodec.encoded = 0
    traces.tokenize(CountingCodec("one"))
    images = sum(len(record.images) for split in ("train", "val") for record in traces.records(split))
    assert CountingCodec.encoded == images
    again = ChestDrrIvl(render=RENDER)
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
    data = ChestDrrIvl(render=RENDER)
    lengths = {name: [4 + len(record.steps) for record in data.records(name)] for name in ("train", "val")}
    limit = min(map(min, lengths.values()))
    for _ in range(2):  # written, then read from the cache
        with pytest.warns(UserWarning, match="are longer than max_tokens") as warned:
            data.tokenize(CountingCodec("short", limit))
        kept = {name: sum(length <= limit for length in counts) for name, counts in lengths.items()}
        assert [str(warning.message) for warning in warned if "max_tokens" in str(warning.message)] == [
            f"{name}: {len(counts) - kept[name]} of {len(counts)} traces are longer than max_tokens={limit} and left out"
            for name, counts in lengths.items()
        ]
        for name, count in kept.items():
            assert 0 < len(data.split(name)) == count < len(lengths[name])
            assert set(data.split(name).lengths) == {limit}
    with pytest.raises(ValueError, match="all 32 traces are longer than max_tokens=3; raise it"):
        data.tokenize(CountingCodec("none", 3))


def test_reports_are_generated_in_evaluation_batches(traces):
    data = ChestDrrIvl(render=RENDER, loader=LoaderSpec(batch_size=4, eval_batch_size=7))
    assert data.eval_batch_size("val") == 7
    data.tokenize(CountingCodec("one"))
    assert data.eval_batch_size("val") == 4, "losses of token sequences are measured in training batches"
