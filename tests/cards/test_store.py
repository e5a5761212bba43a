"""Cards on disk: chains of bases, files, hashes, pickles."""

import json

import pytest
import torch
from safetensors.torch import save_file

from zoo.cards.store import CardError, card_chain, find_card, read_card


def test_a_card_that_several_start_from_is_loaded_once_and_first(cards):
    assert [card.name for card in card_chain(["tiny-nearl", "tiny-base"])] == ["tiny-base", "tiny-nearl"]
    assert card_chain(None) == []


def test_cards_in_a_circle_are_refused(cards):
    recipe = cards / "tiny-base" / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "init_from: [tiny-nearl]\n")
    with pytest.raises(CardError, match="circular `init_from:` reference: tiny-nearl"):
        card_chain("tiny-nearl")


def test_every_shipped_card_fits_the_schema_and_its_files(monkeypatch):
    from zoo.cards.store import check_files
    from zoo.paths import checkpoints_folder

    shipped = [path.parent for path in checkpoints_folder().glob("*/README.md")]
    assert len(shipped) >= 2
    for folder in shipped:
        card = read_card(folder)
        check_files(card)
        assert card.recipe()["method"]["name"] == card.record.method
        json.dumps(card.record.model_dump(mode="json"))


def test_a_header_that_begins_like_a_pickle_is_none(tmp_path):
    """0x80 is the low byte of one safetensors header length in 32, as of 5,248 or 8,320 bytes, and the first of a pickle."""
    from zoo.cards.store import read_safetensors

    file, met = tmp_path / "model.safetensors", set()
    for padding in range(0, 4096, 8):
        save_file({"weight": torch.ones(2)}, file, metadata={"padding": "x" * padding})
        met.add(file.read_bytes()[0])
        assert torch.equal(read_safetensors(file)["weight"], torch.ones(2))
    assert 0x80 in met


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_every_protocol_are_refused(tmp_path, protocol):
    import pickle

    from zoo.cards.store import refuse_pickle

    file = tmp_path / "model.safetensors"
    file.write_bytes(pickle.dumps({"weight": [1.0] * 3}, protocol=protocol))
    with pytest.raises(CardError, match="is a pickle"):
        refuse_pickle(file)
    torch.save({"weight": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CardError, match="is a pickle"):
        refuse_pickle(tmp_path / "other.safetensors")


def test_a_run_is_no_card_and_is_to_be_published(tmp_path):
    (tmp_path / "environment.json").write_text("{}")
    with pytest.raises(CardError, match=r"is a run and no card; publish it first: zoo publish"):
        find_card(tmp_path)
