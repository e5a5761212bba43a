"""zoo predict."""

import csv
import json

import pytest
from typer.testing import CliRunner

from tests.tiny_cards import publish_tiny_classifier, write_film
from zoo.cli.app import app


@pytest.fixture(scope="module")
def card(tmp_path_factory, striped_folder) -> str:
    """The folder of a tiny classifier's card."""
    return str(publish_tiny_classifier(tmp_path_factory.mktemp("card"), striped_folder))


def test_a_file_that_cannot_be_read_is_reported_and_passed_over(card, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    files = [tmp_path / "bad.png", write_film(tmp_path / "good.png"), tmp_path / "gone.png"]
    done = CliRunner().invoke(app, ["predict", card, *map(str, files), "--json", "--device", "cpu"])
    assert done.exit_code == 1
    results = json.loads(done.stdout)
    assert "class" in results[str(files[1])]
    assert "cannot be read" in results[str(files[0])]["error"] and "no such file" in results[str(files[2])]["error"]
    assert "bad.png" in done.stderr and "gone.png" in done.stderr


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_folders_are_predicted_as_lines_and_what_is_bad_is_passed_over(card, tmp_path, format):
    write_film(tmp_path / "films" / "a" / "1.png")
    write_film(tmp_path / "films" / "b" / "1.png", 200)
    (tmp_path / "films" / "a" / "0.png").write_bytes(b"no picture")
    (tmp_path / "films" / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    out, names = tmp_path / "out", [str(tmp_path / "films"), str(tmp_path / "empty")]
    arguments = ["predict", card, *names, "--out", str(out), "--format", format, "--device", "cpu"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1, done.output
    assert (
        "notes.txt" in done.stderr and "empty: has no images" in done.stderr and "2 of 4 inputs failed" in done.stderr
    )
    rows = (
        list(csv.DictReader(done.stdout.splitlines()))
        if format == "csv"
        else [json.loads(line) for line in done.stdout.splitlines()]
    )
    assert [row["image"].removeprefix(f"{tmp_path}/") for row in rows if row.get("class")] == [
        "films/a/1.png",
        "films/b/1.png",
    ]
    assert sum(bool(row.get("error")) for row in rows) == 2
    assert (out / "a" / "1.png").is_file() and (out / "b" / "1.png").is_file()
    written = (out / f"predictions.{format}").read_text().splitlines()
    assert len(written) == 3 + (format == "csv")
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1 and "would be overwritten" in done.stderr


def test_options_that_do_not_go_together_are_refused(card, tmp_path):
    done = CliRunner().invoke(app, ["predict", card, str(tmp_path / "a.png"), "--chat", "--ask", "Where?"])
    assert done.exit_code == 2 and "--json or --dicom-seg" in " ".join(done.stderr.split())
