"""`zoo check` finds what would fail before any weight is loaded."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from typer.testing import CliRunner

from tests.hub_server import running_hub
from tests.tiny_models import llava, sam
from zoo.cli.app import app
from zoo.config.building import resolve_recipe
from zoo.config.recipe import RecipeError, list_recipes, read_recipe
from zoo.engine.preflight import missing_for_method, preflight

NAME = "medseg_r/llava_7b_sam_vit_h"


def problems(*settings: str) -> str:
    with pytest.raises(RecipeError) as caught:
        preflight(resolve_recipe(read_recipe(NAME, settings)))
    return str(caught.value)


def test_every_published_recipe_passes_with_notes_alone():
    notes = {name: preflight(resolve_recipe(read_recipe(name))) for name in list_recipes()}
    assert any("requests 4 device(s)" in note for note in notes["nearl_clip/vitb16_btmri_4gpu"])
    assert notes["nearl_clip/chest_drr_16shot"] == []
    assert any("data.train is medseg/train.jsonl, which does not exist" in note for note in notes[NAME])
    with pytest.raises(RecipeError, match=r"data\.train: is medseg/train\.jsonl, which does not exist"):
        preflight(resolve_recipe(read_recipe(NAME)), to_run=True)


def test_data_that_the_user_names_must_be_there_to_be_read(tmp_path):
    """What a published recipe names is an example; a recipe of one's own, or the command line, means it."""
    assert preflight(resolve_recipe(read_recipe(NAME)), to_read=True)
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"base: nearl_clip/chest_drr_16shot\ndata: {{name: image_folder, folder: {tmp_path}/gone}}\n")
    for recipe in (read_recipe(NAME, [f"data.val={tmp_path}/gone"]), read_recipe(mine)):
        with pytest.raises(RecipeError, match=r"data\.(val|folder): is .*gone, which does not exist"):
            preflight(resolve_recipe(recipe), to_read=True)
        assert any("which does not exist" in note for note in preflight(resolve_recipe(recipe)))


def test_sources_are_looked_at(tmp_path):
    empty, pickled = tmp_path / "empty", tmp_path / "pickled"
    empty.mkdir()
    pickled.mkdir()
    (pickled / "config.json").write_text("{}")
    torch.save({}, pickled / "pytorch_model.bin")
    text = problems(
        f"method.context.source={tmp_path}/gone", f"method.grounding.source={empty}", "init_from=no-such-card"
    )
    assert "method.context.source: there is no folder" in text
    assert f"{empty} has no config.json" in text and f"{empty} has no safetensors" in text
    assert "init_from: no card is named 'no-such-card'" in text
    assert "pytorch_model.bin is a pickle" in problems(f"method.context.source={pickled}")


def test_a_relative_folder_is_looked_at_as_well(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights" / "llava").mkdir(parents=True)
    assert "weights/llava has no config.json" in problems("method.context.source=weights/llava")


def test_packages_and_precision_are_looked_at():
    notes = preflight(resolve_recipe(read_recipe(NAME, ["method.context.attention=flash_attention_2"])))
    assert any("needs the package flash_attn" in note for note in notes)
    assert "double precision" in problems("trainer.precision=64-true")


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("{name: chexbert, path: nowhere}", "chexbert: there is no folder nowhere"),
        ("{name: judge, endpoint: 'http://localhost:1/v1', model: m, key_variable: NO_KEY}", "NO_KEY is not set"),
        ("{name: judge, endpoint: 'localhost:1', model: m}", "expected an address"),
    ],
)
def test_what_report_metrics_need_is_said_before_anything_trains(metric, message, monkeypatch):
    monkeypatch.delenv("NO_KEY", raising=False)
    resolved = resolve_recipe(
        read_recipe("interleaved_reasoning/chest_drr_none", [f"method.report_metrics=[{metric}]"])
    )
    assert any(message in note for note in preflight(resolved))
    with pytest.raises(RecipeError, match=message):
        preflight(resolved, to_run=True)


SOURCES = """
import sys
from zoo.config.building import resolve_recipe
from zoo.config.recipe import read_recipe
from zoo.engine.preflight import missing_for_method
recipe = read_recipe("interleaved_reasoning/qwen2_5_vl_7b", ["method.context.source=owner/model"])
print(*missing_for_method(resolve_recipe(recipe).method))
"""


def test_weights_of_the_hub_are_asked_for_and_not_downloaded(tmp_path):
    def missing(address: str) -> str:
        own = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
        command = [sys.executable, "-c", SOURCES]
        done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    with running_hub() as hub:
        hub.files["owner/model"] = {"config.json": b"{}", "model.safetensors": b"x"}
        assert missing(hub.address) == "" and not list((tmp_path / "hf").rglob("*.json"))
    assert re.match(
        r"method.context.source: the weights of owner/model are not here and cannot be downloaded from huggingface.co \(.+\); "
        r"name a folder that has them, as --set method.context.source=FOLDER",
        missing("http://127.0.0.1:9"),  # the port that discards: nothing listens
    )


def test_weights_in_the_hubs_cache_are_here(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    name = "interleaved_reasoning/qwen2_5_vl_7b"
    method = resolve_recipe(read_recipe(name, ["method.context.source=owner/model"])).method
    snapshot = tmp_path / "models--owner--model" / "snapshots" / "a"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a")
    (snapshot / "config.json").write_text("{}")
    (problem,) = missing_for_method(method)
    assert "the weights of owner/model are not here and cannot be downloaded" in problem, "the configuration alone"
    (snapshot / "model.safetensors").touch()
    assert missing_for_method(method) == []
    left_out = resolve_recipe(read_recipe(name, ["method.context.source=<path>"])).method
    assert "was a file or folder of the machine that trained this card" in missing_for_method(left_out)[0]


def test_strategies_are_looked_at():
    assert "did you mean fsdp2" in problems("trainer.strategy=fsdp22")
    assert "is FSDP1" in problems("trainer.strategy=fsdp_cpu_offload")


def test_the_command_takes_changes(tmp_path: Path):
    llava(tmp_path / "llava")
    sam(tmp_path / "sam")
    settings = [f"method.context.source={tmp_path}/llava", f"method.grounding.source={tmp_path}/sam"]
    done = CliRunner().invoke(app, ["check", NAME, *settings])
    assert done.exit_code == 0 and "valid" in done.stdout
    done = CliRunner().invoke(app, ["check", NAME, f"method.context.source={tmp_path}/gone", settings[1]])
    assert done.exit_code == 1


def test_every_file_of_every_scan_is_looked_for(tmp_path: Path):
    (tmp_path / "here.nii").touch()
    scans = [
        f"{{ct: {tmp_path}/here.nii, labels: {tmp_path}/gone{number}.nii, patient: p{number}}}" for number in range(3)
    ]
    notes = preflight(resolve_recipe(read_recipe("clip_pretraining/chest_drr", [f"data.scans=[{', '.join(scans)}]"])))
    assert [
        f"data.scans.{number}.labels is {tmp_path}/gone{number}.nii, which does not exist" for number in range(3)
    ] == notes
