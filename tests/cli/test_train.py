"""zoo train, eval and compare, and what follows them."""

import json
import shutil
from pathlib import Path

import numpy as np
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


def test_train_eval_compare_publish_predict_through_the_command_line(
    tiny_recipe, tmp_path, monkeypatch, striped_folder
):
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "cards"))
    call("train", tiny_recipe, "trainer.max_epochs=1", "--out", tmp_path / "run")
    assert "already contains a run" in call("train", tiny_recipe, "--out", tmp_path / "run", code=1)
    metrics = printed("eval", tmp_path / "run", "--json")
    details = metrics.pop("details")
    assert set(details["baselines"]) == {"majority class", "raw-pixel probe"} and len(details["classes"]) == 3
    assert set(metrics) == {"accuracy", "macro_f1", "auroc"} and metrics["accuracy"]["n"] == 24

    for split in ("train", "val", "test"):
        shutil.copytree(striped_folder / split, tmp_path / "one" / split)
    for name in ("stripes", "blank film"):
        for film in (tmp_path / "one" / "test" / name).iterdir():
            film.unlink()
    text = call("eval", tmp_path / "run", f"data.folder={tmp_path / 'one'}", "--no-details")
    assert "accuracy" in text and "not defined" not in text
    assert "note: left out, since these data have nothing to measure them on: auroc" in text

    call("publish", tmp_path / "run", "--name", "tiny")
    assert "yes" in call("verify", "tiny", f"data.folder={striped_folder}")
    image = next((striped_folder / "test" / "dots").iterdir())
    results = printed("predict", "tiny", image, "--out", tmp_path / "output", "--json")
    picture = Path(results[str(image)]["picture"])
    assert picture.is_file() and np.asarray(Image.open(picture)).std() > 10
    assert "there is no such file" in call("predict", "tiny", tmp_path / "gone.png", code=1)
    text = call("predict", "tinny", image, code=1)
    assert f"no card is named 'tinny' in {tmp_path / 'cards'} or " in text
    assert "ZOO_CHECKPOINTS" in text and "did you mean tiny" in text

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
    assert [row["baseline"] for row in rows] == [False, True, True] * 2 and rows[0]["metrics"]["accuracy"]["n"] == 24
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
