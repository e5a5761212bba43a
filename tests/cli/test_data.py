"""zoo data build and check."""

import json

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from tests.data.annotations.public_forms import FORMS
from zoo.cli.app import app

run = CliRunner()


def call(*arguments: str, code: int = 0) -> str:
    result = run.invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.output + result.stderr + repr(result.exception)
    return result.output + result.stderr


def test_data_check_names_lines_and_fails(tmp_path):
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "film.png")
    good = {"prompt": "Write. <image>", "response": "Clear.", "images": ["film.png"]}
    file = tmp_path / "records.jsonl"
    file.write_text(json.dumps(good) + "\n")
    assert "traces, 0 steps; 1 record is valid, 0 problems" in call("data", "check", file)
    file.write_text(json.dumps(good) + "\n" + json.dumps({**good, "images": ["gone.png"]}) + "\n{")
    output = call("data", "check", file, code=1)
    assert "records.jsonl:2: the image" in output and "records.jsonl:3: is not JSON" in output


def test_data_build_reports_counts_and_wrong_settings():
    assert "train: 32 samples" in call("data", "build", "chest_drr", "size=32", "image_size=32")
    assert "did you mean size" in call("data", "build", "chest_drr", "sizee=3", code=1)


def test_public_forms_are_converted_reviewed_and_accepted(tmp_path):
    node = FORMS["run_length_table"](tmp_path / "in")
    settings = [f"{key}={value}" for key, value in node.items() if key != "name"]
    out = tmp_path / "out"
    output = call("data", "convert", "run_length_table", *settings, "--out", out, "--absent", 1, "--review")
    assert "train: 3 records" in output and "zoo data accept" in output
    table = out / "review.csv"
    table.write_text(table.read_text().replace("\n,train", "\nyes,train"))
    assert "train: 3 records" in call("data", "accept", out) and "exists" in call("data", "accept", out, code=1)
    assert "go together" in call(
        "data", "convert", "siim_acr", "table=a", "--out", out, "--endpoint", "http://x", code=2
    )
    assert "did you mean" in call("data", "convert", "siim", "table=a", "--out", out, code=1)


def test_graphs_are_converted_to_traces(tmp_path):
    node = FORMS["chest_imagenome"](tmp_path / "in")
    settings = [f"{key}={value}" for key, value in node.items() if key != "name"]
    output = call("data", "convert", "chest_imagenome", *settings, "--to", "traces", "--out", tmp_path / "out")
    assert "train: 3 records" in output
    assert "traces, 3 steps; 3 records are valid" in call("data", "check", tmp_path / "out" / "train.jsonl")


def test_data_check_prints_tables_and_writes_a_page(tmp_path):
    node = FORMS["siim_acr"](tmp_path / "in")
    settings = [f"{key}={value}" for key, value in node.items() if key != "name"]
    output = call("data", "check", "siim_acr", *settings, "--out", tmp_path / "page")
    assert "pneumothorax" in output and "opened 6 of 6 images" in output
    assert (tmp_path / "page" / "data.html").read_text().count("<img") == 3
    content = json.loads(call("data", "check", "siim_acr", *settings, "--json"))
    assert content["siim_acr"]["sizes"] == [{"width x height": "32 x 32", "channels": "1", "images opened": "6"}]
    assert "name a file" in call("data", "check", "images=x", code=2)
    assert "there is no such file" in call("data", "check", tmp_path / "gone.csv", code=1)
