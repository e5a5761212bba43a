"""Files and folders of recipes: beside the recipe or in the working directory, absolute once read, left out of a card."""

from pathlib import Path

import pytest
import yaml

from tests.tiny_cards import write_film
from zoo.config.locations import LEFT_OUT, absolute_paths, left_out, without_paths
from zoo.config.recipe import read_recipe

NOWHERE = {"name": "image_csv", "table": "data/none.csv", "images": None, "path_column": "path"}


def write(folder: Path, **data: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({"data": {"name": "image_csv", **data}, "method": {"name": "nearl_clip"}}))
    return file


def table_of(recipe: Path, *overrides: str) -> str:
    return read_recipe(recipe, overrides)["data"]["table"]


def test_what_stands_beside_the_recipe_comes_before_what_is_in_the_working_directory(tmp_path, monkeypatch):
    recipe = write(tmp_path / "recipes", table="mine.csv")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert table_of(recipe) == "mine.csv", "it is in neither place"
    (tmp_path / "here" / "mine.csv").touch()
    assert table_of(recipe) == str(tmp_path / "here" / "mine.csv")
    (tmp_path / "recipes" / "mine.csv").touch()
    assert table_of(recipe) == str(tmp_path / "recipes" / "mine.csv")
    assert table_of(recipe, "data.table=mine.csv") == str(tmp_path / "here" / "mine.csv"), "of the command line"


def test_a_base_recipe_names_what_stands_beside_itself(tmp_path):
    write(tmp_path, table="mine.csv")
    (tmp_path / "mine.csv").touch()
    other = tmp_path / "other.yaml"
    other.write_text("base: mine\nseed: 3\n")
    assert table_of(other) == str(tmp_path / "mine.csv")


def test_links_dots_and_a_tilde_are_read_as_a_shell_does(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "films.csv").touch()
    assert table_of(write(tmp_path / "a", table="../films.csv")) == str(tmp_path / "films.csv")
    assert table_of(write(tmp_path / "a", table="~/films.csv")) == str(tmp_path / "films.csv")


@pytest.mark.parametrize(
    ("section", "content"),
    [
        ("data", NOWHERE),
        ("method", {"clip": {"name": "open_clip", "model": "ViT-B-16", "pretrained": "openai"}}),
        ("method", {"context": {"source": "OWNER/NAME"}, "prompt": "left / right"}),
        ("data", {"name": "image_csv", "table": "a\0b", "path_column": "x" * 5000}),
    ],
)
def test_names_and_what_is_not_there_stay_as_they_are(section, content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ViT-B-16").mkdir()
    (tmp_path / "openai").mkdir()
    assert absolute_paths({section: content}, lambda key: tmp_path) == {section: content}


def test_splits_nested_sources_scans_and_local_weights_are_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("films/train", "weights"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "ct.nii").touch()
    content = {
        "data": {
            "annotations": {"name": "mask_images", "images": "films/{split}", "target": "films"},
            "scans": [{"ct": "ct.nii", "labels": "none.nii"}],
            "labels": ["films"],
        },
        "method": {"clip": {"model": "local-dir:weights"}, "context": {"source": "weights"}},
    }
    found = absolute_paths(content, lambda key: None)
    assert found["data"]["annotations"]["images"] == f"{tmp_path}/films/{{split}}"
    assert found["data"]["annotations"]["target"] == "films" and found["data"]["labels"] == ["films"]
    assert found["data"]["scans"] == [{"ct": f"{tmp_path}/ct.nii", "labels": "none.nii"}]
    assert found["method"]["clip"]["model"] == f"local-dir:{tmp_path}/weights"
    shown, keys = without_paths({**found, "init_from": [str(tmp_path / "cards" / "mine")]})
    assert keys == [
        "data.annotations.images",
        "data.scans.0.ct",
        "data.scans.0.labels",
        "method.clip.model",
        "method.context.source",
    ]
    assert str(tmp_path) not in str(shown) and shown["init_from"] == ["mine"]
    assert [key for key, _ in left_out(shown, "data")] == keys[:3]
    assert shown["data"]["annotations"] == {"name": "mask_images", "images": LEFT_OUT, "target": "films"}


def test_a_card_is_found_by_name_from_everywhere_or_becomes_its_folder(cards, tmp_path, monkeypatch):
    def start(name: str, folder: Path | None = None) -> str:
        return absolute_paths({"init_from": name}, lambda key: folder)["init_from"]

    assert start("tiny-nearl") == "tiny-nearl" and start("no-such-card") == "no-such-card"
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    assert start("tiny-nearl", cards / "tiny-base") == str(cards / "tiny-nearl"), "beside the card that starts from it"
    assert start("checkpoints/tiny-nearl") == str(cards / "tiny-nearl")
    monkeypatch.delenv("ZOO_CHECKPOINTS")
    assert start("tiny-nearl") == str(cards / "tiny-nearl"), "in checkpoints/ of the working directory"
    write_film(tmp_path / "film.png")
    assert start("film.png") == "film.png", "no card"


def test_weights_of_metrics_are_left_out_and_not_asked_for(tmp_path):
    (tmp_path / "weights").mkdir()
    metrics = ["radgraph", {"name": "chexbert", "path": str(tmp_path / "weights")}]
    method = {"name": "interleaved_reasoning", "report_metrics": metrics, "source": str(tmp_path)}
    shown, keys = without_paths({"method": method})
    assert keys == ["method.report_metrics.1.path", "method.source"]
    assert shown["method"]["report_metrics"] == ["radgraph", {"name": "chexbert", "path": LEFT_OUT}]
    assert [key for key, _ in left_out(shown, "method")] == ["method.source"], "a card predicts without its metrics"
