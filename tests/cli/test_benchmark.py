"""The command ``zoo benchmark``: what it would run, and its errors; tests/engine/test_report_benchmark.py runs it."""

import json

import pytest
from typer.testing import CliRunner

from tests.tiny_benchmark import write_models
from zoo.cli.app import app
from zoo.engine import report_benchmark


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("benchmark"))


def test_a_plan_says_what_would_run(root, tmp_path):
    options = [
        "--data",
        str(root / "traces"),
        "--out",
        str(tmp_path / "out"),
        "--dry-run",
        "--json",
        "--modes",
        "none,generated",
    ]
    done = CliRunner().invoke(app, ["benchmark", "reports", str(root / "qwen.yaml"), *options, "--limit", "3"])
    plan = json.loads(done.output)
    assert plan["records"] == 3 and [row["state"] for row in plan["rows"]] == [
        "to do",
        "not possible: it generates no images",
    ]
    done = CliRunner().invoke(app, ["benchmark", "reports", str(root / "qwen.yaml"), *options[:4], "--dry-run"])
    assert done.exit_code == 0 and "4 records of test" in done.output and "not possible" in done.output
    done = CliRunner().invoke(app, ["benchmark", "reports", str(root / "qwen.yaml"), *options[:5], "--limit", "1"])
    assert "1 record of test" in done.output
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_is_said_without_a_trace(root, tmp_path):
    done = CliRunner().invoke(app, ["benchmark", "reports", str(root / "qwen.yaml"), "--data", str(tmp_path)])
    assert (
        done.exit_code == 1
        and "the folder of the data has train.jsonl" in done.output
        and "Traceback" not in done.output
    )
    done = CliRunner().invoke(app, ["benchmark", "reports", str(root / "qwen.yaml"), "--shots", "-1"])
    assert done.exit_code == 2
    folder = ["benchmark", "reports", str(root / "qwen.yaml"), "--data", str(root / "traces"), "--dry-run"]
    for wrong, message in (
        (["--modes", ""], "no evidence is named; --modes takes"),
        (["--seeds", "0,0"], "'0,0' names 0 twice"),
        (["--set", "method.evidence=crop"], "method.evidence is decided by --modes"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--out", str(root / "qwen.yaml")], "is a file; choose a folder with --out"),
    ):
        done = CliRunner().invoke(app, [*folder, *wrong])
        assert done.exit_code in (1, 2) and message in done.output, done.output


def test_an_interrupted_benchmark_says_how_to_go_on(root, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(report_benchmark, "run_benchmark", interrupted)
    options = ["--data", str(root / "traces"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["benchmark", "reports", str(root / "qwen.yaml"), *options])
    assert done.exit_code != 0 and "interrupted: repeat the same command" in done.output
