"""Jobs that two processes do together: ``torchrun --nproc-per-node=2 -m tests.engine.two_processes JOBS.json``.

A job is ``{"job": NAME, ...}`` with the arguments of the function of that name. Each process writes what it returns to
``JOBS.RANK.json``. The tests call the same functions for one process.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy

import zoo.engine.trainers
from zoo.config.recipe import read_recipe
from zoo.engine.evaluation import evaluate, open_evaluation
from zoo.engine.training import train
from zoo.methods.base import ZooModule


def losses_of(
    recipe: str,
    out: str,
    settings: list[str],
    *,
    resume: bool = False,
    checkpoint_every: int = 50,
    at_step: dict[str, int] | None = None,
) -> list[float]:
    """Train; this process's losses, step by step.

    Args:
        recipe: file.
        out: run folder.
        settings: changes to the recipe.
        resume: go on with the run.
        checkpoint_every: steps.
        at_step: ``{"kill": n}`` kills this process after n losses, ``{"copy": n}`` copies the run as it is then.
    """
    losses: list[float] = []
    logged, rank = ZooModule._logged_losses, int(os.environ.get("RANK", 0))

    def kept(self: ZooModule, batch: dict[str, Any], name: str) -> torch.Tensor:
        torch.rand(rank)  # processes go through their random numbers at a pace of their own
        loss = logged(self, batch, name)
        if name == "train":
            losses.append(float(loss.detach()))
            if at_step == {"kill": len(losses)}:
                os.kill(os.getpid(), signal.SIGKILL)
            if at_step == {"copy": len(losses)} and rank == 0:
                shutil.copytree(out, f"{out}-copy")
        return loss

    ZooModule._logged_losses, zoo.engine.trainers.CHECKPOINT_EVERY = kept, checkpoint_every
    try:
        train(read_recipe(recipe, settings), Path(out), resume=resume)
    finally:
        ZooModule._logged_losses, zoo.engine.trainers.CHECKPOINT_EVERY = logged, 50
    return losses


def metrics_of(run: str, settings: list[str]) -> dict[str, list[float]]:
    """Measure; value, ends of the interval and number of samples of each metric."""
    measured = evaluate(open_evaluation(run, settings), progress=False)
    return {name: [m.value, m.low, m.high, m.n] for name, m in measured.items()}


JOBS = {"train": losses_of, "eval": metrics_of}


def together(jobs: list[dict[str, Any]], folder: Path, *, killed: bool = False) -> list[list[Any]]:
    """Do jobs in two processes; what each returned, by process and job, or nothing if they are to be killed."""
    file = folder / "jobs.json"
    file.write_text(json.dumps(jobs))
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        __name__,
        file,
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    messages = "\n".join(line for line in done.stderr.splitlines() if line.startswith("[rank"))
    assert (done.returncode == 0) != killed, messages[-8000:]
    return [] if killed else [json.loads(file.with_suffix(f".{rank}.json").read_text()) for rank in range(2)]


def allow_deepspeed_on_cpu() -> None:
    """DeepSpeed has a CPU accelerator (gloo); Lightning's strategy refuses it, and gives no rank for a device without index."""
    import deepspeed
    import lightning.pytorch.strategies.deepspeed as lightning_deepspeed

    initialize = deepspeed.initialize

    def without_device_rank(args: Any, **options: Any) -> Any:
        args.device_rank = -1
        return initialize(args=args, **options)

    deepspeed.initialize = without_device_rank
    lightning_deepspeed.DeepSpeedStrategy.setup_environment = DDPStrategy.setup_environment
    lightning_deepspeed._validate_device_index_selection = lambda devices: None


def main() -> None:
    torch.set_num_threads(1)
    if os.environ.get("DS_ACCELERATOR") == "cpu":
        allow_deepspeed_on_cpu()
    file, results = Path(sys.argv[1]), []
    for job in json.loads(file.read_text()):
        results.append(JOBS[job.pop("job")](**job))
    file.with_suffix(f".{os.environ['RANK']}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
