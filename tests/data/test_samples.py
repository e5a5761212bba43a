import json
from pathlib import Path

import pytest
import torch
from hypothesis import given

from tests.faults.arbitrary import changed_json, fuzz, value_or_error
from zoo.data.conversations.records import Target, Turn
from zoo.data.io.masks import encode_mask
from zoo.data.samples import SampleError, decode_sample, encode_sample
from zoo.data.traces.records import IvlRecord, Step

MASKS = torch.zeros(2, 20, 30)
MASKS[0, 4:9, 5:20] = 1
RECORD = IvlRecord(
    "<image> Report.",
    [Step("the heart", 1, (1, 2, 9, 12), "Clear.")],
    "Normal.",
    [Path("a.png")],
    regions={"heart": (1, 2, 9, 12)},
)
SAMPLE = {
    "image": torch.linspace(0, 1, 600).reshape(1, 20, 30),
    "masks": MASKS,
    "turns": (Turn("Where?", "There [SEG].", (encode_mask(MASKS[0].numpy() > 0),), (Target("nodule", "left"),)),),
    "record": RECORD,
    "label": 3,
    "numbers": torch.arange(4),
    "swap": (0, torch.zeros(3, 9, 9) + 0.5),
    "nothing": None,
}


def test_samples_survive_json():
    decoded = decode_sample(json.loads(json.dumps(encode_sample(SAMPLE))))
    assert decoded.keys() == SAMPLE.keys()
    assert (decoded["image"] - SAMPLE["image"]).abs().max() < 0.03 and decoded["image"].shape == (1, 20, 30)
    assert torch.equal(decoded["masks"], MASKS) and torch.equal(decoded["numbers"], SAMPLE["numbers"])
    assert decoded["turns"] == SAMPLE["turns"] and decoded["record"] == RECORD and decoded["label"] == 3
    assert decoded["swap"][0] == 0 and (decoded["swap"][1] - 0.5).abs().max() < 0.01 and decoded["nothing"] is None
    assert len(json.dumps(encode_sample(SAMPLE))) < 4000


@given(content=changed_json(encode_sample(SAMPLE)))
@fuzz
def test_any_content_is_a_sample_or_an_error(content):
    value_or_error(lambda: decode_sample(content))


@pytest.mark.parametrize("value", [{1, 2}, object(), torch.rand(200, 200, 4), lambda: 0])
def test_what_has_no_form_is_refused(value):
    with pytest.raises(SampleError):
        encode_sample(value)
