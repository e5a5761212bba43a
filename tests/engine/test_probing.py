"""Probes of cards: a few samples with their outputs and metrics, measured again without the data set."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny_cards import at, publish_tiny_classifier, rewrite_record
from zoo.cards.store import PROBE, CardError, list_cards, read_card
from zoo.checksums import sha256_of
from zoo.engine.probing import add_probe, verify_probe
from zoo.errors import ZooError

pytestmark = pytest.mark.filterwarnings("ignore:.*No positive samples")


@pytest.fixture(scope="module")
def card(tmp_path_factory, striped_folder):
    card = publish_tiny_classifier(tmp_path_factory.mktemp("probing"), striped_folder)
    weights = (card / "model.safetensors").read_bytes()
    add_probe(card, (0, 9, 17), at(striped_folder))
    assert (card / "model.safetensors").read_bytes() == weights
    return card


def test_a_probe_is_measured_again_and_is_in_the_record(card, striped_folder):
    checked = verify_probe(card)
    assert {result.name for result in checked} >= {"probabilities", "labels", "accuracy"}
    assert all(result.holds for result in checked)
    assert PROBE in {file.name for file in read_card(card).record.files}
    content = json.loads((card / PROBE).read_text())
    assert content["indices"] == [0, 9, 17] and content["outputs"]["labels"] == [[3], [0, 1, 2]]
    add_probe(card, (0, 9, 17), at(striped_folder))  # again: listed once
    assert [file.name for file in read_card(card).record.files].count(PROBE) == 1


def test_a_run_is_published_with_a_probe(card, tmp_path):
    from zoo.engine.publishing import publish

    published = publish(card.parent.parent / "run", "x", folder=tmp_path, license="mit", probe=True)
    assert all(result.holds for result in verify_probe(published))


def _with_probe(card, tmp_path, change):
    """A copy of a card whose probe is changed, and not listed again."""
    copy = shutil.copytree(card, tmp_path / "tiny")
    probe = json.loads((copy / PROBE).read_text())
    change(probe)
    (copy / PROBE).write_text(json.dumps(probe))
    return copy


def _relist(card, name):
    def rehash(record):
        (file,) = (file for file in record["files"] if file["name"] == name)
        file.update(sha256=sha256_of(card / name), size=(card / name).stat().st_size)

    rewrite_record(card, rehash)


def test_other_weights_give_other_outputs(card, tmp_path):
    copy = shutil.copytree(card, tmp_path / "tiny")
    weights = load_file(copy / "model.safetensors")
    save_file({name: torch.zeros_like(value) for name, value in weights.items()}, copy / "model.safetensors")
    _relist(copy, "model.safetensors")
    assert not all(result.holds for result in verify_probe(copy))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda probe: probe.update(samples=[]), "is no probe"),
        (lambda probe: probe["outputs"].update(boxes=[[1], [0]]), "has boxes, which .* does not give"),
        (lambda probe: probe.update(outputs={}), "is no probe"),
        (lambda probe: probe["samples"][0].update(image={"pickle": "x"}), "malformed"),
        (lambda probe: probe["samples"][0].update(image={"jpeg": "x"}), "malformed"),
        (lambda probe: probe["samples"][0].update(image={"record": "Path", "fields": {}}), "malformed"),
        (lambda probe: probe["samples"][0].pop("image"), "lack what"),
        (lambda probe: probe["samples"][0].update(image={"masks": [{"size": [4, 4], "counts": "5o"}]}), "break off"),
    ],
)
def test_malformed_probes_are_errors(card, tmp_path, change, message):
    copy = _with_probe(card, tmp_path, change)
    with pytest.raises(CardError, match="not the file"):
        verify_probe(copy)
    _relist(copy, PROBE)
    with pytest.raises(ZooError, match=message):
        verify_probe(copy)


def test_outputs_of_a_later_version_are_not_missed(card, tmp_path):
    copy = _with_probe(card, tmp_path, lambda probe: probe["outputs"].pop("labels"))
    _relist(copy, PROBE)
    checked = {result.name: result.holds for result in verify_probe(copy)}
    assert all(checked.values()) and "probabilities" in checked and "labels" not in checked


def test_a_card_without_a_probe_says_how_to_add_one(tmp_path, card):
    copy = shutil.copytree(card, tmp_path / "tiny")
    rewrite_record(copy, lambda record: record.update(files=[f for f in record["files"] if f["name"] != PROBE]))
    with pytest.raises(CardError, match="add one with: zoo probe tiny"):
        verify_probe(copy)


@pytest.mark.parametrize("name", list_cards())
def test_every_card_of_the_zoo_gives_its_published_outputs(name):
    checked = verify_probe(name)
    assert len(checked) > 1
    assert [result for result in checked if not result.holds] == []
