"""Whole runs at their smallest: reproduction, resuming, two processes, half precision, full disks."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from zoo.config.recipe import Recipe, read_recipe
from zoo.engine.evaluation import evaluate, open_evaluation
from zoo.engine.training import (
    InterruptedRunError,
    RunError,
    default_run_folder,
    git_revision,
    read_log,
    save_weights,
    train,
    warn_of_slow_half_precision,
)
from zoo.paths import recipes_folder


def run(recipe: Path, out: Path, *settings: str, resume: bool = False) -> Path:
    return train(read_recipe(recipe, settings), out, resume=resume)


def weights(run_folder: Path) -> dict[str, torch.Tensor]:
    return load_file(run_folder / "model.safetensors")


def losses(run_folder: Path) -> list[float]:
    return read_log(run_folder)["train_loss"].dropna().tolist()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not here")
def test_a_record_says_that_its_code_was_not_committed(tmp_path):
    def git(*words: str) -> str:
        who = ["-c", "user.name=tester", "-c", "user.email=tester@example.org", "-c", "commit.gpgsign=false"]
        return subprocess.run(["git", "-C", tmp_path, *who, *words], capture_output=True, text=True, check=True).stdout

    git("init")
    (tmp_path / "code.py").write_text("before")
    git("add", "code.py")
    git("commit", "-m", "code")
    git("tag", "v1")
    commit = git("rev-parse", "--short=12", "HEAD").strip()
    assert git_revision(tmp_path) == commit
    (tmp_path / "code.py").write_text("after")
    assert git_revision(tmp_path) == f"{commit}-dirty"
    assert git_revision(tmp_path / "missing") is None


def test_a_run_learns_writes_its_record_and_is_reproduced_from_it(tiny_recipe, tmp_path):
    first = run(tiny_recipe, tmp_path / "first", "trainer.max_epochs=6")
    assert {"recipe.yaml", "environment.json", "summary.json", "model.safetensors", "curves.png"} <= {
        p.name for p in first.iterdir()
    }
    assert losses(first)[-1] < losses(first)[0]
    measured = evaluate(open_evaluation(first), progress=False)["accuracy"]
    assert measured.value > 0.5 and measured.low <= measured.value <= measured.high and measured.n == 24
    assert json.loads((first / "environment.json").read_text())["packages"]["torch"] == torch.__version__.split("+")[0]
    again = run(first / "recipe.yaml", tmp_path / "again")
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(first).items())


def test_a_folder_of_other_files_is_no_run_folder(tiny_recipe, tmp_path):
    recipe = read_recipe(tiny_recipe)
    (tmp_path / "mine").mkdir()
    for name in ("a.txt", "b.txt", "c.txt", "recipe.yaml", ".hidden"):
        (tmp_path / "mine" / name).touch()
    with pytest.raises(
        RunError, match=r"mine is not a run and not empty: it holds a.txt, b.txt, c.txt and 1 more; choose"
    ):
        train(recipe, tmp_path / "mine")
    assert sorted(path.name for path in (tmp_path / "mine").iterdir())[0] == ".hidden"
    assert len(list((tmp_path / "mine").iterdir())) == 5
    with pytest.raises(RunError, match=r"a.txt is a file; choose a folder"):
        train(recipe, tmp_path / "mine" / "a.txt")


def test_a_run_has_the_name_of_its_recipe(tiny_recipe, tmp_path):
    assert default_run_folder(read_recipe("coop/chest_drr_16shot", ["seed=1"])) == Path("runs/coop/chest_drr_16shot")
    file = recipes_folder() / "coop" / "chest_drr_16shot.yaml"
    assert default_run_folder(read_recipe(file)) == Path("runs/coop/chest_drr_16shot")
    assert default_run_folder(read_recipe(tiny_recipe)) == Path("runs") / tiny_recipe.stem
    record = tmp_path / "run" / "recipe.yaml"
    record.parent.mkdir()
    shutil.copy(tiny_recipe, record)
    (record.parent / "environment.json").write_text("{}")
    assert default_run_folder(read_recipe(record)) == record.parent
    with pytest.raises(RunError, match="give the folder"):
        default_run_folder(Recipe({}))


def test_a_recipe_is_trained_by_name_into_its_folder(tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train(str(tiny_recipe)) == Path("runs") / tiny_recipe.stem
    assert (tmp_path / "runs" / tiny_recipe.stem / "model.safetensors").is_file()


def test_the_last_checkpoint_holds_trained_weights_only(tiny_recipe, tmp_path):
    folder = run(tiny_recipe, tmp_path / "run")
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert set(checkpoint["state_dict"]) == set(weights(folder))
    assert not any(name.startswith("clip.") for name in checkpoint["state_dict"])


def test_a_taken_folder_is_not_overwritten(tiny_recipe, tmp_path):
    folder = run(tiny_recipe, tmp_path / "run")
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(RunError, match="already contains a run"):
        run(tiny_recipe, folder)
    with pytest.raises(RunError, match="no checkpoint to resume from"):
        run(tiny_recipe, tmp_path / "nothing", resume=True)
    with pytest.raises(RunError, match=r"differs from that of .* in optimizer\.lr, seed"):
        run(tiny_recipe, folder, "seed=5", "optimizer.lr=0.5", resume=True)
    assert (folder / "model.safetensors").read_bytes() == before


SLOW_TRAINING = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
import zoo.engine.trainers, zoo.engine.training
from zoo.methods.clip_classification import ClipClassification
from zoo.config.recipe import read_recipe
zoo.engine.trainers.CHECKPOINT_EVERY = 4
step = ClipClassification.training_step
def slow(self, batch, index):
    time.sleep(float(sys.argv[3]))
    self.adapter.useformer.queries.data += 1e-4 * torch.randn(())  # a draw that a resumed run must repeat
    return step(self, batch, index)
ClipClassification.training_step = slow
zoo.engine.training.train(read_recipe(sys.argv[1]), Path(sys.argv[2]), resume="resume" in sys.argv)
"""


def test_a_run_killed_in_mid_epoch_resumes_to_the_same_weights(tiny_recipe, tmp_path):
    def start(out: Path, pause: float, *extra: str) -> subprocess.Popen:
        command = [sys.executable, "-c", SLOW_TRAINING, str(tiny_recipe), str(out), str(pause), *extra]
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )

    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert start(undisturbed, 0).wait(120) == 0
    process = start(killed, 0.4)
    checkpoint = killed / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and not (checkpoint.exists() and torch_step(checkpoint) >= 12):
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stopped_at = torch_step(checkpoint)
    assert stopped_at % 9 != 0, "the checkpoint is from the middle of an epoch of 9 steps"
    assert not (killed / "model.safetensors").exists()
    assert start(killed, 0, "resume").wait(120) == 0
    assert losses(killed) == losses(undisturbed), "and what it logged before it was killed is still there"
    assert weights(undisturbed).keys() == weights(killed).keys()
    for name, value in weights(undisturbed).items():
        torch.testing.assert_close(weights(killed)[name], value, atol=0, rtol=0)


def torch_step(checkpoint: Path) -> int:
    try:
        return int(torch.load(checkpoint, weights_only=True)["global_step"])
    except (OSError, RuntimeError, EOFError):
        return 0


def test_two_processes_follow_one_with_the_doubled_batch(tiny_recipe, tmp_path):
    best = "{name: best_checkpoint, monitor: val_accuracy, mode: max, restore: false}"
    callbacks = (
        f"trainer.callbacks=[{{name: early_stopping, monitor: val_accuracy}}, {{name: ema, decay: 0.8}}, {best}]"
    )
    one = run(tiny_recipe, tmp_path / "one", "data.batch_size=4", callbacks)
    code = (
        "import sys; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "from zoo.config.recipe import read_recipe; from zoo.engine.training import train\n"
        "if __name__ == '__main__': train(read_recipe(sys.argv[1], sys.argv[3:]), Path(sys.argv[2]))\n"
    )
    script = tmp_path / "two.py"
    script.write_text(code)
    settings = ["data.batch_size=2", "trainer.devices=2", "trainer.strategy=ddp", callbacks]
    command = [sys.executable, str(script), str(tiny_recipe), str(tmp_path / "two"), *settings]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    curves = losses(one), losses(tmp_path / "two")
    assert len(curves[0]) == len(curves[1]) == 18
    torch.testing.assert_close(torch.tensor(curves[0]), torch.tensor(curves[1]), atol=1e-4, rtol=0)
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(tmp_path / "two")[name], value, atol=1e-3, rtol=0)


def test_bf16_runs_on_a_cpu_with_a_warning_where_it_is_slow(tiny_recipe, tmp_path, monkeypatch, recwarn):
    def warned() -> bool:
        return any("trainer.precision=32-true" in str(item.message) for item in recwarn)

    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    warn_of_slow_half_precision("bf16-mixed")
    assert not warned()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    warn_of_slow_half_precision("32-true")
    assert not warned()
    folder = run(tiny_recipe, tmp_path / "half", "trainer.precision=bf16-mixed", "trainer.max_epochs=1")
    assert all(torch.isfinite(value).all() for value in weights(folder).values())
    assert all(value.dtype == torch.float32 for value in weights(folder).values())
    assert warned()


def test_a_full_disk_while_saving_keeps_what_was_there(tmp_path, monkeypatch):
    import safetensors.torch

    path = tmp_path / "model.safetensors"
    save_weights({"weight": torch.ones(3)}, path)
    before = path.read_bytes()

    def full(_, target):
        Path(target).write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_weights({"weight": torch.zeros(3)}, path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_full_disk_during_training_keeps_the_last_checkpoint(tiny_recipe, tmp_path, monkeypatch):
    from zoo.engine import trainers

    monkeypatch.setattr(trainers, "CHECKPOINT_EVERY", 3)
    real, calls = trainers.replacing, []

    @contextmanager
    def second_fails(file):
        calls.append(file)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        with real(file) as partial:
            yield partial

    monkeypatch.setattr(trainers, "replacing", second_fails)
    with pytest.raises(RunError, match="No space left.*repeat the command with --resume"):
        run(tiny_recipe, tmp_path / "full")
    assert torch_step(tmp_path / "full" / "checkpoints" / "last.ckpt") == 3
    monkeypatch.setattr(trainers, "replacing", real)
    resumed = run(tiny_recipe, tmp_path / "full", resume=True)
    whole = run(tiny_recipe, tmp_path / "whole")
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())


def test_nothing_to_train_on_is_no_finished_run(tiny_recipe, tmp_path):
    with pytest.raises(RunError, match="no training step was run"):
        run(tiny_recipe, tmp_path / "run", "trainer.limit_train_batches=0")
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_an_interrupted_training_says_how_to_go_on(tiny_recipe, tmp_path, monkeypatch):
    from zoo.methods.base import ZooModule

    step = ZooModule.training_step

    def interrupted(self, batch, batch_idx):
        if self.global_step == 3:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ZooModule, "training_step", interrupted)
    with pytest.raises(
        InterruptedRunError,
        match=r"interrupted at step 3; no checkpoint was written yet \(there is one every 50 steps\): repeat the command",
    ):
        run(tiny_recipe, tmp_path / "run")
