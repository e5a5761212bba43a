"""Plans of benchmarks of report models: what is wrong with one is said before anything is loaded."""

import shutil
from pathlib import Path

import pytest

from tests.tiny_benchmark import write_models
from zoo.config.recipe import RecipeError
from zoo.engine.report_benchmark import run_benchmark
from zoo.engine.report_plan import FINE_TUNED, Benchmark, plan_benchmark, recipe_of
from zoo.engine.trainers import DeviceError
from zoo.errors import ArgumentError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("benchmark"))


def benchmark(root: Path, out: Path, **options) -> Benchmark:
    return Benchmark(out, data=root / "traces", device="cpu", **options)


def test_wrong_benchmarks_are_errors_at_once(root, tmp_path):
    models = [str(root / "qwen.yaml"), str(root / "llava.yaml")]
    with pytest.raises(ArgumentError, match="unknown evidence close-up; expected of none, text, box, crop, generated"):
        benchmark(root, tmp_path, modes=("close-up",))
    with pytest.raises(ArgumentError, match="the evidence text is named twice"):
        benchmark(root, tmp_path, modes=("text", "none", "text"))
    with pytest.raises(ArgumentError, match="no evidence is named; --modes takes some of none, text"):
        benchmark(root, tmp_path, modes=())
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match=r"file is a file; choose a folder with --out"):
        benchmark(root, tmp_path / "file")
    with pytest.raises(ArgumentError, match="nothing to measure"):
        benchmark(root, tmp_path, as_is=False)
    with pytest.raises(ArgumentError, match=r"there is no .*test.jsonl; the folder of the data has"):
        Benchmark(tmp_path, data=tmp_path)
    with pytest.raises(ArgumentError, match="two models have the same name"):
        plan_benchmark([models[0], models[0]], benchmark(root, tmp_path))
    with pytest.raises(DeviceError, match="unknown device 'tpu'"):
        plan_benchmark(models, Benchmark(tmp_path, data=root / "traces", device="tpu"))
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


@pytest.mark.parametrize(
    ("override", "option"),
    [
        ("method.evidence=crop", "--modes"),
        ("method={evidence: crop}", "--modes"),
        ("seed=3", "--seeds"),
        ("data.train=x.jsonl", "--data"),
    ],
)
def test_what_the_command_decides_is_no_setting(root, tmp_path, override, option):
    with pytest.raises(ArgumentError, match=f"is decided by {option}; leave it out of --set"):
        benchmark(root, tmp_path, overrides=[override])
    if option == "--data":
        assert Benchmark(tmp_path, overrides=[override]).settings == [override]


def test_a_card_is_trained_further_from_its_own_weights_alone():
    card = "interleaved-vl-none-chest-drr"
    assert recipe_of(card, ["init_from=unet-chest-drr"])["init_from"] == "unet-chest-drr"
    with pytest.raises(
        ArgumentError, match=f"{card} is trained further from its own weights; leave out --set init_from"
    ):
        recipe_of(card, ["init_from=unet-chest-drr"], FINE_TUNED)


def test_data_of_a_recipe_that_are_not_here_and_overrides_that_do_not_fit_are_named(root, tmp_path):
    model = "interleaved_reasoning/qwen2_5_vl_7b"
    with pytest.raises(
        ArgumentError, match=f"{model}: the files of data.test of its recipe are not here; .*--data FOLDER"
    ):
        plan_benchmark([model], Benchmark(tmp_path))
    with pytest.raises(ArgumentError, match="the files of data.test and data.train of its recipe"):
        plan_benchmark([model], Benchmark(tmp_path, shots=1))
    assert plan_benchmark([model], Benchmark(tmp_path, overrides=[f"data.test={root / 'traces' / 'test.jsonl'}"]))
    models = [str(root / "qwen.yaml"), str(root / "anole.yaml")]
    with pytest.raises(RecipeError, match=r"anole.yaml: command line: method.context: "):
        plan_benchmark(models, benchmark(root, tmp_path, overrides=["method.context.image_size=56"]))


def test_a_model_that_has_none_of_the_modes_is_an_error(root, tmp_path):
    with pytest.raises(ArgumentError, match="nothing to measure. .*qwen.yaml, as it is, generated: not possible"):
        run_benchmark([str(root / "qwen.yaml")], benchmark(root, tmp_path / "out", modes=("generated",)))
    assert not (tmp_path / "out").exists()
