"""A training that is killed at any step resumes to the weights of an undisturbed one, for each of the three methods."""

import random

import pytest
import torch
from safetensors.torch import load_file

from tests.killing import train_and_kill
from tests.small_recipes import make_folder, write_recipe
from zoo.config.recipe import read_recipe
from zoo.engine import trainers
from zoo.engine.training import train

METHODS = ("nearl_clip small", "medseg_r causal_lm unet", "interleaved_reasoning small crop")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("resume"))


@pytest.mark.parametrize("name", METHODS)
def test_killed_at_a_random_step_and_resumed(folder, tmp_path, monkeypatch, name):
    monkeypatch.setattr(trainers, "CHECKPOINT_EVERY", 1)
    recipe = read_recipe(write_recipe(folder, name), ["trainer.max_epochs=3", "trainer.limit_val_batches=0"])
    whole = train(recipe, tmp_path / "whole")
    steps = torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert steps >= 3
    step = random.Random(name).randrange(1, steps)
    train_and_kill(step, recipe, tmp_path / "killed")
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    train(recipe, tmp_path / "killed", resume=True)
    expected, resumed = (load_file(run / "model.safetensors") for run in (whole, tmp_path / "killed"))
    assert expected.keys() == resumed.keys()
    for key, value in expected.items():
        assert torch.equal(resumed[key], value), key
