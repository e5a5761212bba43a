"""Trainings that ``kill -9`` ends at a chosen step."""

import os
import signal
from pathlib import Path

from zoo.config.recipe import Recipe
from zoo.engine.training import train
from zoo.methods.base import ZooModule


def train_and_kill(step: int, recipe: Recipe, out: Path) -> None:
    """Train in a copy of this process, which kill -9 ends before a step."""
    process = os.fork()
    if process == 0:
        training_step = ZooModule.training_step

        def killed(self, batch, batch_idx):
            if self.global_step == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return training_step(self, batch, batch_idx)

        ZooModule.training_step = killed
        try:
            train(recipe, out)
        finally:
            os._exit(3)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, "it was to be killed"
