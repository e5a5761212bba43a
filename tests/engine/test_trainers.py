"""Devices and settings of trainers."""

import os
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

from tests.tiny_cards import at, publish_tiny_classifier, write_film
from zoo.cli.app import app
from zoo.config.recipe import read_recipe
from zoo.engine.trainers import training_arguments
from zoo.paths import PACKAGE


@pytest.fixture(scope="module")
def card(tmp_path_factory, striped_folder) -> str:
    """The folder of a tiny classifier's card."""
    return str(publish_tiny_classifier(tmp_path_factory.mktemp("card"), striped_folder))


@pytest.mark.parametrize(
    ("device", "message"),
    [("cuda", "no cuda device on this machine"), ("tpu", "unknown device"), ("cuda:x", "unknown device")],
)
def test_devices_that_are_not_here_are_refused(card, striped_folder, tmp_path, device, message):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    film = write_film(tmp_path / "film.png")
    for arguments in (
        ["predict", card, str(film)],
        ["eval", card, *at(striped_folder)],
        ["verify", card, "--set", *at(striped_folder)],
    ):
        done = CliRunner().invoke(app, [*arguments, "--device", device])
        assert done.exit_code == 1 and message in done.stderr


def test_only_the_trainer_of_a_card_can_be_changed(card, tmp_path):
    film = write_film(tmp_path / "film.png")
    done = CliRunner().invoke(app, ["predict", card, str(film), "--set", "method.template=a {}"])
    assert done.exit_code == 1 and "only trainer.*, the place of the data and the sources of weights" in done.stderr


@pytest.mark.parametrize("accelerator", ["cuda", "gpu"])
def test_training_on_a_gpu_that_is_not_here_is_one_line(tiny_recipe, tmp_path, accelerator):
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is one")
    arguments = ["train", str(tiny_recipe), f"trainer.accelerator={accelerator}", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, arguments)
    (line,) = done.stderr.splitlines()
    assert done.exit_code == 1 and line.startswith(
        f"DeviceError: trainer.accelerator is {accelerator}, and this machine has no"
    )
    assert not (tmp_path / "run" / "recipe.yaml").exists()


@pytest.mark.parametrize(("epochs", "last"), [(3, "Epoch 3/3"), (-1, "Epoch 3")])
def test_the_progress_bar_counts_epochs_from_1(tiny_recipe, tmp_path, epochs, last):
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import RichProgressBar

    arguments = training_arguments(read_recipe(tiny_recipe, ["trainer.enable_progress_bar=true"]), tmp_path)
    (bar,) = [callback for callback in arguments["callbacks"] if isinstance(callback, RichProgressBar)]
    trainer = Trainer(max_epochs=epochs, logger=False, enable_checkpointing=False, accelerator="cpu")
    bar.setup(trainer, trainer.lightning_module, "fit")
    trainer.fit_loop.epoch_progress.current.completed = 2
    bar.on_train_start(trainer, trainer.lightning_module)
    bar.on_train_epoch_start(trainer, trainer.lightning_module)
    assert [str(task.description).strip() for task in bar.progress.tasks] == [last]
    bar.teardown(trainer, trainer.lightning_module, "fit")


COMMANDS = """
import sys
from zoo.cli.app import app
for arguments in (["train", sys.argv[1], "trainer.max_epochs=1", "--out", sys.argv[2]], ["eval", sys.argv[2], "--no-details"]):
    app(arguments, standalone_mode=False)
"""


def test_a_run_prints_its_results_and_nothing_of_its_libraries(tiny_recipe, tmp_path):
    """In a process of its own: no tips of Lightning, no lines about GPUs and TPUs, no warnings without use for the reader."""
    command = [sys.executable, "-c", COMMANDS, str(tiny_recipe), "run"]
    variables = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, env=variables)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert lines[:3] == ["run: run", "next: zoo eval run", "run, test"] and len(lines) == 10
