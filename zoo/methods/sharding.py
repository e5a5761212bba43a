"""FSDP2 (Zhao et al., arXiv 2304.11277; torch's ``fully_shard``) for methods: what is sharded, and how shards become whole.

Each transformer block of the base is a unit that is gathered while it computes. What trains outside of the blocks is one more
unit, gathered for a whole training step, so that a method may read such a weight wherever it likes. Frozen weights outside of
the blocks stay whole on every device: they would be gathered at the height of memory anyway.
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
    """The parameters that :func:`shard` divides among the devices: those of blocks, and all that train."""
    in_blocks = {id(p) for block in transformer_blocks(modules) for p in block.parameters()}
    return [parameter for parameter in method.parameters() if parameter.requires_grad or id(parameter) in in_blocks]


def shard(method: nn.Module, modules: Iterable[nn.Module], mesh: "DeviceMesh") -> None:
    """Divide a method's weights among the devices of a mesh, in place; a second call changes nothing.

    Args:
        method: whose ``training_step`` and ``validation_step`` all processes enter together.
        modules: whose blocks every process calls in every step, since each call gathers weights from all.
        mesh: one dimension.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    if isinstance(method, FSDPModule):
        return
    divided = {id(parameter) for parameter in sharded_parameters(method, modules)}
    whole = {parameter for parameter in method.parameters() if id(parameter) not in divided}
    for block in transformer_blocks(modules):
        fully_shard(block, mesh=mesh)
    fully_shard(method, mesh=mesh, ignored_params=whole)
    state = fully_shard.state(method)  # type: ignore[attr-defined]
    for hook in (state._pre_forward_hook_handle, state._post_forward_hook_handle):
        hook.remove()  # a step is what counts as forward; the method's own forward is called inside of it
    for step in _STEPS:
        register_fsdp_forward_method(method, step)


def is_sharded(parameter: torch.Tensor) -> bool:
    """Whether this process holds a part of a weight, by FSDP2 or by DeepSpeed's ZeRO-3."""
    return isinstance(parameter, DTensor) or hasattr(parameter, "ds_id")


def gather_state(state: dict[str, Any], keep: bool = True) -> dict[str, Any]:
    """A state dictionary, nested or not, with shards made whole one by one, on the CPU; a collective.

    Args:
        state: of a module or an optimizer.
        keep: whether this process wants it; an empty dictionary if not.
    """

    def whole(value: Any) -> Any:
        if not isinstance(value, DTensor):
            return value
        tensor = value.full_tensor()
        return tensor.cpu() if keep else None

    made = tree_map(whole, state)
    return made if keep else {}


def shard_like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """This process's shard of a whole tensor that every process has, laid out as a parameter's; scalars stay."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    mesh = parameter.device_mesh
    return distribute_tensor(value.to(mesh.device_type), mesh, parameter.placements, src_data_rank=None)


def shard_state_dict(state: Mapping[str, torch.Tensor], module: nn.Module) -> dict[str, torch.Tensor]:
    """A whole state dictionary as :meth:`load_state_dict` of a sharded module takes it."""
    own = module.state_dict()
    return {name: shard_like(value, own[name]) if name in own else value for name, value in state.items()}


def shard_optimizer_state(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A whole optimizer state as the optimizer of sharded parameters takes it."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    divided = {
        index: {
            name: shard_like(value, parameters[index]) if torch.is_tensor(value) else value
            for name, value in entry.items()
        }
        for index, entry in state["state"].items()
    }
    return {**state, "state": divided}
