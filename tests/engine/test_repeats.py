"""The same image under two names is said, with both names, wherever the files are looked at."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.tiny_models import medseg_files
from zoo.cli.app import app
from zoo.data.annotations.base import PRESENT, AnnotatedImage, Problems
from zoo.engine import repeats
from zoo.engine.repeats import report_repeats, same_content


@pytest.fixture
def folder(striped_folder, tmp_path):
    copy = tmp_path / "films"
    shutil.copytree(striped_folder, copy)
    return copy


def found(images) -> Problems:
    problems = Problems()
    report_repeats(images, problems)
    return problems


def test_files_are_read_only_where_they_may_be_the_same(tmp_path, monkeypatch):
    contents = {"a": b"x" * 9000, "b": b"x" * 9000, "c": b"y" * 9000, "d": b"x" * 10, "e": b"x" * 20_000}
    middle = bytearray(b"x" * 20_000)
    middle[7000] = 0  # between the pieces that are looked at
    contents["f"] = bytes(middle)
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    whole = []
    monkeypatch.setattr(repeats, "sha256_of", lambda file: whole.append(file.name) or file.read_bytes())
    files = [tmp_path / name for name in contents]
    assert same_content([*files, tmp_path / "a"]) == [[tmp_path / "a", tmp_path / "b"]]
    assert whole == ["a", "b", "e", "f"]


def test_a_leak_is_a_problem_and_a_copy_a_note(folder):
    def image(name: str, split: str | None, label: str = "dots") -> AnnotatedImage:
        return AnnotatedImage(folder / name, split, labels={label: PRESENT})

    one, other = "train/dots/train00.png", "test/dots/copy.png"
    shutil.copy(folder / one, folder / other)
    leaked = found([image(one, "train"), image(other, "test"), image("train/dots/train01.png", "train")])
    assert leaked.messages == [f"{folder / one} (train) and {folder / other} (test) have the same content"]
    copied = found([image(one, "train"), image(other, "train", "stripes")])
    assert copied.messages == [] and copied.notes == [
        f"{folder / one} (train) and {folder / other} (train) have the same content, with the labels 'dots' and 'stripes'"
    ]
    assert found([image(one, None), image(other, None)]).notes == [
        f"{folder / one} and {folder / other} have the same content"
    ]
    several = found([image(one, "train"), image(one, "train")])
    assert several.messages == several.notes == [], "two records of one image"
    split = found([image(one, "train"), image(one, "val")])
    assert split.messages == [f"{folder / one} (train) and {folder / one} (val): the same file is in several splits"]


def test_the_first_ten_are_shown(tmp_path):
    images = []
    for index in range(12):
        pixels = np.full((8, 8), index, np.uint8)
        for split in ("train", "test"):
            file = tmp_path / f"{split}{index}.png"
            Image.fromarray(pixels).save(file)
            images.append(AnnotatedImage(file, split))
    messages = found(images).messages
    assert len(messages) == 11 and messages[-1] == "and 2 more images are there twice"
    same = [AnnotatedImage(tmp_path / f"same{index}.png", "train") for index in range(7)]
    for item in same:
        shutil.copy(tmp_path / "train0.png", Path(str(item.image)))
    (note,) = found(same).notes
    assert note.count("same") == 4 and "and 4 more have the same content" in note


def test_data_check_and_check_say_it(folder, tiny_recipe, striped_folder):
    shutil.copy(folder / "train" / "dots" / "train03.png", folder / "test" / "dots" / "x.png")
    shutil.copy(folder / "val" / "stripes" / "val01.png", folder / "val" / "stripes" / "y.png")
    done = CliRunner().invoke(app, ["data", "check", str(folder)])
    text = done.stderr + done.output
    assert done.exit_code == 1 and "train03.png (train) and " in text and "x.png (test) have the same content" in text
    assert "val01.png (val) and " in text and "y.png (val) have the same content" in text
    tiny_recipe.write_text(tiny_recipe.read_text().replace(str(striped_folder), str(folder)))
    done = CliRunner().invoke(app, ["check", str(tiny_recipe)])
    assert done.exit_code == 1 and "x.png (test) have the same content" in done.stderr
    (folder / "test" / "dots" / "x.png").unlink()
    done = CliRunner().invoke(app, ["check", str(tiny_recipe)])
    assert done.exit_code == 0 and "y.png (val) have the same content" in done.output


def test_the_same_file_in_two_splits_of_conversations_is_said(tmp_path):
    medseg_files(tmp_path)
    settings = [f"{split}={tmp_path}/data.jsonl" for split in ("train", "val", "test")]
    done = CliRunner().invoke(app, ["data", "check", "medseg_files", *settings])
    assert done.exit_code == 1 and "the same file is in several splits" in done.stderr
