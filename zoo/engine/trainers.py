"""Lightning trainers for recipes: arguments, devices, precision and strategy, for training and inference."""

import io
import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from zoo.config.locations import DATA_PATHS, SOURCES
from zoo.config.recipe import COMMAND_LINE, Problem, Recipe, RecipeError, as_overrides
from zoo.config.validation import TRAINER_COMPONENTS
from zoo.engine.callbacks import build_callbacks
from zoo.engine.loggers import build_loggers
from zoo.engine.strategies import ZeroPrecision, ZeroStrategy, resolve_strategy, strategy_name
from zoo.errors import ZooError
from zoo.files import replacing
from zoo.precision import dtype_of

if TYPE_CHECKING:
    from lightning import Callback, LightningModule, Trainer
    from lightning.pytorch.plugins import CheckpointIO, Precision

CHECKPOINT_EVERY = 50
"""Steps between checkpoints."""
_INFERENCE = ("accelerator", "devices", "num_nodes", "strategy", "limit_test_batches", "limit_predict_batches")
_SHARDED = ("fsdp", "deepspeed", "model_parallel")


_EXPECTED_WARNINGS = (
    ".*ended before the epoch ended",  # the data module resumes in mid-epoch by itself, which Lightning does not know of
    "Found .* module.s. in eval mode",  # the frozen base
    ".*treespec, LeafSpec",
    ".*does not have many workers",
    ".*overridden `transfer_batch_to_device`",
    ".*configure_optimizers` returned `None`",  # a method that trains nothing
    "Checkpoint directory .* exists and is not empty",  # that of the run that is resumed
    ".*callbacks used to create the checkpoint need to be provided",
)


class DeviceError(ZooError, ValueError):
    """A device that this machine does not have, or an unknown name."""


def is_first_process() -> bool:
    """Whether this process has rank 0, which writes and prints."""
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    return bool(rank_zero_only.rank == 0)  # type: ignore[attr-defined]


def frozen_base_precision(precision: str) -> "Precision":
    """Lightning's precision "bf16-true" or "16-true" for methods of the zoo.

    The frozen base is cast, trained weights stay float32, and the method itself autocasts; images and masks of a batch stay
    as they are. (Lightning's own plugin, with which ``Trainer.fit`` works too, rounds them.)
    """
    from lightning.pytorch.plugins import Precision

    class FrozenBasePrecision(Precision):
        def convert_module(self, module: torch.nn.Module) -> torch.nn.Module:
            return module.to(dtype=dtype_of(precision))

    plugin = FrozenBasePrecision()
    plugin.precision = precision  # type: ignore[assignment]
    return plugin


def check_settings(settings: Sequence[str]) -> None:
    """Refuse overrides of a card's or run's recipe that change its model.

    Its trainer may be changed, the place of its data, and the source of its base, whose fingerprint is checked.

    Raises:
        RecipeError: naming the refused ones.
    """

    def is_allowed(item: str) -> bool:
        key = item.partition("=")[0]
        places = {"method": SOURCES, "data": DATA_PATHS}.get(key.split(".")[0], ())
        return key.startswith("trainer.") or ("." in key and key.split(".")[-1] in places)

    message = "only trainer.*, the place of the data and the sources of weights can be changed here"
    problems = [Problem(COMMAND_LINE, item, message) for item in as_overrides(settings) if not is_allowed(item)]
    if problems:
        raise RecipeError(problems)


def ignore_expected_warnings() -> None:
    """Silence Lightning's tips, and warnings about what the zoo does on purpose."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for expected in _EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=expected)


def _progress_bar() -> "Callback":
    """A progress bar on standard error, since standard output is for results.

    Epochs count from 1, as ``max_epochs`` does, and the logger's version is not shown among the metrics.
    """
    from lightning.pytorch.callbacks import RichProgressBar

    class ProgressBar(RichProgressBar):
        def _get_train_description(self, current_epoch: int) -> str:
            of = f"/{self.trainer.max_epochs}" if (self.trainer.max_epochs or -1) > 0 else ""
            return f"Epoch {current_epoch + 1}{of}".ljust(len(self.validation_description))

        def get_metrics(self, trainer: "Trainer", pl_module: "LightningModule") -> dict[str, Any]:
            return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}

    return ProgressBar(console_kwargs={"stderr": True})


def training_arguments(recipe: Recipe, out: Path) -> dict[str, Any]:
    """Lightning's arguments for training: the recipe's on top of what every run needs."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    ignore_expected_warnings()
    settings = {name: value for name, value in (recipe["trainer"] or {}).items() if name not in TRAINER_COMPONENTS}
    progress = settings.get("enable_progress_bar", True)
    options: dict[str, Any] = {"dirpath": out / "checkpoints", "filename": "last", "enable_version_counter": False}
    checkpoints = [
        ModelCheckpoint(every_n_train_steps=CHECKPOINT_EVERY, **options),
        ModelCheckpoint(every_n_epochs=1, save_on_train_epoch_end=True, **options),
    ]
    arguments = {
        "default_root_dir": out,
        "logger": build_loggers(recipe, out),
        # the last checkpoint after the recipe's callbacks, so that it holds their state
        "callbacks": [*build_callbacks(recipe, out), *checkpoints, *([_progress_bar()] if progress else [])],
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "use_distributed_sampler": False,
        "enable_model_summary": False,
        **settings,
    }
    arguments["strategy"] = resolve_strategy(strategy_name(recipe))
    if not strategy_name(recipe).startswith(_SHARDED):  # those write a folder of shards by themselves
        arguments["plugins"] = [*(arguments.get("plugins") or []), atomic_checkpoints()]
    return _with_precision(arguments)


def atomic_checkpoints() -> "CheckpointIO":
    """Lightning's writer of checkpoints, but beside the last one, which stays where the disk is full or the process is killed.

    Its own writes into the folder for temporary files, and copies from there over the last checkpoint where that is on another disk.
    """
    from lightning.pytorch.plugins import TorchCheckpointIO

    class AtomicCheckpoints(TorchCheckpointIO):
        def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
            file = Path(path)
            file.parent.mkdir(parents=True, exist_ok=True)
            content = io.BytesIO()  # torch.save reports a full disk as an internal error
            torch.save(checkpoint, content)
            with replacing(file) as partial:
                partial.write_bytes(content.getbuffer())

    return AtomicCheckpoints()


def build_trainer(arguments: dict[str, Any]) -> "Trainer":
    """Build a trainer.

    Raises:
        DeviceError: Lightning cannot build it here, for a missing GPU for example.
    """
    from lightning import Trainer
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    accelerator = str(arguments.get("accelerator", "auto"))
    is_here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    is_here["gpu"] = any(is_here.values())
    if not is_here.get(accelerator, True):
        raise DeviceError(
            f"trainer.accelerator is {accelerator}, and this machine has no such device that torch {torch.__version__} can use; "
            "set trainer.accelerator=auto, or cpu"
        )
    try:
        return Trainer(**arguments)
    except (MisconfigurationException, ValueError) as error:
        raise DeviceError(str(error).splitlines()[0]) from error


def inference_trainer(recipe: Recipe, device: str = "auto", *, progress: bool = True, **options: Any) -> "Trainer":
    """A trainer for testing and prediction with a recipe's devices and strategy.

    Weights compute in the precision in which they are stored; "bf16-mixed" counts only as an override on the command
    line, so that a published metric does not depend on the processor. Sharded strategies become ddp: answers differ in
    length, and processes that share weights would wait for one another.

    Args:
        recipe: whose ``trainer`` section is followed.
        device: "auto", or "cpu", "cuda", "cuda:1", "mps" in place of the recipe's.
        progress: show a progress bar.
        options: more arguments of the trainer.

    Raises:
        DeviceError: this machine has no such device.
    """
    ignore_expected_warnings()
    progress = progress and sys.stderr.isatty()
    settings = recipe["trainer"] or {}
    arguments: dict[str, Any] = {key: settings[key] for key in _INFERENCE if key in settings}
    precision = str(settings.get("precision", "32-true"))
    is_override = recipe.origin("trainer.precision") == COMMAND_LINE
    if precision.endswith("-true") or is_override:
        arguments["precision"] = precision
    if str(arguments.get("strategy", "")).startswith(_SHARDED):
        arguments["strategy"] = "ddp"
    arguments |= _device_arguments(arguments, device)
    arguments |= {
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "inference_mode": False,
        "enable_progress_bar": progress,
        **options,
    }
    if progress:
        arguments["callbacks"] = [*arguments.get("callbacks", []), _progress_bar()]
    return build_trainer(_with_precision(arguments))


def check_device(device: str) -> None:
    """Check a ``--device`` before anything is trained or loaded for it.

    Raises:
        DeviceError: this machine has no such device.
    """
    if device != "auto":
        _named_device(device)


def _device_arguments(arguments: Mapping[str, Any], device: str) -> dict[str, Any]:
    if device != "auto":
        return _named_device(device)
    accelerator = str(arguments.get("accelerator", "auto"))
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        accelerator = "auto"
    devices = arguments.get("devices", 1)
    if isinstance(devices, int) and devices > 1 and torch.cuda.is_available() and accelerator != "cpu":
        devices = min(devices, torch.cuda.device_count())
    elif isinstance(devices, int) and devices > 1 and accelerator == "auto":
        devices = 1
    return {"accelerator": accelerator, "devices": devices}


def _named_device(device: str) -> dict[str, Any]:
    name, _, index = device.partition(":")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name not in available or (index and (name != "cuda" or not index.isdigit())):
        raise DeviceError(f"unknown device '{device}'; expected auto, cpu, cuda, cuda:N or mps")
    if not available[name]:
        raise DeviceError(f"no {name} device on this machine; use --device cpu or auto")
    if name == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise DeviceError(f"no {device} on this machine, which has {torch.cuda.device_count()} CUDA devices")
    return {"accelerator": name, "devices": [int(index)] if index and name == "cuda" else 1, "strategy": "auto"}


def _with_precision(arguments: dict[str, Any]) -> dict[str, Any]:
    precision = str(arguments.get("precision", "32-true"))
    if isinstance(arguments.get("strategy"), ZeroStrategy):
        plugin: Precision = ZeroPrecision(precision)  # type: ignore[arg-type]
    elif precision in ("bf16-true", "16-true"):
        plugin = frozen_base_precision(precision)
    else:
        return arguments
    rest = {key: value for key, value in arguments.items() if key != "precision"}
    return {**rest, "plugins": [*(rest.get("plugins") or []), plugin]}
