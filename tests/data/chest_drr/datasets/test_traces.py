import re

import numpy as np
import pytest
from PIL import Image

from zoo.data.chest_drr.datasets.traces import ChestDrrIvl
from zoo.data.chest_drr.rendering.spec import RenderSpec
from zoo.data.chest_drr.text.labels import LABELER
from zoo.data.chest_drr.text.traces import trace_words
from zoo.data.io.crops import square_box

RENDER = RenderSpec(size=32, image_size=64, render_workers=2)


@pytest.fixture(scope="module")
def traces():
    return ChestDrrIvl(render=RENDER)


def test_traces_match_their_cases(traces):
    records = traces.records("train")
    words = set(trace_words(64))
    assert len(records) == 32 and len({step.region for record in records for step in record.steps}) >= 12
    for record in records:
        assert LABELER.label(record.report) == set(record.findings)
        impression = record.report.removeprefix("Impression:").split(" Findings:")[0]
        assert LABELER.label(impression) == set(record.findings)
        for step in record.steps:
            box = record.regions[step.region]
            assert step.box[0] <= box[0] and step.box[1] <= box[1] and step.box[2] >= box[2]
            assert LABELER.label(step.statement) <= set(record.findings)
            assert set(re.findall(r"\w+|[^\w\s]", step.statement)) <= words
        with Image.open(record.images[0]) as image, Image.open(record.images[1]) as evidence:
            left, top, right, bottom = square_box(record.steps[0].box, 64, 64)
            assert np.array_equal(np.asarray(image)[top:bottom, left:right], np.asarray(evidence))


def test_pairs_list_the_findings_of_their_image():
    pairs, traces = (ChestDrrIvl(pairs=on, variants=2, render=RENDER).records("train") for on in (True, False))
    words = set(trace_words(64))
    radiographs = [record for record in pairs if record.prompt.startswith("Which")]
    assert len(pairs) == 2 * len(radiographs) == 2 * 64 and all(record.steps == [] for record in pairs)
    for index, record in enumerate(pairs):
        findings = LABELER.label(record.report)
        truth = set(traces[index // 2].findings)
        assert findings == truth if record in radiographs else findings <= truth
        assert set(record.report.replace(".", " .").replace(";", " ;").split()) <= words
        with Image.open(record.images[0]) as image:
            assert image.width == image.height <= 64


def test_metadata_has_what_methods_need(traces):
    metadata = traces.metadata()
    assert metadata["labeler"] is LABELER and metadata["prompt"] == traces.records("test")[0].prompt
    assert "cardiomegaly" in metadata["words"] and "cardiomegaly" in metadata["label_names"]


def test_variants_share_their_images_and_differ_in_wording():
    data = ChestDrrIvl(search="systematic", variants=3, render=RENDER)
    records = data.records("train")
    assert len(records) == 3 * 32 and data.any_step
    first, second = records[0], records[1]
    assert first.images == second.images and first.steps != second.steps
    assert len({path for record in records for path in record.images}) <= 32 * 8
    assert all(len(record.finding_areas) == len(record.findings) for record in records)
