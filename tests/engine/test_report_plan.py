"""Plans of benchmarks of report models: what is wrong with one is said before anything is loaded."""

import shutil
from pathlib import Path

import pytest

from tests.tiny_benchmark import write_models
from zoo.engine.report_benchmark import run_benchmark
from zoo.engine.report_plan import Benchmark, plan_benchmark
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


def test_a_model_that_has_none_of_the_modes_is_an_error(root, tmp_path):
    with pytest.raises(ArgumentError, match="nothing to measure. .*qwen.yaml, as it is, generated: not possible"):
        run_benchmark([str(root / "qwen.yaml")], benchmark(root, tmp_path / "out", modes=("generated",)))
    assert not (tmp_path / "out").exists()
