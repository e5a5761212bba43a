"""Collectives of methods: gather evaluation outputs, save and restore each process's random state."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

Outputs = dict[str, torch.Tensor]
"""Inputs of metrics: tensors whose first dimension is the sample."""
INDEX = "index"
"""Key of a sample's index in its split, in batches and outputs."""


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
    """End the process group while all processes are alive; one that exits first may abort the others."""
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
        rows: number of output rows of each sample.
    """
    if INDEX not in batch:
        return {}
    return {INDEX: torch.as_tensor(batch[INDEX]).repeat_interleave(torch.as_tensor(rows))}


def any_process(condition: torch.Tensor) -> bool:
    """Whether a condition () holds in any process; a collective."""
    value = condition.detach().float()
    if is_distributed():
        torch.distributed.all_reduce(value, torch.distributed.ReduceOp.MAX)
    return bool(value)


def gather_outputs(batches: Sequence[Outputs]) -> Outputs:
    """Outputs of all processes in the order of the split, each sample once; a collective.

    Samplers give every process the same number of samples, so some are evaluated twice. Where outputs have an ``index``,
    duplicates are removed by it; outputs without one are concatenated as they are.
    """
    parts = [concatenate_outputs(part) for part in gather_objects(list(batches)) if part]
    if INDEX not in parts[0]:
        return concatenate_outputs(parts)
    unique, known = [], torch.empty(0, dtype=torch.long)
    for part in parts:
        is_new = ~torch.isin(part[INDEX], known)
        known = torch.cat([known, part[INDEX]])
        unique.append({name: value[is_new] for name, value in part.items()})
    outputs = concatenate_outputs(unique)
    order = outputs.pop(INDEX).argsort(stable=True)
    return {name: value[order] for name, value in outputs.items()}


def random_states() -> list[dict[str, Any]]:
    """The random state of every process, CPU and GPUs, in the order of their ranks; a collective."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return gather_objects({"cpu": torch.get_rng_state(), "cuda": cuda})


def restore_random_state(states: Sequence[dict[str, Any]]) -> None:
    """Restore this process's random state from :func:`random_states`; unless the number of processes has changed."""
    rank = torch.distributed.get_rank() if is_distributed() else 0
    world = torch.distributed.get_world_size() if is_distributed() else 1
    if len(states) != world:
        return
    torch.set_rng_state(states[rank]["cpu"].cpu())
    if torch.cuda.is_available() and len(states[rank]["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in states[rank]["cuda"]])
