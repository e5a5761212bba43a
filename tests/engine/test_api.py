"""Listing, predictions and evaluation in memory."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import zoo
from tests.small_recipes import write_recipe
from tests.tiny_cards import at
from tests.tiny_models import causal_lm, medseg_files
from zoo.cards.store import CardError
from zoo.cli.app import app
from zoo.config.recipe import read_recipe
from zoo.data.conversations.records import QuestionError
from zoo.data.io.images import ImageError
from zoo.engine.api import single_device_trainer
from zoo.engine.publishing import publish
from zoo.engine.trainers import inference_trainer
from zoo.engine.training import train
from zoo.errors import ArgumentError
from zoo.methods.predictions import Classification, Segmentation
from zoo.registry import UnknownComponentError, registry


@pytest.fixture(scope="module")
def run(tmp_path_factory, striped_folder) -> Path:
    """The run of a tiny classifier; its card is beside it."""
    from tests.conftest import TINY_RECIPE

    root = tmp_path_factory.mktemp("api")
    (root / "tiny.yaml").write_text(TINY_RECIPE.format(folder=striped_folder))
    run = train(read_recipe(root / "tiny.yaml", ["trainer.max_epochs=1"]), root / "run")
    publish(run, "tiny", folder=root / "cards")
    return run


@pytest.fixture(scope="module")
def card(run) -> Path:
    return run.parent / "cards" / "tiny"


def test_models_and_components_are_listed_by_pattern(card, monkeypatch):
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(card.parent))
    monkeypatch.setenv("ZOO_CACHE", str(card.parent / "no cache"))
    assert zoo.list_models() == zoo.list_models("t*") == ["tiny"] and zoo.list_models("*clip*") == []
    assert zoo.list_components("*adapter*") == ["clip_adapter", "tip_adapter", "tip_adapter_f"]
    assert zoo.list_components("*clip", kind="method") == ["nearl_clip"]
    assert set(zoo.list_components(kind="adapter")) == set(registry("adapter")) < set(zoo.list_components())
    with pytest.raises(UnknownComponentError, match="did you mean adapter"):
        zoo.list_components(kind="adaptor")


def test_predictions_are_those_of_the_loaded_card(card, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "film.png")
    image = torch.from_numpy(pixels.astype(np.float32) / 255)[None]
    expected = zoo.load(card).predict_image(image)
    predictions = zoo.predict(card, [str(tmp_path / "film.png"), image, image.expand(3, -1, -1).double()], device="cpu")
    assert len(predictions) == 3
    for prediction in predictions:
        assert isinstance(prediction, Classification) and prediction.image.dtype == torch.float32
        assert prediction.probabilities == pytest.approx(expected.probabilities, abs=1e-5)


def test_one_image_a_batch_and_none_are_taken_for_what_they_are(card, tmp_path):
    Image.fromarray(np.full((32, 32), 90, np.uint8)).save(tmp_path / "film.png")
    assert len(zoo.predict(card, str(tmp_path / "film.png"))) == 1
    assert len(zoo.predict(card, tmp_path / "film.png")) == 1
    assert len(zoo.predict(card, torch.rand(1, 32, 32))) == 1
    assert len(zoo.predict(card, torch.rand(10, 3, 32, 32))) == 10
    assert zoo.predict(card, []) == []


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(32, 32), r"got \(32, 32\)"),
        (torch.rand(2, 32, 32), r"got \(2, 32, 32\)"),
        (torch.rand(1, 32, 7), r"got \(1, 32, 7\)"),
        (torch.full((1, 32, 32), 200, dtype=torch.uint8), "torch.uint8"),
        (torch.full((1, 32, 32), 1.5), "values outside"),
        (torch.full((1, 32, 32), float("nan")), "values outside"),
        ("no such file.png", "there is no such file"),
    ],
)
def test_what_is_no_image_is_refused(card, image, message):
    with pytest.raises(ImageError, match=message):
        zoo.predict(card, image)


def test_a_call_in_memory_starts_no_other_process(card):
    recipe = read_recipe(card / "recipe.yaml")
    several = recipe.with_content(trainer={**recipe["trainer"], "devices": 2, "num_nodes": 2, "strategy": "ddp"})
    assert inference_trainer(several, progress=False).world_size == 4
    assert single_device_trainer(several, "auto").world_size == single_device_trainer(several, "cpu").world_size == 1


def test_a_card_without_answers_takes_no_question(card):
    with pytest.raises(CardError, match="NearlClip, which does not answer questions"):
        zoo.predict(card, torch.rand(1, 32, 32), "Where?")


def test_a_question_is_asked_about_every_image(card, tmp_path, monkeypatch):
    causal_lm(tmp_path / "lm")
    medseg_files(tmp_path / "medseg")
    method = zoo.assemble(read_recipe(write_recipe(tmp_path, "medseg_r causal_lm unet"))).method
    monkeypatch.setattr("zoo.engine.loading.load", lambda name: method)
    images = [torch.rand(1, 32, 32), torch.rand(3, 40, 32)]
    answers = zoo.predict(card, images, " What is here? ", device="cpu")
    for image, answer in zip(images, answers, strict=True):
        assert isinstance(answer, Segmentation) and answer.question == "What is here?"
        assert answer.to_dict() == method.predict_image(image, question="What is here?").to_dict()
    with pytest.raises(QuestionError, match="empty"):
        zoo.predict(card, images, " ")


def test_evaluating_gives_what_the_command_line_gives(card, run, striped_folder):
    place = at(striped_folder)
    for source, overrides in ((card, place), (run, [])):
        metrics = zoo.evaluate(source, overrides, device="cpu")
        assert metrics["accuracy"].n == 24 and metrics["accuracy"].low <= metrics["accuracy"].value
    done = CliRunner().invoke(
        app, ["eval", str(card), *place, "--split", "val", "--device", "cpu", "--json", "--no-details"]
    )
    val = zoo.evaluate(str(card), place, split="val", device="cpu")
    assert json.loads(done.stdout) == {name: asdict(measured) for name, measured in val.items()}
    assert val["accuracy"].n == 12
    assert zoo.evaluate(card, [*place, "data.batch_size=2"], split="val", device="cpu")["accuracy"] == val["accuracy"]
    with pytest.raises(ArgumentError, match="no split 'tset'"):
        zoo.evaluate(card, place, split="tset")
