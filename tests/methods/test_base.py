"""The base class of methods: trained weights apart from the frozen base, precision, single predictions."""

import pytest
import torch

from zoo.adapters.linear_probe import LinearProbe
from zoo.data.io.images import ImageError
from zoo.errors import WeightsError
from zoo.methods.clip_classification import ClipClassification

NAMES = ["dots", "stripes"]


@pytest.fixture
def method(tiny_clip) -> ClipClassification:
    return ClipClassification(tiny_clip, LinearProbe, NAMES)


def test_the_trained_state_leaves_the_frozen_base_out(method):
    assert set(method.trained_state()) == {"adapter.classifier.weight", "adapter.classifier.bias"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("adapter.classifier.bias"), r"'adapter\.classifier\.bias' is missing"),
        (lambda state: state.update(extra=torch.ones(1)), "'extra' is not a weight of ClipClassification"),
        (lambda state: state.update({"adapter.classifier.bias": torch.ones(3)}), r"is \(3,\), expected \(2,\)"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_says_why(method, change, message):
    state = dict(method.trained_state())
    change(state)
    with pytest.raises(WeightsError, match=message):
        method.load_trained_state(state)


def test_a_cast_is_of_the_frozen_base_alone_and_keeps_its_fingerprint(method):
    fingerprint = method.clip.fingerprint()
    method.to(dtype=torch.bfloat16)
    assert {value.dtype for value in method.clip.parameters()} == {torch.bfloat16}
    assert {value.dtype for value in method.adapter.parameters()} == {torch.float32}
    assert method.base_fingerprint() == fingerprint != method.clip.fingerprint()
    method.set_base_precision("fp32")
    assert {value.dtype for value in method.clip.parameters()} == {torch.float32}


def test_every_trained_parameter_has_a_gradient_in_every_step(method, monkeypatch):
    monkeypatch.setattr(method, "log_dict", lambda *_, **__: None)
    monkeypatch.setattr(method, "losses", lambda batch: {"loss": torch.zeros((), requires_grad=True)})
    method.training_step({"image": torch.rand(1, 1, 32, 32)}, 0).backward()
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in method.adapter.parameters())


def test_predicting_one_image_needs_no_gradient_and_keeps_the_mode(method):
    method.train()
    prediction = method.predict_image(torch.rand(1, 40, 30))
    assert method.training and set(prediction.probabilities) == set(NAMES)
    with pytest.raises(ImageError):
        method.predict_image(torch.rand(40, 30))


def test_batches_are_moved_in_float32(method):
    batch = {"image": torch.rand(1, 1, 2, 2).half(), "masks": [torch.ones(1).bfloat16()], "text": ["a"], "label": [1]}
    moved = method.transfer_batch_to_device(batch, torch.device("cpu"), 0)
    assert moved["image"].dtype == moved["masks"][0].dtype == torch.float32
    assert moved["text"] == ["a"] and moved["label"] == [1]
