"""Each published full-size recipe from check to the prediction of a pulled card, and every precision, on tiny real-format models."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from tests.full_size import forced_answer, full_size_recipes, is_full_size, make_sources, test_image, tiny_settings
from zoo.cards.hub import pull
from zoo.cli.app import app
from zoo.config.recipe import list_recipes, read_recipe
from zoo.engine.evaluation import evaluate, open_evaluation
from zoo.engine.loading import load
from zoo.engine.publishing import data_places, publish
from zoo.engine.training import train
from zoo.engine.verification import verify

test_image.__test__ = False  # type: ignore[attr-defined]
RECIPES = full_size_recipes()


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    return make_sources(tmp_path_factory.mktemp("sources"))


def test_full_size_recipes_are_found():
    assert len([name for name in list_recipes() if is_full_size(name)]) >= 31
    methods = {name.split("/")[0] for name in RECIPES}
    assert methods == {"nearl_clip", "medseg_r", "interleaved_reasoning", "clip_multi_label"} and len(RECIPES) >= 5


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import zoo.engine.trainers
from zoo.config.recipe import read_recipe
from zoo.engine.training import train
from zoo.methods.base import ZooModule
zoo.engine.trainers.CHECKPOINT_EVERY = 1
step = ZooModule.training_step
def dies(self, batch, batch_idx):
    if self.global_step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, batch_idx)
ZooModule.training_step = dies
train(read_recipe(sys.argv[1], sys.argv[3:]), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_goes_from_check_to_the_prediction_of_a_pulled_card(name, sources, tmp_path, monkeypatch):
    """Killed with SIGKILL after three steps and resumed, it ends with the weights of an undisturbed run."""
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "cards"))
    call = CliRunner().invoke
    assert call(app, ["check", name]).exit_code == 0
    settings = tiny_settings(name, sources)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, name, str(tmp_path / "run"), *settings]
    died = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert died.returncode == -signal.SIGKILL, died.stderr[-2000:]
    assert not (tmp_path / "run" / "model.safetensors").exists()
    train(read_recipe(name, settings), tmp_path / "run", resume=True)
    train(read_recipe(name, settings), tmp_path / "whole")
    resumed, whole = (load_file(tmp_path / run / "model.safetensors") for run in ("run", "whole"))
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[key], value) and value.dtype == torch.float32 for key, value in whole.items())

    with forced_answer():
        measured = evaluate(open_evaluation(tmp_path / "run"), progress=False)
        assert measured and all(metric.n >= 3 for metric in measured.values())
        publish(tmp_path / "run", "tiny", folder=tmp_path / "cards")
        places = data_places(tmp_path / "run")
        assert all(result.holds for result in verify("tiny", places, progress=False))
        monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
        pulled = pull(str(tmp_path / "cards" / "tiny"))
        image = test_image(name, sources)
        arguments = ["predict", str(pulled), str(image), "--out", str(tmp_path / "out"), "--json", "--device", "cpu"]
        done = call(app, [*arguments, *(argument for place in places for argument in ("--set", place))])
    assert done.exit_code == 0, done.output + repr(done.exception)
    prediction = json.loads(done.stdout)[str(image)]
    assert Path(prediction["picture"]).stat().st_size > 1000
    if "masks" in prediction:
        assert len(prediction["masks"]) == 1, "the forced [SEG] has a mask"


PRECISIONS = ("32-true", "bf16-mixed", "bf16-true")
STORED = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@pytest.fixture(scope="module")
def stored_sources(tmp_path_factory) -> dict[str, Path]:
    """The tiny models stored in each precision."""
    root = tmp_path_factory.mktemp("stored")
    return {name: make_sources(root / name, llava=dtype, qwen=dtype, anole=dtype) for name, dtype in STORED.items()}


@pytest.mark.parametrize("stored", list(STORED))
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "name", ["medseg_r/llava_7b_sam_vit_h", "medseg_r/qwen2_5_vl_7b_sam_vit_l", "interleaved_reasoning/anole_7b"]
)
def test_every_precision_of_base_and_trainer(name, precision, stored, stored_sources, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "cards"))
    folder = stored_sources[stored]
    settings = tiny_settings(
        name, folder, f"trainer.precision={precision}", "trainer.max_epochs=1", "optimizer.lr=1.0e-5"
    )
    run = train(read_recipe(name, settings), tmp_path / "run")
    trained = load_file(run / "model.safetensors")
    assert all(value.dtype == torch.float32 for value in trained.values() if value.is_floating_point())
    moved = [value.abs().gt(0).float().mean() for key, value in trained.items() if "lora_B" in key]
    assert moved and min(moved) > 0.9, "at a rate of 1e-5 no update of LoRA is lost"
    with forced_answer():
        publish(run, "tiny", folder=tmp_path / "cards")
        checked = verify("tiny", data_places(run), progress=False)
    assert checked and all(result.holds for result in checked)
    method = load("tiny", settings=data_places(run))
    base = {value.dtype for key, value in method.named_parameters() if not value.requires_grad}
    assert torch.float32 in base or precision == "bf16-true" or stored != "fp32"
    kept = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[stored]
    expected = torch.bfloat16 if precision == "bf16-true" else kept
    language = method.context.backbone if name.startswith("medseg") else method.decoder.language.model
    assert next(p.dtype for n, p in language.named_parameters() if "q_proj" in n and "lora" not in n) == expected


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["nearl_clip/vitb16", "nearl_clip/biomedclip_btmri"])
def test_every_precision_of_a_clip(name, precision, sources, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "cards"))
    run = train(read_recipe(name, tiny_settings(name, sources, f"trainer.precision={precision}")), tmp_path / "run")
    publish(run, "tiny", folder=tmp_path / "cards")
    assert all(result.holds for result in verify("tiny", data_places(run), progress=False))
    assert all(value.dtype == torch.float32 for value in load_file(run / "model.safetensors").values())
