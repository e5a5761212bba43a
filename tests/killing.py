"""Trainings that ``kill -9`` ends at a chosen step."""

import multiprocessing
import os
import signal
from pathlib import Path

import torch

from zoo.config.recipe import Recipe
from zoo.engine import trainers
from zoo.engine.training import train
from zoo.methods.base import ZooModule


def train_and_kill(step: int, recipe: Recipe, out: Path) -> None:
    """Train in another process, which kill -9 ends before a step.

    It is not forked: a backward pass in a forked process fails where autograd has threads already.
    """
    context = multiprocessing.get_context("spawn")
    process = context.Process(
        target=_train, args=(step, recipe, out, trainers.CHECKPOINT_EVERY, torch.get_num_threads())
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "it was to be killed"


def _train(step: int, recipe: Recipe, out: Path, checkpoint_every: int, threads: int) -> None:
    torch.set_num_threads(threads)  # sums depend on it
    training_step = ZooModule.training_step

    def killed(self, batch, batch_idx):
        if self.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return training_step(self, batch, batch_idx)

    ZooModule.training_step, trainers.CHECKPOINT_EVERY = killed, checkpoint_every
    train(recipe, out)
