"""Memory of a training step, traced on fake tensors: every storage from its allocation to its release."""

import weakref
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count, shape_wrapper


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward_flops(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))


ATTENTION_FLOPS: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}
"""Formulas, over shapes, of attention on the CPU, which torch does not count."""
_FLOPS = {**flop_registry, **{operation: shape_wrapper(formula) for operation, formula in ATTENTION_FLOPS.items()}}


class LiveMemory(TorchDispatchMode):
    """Bytes of live fake tensors (``allocated``, and at the ``peak``), and floating-point operations by torch's formulas.

    Views share a storage, which counts once. What a kernel allocates internally is not counted. (torch's FlopCounterMode
    beside this mode would keep tensors alive that a run does not.)
    """

    def __init__(self, ignored: Iterable[torch.Tensor] = ()) -> None:
        """Trace tensors allocated inside; ``ignored`` ones exist already and do not count."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.allocated = self.peak = self.flops = 0
        self._ignored = [tensor.untyped_storage() for tensor in ignored]  # keeps their addresses from being reused
        self._tracked = {storage._cdata for storage in self._ignored}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, count its FLOPs, and track its outputs."""
        kwargs = kwargs or {}
        outputs = func(*args, **kwargs)
        formula = _FLOPS.get(func.overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=outputs)
        for tensor in tree_leaves(outputs):
            if isinstance(tensor, FakeTensor):
                self._track(tensor.untyped_storage())
        return outputs

    def _track(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._tracked:
            self._tracked.add(key)
            self.allocated += size
            self.peak = max(self.peak, self.allocated)
            weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._tracked.discard(key)
        self.allocated -= size

    def reset_peak(self) -> None:
        """Measure the peak from here on."""
        self.peak = self.allocated


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one training step beside the model's weights, and its FLOPs.

    ``activations`` are kept from the forward for the backward pass. ``workspace`` is the most that is alive in those passes
    beyond gradients, optimizer state and activations, ``update_workspace`` the same in the optimizer's step, when there are no
    activations.
    """

    gradients: int
    optimizer: int
    activations: int
    workspace: int
    update_workspace: int
    flops: int


def measure_step(
    weights: Iterable[torch.Tensor],
    trained: list[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer | None,
    loss_of_batch: Callable[[], torch.Tensor],
    computing: AbstractContextManager[None],
    accumulates: bool,
) -> StepMemory:
    """Trace a step as Lightning runs it, from the second on: forward, clear gradients, backward, update.

    The gradients of the step before are alive until the forward pass is over, and with accumulation through the backward pass
    too. To be called under FakeTensorMode.

    Args:
        weights: parameters and buffers.
        trained: parameters with a gradient.
        optimizer: of ``trained``; None if nothing trains.
        loss_of_batch: makes a batch and computes its loss.
        computing: precision of the forward pass.
        accumulates: gradients of several batches are summed.
    """
    with LiveMemory(weights) as memory:
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        gradients = memory.allocated
        if optimizer is not None:
            optimizer.step()
        state = memory.allocated - gradients
        update_workspace = memory.peak - memory.allocated
        memory.reset_peak()
        with computing:
            loss = loss_of_batch()
        activations = memory.allocated - gradients - state
        if optimizer is not None and not accumulates:
            optimizer.zero_grad()
        if loss.requires_grad:
            loss.backward()
    workspace = memory.peak - gradients - state - activations
    return StepMemory(gradients, state, activations, workspace, update_workspace, memory.flops)
