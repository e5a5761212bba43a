"""Early stopping, the best checkpoint and the average of the weights: they do what they say, and survive a kill."""

import json
import random

import pytest
import torch
from safetensors.torch import load_file

from tests.killing import train_and_kill
from tests.small_recipes import make_folder, write_recipe
from zoo.config.building import check_recipe
from zoo.config.recipe import RecipeError, read_recipe
from zoo.engine import trainers
from zoo.engine.callbacks import MonitorError
from zoo.engine.publishing import publish
from zoo.engine.strategies import StrategyError, check_strategy
from zoo.engine.training import read_log, train
from zoo.methods.base import ZooModule

BEST = "{name: best_checkpoint, monitor: val_accuracy, mode: max}"


def setting(*callbacks: str) -> str:
    return f"trainer.callbacks=[{', '.join(callbacks)}]"


def weights(run):
    return load_file(run / "model.safetensors")


def checkpoint(run, name="last"):
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def summary(run):
    return json.loads((run / "summary.json").read_text())


def test_early_stopping_stops(tiny_recipe, tmp_path):
    stop = "{name: early_stopping, monitor: val_accuracy, mode: max, patience: 2, min_delta: 1.0}"
    run = train(read_recipe(tiny_recipe, ["trainer.max_epochs=20", setting(stop)]), tmp_path / "run")
    epochs = read_log(run)["val_accuracy"].dropna()
    assert len(epochs) == 3, "the first is an improvement, the second and third are none"
    assert summary(run)["steps"] == 3 * 9 and "weights" not in summary(run)


def test_the_best_checkpoint_is_kept_and_used(tiny_recipe, tmp_path):
    """The loss of an epoch's last step goes up and down."""
    least = "{name: best_checkpoint, monitor: train_loss}"
    run = train(read_recipe(tiny_recipe, ["trainer.max_epochs=4", setting(least)]), tmp_path / "run")
    log = read_log(run)
    values = [float(log.train_loss[log.step == step].iloc[0]) for step in (8, 17, 26, 35)]
    assert min(values) < values[-1], "it was to be an early one"
    best = checkpoint(run, "best")
    assert best["global_step"] == 9 * (1 + values.index(min(values)))
    assert all(torch.equal(value, best["state_dict"][name]) for name, value in weights(run).items())
    assert any(not torch.equal(value, checkpoint(run)["state_dict"][name]) for name, value in weights(run).items())
    assert summary(run)["weights"] == f"best train_loss ({min(values):.4f}), of step {best['global_step']}"
    last = setting(least.replace("}", ", restore: false}"))
    kept = train(read_recipe(tiny_recipe, ["trainer.max_epochs=4", last]), tmp_path / "kept")
    assert (kept / "checkpoints" / "best.ckpt").is_file() and "weights" not in summary(kept)
    assert all(torch.equal(value, checkpoint(kept)["state_dict"][name]) for name, value in weights(kept).items())


def test_the_average_is_that_of_the_steps(tiny_recipe, tmp_path, monkeypatch):
    steps = []
    on_after_step = ZooModule.on_train_batch_end
    trained = {}

    def recorded(self, *args):
        steps.append({name: value.clone() for name, value in self.trained_state().items()})
        trained.update(names=[name for name, value in self.named_parameters() if not value.requires_grad])
        return on_after_step(self, *args)

    monkeypatch.setattr(ZooModule, "on_train_batch_end", recorded, raising=False)
    run = train(read_recipe(tiny_recipe, [setting("{name: ema, decay: 0.5}")]), tmp_path / "run")
    expected = steps[0]
    for step in steps[1:]:
        expected = {name: 0.5 * value + 0.5 * step[name] for name, value in expected.items()}
    for name, value in weights(run).items():
        assert torch.allclose(value, expected[name], atol=1e-6), name
        assert not torch.equal(value, steps[-1][name]) or not value.any()
    last = checkpoint(run)
    assert all(torch.equal(value, last["state_dict"][name]) for name, value in weights(run).items())
    assert last["current_model_state"].keys() == last["state_dict"].keys(), "no frozen weight is saved"
    assert trained["names"] and not set(trained["names"]) & last["state_dict"].keys()
    assert summary(run)["weights"] == "exponential moving average (decay 0.5)"
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "cards"))
    card = publish(run, "averaged", license="mit")
    assert "the weights are the exponential moving average (decay 0.5)" in (card / "README.md").read_text()


def test_validation_measures_the_average(tiny_recipe, tmp_path):
    """With an average that stays at the first step, validation does not move, however the weights do."""
    run = train(
        read_recipe(tiny_recipe, [setting("{name: ema, decay: 0.9999999}"), "trainer.max_epochs=5"]), tmp_path / "run"
    )
    log = read_log(run)
    assert len(set(log["val_auroc"].dropna().round(6))) == 1 and log["train_loss"].dropna().nunique() > 5


def test_a_killed_run_resumes_with_the_state_of_its_callbacks(tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(trainers, "CHECKPOINT_EVERY", 1)
    stop = "{name: early_stopping, monitor: val_accuracy, mode: max, patience: 3, min_delta: 0.5}"
    names = [setting("{name: ema, decay: 0.8}", stop, BEST), "trainer.max_epochs=30"]
    recipe = read_recipe(tiny_recipe, names)
    whole = train(recipe, tmp_path / "whole")
    steps = summary(whole)["steps"]
    assert 9 < steps < 9 * 30, "it was to stop early"
    for step in random.Random(0).sample(range(2, steps), 2):
        killed = tmp_path / f"killed{step}"
        train_and_kill(step, recipe, killed)
        train(recipe, killed, resume=True)
        assert summary(killed)["steps"] == steps and summary(killed)["weights"] == summary(whole)["weights"]
        assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(killed).items())
        for name, value in checkpoint(whole)["current_model_state"].items():
            assert torch.equal(checkpoint(killed)["current_model_state"][name], value), name


def test_a_complete_run_that_is_resumed_ends_with_the_same_weights(tiny_recipe, tmp_path):
    stop = "{name: early_stopping, monitor: val_accuracy, mode: max, patience: 1, min_delta: 1.0}"
    recipe = read_recipe(tiny_recipe, [setting("{name: ema, decay: 0.8}", stop), "trainer.max_epochs=9"])
    run = train(recipe, tmp_path / "run")
    before, steps = weights(run), summary(run)["steps"]
    (run / "model.safetensors").unlink()  # as if it was killed before the end
    train(recipe, run, resume=True)
    assert summary(run)["steps"] == steps == 18
    assert all(torch.equal(value, before[name]) for name, value in weights(run).items())


def test_what_trains_nothing_has_no_average(tiny_recipe, tmp_path):
    recipe = read_recipe(tiny_recipe, [setting("ema")])
    method = {"name": "clip_adaptation", "clip": recipe["method"]["clip"], "adapter": {"name": "zero_shot"}}
    run = train(recipe.with_content(method=method), tmp_path / "run")
    assert summary(run)["steps"] == 0 and "weights" not in summary(run)


@pytest.mark.parametrize("metric", ["val_acuracy", "train_los"])
def test_a_metric_that_is_not_measured_is_refused(tiny_recipe, tmp_path, metric):
    stop = f"{{name: early_stopping, monitor: {metric}}}"
    with pytest.raises(MonitorError, match=rf"monitors {metric}, which is not measured; did you mean .*{metric[:5]}"):
        train(read_recipe(tiny_recipe, [setting(stop)]), tmp_path / "run")


def test_a_loss_that_is_not_measured_is_refused_after_a_step(tmp_path):
    folder = make_folder(tmp_path)
    recipe = write_recipe(folder, "medseg_r causal_lm unet")
    with pytest.raises(MonitorError, match=r"monitors val_dise, which is not measured; did you mean .*val_dice"):
        train(read_recipe(recipe, [setting("{name: early_stopping, monitor: val_dise}")]), tmp_path / "run")
    run = train(read_recipe(recipe, [setting("early_stopping", "best_checkpoint", "ema")]), tmp_path / "good")
    assert summary(run)["weights"].startswith("exponential moving average (decay 0.999), best val_loss (")


@pytest.mark.parametrize("never", ["trainer.limit_val_batches=0", "trainer.check_val_every_n_epoch=3"])
def test_monitoring_without_validation_is_refused(tiny_recipe, tmp_path, never):
    with pytest.raises(MonitorError, match="nothing is validated"):
        train(read_recipe(tiny_recipe, [setting(BEST), never]), tmp_path / "run")


@pytest.mark.parametrize(
    ("callbacks", "key", "message"),
    [
        ("[early_stoping]", "trainer.callbacks.0.name", "did you mean early_stopping"),
        ("[{name: ema, decay: 1.0}]", "trainer.callbacks.0.decay", "less than 1"),
        ("[{name: early_stopping, mode: up}]", "trainer.callbacks.0.mode", "'min' or 'max'"),
        ("[ema, ema]", "trainer.callbacks.1", "names ema a second time"),
        ("{name: early_stopping, patience: 0}", "trainer.callbacks.patience", "greater than or equal to 1"),
        ("[3]", "trainer.callbacks.0", "is not a component"),
        ("[lightning.pytorch.callbacks.Timer]", "trainer.callbacks.0.name", "no callback is named"),
    ],
)
def test_unknown_callbacks_are_found_by_check(tiny_recipe, callbacks, key, message):
    with pytest.raises(RecipeError) as caught:
        check_recipe(read_recipe(tiny_recipe, [f"trainer.callbacks={callbacks}"]))
    (problem,) = caught.value.problems
    assert problem.key == key and message in problem.message


@pytest.mark.parametrize(
    ("strategy", "name"), [("fsdp2", "ema"), ("deepspeed_stage_2", "ema"), ("deepspeed_stage_3", "best_checkpoint")]
)
def test_strategies_that_hold_shards_refuse_them_by_name(tiny_recipe, strategy, name):
    with pytest.raises(StrategyError, match=f"{strategy} does not support the callback {name}"):
        check_strategy(read_recipe(tiny_recipe, [f"trainer.strategy={strategy}", setting(name)]))
