"""The contract that every classifier on a frozen CLIP keeps."""

import pytest
import torch
from torch.nn import functional

from zoo.adapters.few_shot import FewShotAdapter
from zoo.adapters.zero_shot import ZeroShot
from zoo.errors import ArgumentError
from zoo.methods.clip_classification import ClipClassification
from zoo.registry import registry

NAMES = ["no finding", "a small pleural effusion", "a large pneumothorax"]
ADAPTERS = [name for name in registry("adapter") if issubclass(registry("adapter").resolve(name), FewShotAdapter)]
TRAINING_FREE = {"zero_shot", "tip_adapter", "logistic_probe", "lp_plus_plus"}
STARTS_AT_ZERO_SHOT = {"zero_shot", "lora", "nearl", "tip_adapter", "tip_adapter_f", "taskres"}
TEXTS = {name: [f"{name}, {view}" for view in ("frontal", "lateral", "portable")] for name in NAMES}


def test_all_peers_are_here():
    assert set(ADAPTERS) == {
        "zero_shot",
        "linear_probe",
        "logistic_probe",
        "lp_plus_plus",
        "coop",
        "cocoop",
        "kgcoop",
        "prograd",
        "biomedcoop",
        "taskres",
        "clip_adapter",
        "tip_adapter",
        "tip_adapter_f",
        "maple",
        "lora",
        "nearl",
    }


@pytest.fixture(params=ADAPTERS)
def method(request, tiny_clip):
    torch.manual_seed(1)
    adapter = registry("adapter").resolve(request.param)
    return ClipClassification(tiny_clip, adapter, NAMES, class_texts=TEXTS).eval(), request.param


def batch(count=5):
    return torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(2))


def perturbed(module):
    """Add noise to every trained parameter, so that no zero initialisation hides a path."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    return module


@torch.no_grad()
def test_an_images_logits_do_not_depend_on_its_batch(method):
    module, _ = method
    perturbed(module)
    together = module(batch())
    assert together.shape == (5, 3)
    alone = torch.cat([module(image[None]) for image in batch()])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-5)


def test_gradients_reach_every_trained_parameter_and_no_other(method):
    module, name = method
    trained = {n for n, p in module.named_parameters() if p.requires_grad}
    if name in TRAINING_FREE:
        assert not trained
        return
    if name == "tip_adapter_f":
        module.adapter.labels[0, 0] = module.adapter.labels[20, 1] = 1
    perturbed(module).train()
    functional.cross_entropy(module(batch(3)), torch.tensor([0, 1, 2])).backward()
    assert {n for n, p in module.named_parameters() if p.grad is not None} == trained
    silent = [n for n, p in module.named_parameters() if p.requires_grad and not p.grad.abs().sum() > 0]
    assert not silent or name == "tip_adapter_f"


def test_only_trained_weights_are_saved_and_they_come_back(method, tiny_clip):
    module, _ = method
    perturbed(module)
    state = {key: value.clone() for key, value in module.trained_state().items()}
    assert not any(key.startswith("clip.") and "lora_" not in key for key in state)
    before = module(batch())
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.zero_()
    module.load_trained_state(state)
    torch.testing.assert_close(module(batch()), before)
    if state:
        state.pop(next(iter(state)))
        with pytest.raises(ValueError, match="is missing"):
            module.load_trained_state(state)


@torch.no_grad()
def test_methods_that_start_at_zero_shot_do(method, tiny_clip):
    module, name = method
    if name in STARTS_AT_ZERO_SHOT:
        frozen = ClipClassification(tiny_clip, ZeroShot, NAMES).eval()(batch())
        torch.testing.assert_close(module(batch()) / tiny_clip.scale, frozen / tiny_clip.scale, atol=1e-6, rtol=0)


def test_the_frozen_clip_stays_in_evaluation_mode(method):
    module, _ = method
    module.train()
    assert not module.clip.training and module.adapter.training


def test_no_classes_or_no_place_for_them_is_an_error(tiny_clip):
    with pytest.raises(ValueError, match="needs class names"):
        ClipClassification(tiny_clip, ZeroShot, [])
    with pytest.raises(ValueError, match="template with {}"):
        ClipClassification(tiny_clip, ZeroShot, NAMES, template="a radiograph")


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_that_observe_work_without_validation_images(tiny_clip, name):
    adapter = registry("adapter").resolve(name)
    if not adapter.observes:
        pytest.skip("looks at no validation images")
    method = ClipClassification(tiny_clip, adapter, NAMES)
    shots = [{"image": torch.rand(3, 1, 32, 32), "label": torch.tensor([0, 1, 2])}]
    for step, batches in (
        (method.adapter.observe, (shots, [])),
        (method.adapter.end_epoch, ([],)),
        (method.adapter.finish, ([],)),
    ):
        step(tiny_clip, *batches)
    assert method(torch.rand(2, 1, 32, 32)).isfinite().all()


@pytest.mark.parametrize("name", ADAPTERS)
def test_classes_that_the_text_tower_cannot_tell_apart_are_refused_by_name(tiny_clip, name):
    adapter = registry("adapter").resolve(name)
    long = " ".join(["effusion"] * 100)
    for names in (["x", f"{long} new", f"{long} old"], ["x", "Mass", "mass"]):
        if not adapter.reads_prompts:
            assert ClipClassification(tiny_clip, adapter, names).class_names == names
            continue
        with pytest.raises(ArgumentError, match=f"reads the same of '{names[1]}' and '{names[2]}'"):
            ClipClassification(tiny_clip, adapter, names)
