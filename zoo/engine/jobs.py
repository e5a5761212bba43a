"""Jobs in several processes at once: calls of one function of the zoo with arguments of JSON, as the trainings of a comparison."""

import importlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any

from zoo.engine.training import InterruptedRunError
from zoo.errors import ZooError

_PATIENCE = 30
"""Seconds in which a process that is told to end may end by itself."""


class JobError(ZooError, RuntimeError):
    """A job failed, or its process ended."""


def run_jobs(function: str, jobs: Sequence[dict[str, Any]], processes: int, logs: Path, what: str) -> None:
    """Run jobs in processes, each of which takes one after the other, with a progress bar.

    They share this machine's cores and its devices. They are not started by multiprocessing, which would run the user's script
    again in each.

    Args:
        function: ``module:name`` of a function of the zoo.
        jobs: its arguments by name, for each call.
        processes: at once.
        logs: folder for ``job-N.log``, with what process N prints.
        what: is running, for the progress bar.

    Raises:
        JobError: a job failed; those that run beside it are ended, and no further ones are begun.
        InterruptedRunError: a signal stopped a training.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not jobs:
        return
    processes = min(processes, len(jobs))
    logs.mkdir(parents=True, exist_ok=True)
    workers = [_Worker(function, processes, logs / f"job-{number}.log") for number in range(processes)]
    failed = Event()
    idle: SimpleQueue[_Worker] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def run(job: dict[str, Any]) -> None:
        if failed.is_set():  # before this job was cancelled
            return
        worker = idle.get()
        try:
            worker.run(job)
        except Exception:
            failed.set()
            raise
        finally:
            idle.put(worker)

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress, ThreadPoolExecutor(processes) as pool:
        bar = progress.add_task("", total=len(jobs))
        try:
            for future in as_completed([pool.submit(run, job) for job in jobs]):
                future.result()
                progress.advance(bar)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait()


class _Worker:
    """A process that takes one job after the other."""

    def __init__(self, function: str, processes: int, log: Path) -> None:
        self._log = log
        command = [sys.executable, "-m", "zoo.engine.jobs", function, str(processes)]
        with log.open("a", encoding="utf-8") as errors:
            # In a session of its own: Ctrl-C reaches the parent alone, which ends its processes.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
            )

    def run(self, job: dict[str, Any]) -> None:
        """Run a job to its end."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            reply = self._process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        if not reply:
            raise JobError(
                f"a process ended before its job was done, perhaps for lack of memory: see {self._log}, or run fewer at once"
            )
        if error := json.loads(reply):
            kind = InterruptedRunError if error["interrupted"] else JobError
            raise kind(f"{error['message']} (see {self._log})")

    def terminate(self) -> None:
        """Tell the process to end: at once if it waits for a job, else as a training that is interrupted."""
        self._process.terminate()

    def wait(self) -> None:
        """Wait for its end, and kill it if that does not come."""
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()


def _serve(function: str, processes: int) -> None:
    """Take jobs from standard input, a line each, until it ends; answer each with its error, empty if there is none."""
    import torch

    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a job prints goes to the log
    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    module, name = function.split(":")
    call = getattr(importlib.import_module(module), name)
    for line in sys.stdin:
        error: dict[str, Any] = {}
        try:
            call(**json.loads(line))
        except Exception as raised:
            traceback.print_exc()
            message = str(raised) or type(raised).__name__
            error = {"message": message, "interrupted": isinstance(raised, InterruptedRunError)}
        replies.write(json.dumps(error) + "\n")
        replies.flush()
        if error.get("interrupted"):
            return  # this process was told to end


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
