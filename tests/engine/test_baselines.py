"""A classifier is shown beside what it must beat, and its numbers with what speaks against them."""

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.classification.image_table import ImageCsv
from zoo.engine.baselines import MAJORITY, PIXELS, baseline_outputs, classification_details
from zoo.metrics.classification import accuracy, macro_auroc, macro_f1


def over(function):
    return lambda outputs: function(outputs["probabilities"], outputs["labels"])


METRICS = {"accuracy": over(accuracy), "macro_f1": over(macro_f1), "auroc": over(macro_auroc)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Dark and bright films, twice as many dark ones, and films of random noise under a third name."""
    folder = tmp_path_factory.mktemp("films")
    lines, rng = ["path,label,split"], np.random.default_rng(0)
    for split in ("train", "test"):
        for number in range(40):
            label = ("dark", "bright", "dark", "noise")[number % 4]
            level = {"dark": 60, "bright": 190, "noise": 125}[label]
            spread = 60 if label == "noise" else 20
            pixels = rng.integers(level - spread, level + spread, (20, 20), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{split}{number}.png")
            lines.append(f"{split}{number}.png,{label},{split}")
    (folder / "table.csv").write_text("\n".join(lines))
    return ImageCsv(str(folder / "table.csv"), image_size=20, augment=True)


def outputs_of(data, predicted=None):
    labels = torch.tensor([item.label for item in data.split("test").items])
    return {"probabilities": torch.eye(3)[labels if predicted is None else predicted], "labels": labels}


def test_baselines_learn_from_the_training_images(data):
    outputs = outputs_of(data)
    baselines = baseline_outputs(data, outputs["labels"], "test")
    majority, probe = (METRICS["accuracy"](baselines[name]) for name in (MAJORITY, PIXELS))
    assert majority == 0.5 and probe > 0.9
    assert METRICS["auroc"](baselines[MAJORITY]) == 0.5
    again = baseline_outputs(data, outputs["labels"], "test")
    assert torch.equal(baselines[PIXELS]["probabilities"], again[PIXELS]["probabilities"]), "nothing is random"


def test_a_perfect_classifier_has_its_classes_with_n_and_no_doubts_but_the_probes(data):
    details = classification_details(data, METRICS, outputs_of(data), "test")
    assert [(row["class"], row["n"], row["recall"]) for row in details.classes] == [
        ("bright", 10, 1),
        ("dark", 20, 1),
        ("noise", 10, 1),
    ]
    assert details.confusion == [[10, 0, 0], [0, 20, 0], [0, 0, 10]]
    assert set(details.baselines) == {MAJORITY, PIXELS} and details.baselines[PIXELS]["accuracy"].n == 40
    assert not [note for note in details.notes if PIXELS not in note]


def test_an_answer_that_equals_the_majority_is_said(data):
    notes = classification_details(data, METRICS, outputs_of(data, torch.ones(40, dtype=torch.long)), "test").notes
    assert "every image is taken for 'dark'" in notes
    assert "the accuracy, 0.500, is no better than that of the majority class, 0.500" in notes


def test_an_auroc_below_chance_is_said(data):
    wrong = {0: 1, 1: 2, 2: 0}
    outputs = outputs_of(data)
    predicted = torch.tensor([wrong[label] for label in outputs["labels"].tolist()])
    notes = classification_details(data, METRICS, outputs_of(data, predicted), "test").notes
    assert any("is below chance" in note for note in notes)


def test_without_training_images_the_majority_is_that_of_the_split(data, tmp_path):
    folder = data.split("test").items[0].source.parent
    lines = (folder / "table.csv").read_text().splitlines()
    (tmp_path / "test.csv").write_text("\n".join([lines[0], *(line for line in lines if line.endswith(",test"))]))
    alone = ImageCsv(str(tmp_path / "test.csv"), images=str(folder), image_size=20)
    baselines = baseline_outputs(alone, outputs_of(alone)["labels"], "test")
    assert set(baselines) == {MAJORITY} and METRICS["accuracy"](baselines[MAJORITY]) == 0.5


def test_other_tasks_have_no_such_details(data):
    assert classification_details(data, METRICS, {"areas": torch.zeros(3, 4)}, "test") is None
