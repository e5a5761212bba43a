"""Strategies that a recipe may name: Lightning's own, FSDP2 that saves as one process does, and DeepSpeed's ZeRO."""

from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

import torch
from lightning import Trainer
from lightning.fabric.plugins.collectives.torch_collective import default_pg_timeout
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins.precision.deepspeed import DeepSpeedPrecision
from lightning.pytorch.strategies import (
    DeepSpeedStrategy,
    ModelParallelStrategy,
    Strategy,
    StrategyRegistry,
)
from lightning.pytorch.trainer.states import TrainerFn

from zoo.config.building import trainer_components
from zoo.config.recipe import Recipe
from zoo.errors import ZooError
from zoo.methods.base import ZooModule
from zoo.methods.sharding import gather_state, shard_optimizer_state, shard_state_dict
from zoo.registry import nearest, registry

FSDP2 = ("fsdp", "fsdp2")
"""Names of :class:`FSDP2Strategy` in recipes."""
_FSDP1 = "fsdp_cpu_offload"


class StrategyError(ZooError, ValueError):
    """A strategy that does not exist, or that needs a package that is not installed."""


class FSDP2Strategy(ModelParallelStrategy):
    """Weights, gradients and optimizer state divided among all processes, as :meth:`ZooModule.configure_model` says.

    Checkpoints are files of whole tensors, trained weights alone: the same that one process writes, so a run resumes on
    another number of devices, or under another strategy that writes files. Works on GPUs (NCCL) and CPUs (gloo).
    """

    def __init__(
        self, process_group_backend: str | None = None, timeout: timedelta | None = default_pg_timeout
    ) -> None:
        """Set the backend; see :class:`lightning.pytorch.strategies.DDPStrategy`."""
        super().__init__(
            save_distributed_checkpoint=False, process_group_backend=process_group_backend, timeout=timeout
        )

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """False: weights are sharded before Lightning's set-up, and can be loaded then as everywhere else."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """True: by :meth:`load_optimizer_state_dict`."""
        return True

    def setup_environment(self) -> None:
        """Start the processes; data parallel only, no tensor parallelism."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Set up for training.

        Raises:
            StrategyError: the trainer tests or predicts, where processes that share weights would wait for one another:
                answers differ in length.
        """
        if trainer.state.fn in (TrainerFn.TESTING, TrainerFn.PREDICTING):
            raise StrategyError("fsdp2 trains; test and predict with strategy ddp, or on one device")
        super().setup(trainer)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The trained weights whole, on the first process; empty on the others. A collective."""
        method: Any = self.lightning_module
        return gather_state(method.trained_state(), keep=self.is_global_zero)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """An optimizer's full state, by number as torch's optimizers have it; empty but on the first process. A collective."""
        plain = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        return gather_state(plain.state_dict(), keep=self.is_global_zero)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a file that any strategy but DeepSpeed wrote; its tensors are memory-mapped."""
        restricted = weights_only is not False
        checkpoint: dict[str, Any] = torch.load(checkpoint_path, map_location="cpu", mmap=True, weights_only=restricted)
        return checkpoint

    def load_model_state_dict(self, checkpoint: Any, strict: bool = True) -> None:
        """Each process keeps its shards."""
        assert self.lightning_module is not None
        state = shard_state_dict(checkpoint["state_dict"], self.lightning_module)
        self.lightning_module.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        """Each process keeps its shards."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(shard_optimizer_state(state, optimizer))


class ZeroStrategy(DeepSpeedStrategy):
    """DeepSpeed's ZeRO (Rajbhandari et al., arXiv 1910.02054) as Lightning has it, by stage.

    The method sets precision itself (a base of two bytes, trained weights in float32), so the engine stays in
    float32 and casts nothing. A checkpoint is a folder of shards, trained weights only.
    """

    def __init__(self, **settings: Any) -> None:
        """Set the stage and offloading; see :class:`lightning.pytorch.strategies.DeepSpeedStrategy`."""
        super().__init__(**settings, exclude_frozen_parameters=True)
        assert isinstance(self.config, dict)
        self.config |= {"fp16": {"enabled": False}, "bf16": {"enabled": False}}


class ZeroPrecision(DeepSpeedPrecision):
    """Steps through DeepSpeed's engine; of all tensors only the frozen base is cast, under "bf16-true"."""

    def convert_module(self, module: torch.nn.Module) -> torch.nn.Module:
        """Hold the base in two bytes, or as it is stored."""
        return module.to(dtype=torch.bfloat16) if self.precision == "bf16-true" else module

    def convert_input(self, data: Any) -> Any:
        """Images and masks stay as they are."""
        return data

    def tensor_init_context(self) -> AbstractContextManager[None]:
        """New tensors are float32."""
        return nullcontext()


def check_strategy(recipe: Recipe) -> None:
    """Refuse a recipe's strategy that cannot run here, before any weight is loaded.

    Raises:
        StrategyError: it is unknown, FSDP1, its package is not installed, or it does not support the
            precision, a callback or the method.
    """
    name, precision = strategy_name(recipe), str((recipe["trainer"] or {}).get("precision", "32-true"))
    names = [*StrategyRegistry.available_strategies(), "auto", "fsdp2"]
    if name == _FSDP1:
        raise StrategyError(f"{name} is FSDP1, which is deprecated; use fsdp2, or deepspeed_stage_3_offload")
    if name not in names:
        raise StrategyError(f"unknown strategy '{name}'{nearest(name, names)}")
    if name in FSDP2 and precision == "16-mixed":
        raise StrategyError(f"{name} does not support precision 16-mixed; use bf16-true, bf16-mixed or 32-true")
    callbacks = {component.name for component in trainer_components(recipe, "callbacks")}
    if (name in FSDP2 or name.startswith("deepspeed")) and "ema" in callbacks:
        raise StrategyError(f"{name} does not support the callback ema: processes hold shards of the weights; use ddp")
    if name.startswith("deepspeed") and "best_checkpoint" in callbacks:
        raise StrategyError(
            f"{name} does not support the callback best_checkpoint: its checkpoints are folders of shards"
        )
    if name.startswith("deepspeed"):
        if precision.startswith("16"):
            raise StrategyError(
                f"{name} does not support precision {precision} here; use bf16-true, bf16-mixed or 32-true"
            )
        method = recipe["method"]["name"]
        method_class: Any = registry("method").resolve(method)
        if not method_class.uniform_steps:
            raise StrategyError(f"{method} does not support DeepSpeed: its processes call different modules; use fsdp2")
        if find_spec("deepspeed") is None:
            raise StrategyError(f"{name} needs DeepSpeed: pip install 'medvl-zoo[deepspeed]'")


def strategy_name(recipe: Recipe) -> str:
    """The strategy that a recipe names; "auto" if it names none."""
    return str((recipe["trainer"] or {}).get("strategy", "auto"))


def resolve_strategy(name: str) -> Strategy | str:
    """The strategy of a name, for :class:`lightning.Trainer`; a name that Lightning resolves itself stays."""
    if name in FSDP2:
        return FSDP2Strategy()
    return ZeroStrategy(**StrategyRegistry[name]["init_params"]) if name.startswith("deepspeed") else name


def gather_trained_state(strategy: Strategy, method: ZooModule) -> dict[str, torch.Tensor]:
    """The full trained weights under any strategy, on the first process. A collective."""
    if isinstance(strategy, DeepSpeedStrategy) and strategy.zero_stage_3:
        return _gathered_by_deepspeed(method, keep=strategy.is_global_zero)
    return gather_state(method.trained_state(), keep=strategy.is_global_zero)


def _gathered_by_deepspeed(method: ZooModule, keep: bool) -> dict[str, torch.Tensor]:
    """ZeRO-3 leaves empty tensors in a module between steps; each is gathered in its turn."""
    import deepspeed

    state = method.trained_state()
    for name, parameter in method.named_parameters(remove_duplicate=False):
        if name in state:
            with deepspeed.zero.GatheredParameters([parameter]):
                state[name] = parameter.detach().cpu().clone() if keep else state[name]
    return state if keep else {}
