import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from pycocotools import mask as coco

from zoo.data.chest_drr.rendering.cases import CaseSpec, render_case
from zoo.data.chest_drr.rendering.findings import SEVERITIES
from zoo.data.chest_drr.rendering.regions import bounding_box

SIZE = 64


def test_the_same_seed_gives_the_same_bytes_in_another_process():
    code = (
        "import hashlib; from zoo.data.chest_drr.rendering.cases import CaseSpec, render_case;"
        f"c = render_case(CaseSpec(image_size={SIZE}), 'val', 5); print(hashlib.sha256(c.image.tobytes()).hexdigest())"
    )
    here = render_case(CaseSpec(image_size=SIZE), "val", 5).image
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert hashlib.sha256(here.tobytes()).hexdigest() == there


@pytest.mark.parametrize(
    ("style", "index", "image", "record"),
    [
        ("standard", 0, "f2acd03c375429cc", "e2bc7513f6f8d564"),
        ("standard", 5, "444ecdb82c428d63", "52c525753c6f013f"),
        ("portable", 0, "32273b09afde666d", "bf14fe81646e9fc3"),
        ("portable", 5, "fcd1e7d72fae1da6", "a0a28c82fd4717b9"),
    ],
)
def test_published_images_keep_their_bytes(style, index, image, record):
    """Cards were trained on these; where they must change, raise RENDERER_VERSION and publish again."""
    case = render_case(CaseSpec(style=style, image_size=SIZE), "test", index)
    assert hashlib.sha256(case.image.tobytes()).hexdigest()[:16] == image
    assert hashlib.sha256(json.dumps(case.to_record()).encode()).hexdigest()[:16] == record


def test_splits_and_indices_give_different_images():
    spec = CaseSpec(image_size=SIZE, classes=[None])
    images = [render_case(spec, split, index).image for split in ("train", "test") for index in (0, 1)]
    assert len({image.tobytes() for image in images}) == 4


def test_images_are_16_bit_radiographs(one_of_each):
    for case in one_of_each:
        assert case.image.dtype == np.uint16 and case.image.shape == (SIZE, SIZE)
        assert len(np.unique(case.image)) > 1000
        lung = case.regions["right upper lung zone"] | case.regions["left upper lung zone"]
        spine = case.regions["spine"] & ~lung
        if not case.findings:
            assert np.median(case.image[lung]) < 0.6 * np.median(case.image[spine]), "lungs are dark and bone is bright"


def test_severity_orders_size():
    spec = CaseSpec(image_size=SIZE, classes=[("pleural effusion", s) for s in SEVERITIES["pleural effusion"]])
    small, moderate, large = (render_case(spec, "train", i).finding_masks[0].sum() for i in range(3))
    assert small < moderate < large


def test_cardiomegaly_widens_the_heart(one_of_each):
    ratio = {
        (c.findings[0].kind, c.findings[0].severity) if c.findings else None: c.to_record()["cardiothoracic_ratio"]
        for c in one_of_each
    }
    assert ratio[None] < ratio[("cardiomegaly", "mild")] < ratio[("cardiomegaly", "severe")]


def test_records_are_json_with_masks_that_decode(one_of_each):
    for case in one_of_each[:4]:
        record = json.loads(json.dumps(case.to_record()))
        decoded = coco.decode(record["findings"][0]["mask"]).astype(bool)
        assert (decoded == case.finding_masks[0]).all()
        assert tuple(record["findings"][0]["box"]) == bounding_box(case.finding_masks[0])
