"""Good data stay: after a full disk, a signal, kill -9 in the middle of a write, or a second process that writes the same."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from filelock import FileLock

from tests.conftest import TINY_RECIPE
from tests.tiny_cards import change_record, publish_tiny_classifier
from zoo.cards.hub import pull
from zoo.cards.store import check_files, read_card
from zoo.config.recipe import read_recipe
from zoo.engine.exporting import export
from zoo.engine.publishing import publish
from zoo.engine.trainers import atomic_checkpoints
from zoo.engine.training import RunError, save_weights, train
from zoo.files import replace_folder, replacing, scratch_folder

pytestmark = pytest.mark.filterwarnings("ignore:.*No positive samples")


@contextmanager
def full_disk(size: int = 1000):
    """No file can grow beyond some bytes: as on a full disk, a write ends in an OSError after a part of it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def run_and_card(tmp_path_factory, striped_folder):
    root = tmp_path_factory.mktemp("files")
    card = publish_tiny_classifier(root, striped_folder)
    return root / "run", card


@pytest.fixture
def card(run_and_card, tmp_path, monkeypatch):
    """A card in a folder of its own, and an empty cache."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(run_and_card[1], tmp_path / "source" / "tiny")


def _rights(folder):
    return {oct(path.stat().st_mode & 0o777) for path in folder.rglob("*") if path.is_file()}


def test_what_is_written_has_the_rights_of_any_new_file(run_and_card, tmp_path):
    run, card = run_and_card
    (tmp_path / "new").touch()
    assert _rights(run) == _rights(card) == _rights(tmp_path)
    export(card, tmp_path / "export" / "model.pt2")
    assert _rights(tmp_path) == _rights(tmp_path / "export")


def test_many_threads_write_into_a_new_folder(tmp_path):
    for index in range(50):
        folder = tmp_path / str(index)
        folder.mkdir()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name, folder=folder: _write(folder / str(name)), range(16)))


def _write(file):
    with replacing(file, durable=False) as partial:
        partial.write_text("whole")


def _contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(RuntimeError), replacing(file) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert _contents(tmp_path) == {file.relative_to(tmp_path): b"old"}
    with replacing(file) as partial:
        partial.write_text("new")
    assert _contents(tmp_path) == {file.relative_to(tmp_path): b"new"}


@pytest.mark.parametrize("exchanges", [True, False], ids=["in one step", "where folders cannot be exchanged"])
def test_a_folder_is_replaced_and_the_old_one_removed(tmp_path, monkeypatch, exchanges):
    import zoo.files

    if not exchanges:
        monkeypatch.setattr(zoo.files, "_exchange", lambda one, other: False)
    target = tmp_path / "card"
    for content in ("first", "second"):
        draft = tmp_path / ".draft"
        draft.mkdir()
        (draft / "a").write_text(content)
        replace_folder(draft, target)
        assert (target / "a").read_text() == content
        assert sorted(path.name for path in tmp_path.iterdir()) == ["card"]


def test_scratch_folders_of_killed_processes_are_removed_a_day_later(tmp_path):
    for name, age in ((".pull-old", 2), (".pull-new", 0.1)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age * 86400,) * 2)
    with scratch_folder(tmp_path, ".pull-") as scratch:
        assert scratch.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == [".pull-new"]


def test_a_pull_onto_a_full_disk_leaves_the_card_that_is_there(card):
    pulled = pull(str(card))
    before = _contents(pulled.parent)
    change_record(card, lambda front: front["zoo"].update(version="2.0.0"))
    with full_disk(), pytest.raises((OSError, shutil.Error)):
        pull(str(card))
    assert _contents(pulled.parent) == before
    assert read_card(pull(str(card))).record.version == "2.0.0"


def test_publishing_onto_a_full_disk_leaves_the_card_that_is_there(run_and_card, tmp_path):
    cards = tmp_path / "cards"
    shutil.copytree(run_and_card[1], cards / "tiny")
    before = _contents(cards)
    with full_disk(), pytest.raises(OSError, match="cannot be written"):
        publish(run_and_card[0], "tiny", folder=cards, replace=True, license="mit")
    assert _contents(cards) == before


def test_a_checkpoint_on_a_full_disk_leaves_the_last_one(tmp_path):
    writer, file = atomic_checkpoints(), tmp_path / "checkpoints" / "last.ckpt"
    writer.save_checkpoint({"step": torch.arange(10)}, file)
    with full_disk(), pytest.raises(OSError):
        writer.save_checkpoint({"step": torch.arange(10_000)}, file)
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]
    assert len(torch.load(file, weights_only=True)["step"]) == 10
    weights = tmp_path / "model.safetensors"
    save_weights({"a": torch.ones(3)}, weights)
    before = weights.read_bytes()
    with full_disk(), pytest.raises(OSError, match="cannot be written"):
        save_weights({"a": torch.ones(10_000)}, weights)
    assert weights.read_bytes() == before


def test_a_run_whose_disk_is_full_says_how_to_go_on(tmp_path, striped_folder, monkeypatch):
    import zoo.engine.trainers

    (tmp_path / "tiny.yaml").write_text(TINY_RECIPE.format(folder=striped_folder))
    monkeypatch.setattr(zoo.engine.trainers, "CHECKPOINT_EVERY", 2)
    with full_disk(20_000), pytest.raises(RunError, match="stopped at step 2: .*too large.*repeat the command"):
        train(read_recipe(tmp_path / "tiny.yaml"), tmp_path / "run")


def test_two_trainings_do_not_share_a_folder(tmp_path, striped_folder):
    (tmp_path / "tiny.yaml").write_text(TINY_RECIPE.format(folder=striped_folder))
    recipe, run = read_recipe(tmp_path / "tiny.yaml", ["trainer.max_epochs=1"]), tmp_path / "run"
    run.mkdir()
    with FileLock(run / ".training.lock"), pytest.raises(RunError, match="another training is running in"):
        train(recipe, run)
    assert not (run / "recipe.yaml").exists()
    train(recipe, run)  # the lock of a process that ended holds nobody up
    with pytest.raises(RunError, match="already contains a run"):
        train(recipe, run)


PULL = """
import sys
from zoo.cards.hub import pull
print("ready", flush=True)
while True:
    for source in sys.argv[1:]:
        pull(source)
"""


def test_kill_9_in_a_pull_leaves_a_whole_card(card, tmp_path):
    other = shutil.copytree(card, tmp_path / "other" / "tiny")
    change_record(other, lambda front: front["zoo"].update(version="2.0.0"))
    pulled, versions = pull(str(card)), set()
    for attempt in range(8):
        process = subprocess.Popen([sys.executable, "-c", PULL, str(card), str(other)], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.01 + 0.013 * attempt)
        process.kill()
        process.wait()
        check_files(found := read_card(pulled))
        versions.add(found.record.version)
    assert versions <= {"1.0.0", "2.0.0"}


PUBLISH = """
import sys, warnings
from pathlib import Path
import torch
torch.set_num_threads(1)
warnings.simplefilter("ignore")
from zoo.engine.exporting import export
from zoo.engine.publishing import publish
print("ready", flush=True)
while True:
    publish(Path(sys.argv[1]), "tiny", folder=Path(sys.argv[2]), replace=True, license="mit")
"""


def test_kill_9_in_publish_leaves_a_whole_card(run_and_card, tmp_path):
    run, cards = shutil.copytree(run_and_card[0], tmp_path / "run"), tmp_path / "cards"
    shutil.copytree(run_and_card[1], cards / "tiny")
    command = [sys.executable, "-c", PUBLISH, str(run), str(cards)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout.readline() == b"ready\n"
    time.sleep(1)
    process.kill()
    process.wait()
    check_files(read_card(cards / "tiny"))


TRAIN = """
import sys, time, torch
torch.set_num_threads(1)
import zoo.engine.trainers
zoo.engine.trainers.CHECKPOINT_EVERY = 2
from zoo.methods.clip_classification import ClipClassification
step = ClipClassification.training_step
def slow(self, batch, index):
    print("step", self.global_step, flush=True)
    time.sleep(0.1)
    return step(self, batch, index)
ClipClassification.training_step = slow
sys.argv = ["zoo", *sys.argv[1:]]
from zoo.cli.app import app
app()
"""


def test_sigterm_ends_a_training_with_an_error_that_says_how_to_go_on(tmp_path, striped_folder):
    (tmp_path / "tiny.yaml").write_text(TINY_RECIPE.format(folder=striped_folder))
    command = [sys.executable, "-c", TRAIN, "train", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("step 4"):
            break
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert "interrupted at step" in errors and "repeat the command with --resume" in errors


WORKER = """
import subprocess, sys, time
code = "import time; from zoo.data.chest_drr.rendering import build; build.end_with_parent(); print('up', flush=True); time.sleep(300)"
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(300)
"""


def test_render_workers_end_with_their_parent():
    parent = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        if "Z" in open(f"/proc/{worker}/stat").read().split(")")[-1].split()[:1]:
            return
        time.sleep(0.05)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker is still running")
