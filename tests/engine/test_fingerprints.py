"""Fingerprints of records and weights: whatever is measured differently has another."""

import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

from tests.conftest import TINY_RECIPE
from tests.tiny_models import ivl_traces
from zoo.config.recipe import read_recipe
from zoo.data.traces.records import read_records
from zoo.engine.fingerprints import find_differences, records_fingerprint, weights_fingerprint


def test_records_with_other_content_or_other_images_have_another_fingerprint(tmp_path):
    file = ivl_traces(tmp_path) / "data.jsonl"
    records = read_records(file)
    first = records_fingerprint(records)
    assert records_fingerprint(read_records(file)) == first
    assert records_fingerprint([replace(record, line=0) for record in records]) == first, "lines may move"
    others = [records[::-1], records[:2], [replace(records[0], report="Other."), *records[1:]]]
    assert first not in {records_fingerprint(other) for other in others}
    os.utime(records[1].images[0], ns=(1, 1))
    shutil.copytree(tmp_path, tmp_path / "copy")
    copied = read_records(tmp_path / "copy" / "data.jsonl")
    assert records_fingerprint(records) == records_fingerprint(copied) == first, (
        "wherever and whenever they were written"
    )
    shutil.copy(records[0].images[0], records[1].images[0])
    os.utime(records[1].images[0], ns=(2, 2))
    assert records_fingerprint(records) != first


def test_weights_of_a_folder_have_another_fingerprint_when_a_file_changes(tmp_path):
    (tmp_path / "recipe.yaml").write_text(TINY_RECIPE.format(folder=tmp_path))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.safetensors").write_bytes(b"1")
    settings = [f"method.clip.text={{name: x, source: {tmp_path / 'weights'}}}"]
    recipe = read_recipe(tmp_path / "recipe.yaml", settings)
    first, weights = weights_fingerprint(recipe), tmp_path / "weights" / "model.safetensors"
    os.utime(weights, ns=(1, 1))
    for unread in (".cache/download.lock", "pytorch_model.bin"):
        (tmp_path / "weights" / unread).parent.mkdir(exist_ok=True)
        (tmp_path / "weights" / unread).write_text("x")
    assert weights_fingerprint(recipe) == first
    weights.write_bytes(b"2")
    os.utime(weights, ns=(2, 2))
    second = weights_fingerprint(recipe)
    weights.rename(weights.with_name("other.safetensors"))
    assert len({first, second, weights_fingerprint(recipe)}) == 3


def test_a_card_that_is_published_again_and_a_run_that_is_trained_again_have_another_fingerprint(tmp_path):
    (tmp_path / "recipe.yaml").write_text(TINY_RECIPE.format(folder=tmp_path))
    recipe = read_recipe(tmp_path / "recipe.yaml")

    def of_card(sha256: str) -> str:
        files = [SimpleNamespace(name="model.safetensors", size=9, sha256=sha256)]
        return weights_fingerprint(recipe, SimpleNamespace(record=SimpleNamespace(files=files)))

    assert of_card("a") == of_card("a") != of_card("b")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = weights_fingerprint(recipe, run=tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"22")
    assert weights_fingerprint(recipe, run=tmp_path) != first


def test_differences_are_named_by_their_keys():
    before = {"limit": None, "recipe": {"data": {"test": "a"}, "seed": 0}}
    now = {"limit": 2, "recipe": {"data": {"test": "b"}, "seed": 0}, "shots": 1}
    assert find_differences(before, now) == {
        "limit": (None, 2),
        "recipe.data.test": ("a", "b"),
        "shots": (None, 1),
    }
    assert find_differences(now, now) == {}
