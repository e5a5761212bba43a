"""What methods do over several processes: gather evaluation outputs, keep each process's random state."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

Outputs = dict[str, torch.Tensor]
"""What metrics need of samples: tensors whose first dimension is the sample."""
INDEX = "index"
"""Key of a sample's place in its split, in batches and outputs."""


def is_distributed() -> bool:
    """Whether several processes work together."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def gather_objects(item: Any) -> list[Any]:
    """The item of every process, in the order of their ranks; a collective."""
    if not is_distributed():
        return [item]
    items: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(items, item)
    return items


def destroy_process_group() -> None:
    """End the group of processes while all of them are there; left to the interpreter's end, one may abort at another's."""
    if is_distributed():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def concatenate_outputs(batches: Sequence[Outputs]) -> Outputs:
    """Concatenate the outputs of batches along the samples."""
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def index_of_rows(batch: Mapping[str, Any], rows: Sequence[int]) -> Outputs:
    """The ``index`` of each output row's sample, where a batch has one.

    Args:
        batch: for evaluation.
        rows: how many rows each of its samples has among the outputs.
    """
    if INDEX not in batch:
        return {}
    return {INDEX: torch.as_tensor(batch[INDEX]).repeat_interleave(torch.as_tensor(rows))}


def gather_outputs(batches: Sequence[Outputs]) -> Outputs:
    """Outputs of all processes in the order of the split, each sample once; a collective.

    Samplers give every process the same number of samples, so some are measured twice. With the ``index`` of the sample of
    each row among the outputs these are left out again; outputs without one are joined as they come.
    """
    parts = [concatenate_outputs(part) for part in gather_objects(list(batches)) if part]
    if INDEX not in parts[0]:
        return concatenate_outputs(parts)
    kept, seen = [], torch.empty(0, dtype=torch.long)
    for part in parts:
        new = ~torch.isin(part[INDEX], seen)
        seen = torch.cat([seen, part[INDEX]])
        kept.append({name: value[new] for name, value in part.items()})
    joined = concatenate_outputs(kept)
    order = joined.pop(INDEX).argsort(stable=True)
    return {name: value[order] for name, value in joined.items()}


def random_states() -> list[dict[str, Any]]:
    """The random state of every process, CPU and GPUs, in the order of their ranks; a collective."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return gather_objects({"cpu": torch.get_rng_state(), "cuda": cuda})


def restore_random_state(states: Sequence[dict[str, Any]]) -> None:
    """Set this process's random state to its own of :func:`random_states`; as it is where the number of processes changed."""
    rank = torch.distributed.get_rank() if is_distributed() else 0
    world = torch.distributed.get_world_size() if is_distributed() else 1
    if len(states) != world:
        return
    torch.set_rng_state(states[rank]["cpu"].cpu())
    if torch.cuda.is_available() and len(states[rank]["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in states[rank]["cuda"]])
