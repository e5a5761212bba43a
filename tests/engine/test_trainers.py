"""Devices and settings of trainers."""

import pytest
import torch
from typer.testing import CliRunner

from tests.tiny_cards import at, publish_tiny_classifier, write_film
from zoo.cli.app import app


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
