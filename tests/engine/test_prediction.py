"""Predictions for files: read as they are needed, named apart, written as they come, never over an input."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.uid import generate_uid
from typer.testing import CliRunner

from tests.data.io.dicom_files import write_dicom
from tests.small_recipes import write_recipe
from tests.tiny_cards import publish_tiny_classifier, write_film
from tests.tiny_models import medseg_files
from zoo.cards.store import CardError
from zoo.cli.app import app
from zoo.config.recipe import read_recipe
from zoo.data.io.images import ImageError, ImageOptions
from zoo.engine import prediction
from zoo.engine.loading import load
from zoo.engine.prediction import predict_files
from zoo.engine.publishing import publish
from zoo.engine.training import train

RESULTS = "predictions.jsonl"


@pytest.fixture(scope="module")
def card(tmp_path_factory, striped_folder) -> str:
    """The folder of a tiny classifier's card."""
    return str(publish_tiny_classifier(tmp_path_factory.mktemp("card"), striped_folder))


def test_inputs_of_one_stem_have_pictures_of_their_own(card, tmp_path):
    files = [write_film(tmp_path / side / "film.png", 20 * n) for n, side in enumerate(("a", "b", "a/c"))]
    results = predict_files(card, files, tmp_path / "out")
    pictures = {results[str(file)]["picture"] for file in files}
    assert {str(Path(name).relative_to(tmp_path / "out")) for name in pictures} == {
        "a/film.png",
        "b/film.png",
        "a/c/film.png",
    }
    assert all(Path(picture).is_file() for picture in pictures)


def test_an_input_is_never_overwritten(card, tmp_path):
    film = write_film(tmp_path / "film.png")
    before = film.read_bytes()
    done = CliRunner().invoke(app, ["predict", card, str(film), "--out", str(tmp_path), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert film.read_bytes() == before and (tmp_path / "film-prediction.png").is_file()
    inputs = [film, tmp_path / "film-prediction.png"]  # as a second `predict *.png` has it
    contents = [file.read_bytes() for file in inputs]
    predict_files(card, inputs, tmp_path, overwrite=True)
    assert [file.read_bytes() for file in inputs] == contents


def test_a_folder_is_predicted_again_without_its_outputs(card, tmp_path):
    for name in ("a/1.png", "b/1.png"):
        write_film(tmp_path / "films" / name)
    for out in (tmp_path / "films", tmp_path / "films" / "out"):
        first = predict_files(card, [tmp_path / "films"], out, format="csv")
        assert len(first) == 2 and (out / "predictions.csv").is_file()
        again = predict_files(card, [tmp_path / "films"], out, format="csv", overwrite=True)
        assert again == first
        for content in first.values():
            Path(content["picture"]).unlink()


def test_outputs_are_overwritten_only_when_told(card, tmp_path):
    film = write_film(tmp_path / "in" / "film.png")
    predict_files(card, [film], tmp_path / "out")
    with pytest.raises(FileExistsError, match="--overwrite"):
        predict_files(card, [film], tmp_path / "out")
    predict_files(card, [film], tmp_path / "out", overwrite=True)
    predict_files(card, [write_film(tmp_path / "in" / "other.png")], tmp_path / "out")
    lines = [json.loads(line)["image"] for line in (tmp_path / "out" / RESULTS).read_text().splitlines()]
    assert lines == [str(film), str(tmp_path / "in" / "other.png")], "one line an image"
    odd = write_film(tmp_path / "in" / "odd[1].png")
    predict_files(card, [odd], tmp_path / "out")
    with pytest.raises(FileExistsError, match="--overwrite"):
        predict_files(card, [odd], tmp_path / "out")


def test_files_are_read_as_they_are_needed_and_results_come_at_once(card, tmp_path, monkeypatch):
    files = [write_film(tmp_path / f"{index}.png", index) for index in range(40)]
    read, reported = [], []
    real = ImageOptions.read
    monkeypatch.setattr(ImageOptions, "read", lambda self, path: read.append(path) or real(self, path))

    def report(path: str, content: dict) -> None:
        if not reported:
            assert len(read) <= 16, "a few batches ahead at most"
            assert len((tmp_path / "out" / RESULTS).read_text().splitlines()) == 1
        reported.append((path, content["class"]))

    predict_files(card, files, tmp_path / "out", batch_size=4, on_prediction=report)
    assert [path for path, _ in reported] == list(map(str, files)) and len(read) == 40
    content = [json.loads(line) for line in (tmp_path / "out" / RESULTS).read_text().splitlines()]
    assert [(line["image"], line["class"]) for line in content] == reported


def test_a_batch_gives_what_each_image_gives_alone(card, tmp_path):
    rng = np.random.default_rng(0)
    files = []
    for index, size in enumerate(((32, 32), (50, 40), (64, 64))):
        files.append(tmp_path / f"{index}.png")
        Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8)).save(files[-1])
    together = predict_files(card, files, None)
    for file in files:
        alone = predict_files(card, [file], None)[str(file)]
        for name, value in alone["probabilities"].items():
            assert together[str(file)]["probabilities"][name] == pytest.approx(value, abs=1e-5)


def test_two_processes_share_the_files(card, tmp_path):
    files = [write_film(tmp_path / f"{index}.png", 30 * index) for index in range(5)]
    command = [
        sys.executable,
        "-m",
        "zoo.cli",
        "predict",
        card,
        *map(str, files),
        "--out",
        str(tmp_path / "out"),
        "--json",
    ]
    two = ["--set", "trainer.devices=2", "--set", "trainer.strategy=ddp", "--batch-size", "1"]
    done = subprocess.run([*command, *two], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    together, alone = json.loads(done.stdout), predict_files(card, files, None)
    assert list(together) == list(map(str, files))
    assert {path: content["class"] for path, content in together.items()} == {
        path: content["class"] for path, content in alone.items()
    }
    assert all(Path(content["picture"]).is_file() for content in together.values())


@pytest.mark.parametrize(
    "image",
    [
        torch.zeros(64, 64),
        torch.zeros(1, 3, 64, 64),
        torch.zeros(2, 64, 64),
        torch.rand(3, 64, 64) * 255,
        torch.full((3, 64, 64), float("nan")),
        torch.zeros(3, 64, 64, dtype=torch.uint8),
    ],
)
def test_a_tensor_that_is_no_image_is_refused(card, image):
    with pytest.raises(ImageError, match="an image must be"):
        load(card).predict_image(image)


def test_a_prediction_is_saved_under_a_name_in_a_folder(card, tmp_path):
    prediction = load(card).predict_image(torch.rand(1, 32, 32))
    assert prediction.save(str(tmp_path), "mine") == tmp_path / "mine.png"
    with pytest.raises(FileExistsError, match="exists; choose"):
        prediction.save(tmp_path, "mine")


@pytest.fixture(scope="module")
def mask_card(tmp_path_factory) -> str:
    """The folder of a tiny U-Net's card, which predicts masks."""
    root = tmp_path_factory.mktemp("unet")
    medseg_files(root / "medseg")
    run = train(read_recipe(write_recipe(root, "finding_unet")), root / "run")
    return str(publish(run, "tiny-unet", folder=root / "cards", probe=False, license="mit"))


def _dicom(file: Path, **tags) -> Path:
    uids = {f"{name}InstanceUID": generate_uid() for name in ("Study", "Series")}
    return write_dicom(file, np.arange(64 * 64, dtype=np.uint16).reshape(64, 64), **{**uids, **tags})


def test_what_no_segmentation_can_refer_to_is_said_before_the_model_runs(mask_card, tmp_path, monkeypatch):
    pytest.importorskip("highdicom")
    good, lacking = _dicom(tmp_path / "good.dcm"), _dicom(tmp_path / "lacking.dcm", StudyInstanceUID="")
    film = write_film(tmp_path / "film.png")
    order = []
    monkeypatch.setattr(prediction, "load", lambda *args, **options: order.append("load") or load(*args, **options))
    monkeypatch.setattr(prediction, "_run", lambda *args: order.append("run"))

    def report(path: str, content: dict) -> None:
        order.append((Path(path).name, content["error"]))

    predict_files(mask_card, [lacking, film], tmp_path / "none", dicom_seg=True, on_prediction=report)
    messages = [
        ("lacking.dcm", f"{lacking}: has no StudyInstanceUID, which a DICOM SEG must refer to"),
        ("film.png", f"{film}: is not a DICOM file; a DICOM SEG must refer to a DICOM image"),
    ]
    assert order == messages, "no weight was loaded"
    lines = [json.loads(line) for line in (tmp_path / "none" / RESULTS).read_text().splitlines()]
    assert [line["image"] for line in lines] == [str(lacking), str(film)]
    monkeypatch.undo()
    results = predict_files(mask_card, [lacking, good], tmp_path / "out", dicom_seg=True)
    assert set(results[str(lacking)]) == {"error"}
    segmentation = pydicom.dcmread(results[str(good)]["dicom_seg"])
    names = [segment.SegmentLabel for segment in segmentation.SegmentSequence]
    predicted = [name for name, share in results[str(good)]["share of the image"].items() if share]
    assert sorted(name.split(": ")[1] for name in names) == sorted(predicted) != []


def test_a_segmentation_of_a_card_without_masks_is_refused(card, tmp_path):
    with pytest.raises(CardError, match="is a NearlClip, which makes no masks; leave out --dicom-seg"):
        predict_files(card, [_dicom(tmp_path / "a.dcm")], tmp_path / "out", dicom_seg=True)
    with pytest.raises(CardError, match="does not answer questions"):
        predict_files(card, [_dicom(tmp_path / "a.dcm")], tmp_path / "out", question="Where?")
