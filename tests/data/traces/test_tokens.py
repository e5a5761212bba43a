import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.traces.counting_codec import CountingCodec
from zoo.data.chest_drr.datasets.traces import ChestDrrIvl
from zoo.data.chest_drr.rendering.spec import RenderSpec
from zoo.data.traces.records import IvlRecord, Step
from zoo.data.traces.tokens import TokenTraces, TraceTokens, image_keys, tokenize

RENDER = RenderSpec(size=32, image_size=64, render_workers=2)


@pytest.fixture(scope="module")
def traces():
    return ChestDrrIvl(render=RENDER)


def test_images_are_encoded_once_for_all_modes(traces, monkeypatch):
    monkeypatch.setattr(CountingCodec, "image_fingerprint", lambda self: "of this test")
    CountingCodec.encoded = 0
    traces.tokenize(CountingCodec("one"))
    images = sum(
        len({key for record in traces.records(split) for key in image_keys(record)}) for split in ("train", "val")
    )
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


class FeatureCodec(CountingCodec):
    """Beside the ids, the model reads the evidence of each step; the whole radiograph is read darker."""

    def __init__(self, mode, reads_images=False):
        super().__init__(mode)
        self.reads_images = reads_images

    def image_fingerprint(self):
        return "features"

    def prepare_image(self, image, whole):
        return (image[:, :2, :2] * (100 if whole else 200)).round().to(torch.uint8)

    def encode_images(self, images, whole):
        return torch.stack([self.prepare_image(image, w) for image, w in zip(images, whole, strict=True)])

    def encode_record(self, record, images):
        return TraceTokens([5, 6, 7], [-100, 6, 7], [0, *(step.image for step in record.steps)])


def test_images_are_read_as_radiographs_or_close_ups(tmp_path):
    """Cached or read anew, a sample has the images that its sequence names, each read as what it is."""
    for name, value in (("film", 255), ("crop", 128)):
        Image.fromarray(np.full((8, 8), value, np.uint8)).save(tmp_path / f"{name}.png")
    files = [tmp_path / "film.png", tmp_path / "crop.png"]
    step = Step("First, I need to analyze the heart", 1, (0, 0, 4, 4), "Normal.")
    records = [
        IvlRecord("Report. <image>", [step], "Normal.", files),
        IvlRecord("Close-up. <image>", [], "Normal.", files[:1], close_up=True),
    ]
    cached, read = (tokenize(records, FeatureCodec(f"{tmp_path}{on}", reads_images=on)) for on in (False, True))
    assert [sample["image_inputs"][:, 0, 0, 0].tolist() for sample in (cached[0], cached[1])] == [[100, 100], [200]]
    for index in range(2):
        assert torch.equal(cached[index]["image_inputs"], read[index]["image_inputs"])
        assert cached[index]["labels"].tolist() == [-100, 6, 7]
