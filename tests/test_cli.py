import json
import shutil
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


def printed(*arguments: str) -> dict:
    """The JSON that a verb prints on standard output."""
    result = run.invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output + repr(result.exception)
    return json.loads(result.stdout)


def test_list_names_everything_and_takes_json():
    content = json.loads(call("list", "--json"))
    assert "oca" in content["components"]["adapter"] and "nearl_clip/chest_drr_16shot" in content["recipes"]
    assert "chest_drr" in content["datasets"] and "clip-small-chest-drr" in content["cards"]
    assert "did you mean recipes" in call("list", "recipe", code=2)


def test_listing_imports_no_torch():
    code = "import sys; sys.argv = ['zoo', 'list']\nfrom zoo.cli.app import app\ntry: app()\nexcept SystemExit: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False")


@pytest.mark.parametrize(
    "verb",
    [
        "list",
        "show",
        "check",
        "plan",
        "train",
        "eval",
        "compare",
        "predict",
        "publish",
        "verify",
        "push",
        "pull",
        "demo",
    ],
)
def test_every_verb_has_help_with_an_example(verb):
    text = " ".join(call(verb, "--help").split())
    assert "Example" in text and f"zoo {verb}" in text


def test_data_check_names_lines_and_fails(tmp_path):
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "film.png")
    good = {"prompt": "Write. <image>", "response": "Clear.", "images": ["film.png"]}
    file = tmp_path / "records.jsonl"
    file.write_text(json.dumps(good) + "\n")
    assert "1 records with 0 steps are valid, 0 are not" in call("data", "check", file)
    file.write_text(json.dumps(good) + "\n" + json.dumps({**good, "images": ["gone.png"]}) + "\n{")
    said = call("data", "check", file, code=1)
    assert "records.jsonl:2: the image" in said and "records.jsonl:3: is no JSON" in said


def test_show_tells_signature_and_paper():
    assert "2508.04101" in call("show", "oca") and "incremental_scale" in call("show", "oca")
    assert "init_from" in call("show", "nearl_clip/chest_drr_16shot")
    assert "clip_pretraining" in call("show", "clip-small-chest-drr")
    assert "did you mean oca" in call("show", "ocaa", code=2)


def test_a_contact_sheet_is_drawn(tmp_path):
    call("show", "chest_drr", "--out", tmp_path, "--set", "image_size=48")
    sheet = np.asarray(Image.open(tmp_path / "chest_drr.png").convert("L"))
    assert sheet.shape[0] > 600 and sheet.std() > 30


def test_wrong_recipes_exit_with_2_and_list_every_mistake(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("sed: 1\ndata: {name: nothing}\n")
    text = call("check", bad, code=2)
    assert "sed" in text and "data.name" in text and "method: is missing" in text and "optimizer" in text


def test_data_build_reports_counts_and_wrong_settings():
    assert "train: 32 samples" in call("data", "build", "chest_drr", "size=32", "image_size=32")
    assert "did you mean size" in call("data", "build", "chest_drr", "sizee=3", code=2)


def test_plan_as_json():
    made = json.loads(call("plan", "zero_shot/chest_drr_16shot", "--json"))
    assert made["parameters"][1] == 0 and made["total_memory"] == made["peak"] == sum(made["memory"].values()) > 0
    assert set(made["memory"]) == {"weights", "gradients", "optimizer", "activations", "workspace"}
    table = call("plan", "zero_shot/chest_drr_16shot")
    assert "workspace" in table and f"{made['peak'] / 1e9:.2f}" in table


def test_train_eval_compare_publish_predict_through_the_command_line(
    tiny_recipe, tmp_path, monkeypatch, striped_folder
):
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "cards"))
    call("train", tiny_recipe, "trainer.max_epochs=1", "--out", tmp_path / "run")
    assert "already contains a run" in call("train", tiny_recipe, "--out", tmp_path / "run", code=1)
    metrics = printed("eval", tmp_path / "run", "--json")
    assert set(metrics) == {"accuracy", "macro_f1", "auroc"} and metrics["accuracy"]["n"] == 24

    call("publish", tmp_path / "run", "--name", "tiny")
    assert "yes" in call("verify", "tiny")
    image = next((striped_folder / "test" / "dots").iterdir())
    seen = printed("predict", "tiny", image, "--out", tmp_path / "seen", "--json")
    picture = Path(seen[str(image)]["picture"])
    assert picture.is_file() and np.asarray(Image.open(picture)).std() > 10
    assert "there is no such file" in call("predict", "tiny", tmp_path / "gone.png", code=1)
    assert "no card is named" in call("predict", "tinny", image, code=1)

    text = call(
        "compare",
        tiny_recipe,
        "--shots",
        "1,2",
        "--seeds",
        "0,1",
        "--out",
        tmp_path / "table",
        "--set",
        "trainer.max_epochs=1",
    )
    assert "| 1-shot | 2 |" in text and "| 2-shot | 2 |" in text
    rows = json.loads((tmp_path / "table" / "table.json").read_text())
    assert len(rows) == 2 and rows[0]["metrics"]["accuracy"]["n"] == 24
    assert (tmp_path / "table" / "table.png").stat().st_size > 5000
    novel = ["compare", tiny_recipe, "--seeds", "0", "--protocol", "base_to_novel", "--out", tmp_path / "novel"]
    assert "the novel half of 3 classes is one class" in call(*novel, "--set", "trainer.max_epochs=1", code=1)
    for split in ("train", "val", "test"):
        shutil.copytree(striped_folder / split, tmp_path / "four" / split)
        shutil.copytree(striped_folder / split / "dots", tmp_path / "four" / split / "more dots")
    four = ["--set", "trainer.max_epochs=1", "--set", f"data.folder={tmp_path / 'four'}"]
    assert "is a run of another recipe or setting" in call(*novel, *four, code=1)
    call(*novel[:-1], tmp_path / "half", *four)
    assert "harmonic mean" in (tmp_path / "half" / "table.md").read_text()
    assert "Invalid value" in call("compare", tiny_recipe, "--protocol", "few", "--out", tmp_path / "x", code=2)


def test_verify_fails_where_a_number_does_not_hold(monkeypatch):
    import zoo.engine.verification as verification
    from zoo.cards.schema import CardMetric

    metric = CardMetric(name="accuracy", value=0.9, tolerance=0.01, split="test", n=10, seeds=[0], interval=(0.8, 1.0))
    monkeypatch.setattr(
        verification, "verify", lambda name, settings, device: [verification.CheckedMetric(name, metric, 0.5)]
    )
    assert "1 of 1 metrics differ by more than their tolerance" in call("verify", "anything", code=1)
    assert "use --all" in call("verify", code=2)
