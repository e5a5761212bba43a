"""Train a recipe's method for two steps on random weights and print the most bytes that were allocated at once.

Run by the tests in a process of its own. The number is of PyTorch's profiler, which is told of each allocation by the CPU's
allocator itself, so nothing is shared with the planner but the example batch.
"""

import logging
import sys
import warnings

import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from zoo.config.building import resolve_recipe
from zoo.config.recipe import read_recipe
from zoo.pretrained import without_weights


def main(name: str, *settings: str) -> int:
    """Measure a recipe."""
    recipe = read_recipe(name, list(settings))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        with without_weights():
            method = resolve_recipe(recipe).with_metadata({"probes": {}}).method.build()
        method.train()
        method.optimizer_recipe = recipe["optimizer"]
        example = method.example_batch()
        repeats = recipe["data"]["batch_size"] // len(next(iter(example.values())))
        batch = {
            key: value.repeat(repeats, *[1] * (value.ndim - 1)) if torch.is_tensor(value) else value * repeats
            for key, value in example.items()
        }
        trainer = Trainer(
            max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            **recipe["trainer"],
        )  # fmt: skip
        trainer.fit(method, DataLoader([batch] * 2, batch_size=None))
        assert trainer.global_step == 2
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    allocated = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        allocated += event.nbytes()
        peak = max(peak, allocated)
    return peak


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    print(main(*sys.argv[1:]))
