"""A model is measured on the classes of the data by name, whatever their order and number."""

import csv

import numpy as np
import pytest
from PIL import Image

from zoo.cards.store import CardError
from zoo.config.recipe import read_recipe
from zoo.data.base import EmptySplitError
from zoo.engine.evaluation import collect, evaluate, open_evaluation
from zoo.engine.training import train
from zoo.errors import ZooWarning

LEVELS = {"benign": 40, "malignant": 120, "normal": 220}


def write_table(folder, name, labels, splits=("train", "val", "test"), renamed=None):
    """Six images of each class and split, whose brightness tells the class."""
    path = folder / f"{name}.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for split in splits:
            for label in labels:
                for number in range(6):
                    image = folder / f"{name}-{split}-{label}-{number}.png"
                    noise = np.random.default_rng(number).integers(-15, 15, (16, 16))
                    Image.fromarray((LEVELS[label] + noise).astype(np.uint8)).save(image)
                    writer.writerow([image.name, (renamed or {}).get(label, label), split])
    return path


def recipe(table, adapter="linear_probe"):
    size = "{name: small_clip, image_size: 16, patch_size: 8, width: 64, layers: 1, text_width: 32, text_layers: 1"
    path = table.with_suffix(f".{adapter}.yaml")
    path.write_text(
        f"seed: 0\ndata: {{name: image_csv, table: {table}, image_size: 16, batch_size: 6}}\n"
        f"method:\n  name: clip_adaptation\n  clip: {size}, embedding: 32}}\n  adapter: {{name: {adapter}}}\n"
        "optimizer: {name: adamw, lr: 0.05}\n"
        "trainer: {max_epochs: 30, accelerator: cpu, enable_progress_bar: false, check_val_every_n_epoch: 30}\n"
    )
    return read_recipe(str(path))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes")
    return train(recipe(write_table(folder, "three", LEVELS)), folder / "run")


def measured(run, table, split="test"):
    return {name: value.value for name, value in evaluate(open_evaluation(run, [f"data.table={table}"]), split).items()}


def test_the_same_names_give_the_same_numbers_in_any_order(run, tmp_path):
    expected = measured(run, write_table(tmp_path, "three", LEVELS))
    assert expected["accuracy"] > 0.9
    assert measured(run, write_table(tmp_path, "reversed", list(reversed(LEVELS)))) == expected


def test_other_names_of_the_same_number_are_refused_by_both_lists(run, tmp_path):
    table = write_table(tmp_path, "other", LEVELS, renamed={"normal": "healthy"})
    with pytest.raises(
        CardError, match=r"classes benign, malignant, normal, and the data have benign, healthy, malignant"
    ):
        open_evaluation(run, [f"data.table={table}"])


@pytest.mark.parametrize("labels", [["malignant", "normal"], ["normal"]])
def test_some_of_the_classes_are_measured_among_all_of_the_models(run, tmp_path, labels):
    """A table of the test split alone, too, without the training images of any class."""
    table = write_table(tmp_path, "some", labels, splits=["test"])
    with pytest.warns(ZooWarning, match="no image of 'benign'"):
        evaluation = open_evaluation(run, [f"data.table={table}"])
        outputs = collect(evaluation)
    assert evaluation.method.class_names == list(LEVELS) and outputs["probabilities"].shape[1] == 3
    assert float((outputs["probabilities"].argmax(dim=1) == outputs["labels"]).float().mean()) > 0.9
    with pytest.raises(EmptySplitError, match="the split 'val' has no samples"):
        collect(evaluation, "val")


def test_a_model_whose_weights_know_no_classes_takes_those_of_the_data(tmp_path):
    run = train(recipe(write_table(tmp_path, "three", LEVELS), "clip_adapter"), tmp_path / "run")
    other = write_table(tmp_path, "other", LEVELS, renamed={"normal": "healthy"})
    assert open_evaluation(run, [f"data.table={other}"]).method.class_names == ["benign", "healthy", "malignant"]
    novel = open_evaluation(run, ["data.classes=base"])
    assert novel.method.class_names == ["benign", "malignant"]
