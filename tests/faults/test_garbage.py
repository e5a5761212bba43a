"""What diverged, was never trained, or is not finite does not become a run, a card or a prediction."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import TINY_RECIPE
from tests.tiny_cards import at, publish_tiny_classifier, rewrite_record
from zoo.cards.store import CardError, read_weights
from zoo.checksums import sha256_of
from zoo.config.recipe import read_recipe
from zoo.data.io.images import read_image
from zoo.engine.loading import load
from zoo.engine.publishing import publish
from zoo.engine.training import RunError, last_checkpoint, save_weights, train
from zoo.engine.verification import verify
from zoo.finite import NonFiniteError

pytestmark = pytest.mark.filterwarnings("ignore:.*No positive samples")


@pytest.fixture(scope="module")
def run_and_card(tmp_path_factory, striped_folder):
    root = tmp_path_factory.mktemp("garbage")
    return root / "run", publish_tiny_classifier(root, striped_folder)


@pytest.fixture
def damaged(run_and_card, tmp_path, request):
    """A copy of the run and of the card, one of whose weights is ``request.param``, hashes as they should be."""
    import shutil

    run, card = (shutil.copytree(path, tmp_path / path.name) for path in run_and_card)
    for folder in (run, card):
        weights = load_file(folder / "model.safetensors")
        next(iter(weights.values())).flatten()[0] = request.param
        save_file(weights, folder / "model.safetensors")

    def rehash(record):
        (file,) = (file for file in record["files"] if file["name"] == "model.safetensors")
        file["sha256"] = sha256_of(card / "model.safetensors")

    rewrite_record(card, rehash)
    return run, card


@pytest.mark.parametrize("damaged", [math.nan, math.inf, -math.inf], indirect=True)
def test_weights_that_are_not_finite_are_refused_everywhere(damaged, striped_folder, tmp_path):
    run, card = damaged
    refused = pytest.raises(CardError, match="weights that are not finite numbers: ")
    for use in (
        lambda: load(card),
        lambda: verify(card, at(striped_folder), progress=False),
        lambda: publish(run, "again", folder=tmp_path / "cards", license="mit"),
    ):
        with refused:
            use()
    assert not (tmp_path / "cards" / "again").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_outputs_that_are_not_finite_are_no_prediction(run_and_card, striped_folder, value):
    method = load(run_and_card[1])
    image = read_image(next(striped_folder.rglob("*.png")))
    with torch.no_grad():
        next(method.adapter.parameters()).fill_(value)
    with pytest.raises(NonFiniteError, match="logits of the classes are not finite"):
        method.predict_image(image)
    with pytest.raises(NonFiniteError, match="logits of the classes are not finite"):
        method.evaluation_step({"image": image[None], "label": torch.tensor([0])})


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    file = tmp_path / "model.safetensors"
    save_weights({"a": torch.ones(2)}, file)
    with pytest.raises(NonFiniteError, match="not saved: a"):
        save_weights({"a": torch.tensor([1.0, math.nan])}, file)
    assert load_file(file)["a"].tolist() == [1, 1]


def _recipe(folder, striped_folder, *overrides):
    (folder / "tiny.yaml").write_text(TINY_RECIPE.format(folder=striped_folder))
    return read_recipe(folder / "tiny.yaml", overrides)


def test_a_loss_that_is_not_finite_stops_the_run_with_its_step(tmp_path, striped_folder):
    with pytest.raises(NonFiniteError, match="the loss of step 2 is nan.*lower optimizer.lr"):
        train(_recipe(tmp_path, striped_folder, "optimizer.lr=1e30"), tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()
    with pytest.raises(CardError, match="not a finished run"):
        publish(tmp_path / "run", "x", folder=tmp_path / "cards")


def test_weights_that_diverge_in_the_last_step_are_not_saved_and_the_last_good_checkpoint_stays(
    tmp_path, striped_folder
):
    recipe = _recipe(tmp_path, striped_folder)
    run = train(recipe, tmp_path / "run")
    good = last_checkpoint(run).read_bytes()
    (run / "model.safetensors").unlink()

    class Diverged(torch.optim.AdamW):
        def step(self, closure=None):
            loss = super().step(closure)
            self.param_groups[0]["params"][0].data.fill_(math.nan)
            return loss

    from lightning import Trainer

    from zoo.engine.assembly import assemble
    from zoo.engine.trainers import training_arguments

    assembly = assemble(recipe)
    assembly.method.configure_optimizers = lambda: Diverged(p for p in assembly.method.parameters() if p.requires_grad)
    trainer = Trainer(**training_arguments(recipe, run))
    with pytest.raises(NonFiniteError):
        trainer.fit(assembly.method, datamodule=assembly.data)
    assert last_checkpoint(run).read_bytes() == good
    with pytest.raises(NonFiniteError, match="after step .*, weights are not finite"):
        trainer.save_checkpoint(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    "setting", ["trainer.fast_dev_run=true", "trainer.overfit_batches=2", "trainer.limit_test_batches=1"]
)
def test_a_trial_is_marked_and_not_published(tmp_path, striped_folder, setting):
    run = train(_recipe(tmp_path, striped_folder, setting, "trainer.max_epochs=1"), tmp_path / "run")
    assert [item.lower() for item in json.loads((run / "summary.json").read_text())["trial"]] == [setting]
    with pytest.raises(CardError, match="was a trial"):
        publish(run, "x", folder=tmp_path / "cards", license="mit")
    assert not (tmp_path / "cards").exists()


@pytest.mark.parametrize("setting", ["trainer.max_steps=0", "trainer.limit_train_batches=0", "trainer.max_epochs=0"])
def test_an_untrained_run_is_no_run(tmp_path, striped_folder, setting):
    with pytest.raises(RunError, match=f"no training step was run.*{setting.removeprefix('trainer.')}"):
        train(_recipe(tmp_path, striped_folder, setting), tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_the_undamaged_card_is_loaded(run_and_card):
    from zoo.cards.store import read_card

    assert all(value.isfinite().all() for value in read_weights(read_card(run_and_card[1])).values())
