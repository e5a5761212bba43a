import pytest

from tests.data.traces.counting_codec import CountingCodec
from tests.tiny_models.data import ivl_traces
from zoo.data.base import LoaderSpec
from zoo.data.chest_drr.datasets.traces import ChestDrrIvl
from zoo.data.chest_drr.rendering.spec import RenderSpec
from zoo.data.chest_drr.text.labels import LABELER
from zoo.data.traces.datasets import IvlJsonl, Traces
from zoo.data.traces.records import RecordError

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


def test_reports_are_generated_in_evaluation_batches(traces):
    data = ChestDrrIvl(render=RENDER, loader=LoaderSpec(batch_size=4, eval_batch_size=7))
    assert data.eval_batch_size("val") == 7
    data.tokenize(CountingCodec("one"))
    assert data.eval_batch_size("val") == 4, "losses of token sequences are measured in training batches"
