"""zoo list, show, check and plan."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from zoo.cli.app import app

run = CliRunner()


def call(*arguments: str, code: int = 0) -> str:
    result = run.invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.output + result.stderr + repr(result.exception)
    return result.output + result.stderr


def test_list_names_everything_and_takes_json():
    content = json.loads(call("list", "--json"))
    assert "oca" in content["components"]["adapter"] and "nearl_clip/chest_drr_16shot" in content["recipes"]
    assert "chest_drr" in content["datasets"] and "clip-small-chest-drr" in content["cards"]
    assert "did you mean recipes" in call("list", "recipe", code=2)
    assert "text_encoder" in content["components"] and "text_encoder" not in call("list", "components")


def test_listing_imports_no_torch():
    code = "import sys; sys.argv = ['zoo', 'list']\nfrom zoo.cli.app import app\ntry: app()\nexcept SystemExit: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False")


@pytest.mark.parametrize("name", ["clip_adaptation", "chest_drr", "clip-small-chest-drr", "nearl"])
def test_what_is_shown_has_no_markup_and_no_python_objects(name):
    text = call("show", name)
    assert "meaning" in text or "tolerance" in text
    for raw in ("typing.", "object at 0x", "Annotated", ":class:", "``", "{'"):
        assert raw not in text, raw


def test_show_tells_signature_and_paper():
    assert "2508.04101" in call("show", "oca") and "incremental_scale" in call("show", "oca")
    assert "init_from" in call("show", "nearl_clip/chest_drr_16shot")
    assert "clip_pretraining" in call("show", "clip-small-chest-drr")
    assert "did you mean oca" in call("show", "ocaa", code=1)


def test_a_contact_sheet_is_drawn(tmp_path):
    call("show", "chest_drr", "--out", tmp_path, "--set", "image_size=48")
    sheet = np.asarray(Image.open(tmp_path / "chest_drr.png").convert("L"))
    assert sheet.shape[0] > 600 and sheet.std() > 30


def test_wrong_recipes_exit_with_1_and_list_every_mistake(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("sed: 1\ndata: {name: nothing}\n")
    text = call("check", bad, code=1)
    assert "sed" in text and "data.name" in text and "method: is missing" in text and "optimizer" in text


def test_every_recipe_is_checked_although_one_is_wrong(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("base: nearl_clip/chest_drr_16shot\nsed: 1\n")
    text = call("check", bad, "coop/chest_drr_16shot", "no/such", "data.shots=4", code=1)
    assert f"{bad}: sed: unknown section" in text and "no/such: no such recipe" in text
    assert "coop/chest_drr_16shot: valid" in text and "2 of 3 recipes are not valid" in text
    assert "name a recipe" in call("check", "data.shots=4", code=2)
    text = call("check", tmp_path / "gone.yaml", code=1)
    assert f"no such recipe: neither a file {tmp_path / 'gone.yaml'} nor a published one" in text


def test_check_reads_the_data_unless_told_not_to(tmp_path):
    from tests.data.classification.tables import rows, write_table

    table = write_table(tmp_path, rows(2))
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"base: nearl_clip/chest_drr_16shot\ndata: {{name: image_csv, table: {table}}}\n")
    text = call("check", recipe)
    assert "mine.yaml: valid" in text and "patients" in text
    (tmp_path / "0.png").write_bytes(b"broken")
    assert "0.png: cannot be read as an image" in " ".join(call("check", recipe, code=1).split())
    assert "patients" not in call("check", recipe, "--no-data")
    Path(table).unlink()
    assert "table.csv, which does not exist" in call("check", recipe, code=1)
    assert "mine.yaml: valid" in call("check", recipe, "--no-data")


def test_plan_as_json():
    result = json.loads(call("plan", "zero_shot/chest_drr_16shot", "--json"))
    assert (
        result["parameters"][1] == 0 and result["total_memory"] == result["peak"] == sum(result["memory"].values()) > 0
    )
    assert set(result["memory"]) == {"weights", "gradients", "optimizer", "activations", "workspace"}
    table = call("plan", "zero_shot/chest_drr_16shot")
    assert "workspace" in table and f"{result['peak'] / 1e9:.2f}" in table
