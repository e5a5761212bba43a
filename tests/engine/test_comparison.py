"""Comparisons: runs are reused, and those of another recipe refused."""

import pytest

from zoo.engine.comparison import compare
from zoo.engine.training import RunError
from zoo.errors import ArgumentError

ONE_EPOCH = ["trainer.max_epochs=1"]


def test_a_finished_run_is_reused_and_one_of_other_settings_refused(tiny_recipe, tmp_path):
    (row,) = compare([str(tiny_recipe)], tmp_path / "out", shots=[2], seeds=[0], overrides=ONE_EPOCH, device="cpu")
    assert row.setting == "2-shot" and row.seeds == [0] and set(row.metrics) == {"accuracy", "macro_f1", "auroc"}
    (weights,) = (tmp_path / "out" / "runs").glob("*/model.safetensors")
    written = weights.stat().st_mtime_ns
    (same,) = compare([str(tiny_recipe)], tmp_path / "out", shots=[2], seeds=[0], overrides=ONE_EPOCH, device="cpu")
    assert same == row and weights.stat().st_mtime_ns == written
    with pytest.raises(RunError, match="is a run of another recipe or setting"):
        compare([str(tiny_recipe)], tmp_path / "out", shots=[2], seeds=[0], overrides=["optimizer.lr=0.5"])


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
