"""Every method under a plain Lightning Trainer, without the zoo's own driver: fit, validate, test and predict."""

from functools import partial
from pathlib import Path

import pytest
import torch
from lightning import Callback, Trainer
from torch.utils.data import DataLoader

from tests.small_recipes import RECIPES, TRAINING_FREE, make_folder, write_recipe
from zoo.adapters.oca import OrthogonalCrossAttention
from zoo.adapters.tip_adapter import TipAdapter
from zoo.config.recipe import read_recipe
from zoo.engine.assembly import Assembly, assemble
from zoo.methods.clip_classification import ClipClassification
from zoo.methods.nearl_clip import NearlClip
from zoo.methods.predictions import Prediction

NEEDS_TEXTS = {"clip_pretraining", "clip_pretraining minilm"}
"""Its data set is rendered; tests/methods/test_training.py trains it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("native"))


def plain(**options) -> Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(accelerator="cpu", max_epochs=1, use_distributed_sampler=False, **quiet, **options)


def made(folder: Path, name: str) -> Assembly:
    torch.manual_seed(0)
    return assemble(read_recipe(write_recipe(folder, name)))


def training_modules(method: torch.nn.Module) -> set[str]:
    return {name for name, module in method.named_modules() if module.training}


class Modes(Callback):
    """Notes which modules are in training mode in each training step."""

    def __init__(self) -> None:
        self.of_steps: list[set[str]] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.of_steps.append(training_modules(pl_module))


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - NEEDS_TEXTS))
def test_frozen_parts_are_in_evaluation_mode_from_their_construction_and_do_not_change(folder, name):
    """Lightning does not call ``train()``: a batch norm would learn the statistics of a frozen base, and dropout would act in it."""
    assembly = made(folder, name)
    method, modes = assembly.method, Modes()
    built = training_modules(method)
    trained = {value.data_ptr() for value in method.trained_state().values()}  # a tied weight has two names
    before = {key: value.clone() for key, value in method.state_dict().items() if value.data_ptr() not in trained}
    trainer = plain(limit_train_batches=2)
    trainer.callbacks.append(modes)
    trainer.fit(method, assembly.data)
    state = method.state_dict()
    assert [key for key, value in before.items() if not torch.equal(state[key], value)] == []
    method.train()
    assert built <= training_modules(method), "what stays in evaluation mode is so from its construction"
    assert all(modules == training_modules(method) for modules in modes.of_steps)
    assert modes.of_steps or name in TRAINING_FREE


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - NEEDS_TEXTS))
def test_fit_validate_test_and_predict(folder, name):
    assembly = made(folder, name)
    method, data = assembly.method, assembly.data
    before = {key: value.clone() for key, value in method.trained_state().items()}
    trainer = plain()
    trainer.fit(method, data)
    after = method.trained_state()
    changed = any(not torch.equal(before[key], value) for key, value in after.items())
    assert changed == (name != "zero_shot"), "what trains, or is looked up, is not what it was"
    assert trainer.global_step > 0 or name in TRAINING_FREE
    validated = plain().validate(method, data, verbose=False)[0]
    assert validated and all(key.startswith("val_") for key in validated)
    tested = plain().test(method, data, verbose=False)[0]
    assert set(tested) == {f"test_{metric}" for metric in method.metrics()}
    assert len(next(iter(method.test_outputs.values()))) == len(data.split("test"))
    predictions = [item for batch in plain().predict(method, data) for item in batch]
    assert len(predictions) == len(data.split("test"))
    assert all(isinstance(item, Prediction) and item.to_dict() for item in predictions)


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
@pytest.mark.parametrize(
    "name",
    [
        "nearl_clip vitb16",
        "nearl_clip prototype",
        "lora",
        "medseg_r llava sam",
        "medseg_r llava sam all rows",
        "medseg_r causal_lm unet",
        "interleaved_reasoning anole",
        "interleaved_reasoning small crop",
        "finding_unet",
    ],
)
def test_lightnings_own_half_precision(folder, name, precision):
    """Trained weights stay float32, no frozen dataclass is refused, and metrics are counted in float32."""
    assembly = made(folder, name)
    method, data = assembly.method, assembly.data
    fingerprint = assembly.method.base_fingerprint()
    plain(precision=precision).fit(method, data)
    state = method.trained_state()
    assert all(value.dtype == torch.float32 for value in state.values() if value.is_floating_point())
    assert all(torch.isfinite(value).all() for value in state.values())
    assert method.base_fingerprint() == fingerprint, "it is that of the stored weights"
    plain(precision=precision).test(method, data, verbose=False)
    floats = [value for value in method.test_outputs.values() if value.is_floating_point()]
    assert floats and all(value.dtype == torch.float32 for value in floats)


def test_the_tutorials_loop_on_a_users_own_loader(tiny_clip):
    """No data module, no recipe, batches that are a dictionary of tensors alone."""
    generator = torch.Generator().manual_seed(0)
    samples = [{"image": torch.rand(3, 32, 32, generator=generator), "label": index % 2} for index in range(8)]
    loader = DataLoader(samples, batch_size=4)
    method = NearlClip(tiny_clip, ["no finding", "a nodule"], adapter=partial(OrthogonalCrossAttention, rank=4))
    method.optimizer_recipe = {"name": "adamw", "lr": 1e-3}
    trainer = plain(precision="bf16-mixed")
    trainer.fit(method, loader)
    assert set(trainer.test(method, loader, verbose=False)[0]) == {"test_accuracy", "test_macro_f1", "test_auroc"}
    predictions = [prediction for batch in trainer.predict(method, loader) for prediction in batch]
    assert len(predictions) == 8 and {prediction.label for prediction in predictions} <= {"no finding", "a nodule"}


def test_what_needs_the_shots_says_so_without_a_data_module(tiny_clip):
    method = ClipClassification(tiny_clip, TipAdapter, ["no finding", "a nodule"])
    samples = [{"image": torch.rand(3, 32, 32), "label": index % 2} for index in range(4)]
    with pytest.raises(ValueError, match="pass a data module"):
        plain().fit(method, DataLoader(samples, batch_size=2))
