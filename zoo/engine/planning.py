"""``zoo plan``: a recipe at its full size on fake tensors, for parameters, FLOPs and memory, without weights or memory."""

from collections import defaultdict
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from zoo.config.building import ResolvedRecipe, resolve_recipe
from zoo.config.recipe import Recipe
from zoo.engine.assembly import build_data
from zoo.methods.base import ZooModule
from zoo.pretrained import without_weights

_STAND_IN_CLASSES = 10
_STATE_BYTES = {"adamw": 8, "sgd": 4}
"""Bytes of optimizer state for each trained parameter, in float32."""


@dataclass(frozen=True)
class Plan:
    """What one training step of a recipe takes.

    ``components`` is name -> (all parameters, trained ones). ``flops`` is of one forward and backward pass over the batch
    of one device. Memory is in bytes a device; ``notes`` say what was assumed.
    """

    components: dict[str, tuple[int, int]]
    flops: int
    batch_size: int
    precision: str
    strategy: str
    devices: int
    memory: dict[str, int]
    notes: list[str]

    @property
    def parameters(self) -> tuple[int, int]:
        """All and trained parameters."""
        return tuple(sum(counts) for counts in zip(*self.components.values(), strict=True))  # type: ignore[return-value]

    @property
    def total_memory(self) -> int:
        """Bytes a device, workspace left out."""
        return sum(self.memory.values())


def plan(recipe: Recipe) -> Plan:
    """Plan a recipe.

    Raises:
        RecipeError: it does not fit the registries.
    """
    notes: list[str] = []
    resolved = _with_classes(resolve_recipe(recipe), notes)
    trainer = recipe["trainer"] or {}
    precision = str(trainer.get("precision", "32-true"))
    batch_size = int(recipe["data"].get("batch_size", 1))
    with torch.device("meta"), without_weights():
        method: ZooModule = resolved.method.build()
    components = _count(method)
    with FakeTensorMode(allow_non_fake_inputs=True):
        flops, activations = _one_step(_on_fake_cpu(method).train(), batch_size, precision)
    strategy, devices = _strategy(trainer, notes)
    memory = _memory(components, activations, recipe, precision, strategy, devices)
    return Plan(components, flops, batch_size, precision, strategy, devices, memory, notes)


def _with_classes(resolved: ResolvedRecipe, notes: list[str]) -> ResolvedRecipe:
    """With the metadata of the data where they are at hand, else with stand-in class names."""
    try:
        return resolved.with_metadata(build_data(resolved).metadata())
    except (OSError, ValueError) as error:
        notes.append(
            f"{_STAND_IN_CLASSES} stand-in classes, since the data are not here ({str(error).splitlines()[0]})"
        )
        names = [f"class number {index}" for index in range(_STAND_IN_CLASSES)]
        return resolved.with_metadata({"class_names": names})


def _count(method: ZooModule) -> dict[str, tuple[int, int]]:
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for name, parameter in method.named_parameters():
        parts = name.split(".")
        component = ".".join(parts[:2]) if parts[0] == "adapter" and len(parts) > 2 else parts[0]
        counts[component][0] += parameter.numel()
        counts[component][1] += parameter.numel() * parameter.requires_grad
    return {name: (total, trained) for name, (total, trained) in counts.items()}


def _on_fake_cpu(method: ZooModule) -> ZooModule:
    """Give a method built on the meta device fake tensors that say they are on the CPU, where autocast knows them.

    Module.to_empty would do so, but for the parameter dictionaries of peft. Shared tensors stay shared.
    """
    made: dict[int, torch.Tensor] = {}
    for module in method.modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    if id(tensor) not in made:
                        empty = torch.empty_like(tensor, device="cpu")
                        is_parameter = isinstance(tensor, torch.nn.Parameter)
                        made[id(tensor)] = torch.nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
                    table[name] = made[id(tensor)]  # type: ignore[assignment]
    method._device = torch.device("cpu")  # Lightning's own record; moving the module would convert the tensors again
    return method


def _one_step(method: ZooModule, batch_size: int, precision: str) -> tuple[int, int]:
    """FLOPs of a forward and backward pass, and bytes kept for the backward pass, for a batch."""
    example = method.example_batch()
    own = len(next(iter(example.values())))
    repeats = max(batch_size // own, 1)
    batch = {key: _repeated(value, repeats) for key, value in example.items()}
    kept: dict[int, int] = {}
    frozen = {parameter.untyped_storage()._cdata for parameter in method.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in frozen:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    half = torch.autocast("cpu", dtype=torch.bfloat16) if "16" in precision else nullcontext()
    with FlopCounterMode(display=False) as counter, half:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = method.losses(batch)["loss"]
        if loss.requires_grad:
            loss.backward()
    return counter.get_total_flops(), sum(kept.values())


def _repeated(value: Any, repeats: int) -> Any:
    if torch.is_tensor(value):
        return value.repeat(repeats, *[1] * (value.ndim - 1))
    return value * repeats


def _strategy(trainer: dict[str, Any], notes: list[str]) -> tuple[str, int]:
    strategy = str(trainer.get("strategy", "auto"))
    devices = trainer.get("devices", 1)
    if not isinstance(devices, int) or devices < 1:
        notes.append(f"devices: {devices} counted as 1")
        devices = 1
    return strategy, devices


def _memory(
    components: dict[str, tuple[int, int]],
    activations: int,
    recipe: Recipe,
    precision: str,
    strategy: str,
    devices: int,
) -> dict[str, int]:
    total, trained = (sum(counts) for counts in zip(*components.values(), strict=True))
    weight_bytes = 2 if precision in ("bf16-true", "16-true") else 4
    state = _STATE_BYTES.get(recipe["optimizer"]["name"], 8)
    shard_weights = devices if strategy.startswith("fsdp") or "stage_3" in strategy else 1
    shard_state = devices if shard_weights > 1 or "deepspeed" in strategy else 1
    return {
        "weights": total * weight_bytes // shard_weights,
        "gradients": trained * weight_bytes // shard_state,
        "optimizer": trained * state // shard_state,
        "activations": activations,
    }
