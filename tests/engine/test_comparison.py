"""Comparisons: runs are reused, and those of another recipe refused."""

import json
from statistics import harmonic_mean

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.config.building import resolve_recipe
from zoo.config.recipe import read_recipe
from zoo.engine.assembly import build_data
from zoo.engine.baselines import MAJORITY, PIXELS, baseline_outputs
from zoo.engine.comparison import compare
from zoo.engine.trainers import DeviceError
from zoo.engine.training import InterruptedRunError, RunError
from zoo.errors import ArgumentError
from zoo.methods.base import ZooModule

ONE_EPOCH = ["trainer.max_epochs=1"]


def test_a_finished_run_is_reused_and_one_of_other_settings_refused(tiny_recipe, tmp_path):
    row, *baselines = compare(
        [str(tiny_recipe)], tmp_path / "out", shots=[2], seeds=[0], overrides=ONE_EPOCH, device="cpu"
    )
    assert row.setting == "2-shot" and row.seeds == [0] and set(row.metrics) == {"accuracy", "macro_f1", "auroc"}
    (weights,) = (tmp_path / "out" / "runs").glob("*/model.safetensors")
    written = weights.stat().st_mtime_ns
    (baseline_file,) = (tmp_path / "out" / "runs").glob("*/baselines-test.safetensors")
    computed = baseline_file.stat().st_mtime_ns
    same, *again = compare(
        [str(tiny_recipe)], tmp_path / "out", shots=[2], seeds=[0], overrides=ONE_EPOCH, device="cpu"
    )
    assert again == baselines and baseline_file.stat().st_mtime_ns == computed
    assert same == row and weights.stat().st_mtime_ns == written
    with pytest.raises(RunError, match="is a run of another recipe or setting"):
        compare([str(tiny_recipe)], tmp_path / "out", shots=[2], seeds=[0], overrides=["optimizer.lr=0.5"])


def test_baselines_learn_from_the_same_shots(tiny_recipe, tmp_path):
    recipe, out = str(tiny_recipe), tmp_path / "out"
    arguments = {"shots": [4], "seeds": [0, 1], "overrides": ONE_EPOCH, "device": "cpu"}
    rows = compare([recipe], out, **arguments)
    assert [(row.recipe, row.setting, row.baseline) for row in rows] == [
        (name, "4-shot", name != recipe) for name in (recipe, MAJORITY, PIXELS)
    ]
    by_name = {(row.recipe, row.setting): row.metrics["accuracy"] for row in rows}
    assert by_name[MAJORITY, "4-shot"].value == pytest.approx(1 / 3) and by_name[PIXELS, "4-shot"].n == 24
    accuracies = []
    for seed in (0, 1):
        data = build_data(resolve_recipe(read_recipe(recipe, ["data.shots=4", f"seed={seed}"])))
        labels = torch.tensor([item.label for item in data.split("test").items])
        probabilities = baseline_outputs(data, labels, "test")[PIXELS]["probabilities"]
        accuracies.append((probabilities.argmax(dim=1) == labels).double().mean().item())
    assert by_name[PIXELS, "4-shot"].value == pytest.approx(sum(accuracies) / 2)
    table = (out / "table.md").read_text()
    assert (
        "| baseline: raw-pixel probe | 4-shot | 2 |" in table and "| baseline: majority class | 4-shot | 2 |" in table
    )
    content = json.loads((out / "table.json").read_text())
    assert [(row["recipe"], row["baseline"]) for row in content] == [(row.recipe, row.baseline) for row in rows]
    alone = compare([recipe], out, **arguments, baselines=False)
    assert [row.recipe for row in alone] == [recipe] and "| baseline" not in (out / "table.md").read_text()


def test_differences_are_of_the_same_samples_and_seeds(tiny_recipe, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(f"base: {tiny_recipe}\noptimizer: {{lr: 0.3}}\n")
    recipes = [str(tiny_recipe), str(other)]
    arguments = {"shots": [2], "seeds": [0, 1], "overrides": ONE_EPOCH, "baselines": False, "device": "cpu"}
    first, second = compare(recipes, tmp_path / "out", **arguments, against=recipes[0])
    difference = second.metrics["accuracy_difference"]
    assert "accuracy_difference" not in first.metrics and difference.low <= difference.value <= difference.high
    own, from_first = second.metrics["accuracy"], first.metrics["accuracy"]
    assert difference.value == pytest.approx(own.value - from_first.value) and difference.n == own.n
    assert "| accuracy difference |" in (tmp_path / "out" / "table.md").read_text()
    with pytest.raises(ArgumentError, match="differences are from one of the recipes, not from coop"):
        compare(recipes, tmp_path / "out", **arguments, against="coop")
    with pytest.raises(ArgumentError, match="there are two halves"):
        compare(recipes, tmp_path / "out", **arguments, protocol="base_to_novel", against=recipes[0])


def test_an_unknown_protocol_is_refused(tiny_recipe, tmp_path):
    with pytest.raises(ArgumentError, match="unknown protocol 'few'; expected one of few_shot, base_to_novel, full"):
        compare([str(tiny_recipe)], tmp_path, protocol="few")


def test_methods_that_cannot_predict_novel_classes_are_refused_before_training(tiny_recipe, tmp_path):
    bound = tmp_path / "bound.yaml"
    clip = "{name: small_clip, image_size: 32, patch_size: 8, width: 64, layers: 2, text_width: 32, text_layers: 2}"
    bound.write_text(
        f"base: {tiny_recipe}\nmethod: {{name: clip_adaptation, clip: {clip}, adapter: {{name: linear_probe}}}}\n"
    )
    with pytest.raises(ArgumentError, match=r"bound\.yaml learn weights for the classes of training"):
        compare([str(tiny_recipe), str(bound)], tmp_path / "out", protocol="base_to_novel", seeds=[0])
    assert not (tmp_path / "out").exists()


def test_a_grid_is_chosen_on_validation_images_and_tasks_are_averaged(tiny_recipe, tmp_path):
    out, recipe = tmp_path / "out", str(tiny_recipe)
    over, grid = {"data.image_size": ["32", "40"]}, {"optimizer.lr": ["1e-9", "3e-2"], "trainer.max_epochs": ["2"]}
    *_, row, majority, probe = compare([recipe], out, shots=[1, 2], seeds=[0, 1], over=over, grid=grid, device="cpu")
    assert majority.metrics.keys() == probe.metrics.keys() == row.metrics.keys()
    grids = json.loads((out / "grid.json").read_text())[recipe]
    tried = grids["validation"]
    assert set(tried) == {"optimizer.lr=1e-9 trainer.max_epochs=2", "optimizer.lr=3e-2 trainer.max_epochs=2"}
    assert tried[grids["chosen"]] == max(tried.values())
    runs = sorted(path.name for path in (out / "runs").iterdir())
    assert len(runs) == 2 * (2 + 1) + 4  # of the grid at K = 2 and seed 0, and what is left of two K, seeds and tasks
    assert all("image_size_32" in name or "image_size_40" in name for name in runs)
    assert row.setting == "2-shot" and {"accuracy", "32", "40"} <= set(row.metrics)
    mean = (row.metrics["32"].value + row.metrics["40"].value) / 2
    assert row.metrics["accuracy"].value == pytest.approx(mean)
    assert row.metrics["accuracy"].n == row.metrics["32"].n + row.metrics["40"].n


def test_base_to_novel_over_tasks_has_both_harmonic_means(tiny_recipe, tmp_path):
    many = tmp_path / "four.yaml"
    classes = "{name: clip_adaptation, clip: {name: small_clip, image_size: 32, patch_size: 8, width: 64, layers: 2, text_width: 32, "
    classes += "text_layers: 2, embedding: 32}, adapter: {name: coop, context: 2}}"
    folder = four_classes(tmp_path / "four")
    many.write_text(f"base: {tiny_recipe}\ndata: {{folder: {folder}}}\nmethod: {classes}\n")
    over = {"data.image_size": ["32", "40"]}
    row, majority, probe = compare(
        [str(many)],
        tmp_path / "out",
        shots=[2],
        seeds=[0],
        protocol="base_to_novel",
        over=over,
        overrides=ONE_EPOCH,
        device="cpu",
    )
    assert set(majority.metrics) == set(probe.metrics) == {"base"}, "baselines know no novel class"
    assert majority.metrics["base"].value == 0.5 and probe.metrics["base"].n == row.metrics["base"].n
    base, novel, of_means, mean = (row.metrics[n] for n in ("base", "novel", "harmonic_mean", "mean_of_harmonic_means"))
    assert of_means.value == pytest.approx(harmonic_mean([base.value, novel.value]))
    assert mean.value == pytest.approx((row.metrics["32"].value + row.metrics["40"].value) / 2)
    assert of_means.n == base.n + novel.n and of_means.low <= of_means.value <= of_means.high


def test_runs_at_once_give_the_same_table(tiny_recipe, tmp_path):
    other = tiny_recipe.with_name("other.yaml")
    other.write_text(tiny_recipe.read_text())
    recipes, grid = [str(tiny_recipe), str(other)], {"optimizer.lr": ["1e-9", "3e-2"]}
    arguments = {"shots": [1, 2], "seeds": [0, 1], "overrides": ONE_EPOCH, "grid": grid, "device": "cpu"}
    at_once = compare(recipes, tmp_path / "at-once", jobs=2, **arguments)
    assert at_once == compare(recipes, tmp_path / "one-by-one", **arguments)
    outputs = [path.relative_to(tmp_path / "at-once") for path in (tmp_path / "at-once").rglob("outputs-*.safetensors")]
    assert len(outputs) >= 8 and all(
        (tmp_path / "at-once" / name).read_bytes() == (tmp_path / "one-by-one" / name).read_bytes() for name in outputs
    )
    assert json.loads((tmp_path / "at-once" / "grid.json").read_text())


def test_an_interrupted_training_stops_the_comparison(tiny_recipe, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(DeviceError, match="unknown device 'tpu'"):
        compare([str(tiny_recipe)], tmp_path / "out", device="tpu")
    monkeypatch.setattr(ZooModule, "training_step", interrupted)
    with pytest.raises(InterruptedRunError):
        compare([str(tiny_recipe)], tmp_path / "out", shots=[2], seeds=[0, 1], overrides=ONE_EPOCH, device="cpu")
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 1, "the second seed was not begun"


def four_classes(root):
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 1), ("test", 6)):
        for label in range(4):
            folder = root / split / f"class {label}"
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = np.clip(rng.normal(60 * label, 60, (32, 32)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return root
