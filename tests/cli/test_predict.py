"""zoo predict."""

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


def test_a_folder_and_options_that_do_not_go_together_are_refused(card, tmp_path):
    done = CliRunner().invoke(app, ["predict", card, str(tmp_path)])
    assert done.exit_code == 1 and "is a folder; name files" in done.stderr
    done = CliRunner().invoke(app, ["predict", card, str(tmp_path / "a.png"), "--chat", "--ask", "Where?"])
    assert done.exit_code == 2 and "--json or --dicom-seg" in " ".join(done.stderr.split())
