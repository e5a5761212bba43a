"""Loggers by name: what they write, and what is said where their package is missing."""

import importlib.util
import sqlite3

import pytest
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger
from typer.testing import CliRunner

from zoo.cli.app import app
from zoo.config.building import check_recipe, resolve_recipe
from zoo.config.recipe import RecipeError, read_recipe
from zoo.engine import loggers
from zoo.engine.loggers import LoggerError, MissingLoggerError, missing_package, start_loggers
from zoo.engine.preflight import preflight
from zoo.engine.training import read_log, train

CHOICES = {
    "csv": "csv",
    "tensorboard": "tensorboard",
    "wandb": "{name: wandb, project: tests, offline: true}",
    "mlflow": "{name: mlflow, experiment: tests}",
}


@pytest.mark.parametrize("name", CHOICES)
def test_a_logger_writes_the_numbers_of_a_run(tiny_recipe, tmp_path, name):
    if missing := missing_package(name):
        pytest.skip(f"{name} {missing}")
    run = train(read_recipe(tiny_recipe, [f"trainer.logger=[{CHOICES[name]}]"]), tmp_path / "run")
    assert read_log(run)["train_loss"].notna().sum() == 18, "the run's own record is there in any case"
    if name == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(run / "tensorboard"))
        events.Reload()
        assert len(events.Scalars("train_loss")) == 18 and len(events.Scalars("val_accuracy")) == 2
    elif name == "wandb":
        (folder,) = (run / "wandb").glob("offline-run-*")
        assert folder.name.endswith((run / ".wandb_id").read_text()) and list(folder.glob("*.wandb"))
    elif name == "mlflow":
        with sqlite3.connect(run / "mlflow.db") as database:
            rows = database.execute("select key, count(*) from metrics group by key").fetchall()
        assert dict(rows)["train_loss"] == 18 and dict(rows)["val_accuracy"] == 2


def test_a_service_that_is_not_there_is_said_before_training(tiny_recipe, tmp_path):
    class Unreachable(MLFlowLogger):
        def __init__(self):
            pass

        @property
        def experiment(self):
            raise ConnectionError("no route to host")

    with pytest.raises(LoggerError, match="logger unreachable cannot start: no route to host"):
        start_loggers([CSVLogger(tmp_path), Unreachable()])


def test_a_missing_package_is_named_before_training(tiny_recipe, tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(loggers, "find_spec", lambda name: None if name == "wandb" else find_spec(name))
    recipe = read_recipe(tiny_recipe, ["trainer.logger=[csv, wandb]"])
    (note,) = preflight(resolve_recipe(recipe))
    assert note == "trainer.logger wandb needs the package wandb: pip install wandb"
    with pytest.raises(RecipeError, match=r"command line: trainer\.logger: wandb needs the package wandb: pip install"):
        preflight(resolve_recipe(recipe), to_run=True)
    with pytest.raises(MissingLoggerError, match="logger wandb needs the package wandb: pip install wandb"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.yaml").exists()
    done = CliRunner().invoke(app, ["train", str(tiny_recipe), "trainer.logger=wandb", "--out", str(tmp_path / "run")])
    assert done.exit_code == 1 and "pip install wandb" in done.stderr


@pytest.mark.parametrize(
    ("logger", "key", "message"),
    [
        ("tensorbord", "trainer.logger.name", "did you mean tensorboard"),
        ("true", "trainer.logger", "write {name: ..., ...} with a name of: csv, mlflow, tensorboard, wandb"),
        ("[csv, {name: wandb, projet: x}]", "trainer.logger.1.projet", "did you mean project"),
        ("[csv, csv]", "trainer.logger.1", "names csv a second time"),
    ],
)
def test_unknown_loggers_are_found_by_check(tiny_recipe, logger, key, message):
    with pytest.raises(RecipeError) as caught:
        check_recipe(read_recipe(tiny_recipe, [f"trainer.logger={logger}"]))
    (problem,) = caught.value.problems
    assert problem.key == key and message in problem.message
