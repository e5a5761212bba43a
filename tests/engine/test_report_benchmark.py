"""Benchmarks of report models: small vision-language models in the real formats, as they are and fine-tuned, killed and resumed."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from tests.killing import train_and_kill
from tests.tiny_benchmark import write_models
from zoo.cli.app import app
from zoo.config.recipe import read_recipe
from zoo.decoders.trace_prompts import instruction
from zoo.engine import report_benchmark, trainers
from zoo.engine.publishing import publish
from zoo.engine.report_benchmark import BenchmarkError, describe_records, run_benchmark
from zoo.engine.report_plan import AS_IS, FINE_TUNED, MODES, Benchmark, plan_benchmark
from zoo.engine.report_rows import plan_rows
from zoo.engine.training import InterruptedRunError, train
from zoo.errors import ArgumentError, OutputExistsError
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
    assert (out / "table.md").read_text().count("\n") == 17 and (out / "table.png").is_file()


def test_a_model_that_generates_images_has_all_five_modes(root, tmp_path):
    rows = run_benchmark([str(root / "anole.yaml")], benchmark(root, tmp_path / "out", limit=1))
    assert [row.setting for row in rows] == [f"as it is, {mode}" for mode in MODES]
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
    with pytest.raises(
        ArgumentError, match="was measured with other settings; choose another folder with --out. shots was 0, now 2"
    ):
        run_benchmark([model], benchmark(root, settings.out, modes=("none",), shots=2))


def test_an_interrupted_training_stops_the_benchmark(root, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(InterleavedVisionLanguage, "training_step", interrupted)
    settings = benchmark(root, tmp_path / "out", modes=("none", "text"), fine_tune=True, limit=1)
    with pytest.raises(InterruptedRunError):
        run_benchmark([str(root / "qwen.yaml")], settings)
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 1, "the next training was not begun"
    table = (tmp_path / "out" / "table.md").read_text()
    assert "as it is, none" in table and "as it is, text" in table and "not possible" not in table


def test_a_run_is_measured_in_other_modes_and_not_trained_further(root, tmp_path):
    recipe = read_recipe(root / "llava.yaml", [*benchmark(root, tmp_path).settings, "method.evidence=none"])
    run = str(train(recipe, tmp_path / "run"))
    settings = benchmark(root, tmp_path / "out", modes=("none", "box"), fine_tune=True, limit=2)
    assert [item.problem is None for item in plan_benchmark([run], settings)] == [True, True, False, False]
    rows = run_benchmark([run], settings)
    assert [row.setting for row in rows] == ["as it is, none", "as it is, box"]
    (name,) = (path.stem for path in (tmp_path / "out" / "reports").glob("*box.jsonl"))
    assert [line["prompt"] for line in lines_of(tmp_path / "out", name)] == ["Write a report. <image>"] * 2


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
    with pytest.raises(BenchmarkError, match="qwen.yaml, as it is, none: not possible: .*JUDGE_KEY is not set"):
        run_benchmark([str(root / "qwen.yaml")], settings)


def test_reports_are_not_generated_again_when_a_judge_fails(root, tmp_path, monkeypatch):
    generate, calls = InterleavedVisionLanguage.generate, []

    def counted(self, images, prompts=None):
        calls.append(len(images))
        return generate(self, images, prompts)

    monkeypatch.setattr(InterleavedVisionLanguage, "generate", counted)
    model, judge = str(root / "qwen.yaml"), "{name: judge, endpoint: 'http://localhost:1/v1', model: small, retries: 0}"
    options = {"modes": ("none",), "limit": 1}
    fails = benchmark(root, tmp_path / "out", overrides=[f"method.report_metrics=[{judge}]"], **options)
    for _ in range(2):
        with pytest.raises(BenchmarkError, match="not possible: "):
            run_benchmark([model], fails)
    (row,) = run_benchmark([model], benchmark(root, tmp_path / "out", **options))
    assert calls == [1] and row.metrics["bleu4"].n == 1
    assert not list((tmp_path / "out" / "outputs").glob("*generated*"))


@pytest.fixture
def own(root, tmp_path):
    """A model and traces that a test changes."""
    shutil.copytree(root, tmp_path / "own")
    recipe = tmp_path / "own" / "qwen.yaml"
    recipe.write_text(recipe.read_text().replace(str(root), str(tmp_path / "own")))
    return tmp_path / "own"


def test_a_row_is_measured_again_when_its_records_or_weights_change(own, tmp_path):
    model, settings = str(own / "qwen.yaml"), benchmark(own, tmp_path / "out", modes=("none",), limit=1)
    said: list[str] = []
    run_benchmark([model], settings, said.append)
    file = own / "traces" / "test.jsonl"
    file.write_text(file.read_text().replace("No pleural effusion.", "Cardiomegaly."))
    run_benchmark([model], settings, said.append)
    (name,) = (path.stem for path in (tmp_path / "out" / "reports").iterdir())
    assert said[-1].endswith("again: the measured records or their images changed")
    assert lines_of(tmp_path / "out", name)[0]["reference"] == "Cardiomegaly."
    weights = own / "qwen" / "model.safetensors"
    for path in (weights, *(own / "traces").glob("*.png")):
        os.utime(path, ns=(1, 1))
    run_benchmark([model], settings, said.append)
    assert said[-1].endswith("done before"), "the content is the same"
    tensors = load_file(weights)
    save_file({name: 0.5 * value for name, value in tensors.items()}, weights, metadata={"format": "pt"})
    run_benchmark([model], settings, said.append)
    run_benchmark([model], settings, said.append)
    assert said[-2].endswith("again: the weights changed") and said[-1].endswith("done before")


def test_a_run_that_learned_from_other_records_is_refused(own, tmp_path):
    options = {"modes": ("none",), "fine_tune": True, "as_is": False, "overrides": ["trainer.max_epochs=1"]}
    settings = benchmark(own, tmp_path / "out", limit=1, **options)
    run_benchmark([str(own / "qwen.yaml")], settings)
    file = own / "traces" / "train.jsonl"
    file.write_text("\n".join(file.read_text().splitlines()[:2]))
    refused = "seed0 was trained before the training records or their images changed; remove this folder to train again"
    (planned,) = plan_rows([str(own / "qwen.yaml")], settings)
    assert planned.state.startswith("not possible: ") and refused in planned.state, "a dry run says so"
    (row,) = json.loads((tmp_path / "out" / "table.json").read_text())
    with pytest.raises(BenchmarkError, match=f"measured before; could not be measured again: .*{refused}") as raised:
        run_benchmark([str(own / "qwen.yaml")], settings)
    assert (
        [asdict(row) for row in raised.value.rows] == [row] == json.loads((tmp_path / "out" / "table.json").read_text())
    )
    assert refused in (tmp_path / "out" / "table.md").read_text()


def test_an_error_in_one_row_does_not_stop_the_others(root, tmp_path, monkeypatch):
    generate = InterleavedVisionLanguage.generate

    def refuses_boxes(self, images, prompts=None):
        if self.evidence == "box":
            raise ArgumentError("no boxes <here>")
        return generate(self, images, prompts)

    monkeypatch.setattr(InterleavedVisionLanguage, "generate", refuses_boxes)
    out = tmp_path / "out"
    options = [
        "--data",
        str(root / "traces"),
        "--out",
        str(out),
        "--device",
        "cpu",
        "--modes",
        "box,none",
        "--limit",
        "1",
    ]
    done = CliRunner().invoke(app, ["benchmark", "reports", str(root / "qwen.yaml"), *options])
    assert done.exit_code == 1 and "1 row of 2 could not be measured" in done.output, done.output
    assert [row["setting"] for row in json.loads((out / "table.json").read_text())] == ["as it is, none"]
    assert "qwen.yaml, as it is, box: not possible: no boxes &lt;here&gt;" in (out / "index.html").read_text()
    table = (out / "table.md").read_text()
    assert "as it is, box: not possible: no boxes" in table
    assert table.startswith("Split test, the first of 4 records, of ")


def test_other_files_are_not_overwritten_and_other_rows_of_the_same_records_stay(root, tmp_path):
    model, out = str(root / "qwen.yaml"), tmp_path / "out"
    out.mkdir()
    (out / "table.md").write_text("mine")
    with pytest.raises(OutputExistsError, match="has files that are not a benchmark's"):
        run_benchmark([model], benchmark(root, out, modes=("none",), limit=1))
    assert [path.read_text() for path in out.iterdir()] == ["mine"]
    (out / "table.md").unlink()
    run_benchmark([model], benchmark(root, out, modes=("none",), limit=1))
    (second, first) = run_benchmark([model], benchmark(root, out, modes=("text",), limit=1, shots=50))
    assert (first.setting, second.setting) == ("as it is, none", "as it is, text")
    table = (out / "table.md").read_text()
    assert "with 4 training responses as examples (50 were asked for, and there are no more)" in table
    assert "qwen-as_it_is-none: of an earlier command. Split test, the first of 4 records, of " in table
    (third,) = run_benchmark([model], benchmark(root, out, modes=("box",), limit=2))
    table = (out / "table.md").read_text()
    assert third.setting == "as it is, box" and "Split test, the first 2 of 4 records, of " in table
    assert table.count("left out, since this command does not name it and it was measured on other records") == 2


def test_numbers_stay_when_a_row_fails_that_was_measured_before(own, tmp_path, monkeypatch):
    model, settings = str(own / "qwen.yaml"), benchmark(own, tmp_path / "out", modes=("none",), limit=1)
    (row,) = run_benchmark([model], settings)
    page = tmp_path / "out" / "index.html"
    assert page.read_text().count('<section class="film">') == 1
    file = own / "traces" / "test.jsonl"
    file.write_text(file.read_text().replace("No pleural effusion.", "Cardiomegaly."))

    def refuses(*_, **__):
        raise ArgumentError("not today")

    monkeypatch.setattr(InterleavedVisionLanguage, "generate", refuses)
    with pytest.raises(BenchmarkError, match="measured before; could not be measured again: not today") as raised:
        run_benchmark([model], settings)
    assert raised.value.rows == [row] and "| as it is, none |" in (tmp_path / "out" / "table.md").read_text()
    assert '<section class="film">' not in page.read_text(), "its reports may be of other images"


def test_the_caption_says_how_it_was_measured(root, tmp_path):
    model = str(root / "qwen.yaml")
    options = {"instruct": False, "shots": 1, "overrides": ["method.max_new_tokens=4"]}
    assert describe_records([model], benchmark(root, tmp_path, **options)) == (
        f"Split test, all 4 records, of {root / 'traces'}. Prompts of models as they are: plain, with 1 training response as "
        "examples. Settings: method.max_new_tokens=4."
    )
    assert describe_records([model], benchmark(root, tmp_path, split="val")).startswith("Split val, 1 record, of ")


def test_weights_that_are_not_here_are_said_before_any_row(root, tmp_path, monkeypatch):
    model, context = str(root / "qwen.yaml"), "method.context.source"
    hub = benchmark(root, tmp_path / "out", modes=("none",), overrides=[f"{context}=Qwen/Qwen2.5-VL-7B-Instruct"])
    (planned,) = plan_rows([model], hub)
    missing = "not possible: method.context.source: the weights of Qwen/Qwen2.5-VL-7B-Instruct are not here"
    assert planned.state.startswith(missing) and f"--set {context}=FOLDER" in planned.state
    folder = benchmark(root, tmp_path / "out", modes=("none", "box"), overrides=[f"{context}={tmp_path / 'gone'}"])
    states = [row.state for row in plan_rows([model], folder)]
    assert states == [f"not possible: {context}: there is no folder {tmp_path / 'gone'}"] * 2

    said: list[str] = []
    good = tmp_path / "good.yaml"
    shutil.copy(model, good)
    (tmp_path / "bad.yaml").write_text(good.read_text().replace(str(root / "qwen"), str(tmp_path / "gone")))
    settings = benchmark(root, tmp_path / "out", modes=("none",), limit=1)
    with pytest.raises(BenchmarkError, match=r"1 row of 2 could not be measured:\n.*bad.yaml.*there is no folder"):
        run_benchmark([str(good), str(tmp_path / "bad.yaml")], settings, said.append)
    assert "bad.yaml" in said[0] and said[1].startswith("1/1 ") and "good.yaml" in said[1]


def test_as_it_is_the_file_of_the_split_is_enough(own, tmp_path):
    for split in ("train", "val"):
        (own / "traces" / f"{split}.jsonl").unlink()
    settings = benchmark(own, tmp_path / "out", modes=("none",), limit=1)
    assert len(run_benchmark([str(own / "qwen.yaml")], settings)) == 1
    with pytest.raises(ArgumentError, match=r"there is no .*train.jsonl"):
        benchmark(own, tmp_path / "out", shots=1)
