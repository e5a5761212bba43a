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
