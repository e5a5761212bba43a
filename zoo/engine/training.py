"""Training runs: a folder with the resolved recipe, the environment, checkpoints, curves and trained weights."""

import json
import platform
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock, Timeout

from zoo.config.recipe import COMMAND_LINE, Recipe, read_recipe
from zoo.engine.assembly import Assembly, assemble
from zoo.engine.callbacks import check_monitors, final_weights
from zoo.engine.loggers import start_loggers
from zoo.engine.strategies import check_strategy, gather_trained_state
from zoo.engine.trainers import CHECKPOINT_EVERY, build_trainer, is_first_process, training_arguments
from zoo.errors import WriteError, ZooError
from zoo.files import replacing
from zoo.finite import NonFiniteError, nonfinite_names
from zoo.paths import PACKAGE, recipes_folder
from zoo.precision import float32_attention
from zoo.visualization.curves import plot_curves

if TYPE_CHECKING:
    import pandas
    from lightning import Trainer

_PACKAGES = (
    "lightning torch torchvision timm open_clip_torch transformers segmentation-models-pytorch torchmetrics omegaconf "
    "safetensors peft numpy"
).split()
_PLACEMENT = ("accelerator", "devices", "num_nodes", "strategy", "accumulate_grad_batches")
_TRIAL = ("fast_dev_run", "overfit_batches")
_STEP_LIMITS = ("max_epochs", "max_steps", "max_time", "limit_train_batches")


class RunError(ZooError, RuntimeError):
    """A run folder that is taken, or that has nothing to resume."""


class InterruptedRunError(RunError):
    """Training that a signal has stopped: whoever trains several runs does not go on with the next."""


def train(recipe: Recipe | str | Path, out: str | Path | None = None, *, resume: bool = False) -> Path:
    """Train a recipe into the folder ``out``.

    With ``resume`` an interrupted run continues from its last checkpoint, even in mid-epoch, and ends with the weights
    of an uninterrupted one.

    Args:
        recipe: as read, or its name or file.
        out: the run folder; :func:`default_run_folder` if None.
        resume: continue an interrupted run.

    Returns:
        The run folder.

    Raises:
        RecipeError: the recipe does not fit the registries.
        StrategyError: its strategy is not available here.
        DeviceError: its devices are not available here.
        MonitorError: a callback monitors what is not measured.
        MissingLoggerError, LoggerError: a logger is not installed, or cannot start.
        RunError: ``out`` holds a run and ``resume`` is off, holds other files, has no run of this recipe to resume, or another
            training runs in it; there was nothing to train on; the disk is full.
        InterruptedRunError: a signal stopped the training.
    """
    from lightning import seed_everything

    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    out = default_run_folder(recipe) if out is None else Path(out)
    check_strategy(recipe)
    seed_everything(recipe["seed"], workers=True, verbose=False)
    is_first = is_first_process()  # under ddp it launches the others once the folder is claimed
    with _claimed(out, resume) if is_first else nullcontext():
        return _train(recipe, out, resume, is_first)


def _train(recipe: Recipe, out: Path, resume: bool, is_first: bool) -> Path:
    trainer = build_trainer(training_arguments(recipe, out))  # before weights are loaded, so that it fails early
    assembly = assemble(recipe)
    method, data = assembly.method, assembly.data
    if is_first:
        _write_record(assembly, out, resume)
        method.base_fingerprint()  # of the stored weights, before they are sharded
    check_monitors(trainer, method, data)
    start_loggers(trainer.loggers)
    start = time.monotonic()
    if trainer.strategy.root_device.type == "cpu":
        warn_of_slow_half_precision(str((recipe["trainer"] or {}).get("precision", "")))
    with _explained_interruptions(trainer, out), float32_attention():
        trainer.fit(method, datamodule=data, ckpt_path=last_checkpoint(out) if resume else None, weights_only=True)
    if not trainer.global_step and any(parameter.requires_grad for parameter in method.parameters()):
        samples = len(data.split("train"))  # type: ignore[arg-type]
        raise RunError(f"no training step was run: the training split has {samples} samples{_limits(recipe)}")
    weights = gather_trained_state(trainer.strategy, method)
    if trainer.is_global_zero:
        weights, which = final_weights(trainer, weights)
        with _explained_interruptions(trainer, out):
            save_weights(weights, out / "model.safetensors")
        summary = {
            "steps": trainer.global_step,
            "seconds": round(time.monotonic() - start, 1),
            "base_fingerprint": method.base_fingerprint(),
            **({"weights": which} if which else {}),
            **({"trial": trial} if (trial := trial_settings(recipe)) else {}),
        }
        (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        plot_curves(read_log(out), out / "curves.png")
    trainer.strategy.barrier("saved")
    return out


@contextmanager
def _explained_interruptions(trainer: "Trainer", out: Path) -> Iterator[None]:
    """Errors that say how to go on, for what stops a good training: a signal, or a full disk."""
    try:
        yield
    except SystemExit:  # Lightning's end of a training that SIGINT or SIGTERM interrupts
        if trainer.interrupted:
            raise InterruptedRunError(f"interrupted at step {trainer.global_step}; {_how_to_go_on(out)}") from None
        raise
    except OSError as error:
        if isinstance(error, ZooError):
            raise
        raise RunError(f"stopped at step {trainer.global_step}: {error}; {_how_to_go_on(out)}") from error


def _how_to_go_on(out: Path) -> str:
    if (out / "checkpoints" / "last.ckpt").exists():
        return "its last checkpoint is kept: repeat the command with --resume"
    return f"no checkpoint was written yet (there is one every {CHECKPOINT_EVERY} steps): repeat the command"


def trial_settings(recipe: Recipe) -> list[str]:
    """Settings with which a run only tries its recipe, or is measured on a part of its split; it cannot be published."""
    trainer = recipe["trainer"] or {}

    def is_all(value: Any) -> bool:
        return value is None or (isinstance(value, float) and value == 1.0)  # 1 is one batch

    trial = [name for name in _TRIAL if trainer.get(name)]
    trial += [name for name in ("limit_test_batches",) if not is_all(trainer.get(name))]
    return [f"trainer.{name}={trainer[name]}" for name in trial]


def _limits(recipe: Recipe) -> str:
    """The settings that limit the number of steps, as the end of a message."""
    limits = [f"{name}={value}" for name, value in (recipe["trainer"] or {}).items() if name in _STEP_LIMITS]
    return f", and the recipe's trainer has {', '.join(limits)}" if limits else ""


def warn_of_slow_half_precision(precision: str) -> None:
    """Warn where this processor emulates half precision."""
    capability = torch.backends.cpu.get_cpu_capability()
    if "16" in precision and capability == "AVX2":
        warnings.warn(
            f"{precision} is emulated on this processor ({capability}), many times slower; use trainer.precision=32-true",
            stacklevel=3,
        )


def last_checkpoint(run: Path) -> Path:
    """The last checkpoint of an interrupted run: a file, or under DeepSpeed a folder.

    Raises:
        RunError: there is none.
    """
    path = run / "checkpoints" / "last.ckpt"
    if not path.exists():
        raise RunError(f"{run} has no checkpoint to resume from; train without --resume in another folder")
    return path


def save_weights(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Write safetensors atomically: a full disk leaves the previous file.

    Raises:
        NonFiniteError: a weight is not finite.
        OSError: the disk is full.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if names := nonfinite_names(weights):
        raise NonFiniteError(f"weights are not finite numbers and not saved: {', '.join(names[:3])}")
    with replacing(path) as partial:
        try:
            save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, partial)
        except SafetensorError as error:
            raise WriteError(f"{path} cannot be written: {error}") from error


def environment() -> dict[str, Any]:
    """Package versions, git revision and machine."""
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "python": platform.python_version(),
        "packages": versions,
        "git_revision": git_revision(PACKAGE),
        "device": gpu or f"CPU, {torch.get_num_threads()} threads, {platform.machine()}",
        "system": platform.system(),
    }


def git_revision(folder: Path) -> str | None:
    """The commit that a folder stands at, with "-dirty" if tracked files differ from it; None outside of git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def default_run_folder(recipe: Recipe) -> Path:
    """``runs/METHOD/NAME`` for a published recipe, ``runs/NAME`` for a file; for the record of a run, its folder.

    Raises:
        RunError: the recipe was not read from a file, so that it has no name.
    """
    files = [Path(source) for source, _ in recipe.layers if source != COMMAND_LINE]
    if not files:
        raise RunError("a recipe that is not from a file has no name for a run; give the folder, `out`")
    file = files[-1].resolve()
    if _is_record(file.parent) and file.name == "recipe.yaml":
        return files[-1].parent
    published = recipes_folder().resolve()
    return Path("runs") / (file.relative_to(published).with_suffix("") if published in file.parents else file.stem)


def _is_record(folder: Path) -> bool:
    """Whether a folder has the record of a run, finished or not."""
    return all((folder / name).is_file() for name in ("recipe.yaml", "environment.json"))


@contextmanager
def _claimed(out: Path, resume: bool) -> Iterator[None]:
    """Hold a run folder for this process alone; a process that is killed gives it back."""
    _check_folder(out, resume)
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".training.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(f"another training is running in {out}; choose another folder with --out") from None
    try:
        _check_folder(out, resume)  # again: a training may have ended meanwhile
        for left in (out / "checkpoints").glob(".*.partial"):  # by a process that was killed
            left.unlink()
        yield
    finally:
        lock.release()


def _check_folder(out: Path, resume: bool) -> None:
    if resume:
        last_checkpoint(out)
    elif any((out / name).exists() for name in ("model.safetensors", "checkpoints")):
        raise RunError(f"{out} already contains a run; resume it with --resume or choose another folder with --out")
    elif out.exists() and not _is_record(out) and (names := _visible_names(out)):
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise RunError(f"{out} is not a run and not empty: it holds {shown}; choose another folder with --out")


def _visible_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise RunError(f"{folder} is a file; choose a folder with --out")
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def _write_record(assembly: Assembly, out: Path, resume: bool) -> None:
    path = out / "recipe.yaml"
    if resume:
        previous, current = _without_placement(read_recipe(path, record=True)), _without_placement(assembly.recipe)
        if changed := sorted(_differences(previous, current)):
            raise RunError(f"the recipe differs from that of {out} in {', '.join(changed)}; resume with {path}")
        return
    path.write_text(assembly.recipe.to_yaml(), encoding="utf-8")
    (out / "environment.json").write_text(json.dumps(environment(), indent=2) + "\n", encoding="utf-8")


def _without_placement(recipe: Recipe) -> dict[str, Any]:
    """A recipe without its devices and strategy, which a resumed run may change."""
    trainer = {key: value for key, value in (recipe["trainer"] or {}).items() if key not in _PLACEMENT}
    return {**recipe.content, "trainer": trainer}


def _differences(previous: Any, current: Any, key: str = "") -> Iterator[str]:
    """Keys under which two recipes differ."""
    if isinstance(previous, dict) and isinstance(current, dict):
        for name in previous.keys() | current.keys():
            yield from _differences(previous.get(name), current.get(name), f"{key}.{name}" if key else str(name))
    elif previous != current:
        yield key


def read_log(run: Path) -> "pandas.DataFrame":
    """The log of a run by step; of steps that a resumed run repeated, the last values."""
    import pandas

    logs = sorted((run / "logs").glob("version_*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[1]))
    table = pandas.concat([pandas.read_csv(log) for log in logs] or [pandas.DataFrame({"step": []})])
    return table.groupby("step", as_index=False).last()
