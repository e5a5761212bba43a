"""Loggers of a run, by name: ``trainer.logger`` in a recipe. The run's own record, ``logs/``, is written beside any of them."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated
from uuid import uuid4

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from zoo.config.building import trainer_components
from zoo.config.recipe import Recipe
from zoo.errors import ZooError
from zoo.registry import Injected, register

Out = Annotated[Path, Injected]
PACKAGES = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
}
"""Packages of a logger, of which it needs one."""


class MissingLoggerError(ZooError, ImportError):
    """A logger whose package is not installed."""


class LoggerError(ZooError, RuntimeError):
    """A logger that cannot start."""


@register("logger", "csv")
def csv_logger(out: Out) -> Logger:
    """Tables, ``RUN/logs/version_N/metrics.csv``: the record that every run keeps; a resumed one writes the next version.

    Args:
        out: the run folder.
    """
    return CSVLogger(out, name="logs", flush_logs_every_n_steps=10)


@register("logger", "tensorboard")
def tensorboard_logger(out: Out) -> Logger:
    """TensorBoard's event files, ``RUN/tensorboard``: ``tensorboard --logdir RUN``; a resumed run adds to them.

    Args:
        out: the run folder.
    """
    return TensorBoardLogger(out, name="tensorboard", version="", default_hp_metric=False)


@register("logger", "wandb")
def wandb_logger(out: Out, project: str = "medvl-zoo", entity: str | None = None, offline: bool = False) -> Logger:
    """Weights & Biases, under the account that ``wandb login`` has set; a resumed run goes on in the same one.

    Args:
        out: the run folder.
        project: that the run belongs to.
        entity: account or team; the default one if None.
        offline: keep everything in ``RUN/wandb``, for ``wandb sync``.
    """
    identifier = _identifier(out)
    return WandbLogger(
        name=out.name,
        save_dir=out,
        project=project,
        entity=entity,
        offline=offline,
        id=identifier,
        resume=None if offline else "allow",
    )


@register("logger", "mlflow")
def mlflow_logger(out: Out, experiment: str = "medvl-zoo", tracking_uri: str | None = None) -> Logger:
    """MLflow; a resumed run is a new one of the same name.

    Args:
        out: the run folder.
        experiment: that the run belongs to.
        tracking_uri: of a server or database; ``RUN/mlflow.db`` if None.
    """
    uri = tracking_uri or f"sqlite:///{(out / 'mlflow.db').absolute()}"
    return MLFlowLogger(experiment_name=experiment, run_name=out.name, tracking_uri=uri)


def missing_package(name: str) -> str | None:
    """What to install for a logger, as the end of a sentence; None if nothing is missing."""
    packages = PACKAGES.get(name, ())
    if not packages or any(find_spec(package) for package in packages):
        return None
    return f"needs the package {packages[0]}: pip install {packages[0]}"


def build_loggers(recipe: Recipe, out: Path) -> list[Logger]:
    """The loggers of a recipe, after the run's own.

    Raises:
        MissingLoggerError: the package of one is not installed.
    """
    components = [item for item in trainer_components(recipe, "logger") if item.name != "csv"]
    for component in components:
        if message := missing_package(component.name):
            raise MissingLoggerError(f"logger {component.name} {message}")
    return [csv_logger(out), *(component.build(out=out) for component in components)]


def start_loggers(loggers: Sequence[object]) -> None:
    """Let loggers of services connect now, on the first process, rather than in the middle of a training.

    Raises:
        LoggerError: one cannot, for want of a login or a server.
    """
    for logger in loggers:
        try:
            _ = logger.experiment if isinstance(logger, WandbLogger | MLFlowLogger) else None
        except Exception as error:  # each package has its own
            name = type(logger).__name__.removesuffix("Logger").lower()
            raise LoggerError(f"logger {name} cannot start: {error}") from error


def _identifier(out: Path) -> str:
    """A name of a run that no other has, kept in its folder."""
    file = out / ".wandb_id"
    if not file.is_file():
        out.mkdir(parents=True, exist_ok=True)
        file.write_text(uuid4().hex[:12], encoding="ascii")
    return file.read_text(encoding="ascii")
