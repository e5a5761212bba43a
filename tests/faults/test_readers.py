"""Every reader: any bytes give a value or an error for users, and take a bounded amount of memory."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.faults.arbitrary import as_json, bounded_memory, damaged_bytes, every_change, fuzz, value_or_error
from zoo.cards.store import has_safetensors_header, read_card, read_front_matter, read_safetensors
from zoo.config.building import resolve_recipe
from zoo.config.recipe import parse_overrides, read_recipe
from zoo.data.classification.coop_split import read_coop_split
from zoo.data.classification.image_table import ImageCsv
from zoo.data.conversations.formats import read_reason_seg, read_referring
from zoo.data.conversations.records import read_conversations
from zoo.data.io.masks import encode_mask
from zoo.data.traces.records import check_images, read_records, read_valid_records

MASK = np.zeros((24, 32), bool)
MASK[4:12, 4:12] = True
CONVERSATION = {
    "image": "a.png",
    "masks": [encode_mask(MASK)],
    "targets": [{"finding": "nodule", "side": "left"}],
    "kinds": ["explicit"],
    "conversations": [
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "There [SEG]."},
    ],
}
TRACE = {
    "prompt": "<image> Write a report.",
    "response": "First, I need to analyze the heart <image> The bounding box of this area is [1, 2, 9, 12] . Clear. "
    "Summarizing the previous analysis, I will generate the following report: Normal.",
    "images": ["a.png", "b.png"],
    "findings": [["nodule", "left"]],
    "finding_areas": [0.1],
    "regions": {"heart": [1, 2, 9, 12]},
    "close_up": False,
}
REASON_SEG = {
    "text": ["What hurts?"],
    "shapes": [
        {"label": "target", "points": [[4, 4], [20, 4], [20, 20]]},
        {"label": "ignore", "points": [[4, 4], [8, 4], [8, 8]]},
    ],
}
INSTANCES = {
    "images": [{"id": 1, "file_name": "a.png"}],
    "annotations": [
        {"id": 7, "image_id": 1, "segmentation": [[4, 4, 20, 4, 20, 20]]},
        {"id": 8, "image_id": 1, "segmentation": {"size": [24, 32], "counts": [96, 48, 624]}},
    ],
}
REFERENCES = [
    {"image_id": 1, "ann_id": 7, "split": "train", "sentences": [{"sent": "the left box"}]},
    {"image_id": 1, "ann_id": 8, "split": "train", "sentences": [{"sent": "the right box"}]},
]
COOP = {split: [["a.png", 0, "mass"], ["b.png", 1, "normal"]] for split in ("train", "val", "test")}
TABLE = b"path,label,patient,split\na.png,mass,1,train\nb.png,normal,2,test\n"
RECIPE = b"seed: 1\ndata: {name: image_folder, folder: x}\nmethod: {name: vq_tokenizer}\noptimizer: {name: adamw, lr: ${seed}}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("readers")
    (root / "reason").mkdir()
    for name in ("a.png", "b.png", "reason/x.jpg"):
        Image.fromarray(np.zeros((24, 32), np.uint8)).save(root / name)
    return root


def _write(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


def _traces(path: Path) -> None:
    records = value_or_error(lambda: read_records(path))
    for record in records if isinstance(records, list) else ():
        value_or_error(lambda record=record: check_images(record, path))
    value_or_error(lambda: read_valid_records(path))


def _conversations(path: Path) -> None:
    value_or_error(lambda: read_conversations(path))


def _reason_seg(path: Path) -> None:
    value_or_error(lambda: read_reason_seg(path.parent))


def _coop_split(path: Path) -> None:
    value_or_error(lambda: read_coop_split(path, path.parent))


def _instances(path: Path) -> None:
    references = _write(path.with_name("references.json"), as_json(REFERENCES))
    value_or_error(lambda: read_referring(path, references, path.parent, "train"))


def _references(path: Path) -> None:
    instances = _write(path.with_name("instances.json"), as_json(INSTANCES))
    value_or_error(lambda: read_referring(instances, path, path.parent, "train"))


JSON_READERS = {
    "conversations.jsonl": (_conversations, CONVERSATION),
    "traces.jsonl": (_traces, TRACE),
    "reason/x.json": (_reason_seg, REASON_SEG),
    "instances.json": (_instances, INSTANCES),
    "references.json": (_references, REFERENCES),
    "split.json": (_coop_split, COOP),
}


@pytest.mark.parametrize("name", JSON_READERS)
def test_json_with_any_part_replaced_or_removed(folder, name):
    read, valid = JSON_READERS[name]
    with bounded_memory():
        for changed in every_change(valid):
            read(_write(folder / name, as_json(changed)))


@pytest.mark.parametrize("name", JSON_READERS)
@pytest.mark.parametrize("content", [b"9" * 5000, b"[" * 100_000, b'{"image": 1e999}', b"\xff\xfe", b"null\n\n[1]"])
def test_json_that_the_parser_gives_up_on(folder, name, content):
    JSON_READERS[name][0](_write(folder / name, content))


@pytest.mark.parametrize("name", JSON_READERS)
@given(data=st.data())
@fuzz
def test_json_with_any_bytes(folder, name, data):
    read, valid = JSON_READERS[name]
    with bounded_memory():
        read(_write(folder / name, data.draw(damaged_bytes(as_json(valid)))))


@given(content=damaged_bytes(TABLE))
@fuzz
def test_tables(folder, content):
    table = _write(folder / "table.csv", content)
    with bounded_memory():
        value_or_error(lambda: ImageCsv(str(table)).split("train"))


@given(content=damaged_bytes(RECIPE))
@fuzz
def test_recipes(folder, content):
    with bounded_memory():
        value_or_error(lambda: resolve_recipe(read_recipe(_write(folder / "recipe.yaml", content))))


@given(content=st.text(max_size=40).map("data.shots={}".format) | st.text(max_size=40))
@fuzz
def test_overrides(content):
    with bounded_memory():
        value_or_error(lambda: parse_overrides([content]))


@given(content=damaged_bytes(b"---\nzoo:\n  name: x\n  metrics: [{value: .nan}]\n---\nprose\n"))
@fuzz
def test_cards(folder, content):
    (folder / "card").mkdir(exist_ok=True)
    readme = _write(folder / "card" / "README.md", content)
    with bounded_memory():
        value_or_error(lambda: read_front_matter(readme))
        value_or_error(lambda: read_card(readme.parent))


@given(
    content=damaged_bytes(
        b"\x40\0\0\0\0\0\0\0"
        + json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode().ljust(64)
        + b"\0\0\0\0"
    )
)
@fuzz
def test_weights(folder, content):
    file = _write(folder / "model.safetensors", content)
    with bounded_memory():
        has_safetensors_header(file)
        value_or_error(lambda: read_safetensors(file))
