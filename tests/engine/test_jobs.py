"""Jobs in processes: all are run, at once, and an error ends the others."""

import os
import signal
import subprocess
import sys
import time

import pytest

from zoo.engine.jobs import JobError, run_jobs
from zoo.engine.training import InterruptedRunError
from zoo.paths import PACKAGE

COMPARE = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from zoo.cli.app import app; app()",
    "compare",
]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}


def test_jobs_are_run_by_as_many_processes(tmp_path, capfd):
    run_jobs("os:mkdir", [{"path": str(tmp_path / name)} for name in "abcde"], 2, tmp_path / "logs", "making")
    assert all((tmp_path / name).is_dir() for name in "abcde")
    assert sorted(file.name for file in (tmp_path / "logs").iterdir()) == ["job-0.log", "job-1.log"]
    out, err = capfd.readouterr()
    assert out == "" and "5/5" in err


def test_what_a_job_prints_is_in_its_log(tmp_path):
    run_jobs("builtins:print", [{"sep": ""}, {"end": "printed"}], 1, tmp_path, "printing")
    assert "printed" in (tmp_path / "job-0.log").read_text()
    run_jobs("os:mkdir", [], 2, tmp_path, "nothing")


def test_an_error_names_the_log_and_ends_the_rest(tmp_path):
    jobs = [{"path": str(tmp_path)}, *({"path": str(tmp_path / f"{number}")} for number in range(50))]
    with pytest.raises(JobError, match=r"File exists.*job-0\.log"):
        run_jobs("os:mkdir", jobs, 1, tmp_path / "logs", "making")
    assert "Traceback" in (tmp_path / "logs" / "job-0.log").read_text()
    assert not (tmp_path / "49").exists()


def test_a_process_that_dies_is_an_error(tmp_path):
    start = time.monotonic()
    with pytest.raises(JobError, match="a process ended before its job was done"):
        run_jobs("os:_exit", [{"status": 3}] * 4, 2, tmp_path, "dying")
    assert time.monotonic() - start < 60


def test_an_interrupted_training_is_told_from_an_error(tmp_path):
    with pytest.raises(InterruptedRunError, match="repeat"):
        run_jobs("tests.engine.test_jobs:interrupted", [{}], 1, tmp_path, "training")


def interrupted():
    raise InterruptedRunError("repeat the command")


def test_ctrl_c_ends_trainings_at_once_and_the_command_goes_on(tiny_recipe, tmp_path):
    settings = ["trainer.max_epochs=20000", "trainer.limit_val_batches=0"]
    command = [*COMPARE, str(tiny_recipe), *settings, "--jobs", "2", "--seeds", "0,1", "--shots", "2", "--out", "out"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("out/runs/*/checkpoints/last.ckpt"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - start < 20, "the trainings end by themselves, and are not waited for"
    assert "interrupted: repeat the same command, and it goes on from what is done" in errors
    assert "InterruptedRunError" in (tmp_path / "out" / "logs" / "job-1.log").read_text()
