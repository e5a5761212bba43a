"""What data hold, in tables; and what `zoo check` finds in the data of a recipe."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.data.annotations.public_forms import FORMS, label_table
from tests.data.classification.tables import rows, write_table
from tests.small_recipes import WORDS, write_recipe
from tests.tiny_models import causal_lm, ivl_traces, llava, medseg_files, sam
from zoo.config.building import resolve_recipe
from zoo.config.recipe import list_recipes, read_recipe
from zoo.engine.assembly import build_data
from zoo.engine.data_formats import scan_data
from zoo.engine.inspection import describe_data, inspect_recipe, open_images, write_page


def scanned(form, folder, *more):
    node = FORMS[form](folder)
    return scan_data(form, [f"{key}={json.dumps(value)}" for key, value in node.items() if key != "name"] + list(more))


def test_classes_patients_sizes_and_areas(tmp_path):
    data = scanned("run_length_table", tmp_path)
    tables = describe_data(data.images, open_images(data))
    assert tables["images"][0] == {"split": "train", "images": "3", "patients": "3"}
    assert tables["sizes"] == [{"width x height": "32 x 24", "channels": "1", "images opened": "6"}]
    assert tables["labels"] == [{"label": "nodule", "train": "2", "val": "0", "test": "1"}]
    assert tables["regions"] == [
        {"region": "nodule", "marked": "3", "per cent of the image": "25 to 25, median 25", "empty": "0"}
    ]


def test_uncertain_labels_and_texts_are_counted(tmp_path):
    labels = describe_data(scanned("label_table", tmp_path / "a").images)["labels"]
    assert labels[1]["label"] == "effusion" and labels[1]["uncertain"] == "2"
    texts = describe_data(scanned("iu_xray", tmp_path / "b").images)["texts"]
    assert texts[0] | {"median words": ""} == {
        "text": "reports",
        "number": "9",
        "median words": "",
        "most words": "9",
        "distinct": "2",
    }


def test_every_image_is_opened_and_a_damaged_one_is_a_problem(tmp_path):
    data = scanned("mask_images", tmp_path)
    (tmp_path / "test" / "images" / "1.png").write_bytes(b"broken")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "val" / "masks" / "0.png")
    opened = open_images(data, None)
    text = "\n".join(data.problems.messages)
    assert len(opened) == 5 and "test/images/1.png" in text and "0.png: is 9x9 pixels and its image 32x24" in text
    assert len(open_images(scanned("label_table", tmp_path / "more"), 4)) == 4


def test_a_page_shows_pictures_with_what_is_marked(tmp_path):
    data = scanned("coco_instances", tmp_path / "in")
    data.problems.note("<b>bold</b>")
    opened = open_images(data)
    file = write_page("mine", data.problems, describe_data(data.images, opened), opened, tmp_path / "out")
    text = file.read_text()
    assert text.count("data:image/png;base64,") == 9 and "polyp" in text and "&lt;b&gt;bold" in text


def inspected(path, *settings):
    return inspect_recipe(resolve_recipe(read_recipe(path, list(settings))))


def besides_splits(found):
    """The problems of data that are the same in all three splits, besides that."""
    problems = [text for text in found.problems if "several splits" not in text and "same content" not in text]
    assert len(problems) < len(found.problems)
    return problems


def test_the_data_of_a_recipe_are_read(tmp_path):
    label_table(tmp_path / "labels")
    found = inspected(write_recipe(tmp_path, "clip_multi_label"))
    assert found.problems == [] and found.tables["images"][0]["images"] == "6"
    (tmp_path / "labels" / "0.png").write_bytes(b"broken")
    assert "cannot be read as an image" in inspected(write_recipe(tmp_path, "clip_multi_label")).problems[0]


def test_classes_that_a_split_lacks_are_named(tmp_path):
    path = write_table(tmp_path, [row for row in rows(2) if row[2] != "test" or row[0] == "a"])
    (tmp_path / "r.yaml").write_text(f"base: nearl_clip/chest_drr_16shot\ndata: {{name: image_csv, table: {path}}}\n")
    assert "the test split has no image with b" in inspected(tmp_path / "r.yaml").notes


def test_lengths_and_unknown_words_of_traces(tmp_path):
    ivl_traces(tmp_path / "ivl")
    recipe = write_recipe(tmp_path, "interleaved_reasoning small crop")
    assert inspected(recipe).notes == [] and besides_splits(inspected(recipe)) == []
    row = inspected(recipe).tables["tokens"][0]
    assert row["split"] == "train" and row["unknown"] == "0 %" and 50 < int(row["longest"]) < 160
    text = recipe.read_text()
    few = [word for word in WORDS if word not in ("pleural", "effusion")] + [*"[],.:", *map(str, range(65))]
    recipe.write_text(re.sub(r"words: \[.*?\], width", f"words: {few}, width", text, count=1, flags=re.DOTALL))
    found = inspected(recipe, "method.max_tokens=60", "method.decoder.pieces=[]")
    assert any("tokens in the reports of train are unknown" in note for note in found.notes), found
    assert any("3 of 3 traces of train are longer than max_tokens=60 and are left out" in note for note in found.notes)


def test_numbers_of_boxes_that_the_tokenizer_does_not_know_are_a_problem(tmp_path):
    ivl_traces(tmp_path / "ivl")
    found = inspected(
        write_recipe(tmp_path, "interleaved_reasoning small crop"),
        "method.box_frame=1000",
        "method.decoder.pieces=[]",
    )
    assert any("data, texts: the tokenizer does not know the numbers" in text for text in found.problems)


def test_steps_whose_box_is_worded_otherwise_are_counted(tmp_path):
    """Without its sentence a box is not known as one."""
    file = ivl_traces(tmp_path / "ivl") / "data.jsonl"
    recipe = write_recipe(tmp_path, "interleaved_reasoning small crop")
    file.write_text(file.read_text().replace("The bounding box of this area is", "Its box is"))
    notes = [note for note in inspected(recipe).notes if "have an image and no box" in note]
    assert notes[0].startswith("6 of 6 steps of train")
    assert notes[0].endswith("word for word: The bounding box of this area is [0, 0, 10, 10] .")


PUBLIC = {
    name: data["annotations"]["name"] for name in list_recipes() if "annotations" in (data := read_recipe(name)["data"])
}


def test_every_form_has_a_recipe():
    assert set(PUBLIC.values()) == set(FORMS)


@pytest.mark.parametrize("recipe", sorted(PUBLIC))
def test_a_published_recipe_reads_its_form(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    make, arguments = FORMS[PUBLIC[recipe]], {}
    if recipe.endswith("chestmnist"):
        arguments = {"name": "chestmnist_224", "labels": 14}
    node = make(tmp_path / "form", **arguments)
    settings = [f"data.annotations.{key}={json.dumps(value)}" for key, value in node.items()]
    settings += ["data.shots=1"] if "shots" in read_recipe(recipe)["data"] else []
    data = build_data(resolve_recipe(read_recipe(recipe, settings)))
    for split in ("train", "test"):
        sample = data.split(split)[0]
        assert sample and len(data.split(split)) >= 1
    assert data.license and data.metadata()


def test_rendered_data_are_not_read():
    found = inspected("nearl_clip/chest_drr_16shot")
    assert found.tables == {} and "rendered" in found.notes[0]


@pytest.mark.parametrize(("recipe", "read"), [("medseg_r causal_lm unet", True), ("medseg_r llava sam", False)])
def test_words_are_counted_where_the_tokenizer_comes_with_the_weights(recipe, read, tmp_path):
    for make, name in ((medseg_files, "medseg"), (causal_lm, "lm"), (llava, "llava"), (sam, "sam")):
        make(tmp_path / name)
    found = inspected(write_recipe(tmp_path, recipe))
    assert besides_splits(found) == [] and found.tables["texts"][0]["text"] == "questions"
    assert ("tokens" in found.tables) == read
    assert any("lengths are in words" in note for note in found.notes) != read
