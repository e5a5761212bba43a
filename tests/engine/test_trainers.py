"""Devices and settings of trainers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from zoo.cli.app import app
from zoo.config.recipe import read_recipe
from zoo.engine.publishing import publish
from zoo.engine.training import train


@pytest.fixture(scope="module")
def card(tmp_path_factory, striped_folder) -> str:
    """The folder of a tiny classifier's card."""
    from tests.conftest import TINY_RECIPE

    root = tmp_path_factory.mktemp("card")
    (root / "tiny.yaml").write_text(TINY_RECIPE.format(folder=striped_folder))
    run = train(read_recipe(root / "tiny.yaml", ["trainer.max_epochs=1"]), root / "run")
    return str(publish(run, "tiny", folder=root / "cards"))


def write_film(file: Path, value: int = 90) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((32, 32), value, np.uint8)).save(file)
    return file


@pytest.mark.parametrize(
    ("device", "message"),
    [("cuda", "no cuda device on this machine"), ("tpu", "unknown device"), ("cuda:x", "unknown device")],
)
def test_devices_that_are_not_here_are_refused(card, tmp_path, device, message):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    film = write_film(tmp_path / "film.png")
    for arguments in (["predict", card, str(film)], ["eval", card], ["verify", card]):
        done = CliRunner().invoke(app, [*arguments, "--device", device])
        assert done.exit_code == 1 and message in done.stderr


def test_only_the_trainer_of_a_card_can_be_changed(card, tmp_path):
    film = write_film(tmp_path / "film.png")
    done = CliRunner().invoke(app, ["predict", card, str(film), "--set", "method.template=a {}"])
    assert done.exit_code == 2 and "only trainer.* and the sources of weights can be changed here" in done.stderr
