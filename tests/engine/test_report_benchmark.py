"""Benchmarks of report models: small vision-language models in the real formats, as they are and fine-tuned, killed and resumed."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from tests.killing import train_and_kill
from tests.tiny_benchmark import write_models
from zoo.cli.app import app
from zoo.config.recipe import read_recipe
from zoo.decoders.trace_prompts import instruction
from zoo.engine import report_benchmark, trainers
from zoo.engine.publishing import publish
from zoo.engine.report_benchmark import AS_IS, FINE_TUNED, Benchmark, plan_benchmark, run_benchmark
from zoo.engine.training import train
from zoo.errors import ArgumentError
from zoo.methods.interleaved_vision_language import InterleavedVisionLanguage


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("benchmark"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


def benchmark(root: Path, out: Path, **options) -> Benchmark:
    return Benchmark(out, data=root / "traces", device="cpu", **options)


def lines_of(out: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (out / "reports" / f"{name}.jsonl").read_text().splitlines()]


def test_models_are_measured_as_they_are_and_fine_tuned(root, tmp_path):
    out = tmp_path / "out"
    models = [str(root / "qwen.yaml"), str(root / "llava.yaml")]
    options = ["--data", str(root / "traces"), "--out", str(out), "--device", "cpu", "--modes", "none,crop,generated"]
    options += ["--fine-tune", "--seeds", "0,1", "--set", "trainer.max_epochs=1", "--shots", "1"]
    done = CliRunner().invoke(app, ["benchmark", "reports", *models, *options])
    assert done.exit_code == 0, done.output
    assert "1/8 " in done.output and "8/8 " in done.output and done.output.count("it generates no images") == 4
    rows = json.loads((out / "table.json").read_text())
    settings = [f"{kind}, {mode}" for kind in (AS_IS, FINE_TUNED) for mode in ("none", "crop")]
    assert [(row["recipe"], row["setting"]) for row in rows] == [
        (model, setting) for model in models for setting in settings
    ]
    assert [len(row["seeds"]) for row in rows] == [1, 1, 2, 2] * 2
    for row in rows:
        assert {"bleu4", "rouge_l", "cider", "reports_written"} <= set(row["metrics"])
        assert ("evidence_reliance" in row["metrics"]) == row["setting"].endswith("crop")
        assert all(measured["n"] == 4 for measured in row["metrics"].values())
    name = next(path.stem for path in (out / "reports").glob("*qwen-as_it_is-crop.jsonl"))
    lines = lines_of(out, name)
    assert [Path(line["image"]).name for line in lines] == [f"film_{index}.png" for index in (3, 2, 1, 0)]
    assert instruction("crop", 1000, 1000) in lines[0]["prompt"] and "Example of a response" in lines[0]["prompt"]
    assert lines[0]["reference"] == "No pleural effusion."
    trained = lines_of(out, name.replace("as_it_is", "fine_tuned"))
    assert [line["prompt"] for line in trained] == ["Write a report. <image>"] * 4, "it has learned the form"
    page = (out / "index.html").read_text()
    assert page.count('<section class="film">') == 4 and "it generates no images" in page and page.count("<h3>") == 32
    assert (out / "table.md").read_text().count("\n") == 10 and (out / "table.png").is_file()


def test_a_model_that_generates_images_has_all_five_modes(root, tmp_path):
    rows = run_benchmark([str(root / "anole.yaml")], benchmark(root, tmp_path / "out", limit=1))
    assert [row.setting for row in rows] == [f"as it is, {mode}" for mode in report_benchmark.MODES]
    assert all(measured.n == 1 for row in rows for measured in row.metrics.values())


def test_what_is_done_is_not_done_again_and_what_was_killed_goes_on(root, tmp_path, monkeypatch):
    model = str(root / "qwen.yaml")
    settings = benchmark(root, tmp_path / "out", modes=("none", "text"), fine_tune=True)
    generate, calls = InterleavedVisionLanguage.generate, []

    def fails_in_the_second_row(self, images, prompts=None):
        calls.append(self.evidence)
        if self.evidence == "text" and calls.count("text") == 2:
            raise KeyboardInterrupt
        return generate(self, images, prompts)

    monkeypatch.setattr(InterleavedVisionLanguage, "generate", fails_in_the_second_row)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run_benchmark([model], settings)
    assert calls == ["none", "none", "text", "text"], "batches of two of four records"

    expected = train(
        read_recipe(model, [*settings.settings, "method.evidence=text", "seed=0"]), tmp_path / "uninterrupted"
    )
    items = {item.name: item for item in plan_benchmark([model], settings)}
    trained = next(name for name in items if name.endswith("fine_tuned-text"))
    run = settings.out / "runs" / f"{trained}-seed0"
    monkeypatch.setattr(trainers, "CHECKPOINT_EVERY", 1)
    train_and_kill(3, read_recipe(model, [*settings.settings, "method.evidence=text", "seed=0"]), run)
    assert (run / "checkpoints" / "last.ckpt").is_file() and not (run / "model.safetensors").is_file()
    monkeypatch.undo()
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))

    said: list[str] = []
    rows = run_benchmark([model], settings, said.append)
    assert [line.endswith("done before") for line in said] == [True, False, False, False]
    assert (run / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes(), "resumed"
    assert [len(lines_of(settings.out, name)) for name in items] == [4] * 4
    assert not list((settings.out / "reports").glob(".*")), "parts of the interrupted row are gone"

    def nothing_runs(*_, **__):
        raise AssertionError("it was done")

    for name in ("assemble", "open_evaluation", "finished_run"):
        monkeypatch.setattr(report_benchmark, name, nothing_runs)
    assert run_benchmark([model], settings, said.append) == rows
    with pytest.raises(ArgumentError, match="was measured with other settings; choose another folder with --out"):
        run_benchmark([model], benchmark(root, settings.out, modes=("none",), shots=2))


def test_a_run_is_measured_in_other_modes_and_not_trained_further(root, tmp_path):
    recipe = read_recipe(root / "llava.yaml", [*benchmark(root, tmp_path).settings, "method.evidence=none"])
    run = str(train(recipe, tmp_path / "run"))
    settings = benchmark(root, tmp_path / "out", modes=("none", "box"), fine_tune=True, limit=2)
    assert [item.problem is None for item in plan_benchmark([run], settings)] == [True, True, False, False]
    rows = run_benchmark([run], settings)
    assert [row.setting for row in rows] == ["as it is, none", "as it is, box"]
    (name,) = (path.stem for path in (tmp_path / "out" / "reports").glob("*box.jsonl"))
    assert [line["prompt"] for line in lines_of(tmp_path / "out", name)] == ["Write a report. <image>"] * 2


def test_wrong_benchmarks_are_errors_at_once(root, tmp_path):
    models = [str(root / "qwen.yaml"), str(root / "llava.yaml")]
    with pytest.raises(ArgumentError, match="unknown evidence close-up; expected of none, text, box, crop, generated"):
        benchmark(root, tmp_path, modes=("close-up",))
    with pytest.raises(ArgumentError, match="nothing to measure"):
        benchmark(root, tmp_path, as_is=False)
    with pytest.raises(ArgumentError, match=r"there is no .*train.jsonl; the folder of the data has"):
        Benchmark(tmp_path, data=tmp_path)
    with pytest.raises(ArgumentError, match="two models have the same name"):
        plan_benchmark([models[0], models[0]], benchmark(root, tmp_path))
    with pytest.raises(ArgumentError, match="writes no reports: its method is clip_adaptation"):
        plan_benchmark(["coop/chest_drr_16shot"], benchmark(root, tmp_path))
    with pytest.raises(
        ArgumentError, match="is no recipe, card or run folder; did you mean .*interleaved_reasoning/qwen"
    ):
        plan_benchmark(["interleaved_reasoning/qwen2_5_vl"], benchmark(root, tmp_path))
    shutil.copy(root / "llava.yaml", tmp_path / "other.yaml")
    (tmp_path / "other.yaml").write_text((tmp_path / "other.yaml").read_text().replace("test: none", "test: others"))
    with pytest.raises(ArgumentError, match=r"the records of .*other.yaml are not those of .*qwen.yaml; .*--data"):
        plan_benchmark([models[0], str(tmp_path / "other.yaml")], Benchmark(tmp_path / "out"))


def test_a_card_is_measured_and_trained_further(root, tmp_path, monkeypatch):
    recipe = read_recipe(root / "qwen.yaml", [*benchmark(root, tmp_path).settings, "method.evidence=none"])
    run = train(recipe, tmp_path / "run")
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "cards"))
    options = {"license": "mit", "data_license": "mit", "data_source": "mine", "device": "cpu"}
    card = publish(run, "tiny-reports", **options)
    where = [f"method.context.source={root / 'qwen'}"]  # a card names no place of the machine
    settings = benchmark(root, tmp_path / "out", modes=("none",), fine_tune=True, limit=2, overrides=where)
    rows = run_benchmark(["tiny-reports"], settings)
    assert [row.setting for row in rows] == ["as it is, none", "fine-tuned, none"]
    (further,) = (tmp_path / "out" / "runs").iterdir()
    assert read_recipe(further / "recipe.yaml", record=True)["init_from"] == [str(card)]
    weights, before = (load_file(folder / "model.safetensors") for folder in (further, card))
    assert weights.keys() == before.keys() and any(not weights[name].equal(before[name]) for name in weights)


def test_what_a_metric_lacks_is_said_before_anything_is_generated(root, tmp_path, monkeypatch):
    def nothing_runs(*_, **__):
        raise AssertionError("it was generated")

    monkeypatch.setattr(InterleavedVisionLanguage, "generate", nothing_runs)
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    judge = "{name: judge, endpoint: 'http://localhost:1/v1', model: small, key_variable: JUDGE_KEY}"
    settings = benchmark(root, tmp_path / "out", modes=("none",), overrides=[f"method.report_metrics=[{judge}]"])
    with pytest.raises(ArgumentError, match="JUDGE_KEY is not set"):
        run_benchmark([str(root / "qwen.yaml")], settings)
