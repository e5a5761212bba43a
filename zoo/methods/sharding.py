"""FSDP2 (Zhao et al., arXiv 2304.11277; torch's ``fully_shard``) for methods: which weights are sharded, and full state dicts.

Each transformer block of the base is a unit that is gathered while it computes. Trained weights outside of the blocks are one
more unit, gathered for an entire training step, so that a method may read them anywhere. Frozen weights outside of the blocks
are replicated on every device: they would be gathered at the peak of memory anyway.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

_STEPS = ("training_step", "validation_step")


def transformer_blocks(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The outermost transformer blocks: members of a list of modules of one class that have attention inside."""
    blocks: list[nn.Module] = []
    for module in modules:
        members = list(module.children())
        stack = isinstance(module, nn.ModuleList | nn.Sequential) and len({type(member) for member in members}) == 1
        if stack and _has_attention(members[0]):
            blocks += members
        else:
            blocks += transformer_blocks(members)
    return blocks


def _has_attention(module: nn.Module) -> bool:
    return any("Attention" in type(part).__name__ for part in module.modules())


def sharded_parameters(method: nn.Module, modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """The parameters that :func:`shard` shards: those of blocks, and all that train."""
    in_blocks = {id(p) for block in transformer_blocks(modules) for p in block.parameters()}
    return [parameter for parameter in method.parameters() if parameter.requires_grad or id(parameter) in in_blocks]


def shard(method: nn.Module, modules: Iterable[nn.Module], mesh: "DeviceMesh") -> None:
    """Shard a method's weights over the devices of a mesh, in place; a second call changes nothing.

    Args:
        method: whose ``training_step`` and ``validation_step`` all processes enter together.
        modules: whose blocks every process calls in every step, since each call gathers weights from all.
        mesh: one dimension.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    if isinstance(method, FSDPModule):
        return
    sharded = {id(parameter) for parameter in sharded_parameters(method, modules)}
    replicated = {parameter for parameter in method.parameters() if id(parameter) not in sharded}
    for block in transformer_blocks(modules):
        fully_shard(block, mesh=mesh)
    fully_shard(method, mesh=mesh, ignored_params=replicated)
    state = fully_shard.state(method)  # type: ignore[attr-defined]
    for hook in (state._pre_forward_hook_handle, state._post_forward_hook_handle):
        hook.remove()  # a step counts as the forward pass; the method's forward is called inside of it
    for step in _STEPS:
        register_fsdp_forward_method(method, step)


def is_sharded(parameter: torch.Tensor) -> bool:
    """Whether this process holds a shard of a weight, by FSDP2 or by DeepSpeed's ZeRO-3."""
    return isinstance(parameter, DTensor) or hasattr(parameter, "ds_id")


def gather_state(state: dict[str, Any], keep: bool = True) -> dict[str, Any]:
    """A state dict, nested or not, with every shard gathered in turn, on the CPU; a collective.

    Args:
        state: of a module or an optimizer.
        keep: whether this process keeps the result; an empty dictionary if not.
    """

    def full(value: Any) -> Any:
        if not isinstance(value, DTensor):
            return value
        tensor = value.full_tensor()
        return tensor.cpu() if keep else None

    gathered = tree_map(full, state)
    return gathered if keep else {}


def shard_like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """This process's shard of a full tensor that every process has, placed as a parameter is; scalars are unchanged."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    mesh = parameter.device_mesh
    return distribute_tensor(value.to(mesh.device_type), mesh, parameter.placements, src_data_rank=None)


def shard_state_dict(state: Mapping[str, torch.Tensor], module: nn.Module) -> dict[str, torch.Tensor]:
    """A full state dict as :meth:`load_state_dict` of a sharded module expects it."""
    sharded = module.state_dict()
    return {name: shard_like(value, sharded[name]) if name in sharded else value for name, value in state.items()}


def shard_optimizer_state(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A full optimizer state as the optimizer of sharded parameters expects it."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    sharded = {
        index: {
            name: shard_like(value, parameters[index]) if torch.is_tensor(value) else value
            for name, value in entry.items()
        }
        for index, entry in state["state"].items()
    }
    return {**state, "state": sharded}
