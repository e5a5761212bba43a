"""``zoo plan``: a recipe at its full size on fake tensors, for parameters, FLOPs and memory, without weights or memory.

Fake tensors are those of the CPU, since autograd does not run on fake CUDA tensors without a GPU: fused attention keeps there
what it keeps on CUDA. The optimizer updates all weights at once, as it does on CUDA, unless the recipe's accelerator is the CPU.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from zoo.config.building import ResolvedRecipe, build, resolve_recipe
from zoo.config.components import signature_of
from zoo.config.recipe import Recipe
from zoo.data.traces.pieces import text_pieces
from zoo.engine.assembly import build_data, with_vocabulary
from zoo.engine.memory import StepMemory, measure_step
from zoo.methods.base import ZooModule
from zoo.precision import HALF, autocast_to, base_dtype, cast_base, dtype_of
from zoo.pretrained import stored_bytes, without_weights

_STAND_IN_CLASSES = 10
_SHARDED = ("fsdp", "model_parallel", "deepspeed_stage_3")
"""Strategies that shard the weights."""


@dataclass(frozen=True)
class Plan:
    """Parameters, FLOPs and memory of one training step of a recipe.

    ``components`` is name -> (all parameters, trained ones). ``flops`` is of one forward and backward pass over the batch
    of one device, recomputed blocks included. ``memory`` is in bytes a device: weights, gradients, optimizer
    state, activations (kept for the backward pass), and workspace (temporary tensors at the peak).
    ``notes`` say what was assumed.
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
        total, trained = (sum(counts) for counts in zip(*self.components.values(), strict=True))
        return total, trained

    @property
    def peak(self) -> int:
        """Peak bytes on a device."""
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
    default = signature_of(resolved.data.target)[0]["batch_size"].default
    batch_size = int(resolved.data.arguments.get("batch_size", default))
    with torch.device("meta"), without_weights() as assumed:
        method: ZooModule = resolved.method.build()
    _cast_to_run_precision(method, precision)
    sizes = _Sizes.of(method)
    components = _count_parameters(method)
    with FakeTensorMode(allow_non_fake_inputs=True):
        step = _step(_on_fake_cpu(method).train(), recipe, batch_size, precision)
    strategy, devices = _strategy(trainer, notes)
    memory = _memory(sizes, step, strategy, devices)
    notes += [*assumed, *_uncounted(trainer, strategy)]
    return Plan(components, step.flops, batch_size, precision, strategy, devices, memory, notes)


def _with_classes(resolved: ResolvedRecipe, notes: list[str]) -> ResolvedRecipe:
    """With the metadata of the data set if it is here, else with stand-in class names."""
    try:
        return resolved.with_metadata(with_vocabulary(build_data(resolved).metadata(), resolved.recipe))
    except (OSError, ValueError) as error:
        notes.append(
            f"{_STAND_IN_CLASSES} stand-in classes, since the data set is not here ({str(error).splitlines()[0]})"
        )
        names = [f"class number {index}" for index in range(_STAND_IN_CLASSES)]
        return resolved.with_metadata({"class_names": names, "words": [], "pieces": text_pieces([])})


def _count_parameters(method: ZooModule) -> dict[str, tuple[int, int]]:
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for name, parameter in method.named_parameters():
        parts = name.split(".")
        component = ".".join(parts[:2]) if parts[0] == "adapter" and len(parts) > 2 else parts[0]
        counts[component][0] += parameter.numel()
        counts[component][1] += parameter.numel() * parameter.requires_grad
    return {name: (total, trained) for name, (total, trained) in counts.items()}


def _cast_to_run_precision(method: ZooModule, precision: str) -> None:
    """Cast the frozen base as a run would, and trained weights to float32."""
    name = precision if precision in ("bf16-true", "16-true") else method.base_precision
    dtype = None if name is None else dtype_of(name) or torch.float32
    compute_dtype, stored = dtype_of(precision), dtype or base_dtype(method.parameters())
    if compute_dtype is not None and stored in HALF:
        dtype = compute_dtype
    if dtype is not None:
        cast_base(method, dtype)
    for parameter in method.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _autocast(method: ZooModule, precision: str) -> AbstractContextManager[None]:
    """As :meth:`ZooModule.autocast` in a run."""
    dtype = base_dtype(method.parameters())
    return autocast_to(dtype if dtype in HALF else dtype_of(precision) or dtype, torch.device("cpu"))


@dataclass(frozen=True)
class _Sizes:
    """Bytes of the weights, of those that FSDP gathers at once, and of the largest quantised weight in bfloat16."""

    weights: int
    gathered: int
    dequantized: int

    @classmethod
    def of(cls, method: ZooModule) -> "_Sizes":
        """Measure; FSDP gathers two transformer blocks, the one that computes and the next, and weights outside of blocks."""
        blocks = [_bytes_of(block.parameters()) for block in _blocks(method)]
        weights = _bytes_of(method.parameters())
        in_blocks = _bytes_of({p: None for block in _blocks(method) for p in block.parameters()})
        gathered = weights - in_blocks + 2 * max(blocks, default=0)
        quantized = [2 * p.numel() for p in method.parameters() if hasattr(p, "quantization")]
        buffers = sum(buffer.numel() * buffer.element_size() for buffer in method.buffers())
        return cls(weights + buffers, min(gathered, weights), max(quantized, default=0))


def _bytes_of(parameters: Any) -> int:
    return round(sum(stored_bytes(parameter) for parameter in parameters))


def _blocks(method: ZooModule) -> Iterator[torch.nn.Module]:
    """Repeated blocks: the items of module lists that are in no other list."""

    def walk(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
        for child in module.children():
            yield from child.children() if isinstance(child, torch.nn.ModuleList) else walk(child)

    return walk(method)


def _on_fake_cpu(method: ZooModule) -> ZooModule:
    """Give a method built on the meta device fake tensors that say they are on the CPU, where autocast knows them.

    Module.to_empty would do so, but for the parameter dictionaries of peft. Shared tensors stay shared.
    """
    copies: dict[int, torch.Tensor] = {}
    for module in method.modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    if id(tensor) not in copies:
                        empty = torch.empty_like(tensor, device="cpu")
                        is_parameter = isinstance(tensor, torch.nn.Parameter)
                        copies[id(tensor)] = torch.nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
                    table[name] = copies[id(tensor)]  # type: ignore[assignment]
    method._device = torch.device("cpu")  # Lightning's own record; moving the module would convert the tensors again
    return method


def _step(method: ZooModule, recipe: Recipe, batch_size: int, precision: str) -> StepMemory:
    """Measure a step over a batch of ``batch_size`` samples."""
    trainer = recipe["trainer"] or {}
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    optimizer = build("optimizer", recipe["optimizer"], params=trained) if trained else None
    for group in optimizer.param_groups if optimizer else []:
        group["foreach"] = trainer.get("accelerator") != "cpu"

    def loss_of_batch() -> torch.Tensor:
        example = method.example_batch()
        repeats = max(batch_size // len(next(iter(example.values()))), 1)
        return method.losses({key: _repeated(value, repeats) for key, value in example.items()})["loss"]

    accumulates = int(trainer.get("accumulate_grad_batches") or 1) > 1
    weights = [*method.parameters(), *method.buffers()]
    return measure_step(weights, trained, optimizer, loss_of_batch, _autocast(method, precision), accumulates)


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


def _memory(sizes: _Sizes, step: StepMemory, strategy: str, devices: int) -> dict[str, int]:
    """Bytes a device under a strategy.

    DDP reduces gradients in buckets, a second copy of them. FSDP and ZeRO-3 shard weights, gradients and optimizer
    state and gather a block's weights for its computation; ZeRO-2 shards gradients and optimizer state.
    """
    weights = devices if strategy.startswith(_SHARDED) else 1
    state = devices if weights > 1 or strategy.startswith("deepspeed") else 1
    workspace = max(step.workspace + sizes.dequantized, step.update_workspace // state - step.activations)
    if weights > 1:
        workspace += sizes.gathered
    elif devices > 1 and not strategy.startswith("deepspeed"):
        workspace += step.gradients
    return {
        "weights": sizes.weights // weights,
        "gradients": step.gradients // state,
        "optimizer": step.optimizer // state,
        "activations": step.activations,
        "workspace": workspace,
    }


def _uncounted(trainer: dict[str, Any], strategy: str) -> list[str]:
    if trainer.get("accelerator") == "cpu":
        return []
    buckets = ", DeepSpeed's buckets" if strategy.startswith("deepspeed") else ""
    return [f"not counted: CUDA's context and libraries{buckets}, and the allocator's fragmentation"]
