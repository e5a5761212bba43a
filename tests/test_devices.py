"""Every method on a device that is not the CPU: a training step, evaluation, prediction; on a fake one, and a real one if any.

A method is a recipe here, and what a step takes is a batch of its data set, moved as a Trainer moves it. What a method makes
on the way it must make on its own device.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.fake_device import KINDS, cuda
from tests.small_recipes import RECIPES, TRAINING_FREE, make_folder, write_recipe
from zoo.config.recipe import read_recipe
from zoo.engine.assembly import Assembly, assemble


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and data of all recipes."""
    return make_folder(tmp_path_factory.mktemp("devices"))


@pytest.fixture(params=list(RECIPES))
def recipe(request: pytest.FixtureRequest) -> str:
    return request.param


def assembled(folder: Path, name: str) -> Assembly:
    """A recipe's method, without a trainer but for what a step asks of one, and its data set."""
    torch.manual_seed(0)
    assembly = assemble(read_recipe(write_recipe(folder, name)))
    assembly.method.log = assembly.method.log_dict = lambda *_, **__: None
    assembly.method._trainer = stub_trainer(assembly, torch.device("cpu"))
    assembly.method.probes = {"dots": [["dots"], ["no dots"]]}  # of pretraining
    return assembly


def stub_trainer(assembly: Assembly, device: torch.device) -> SimpleNamespace:
    """What the hooks and steps of a method ask of its trainer."""
    strategy = SimpleNamespace(root_device=device, is_global_zero=True, barrier=lambda name: None)
    facts = {"world_size": 1, "global_rank": 0, "global_step": 0, "estimated_stepping_batches": 4}
    return SimpleNamespace(**facts, precision="32-true", datamodule=assembly.data, strategy=strategy, should_stop=False)


def batch_of(assembly: Assembly, split: str, device: torch.device) -> Any:
    """The first batch of a split, moved as Lightning moves it."""
    loader = assembly.data.train_dataloader() if split == "train" else assembly.data.eval_dataloader(split)
    batch = next(iter(loader))
    if "label" in batch:  # what pretraining has besides
        labels = batch["label"].tolist()
        batch |= {"text": [f"a film of class {label}" for label in labels], "findings": [["dots"][:n] for n in labels]}
    return assembly.method.transfer_batch_to_device(batch, device, 0)


def train_and_validate(assembly: Assembly, device: torch.device) -> None:
    """Two steps on the same batch, since the second may find in a cache what the first put there."""
    trained = [parameter for parameter in assembly.method.train().parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    for _ in range(2):
        batch = batch_of(assembly, "train", device)
        assembly.method.on_train_batch_start(batch, 0)
        loss = assembly.method.training_step(batch, 0)
        assert loss.device == device and torch.isfinite(loss)
        optimizer.zero_grad()
        loss.backward()
        assert any(parameter.grad is not None for parameter in trained)
        optimizer.step()
    with torch.no_grad():
        assembly.method.eval().validation_step(batch_of(assembly, "val", device), 0)
        assembly.method.on_validation_epoch_end()
    assembly.method.load_trained_state(assembly.method.trained_state())
    assembly.method.base_fingerprint()
    assert all(value.device == device for value in assembly.method.state_dict().values())


@pytest.mark.parametrize("kind", KINDS)
def test_training_and_validation(folder, recipe, kind):
    """In the order of Lightning: set up on the CPU, moved, begun."""
    assembly = assembled(folder, recipe)
    with cuda(kind) as device:
        assembly.method._trainer = stub_trainer(assembly, device)
        if not recipe.startswith(("clip_pretraining", "vq_tokenizer")):
            assembly.method.setup("fit")
        assembly.method.to(device)
        assembly.method.on_fit_start()
        assert assembly.method.trainer.should_stop == (recipe in TRAINING_FREE)
        if recipe not in TRAINING_FREE:
            train_and_validate(assembly, device)


def force_masks_and_images(method: torch.nn.Module) -> list[torch.Tensor]:
    """Raise the logits of what opens a mask or an image, so that untrained models write some; gives a list of all masks drawn."""
    for model in method.modules():
        layer = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        if layer is None:
            continue
        opening = getattr(model.config, "vocabulary_map", {}).get("<racm3:break>")
        # The image token is never written.
        context = getattr(method, "context", None)
        raised = {context.seg_token_id: 1e4, context.image_token_id: 2e4} if opening is None else {opening: 1e4}
        layer.register_forward_hook(lambda _, __, logits, raised=raised: logits + _bias(logits, raised))
        break
    decoded: list[torch.Tensor] = []
    if hasattr(method, "grounding"):
        method.grounding.register_forward_hook(lambda _, __, masks: decoded.append(masks))
    return decoded


def _bias(logits: torch.Tensor, raised: dict[int, float]) -> torch.Tensor:
    bias = torch.zeros_like(logits)
    for index, value in raised.items():
        bias[..., index] = value
    return bias


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation(folder, recipe, kind):
    assembly = assembled(folder, recipe)
    decoded = force_masks_and_images(assembly.method)
    with cuda(kind) as device:
        assembly.method.to(device).eval()
        with torch.no_grad():
            outputs = assembly.method.evaluation_step(batch_of(assembly, "test", device))
        assert "medseg_r" not in recipe or len(torch.cat(decoded)) > 3
        outputs = assembly.method.complete_outputs({name: value.cpu() for name, value in outputs.items()})
        for name, metric in assembly.method.metrics().items():
            assert isinstance(metric(outputs), float), name


@pytest.mark.parametrize("kind", KINDS)
def test_prediction_before_and_after_the_move(folder, tmp_path, recipe, kind):
    """What a method keeps from one call to the next moves with it."""
    assembly = assembled(folder, recipe)
    assembly.method.eval()
    force_masks_and_images(assembly.method)
    with cuda(kind) as device:
        image = torch.rand(1, 64, 64)
        assembly.method.predict_image(image)
        assembly.method.to(device)
        for place in (image, image.to(device)):
            prediction = assembly.method.predict_image(place)
            assert prediction.save(tmp_path, overwrite=True).is_file()
