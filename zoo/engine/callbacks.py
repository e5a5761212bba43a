"""Callbacks of a run, by name: ``trainer.callbacks`` in a recipe; Lightning's own, over the trained weights alone.

A resumed run goes on with their state: the average, the best value so far, and how long nothing was better.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from annotated_types import Interval
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from zoo.config.building import trainer_components
from zoo.config.recipe import Recipe
from zoo.data.base import ZooData
from zoo.errors import ZooError
from zoo.methods.base import LossModule, ZooModule
from zoo.ranges import NonNegativeFloat, PositiveInt
from zoo.registry import Injected, nearest, register

if TYPE_CHECKING:
    from lightning import LightningModule, Trainer

Out = Annotated[Path, Injected]
Mode = Literal["min", "max"]
Decay = Annotated[float, Interval(gt=0, lt=1)]
BEST = "best.ckpt"


class MonitorError(ZooError, ValueError):
    """A callback that monitors what the training does not measure."""


class ResumableEarlyStopping(EarlyStopping):
    """Lightning's; a run that it has stopped, and that is killed before its end, stays stopped when resumed."""

    def on_fit_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Stop where the checkpoint was already out of patience."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class BestCheckpoint(ModelCheckpoint):
    """Lightning's, in ``RUN/checkpoints/best.ckpt``.

    Args:
        restore: whether the run ends with its weights.
    """

    def __init__(self, restore: bool, **options: Any) -> None:
        """Keep one."""
        super().__init__(filename=Path(BEST).stem, save_top_k=1, enable_version_counter=False, **options)
        self.restore = restore


class TrainedWeightAverage(EMAWeightAveraging):
    """Lightning's exponential moving average, of trained weights alone: a frozen base is neither copied nor averaged.

    Validation measures the average, and checkpoints hold it as their weights. Buffers of floating-point numbers that are trained, as
    the statistics of batch normalisation, are averaged too.
    """

    def __init__(self, decay: float) -> None:
        """Set the decay a step."""
        super().__init__(decay=decay, use_buffers=False)
        self.decay = decay
        self._saved: dict[str, torch.Tensor] | None = None
        self._saved_count = 0

    @property
    def has_averaged(self) -> bool:
        """Whether there is an average: nothing was trained otherwise."""
        return self._average_model is not None or self._saved is not None

    def setup(self, trainer: "Trainer", pl_module: "LightningModule", stage: str) -> None:
        """Nothing: trained weights are complete only when training starts."""

    def on_train_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Start from the current weights, or go on with the average of the checkpoint."""
        self._average_model = AveragedModel(_trained(pl_module), avg_fn=get_ema_avg_fn(self.decay))
        if self._saved is not None:
            _copy(self._saved, _names(self._average_model.module))
            self._average_model.n_averaged.fill_(self._saved_count)
            self._saved = None

    def on_train_batch_end(
        self, trainer: "Trainer", pl_module: "LightningModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average after a step of the optimizer."""
        super().on_train_batch_end(trainer, _trained(pl_module), outputs, batch, batch_idx)

    def on_validation_epoch_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Validate the average."""
        super().on_validation_epoch_start(trainer, _trained(pl_module))

    def on_validation_epoch_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Train on with the current weights."""
        super().on_validation_epoch_end(trainer, _trained(pl_module))

    def on_train_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """End with the average."""
        super().on_train_end(trainer, _trained(pl_module))

    def on_fit_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """A run that was complete when it was resumed ends with the average too."""
        if self._saved is not None:
            _copy(self._saved, _names(_trained(pl_module)))

    def on_save_checkpoint(self, trainer: "Trainer", pl_module: "LightningModule", checkpoint: dict[str, Any]) -> None:
        """The average as the checkpoint's weights; the current ones beside it."""
        assert isinstance(pl_module, ZooModule)
        if self._average_model is None:
            return
        current = pl_module.trained_state(checkpoint["state_dict"])
        checkpoint["current_model_state"] = current
        checkpoint["state_dict"] = {**current, **_names(self._average_model.module)}
        checkpoint["averaging_state"] = {"n_averaged": self._average_model.n_averaged.clone()}

    def on_load_checkpoint(self, trainer: "Trainer", pl_module: "LightningModule", checkpoint: dict[str, Any]) -> None:
        """Load the current weights, and keep the average for the start of the training."""
        assert isinstance(pl_module, ZooModule)
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self._saved = {name: value.clone() for name, value in checkpoint["state_dict"].items()}
        self._saved_count = int(checkpoint["averaging_state"]["n_averaged"])
        pl_module.load_trained_state(checkpoint["current_model_state"])


def _trained(method: "LightningModule") -> Any:
    """A module of a method's trained tensors, which it shares: parameters are averaged, buffers (whole numbers) are copied."""
    assert isinstance(method, ZooModule)
    view = nn.Module()
    for name, value in method.trained_state(method.state_dict(keep_vars=True)).items():
        if value.is_floating_point():
            view.register_parameter(name.replace(".", "/"), nn.Parameter(value.detach(), requires_grad=False))
        else:
            view.register_buffer(name.replace(".", "/"), value)
    return view


def _names(view: nn.Module) -> dict[str, torch.Tensor]:
    return {name.replace("/", "."): value for name, value in view.state_dict().items()}


def _copy(source: dict[str, torch.Tensor], target: dict[str, torch.Tensor]) -> None:
    for name, value in target.items():
        value.copy_(source[name])


@register("callback", "early_stopping")
def early_stopping(
    monitor: str = "val_loss", mode: Mode = "min", patience: PositiveInt = 3, min_delta: NonNegativeFloat = 0.0
) -> Callback:
    """Stop when a validation metric has not improved for a while (Lightning's EarlyStopping).

    Args:
        monitor: a logged metric, as ``val_accuracy`` or ``val_loss``.
        mode: whether less ("min") or more ("max") of it is better.
        patience: number of validations without improvement.
        min_delta: what counts as one, in the metric's units.
    """
    return ResumableEarlyStopping(monitor, mode=mode, patience=patience, min_delta=min_delta)


@register("callback", "best_checkpoint")
def best_checkpoint(out: Out, monitor: str = "val_loss", mode: Mode = "min", restore: bool = True) -> Callback:
    """Keep the checkpoint with the best validation metric, and end with its weights (Lightning's ModelCheckpoint).

    Args:
        out: the run folder.
        monitor: a logged metric, as ``val_accuracy`` or ``val_loss``.
        mode: whether less ("min") or more ("max") of it is better.
        restore: ``model.safetensors`` holds the weights of this checkpoint, not the last ones.
    """
    return BestCheckpoint(restore, dirpath=(out / "checkpoints").absolute(), monitor=monitor, mode=mode)


@register("callback", "ema")
def ema(decay: Decay = 0.999) -> Callback:
    """Exponential moving average of the trained weights, which validation measures and the run ends with (Lightning's).

    Args:
        decay: share of the average that a step keeps.
    """
    return TrainedWeightAverage(decay)


class MonitoredLosses(Callback):
    """After the first step, refuse to wait for a loss that it did not have: validation has those of a training step."""

    def __init__(self, monitors: list[str]) -> None:
        """Take what callbacks monitor."""
        self.monitors = monitors

    def on_train_batch_end(
        self, trainer: "Trainer", pl_module: "LightningModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look once.

        Raises:
            MonitorError: a loss is unknown.
        """
        losses = [name for name in trainer.callback_metrics if name.startswith("train_")]
        if isinstance(pl_module, LossModule):
            losses += [name.replace("train_", "val_", 1) for name in losses]
            self._refuse(self.monitors, losses)
        self._refuse([name for name in self.monitors if name.startswith("train_")], losses)
        self.monitors = []

    @staticmethod
    def _refuse(monitors: list[str], known: list[str]) -> None:
        if unknown := [name for name in monitors if name not in known]:
            raise MonitorError(f"a callback monitors {unknown[0]}, which is not measured{nearest(unknown[0], known)}")


def build_callbacks(recipe: Recipe, out: Path) -> list[Callback]:
    """The callbacks that a recipe names, and a check of what they monitor."""
    callbacks = [component.build(out=out) for component in trainer_components(recipe, "callbacks")]
    return [*callbacks, MonitoredLosses(_monitors(callbacks))] if _monitors(callbacks) else callbacks


def _monitors(callbacks: Sequence[Callback]) -> list[str]:
    return [str(item.monitor) for item in callbacks if isinstance(item, EarlyStopping | BestCheckpoint)]


def check_monitors(trainer: "Trainer", method: ZooModule, data: ZooData) -> None:
    """Refuse callbacks that would wait in vain, before anything trains.

    Raises:
        MonitorError: a metric is unknown, or nothing is validated.
    """
    known = [f"val_{name}" for name in method.metrics()]
    for monitor in _monitors(trainer.callbacks):  # type: ignore[attr-defined]
        if monitor.startswith("train_"):
            continue
        never = (trainer.check_val_every_n_epoch or 1) > (trainer.max_epochs or 1) > 0
        if not trainer.limit_val_batches or never or not len(data.split("val")):  # type: ignore[arg-type]
            raise MonitorError(
                f"a callback monitors {monitor}, and nothing is validated: give the data a validation split, and look at "
                "trainer.limit_val_batches and trainer.check_val_every_n_epoch"
            )
        if not isinstance(method, LossModule) and monitor not in known:
            raise MonitorError(f"a callback monitors {monitor}, which is not measured{nearest(monitor, known)}")


def final_weights(trainer: "Trainer", weights: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], str | None]:
    """The weights that a run ends with, and which those are, if they are not the last ones.

    Args:
        trainer: that has trained.
        weights: at the end.
    """
    average = next((item for item in trainer.callbacks if isinstance(item, TrainedWeightAverage)), None)  # type: ignore[attr-defined]
    averaged = f"exponential moving average (decay {average.decay:g})" if average and average.has_averaged else None
    best = next((item for item in trainer.callbacks if isinstance(item, BestCheckpoint) and item.restore), None)  # type: ignore[attr-defined]
    if best is None or best.best_model_score is None:
        return weights, averaged
    checkpoint = torch.load(Path(str(best.dirpath)) / BEST, map_location="cpu", weights_only=True)
    text = f"best {best.monitor} ({float(best.best_model_score):.4f}), of step {checkpoint['global_step']}"
    return checkpoint["state_dict"], f"{averaged}, {text}" if averaged else text
