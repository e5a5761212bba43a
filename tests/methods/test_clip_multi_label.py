"""A pair of prompts for each label: the loss over known targets, and what cannot be trained so."""

import math

import pytest
import torch

from tests.data.annotations.public_forms import label_table
from tests.small_recipes import RECIPES, SMALL_CLIP, write_recipe
from zoo.config.recipe import read_recipe
from zoo.engine.assembly import Assembly, assemble
from zoo.engine.evaluation import evaluate, open_evaluation
from zoo.engine.training import train
from zoo.errors import ArgumentError


@pytest.fixture
def assembly(tmp_path) -> Assembly:
    label_table(tmp_path / "labels")
    return assemble(read_recipe(write_recipe(tmp_path, "clip_multi_label")))


def test_a_logit_is_that_of_the_label_less_that_of_its_denial(assembly):
    method = assembly.method
    images = torch.rand(2, 3, 32, 32)
    prompts = ["a medical image of effusion.", "a medical image of no effusion."]
    method.eval()
    with torch.no_grad():
        stated, denied = method.clip.logits(method.clip.encode_image(images), method.clip.encode_text(prompts)).T
        assert torch.allclose(method(images)[:, 0], stated - denied, atol=1e-4)
    assert method.class_names == ["effusion", "edema"]


def test_the_loss_is_bce_over_what_is_known(assembly):
    method, images = assembly.method.eval(), torch.rand(2, 3, 32, 32)
    targets = torch.tensor([[1.0, float("nan")], [0.0, float("nan")]])
    with torch.no_grad():
        probability = method(images).sigmoid()[:, 0]
        expected = -(probability[0].log() + (1 - probability[1]).log()) / 2
        assert method.losses({"image": images, "labels": targets})["loss"].item() == pytest.approx(
            expected.item(), rel=1e-4
        )
        nothing = method.losses({"image": images, "labels": torch.full((2, 2), float("nan"))})["loss"]
    assert nothing == 0.0


def test_trained_evaluated_and_predicted(tmp_path):
    label_table(tmp_path / "labels")
    run = train(read_recipe(write_recipe(tmp_path, "clip_multi_label")), tmp_path / "run")
    measured = evaluate(open_evaluation(run), progress=False)
    assert {"auroc", "map", "macro_f1", "auroc_effusion", "auroc_edema"} == set(measured)
    assert all(math.isfinite(metric.value) for metric in measured.values())
    prediction = open_evaluation(run).method.predict_image(torch.rand(1, 40, 30))
    assert set(prediction.to_dict()["findings"]) == {"effusion", "edema"}


@pytest.mark.parametrize("adapter", ["tip_adapter", "kgcoop", "prograd", "lp_plus_plus"])
def test_adapters_that_need_one_class_each_are_refused(adapter, tmp_path):
    label_table(tmp_path / "labels")
    settings = [f"method.adapter={{name: {adapter}}}"]
    with pytest.raises(ArgumentError, match="needs images of one class each; use another adapter"):
        assemble(read_recipe(write_recipe(tmp_path, "clip_multi_label"), settings))


def test_a_denial_has_a_place_for_the_name(tmp_path):
    label_table(tmp_path / "labels")
    with pytest.raises(ArgumentError, match="denial is 'normal'; it needs {}"):
        assemble(read_recipe(write_recipe(tmp_path, "clip_multi_label"), ["method.denial=normal"]))
    assert "clip_multi_label" in RECIPES and SMALL_CLIP
