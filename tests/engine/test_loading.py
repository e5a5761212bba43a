"""Loading cards: preprocessing, damaged files, other bases."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny_cards import change_record
from zoo.cards.store import CardError
from zoo.engine.loading import load
from zoo.engine.verification import verify


def test_loading_gives_the_method_in_evaluation_mode_with_its_preprocessing(cards):
    import zoo

    method = zoo.load("tiny-nearl")
    assert not method.training and method.class_names == ["blank film", "dots", "stripes"]
    prediction = method.predict_image(torch.rand(1, 50, 70))
    assert prediction.label in method.class_names and abs(sum(prediction.probabilities.values()) - 1) < 1e-5
    assert zoo.load("tiny-nearl", for_training=True).training


def test_a_changed_byte_is_refused(cards):
    path = cards / "tiny-nearl" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CardError, match="not the file that card 'tiny-nearl' was published with"):
        load("tiny-nearl")


def test_a_wrong_base_is_refused(cards):
    base = cards / "tiny-base" / "model.safetensors"
    weights = load_file(base)
    weights["clip.model.logit_scale"] += 0.5
    save_file(weights, base)
    from zoo.cards.store import sha256_of

    def accept(front):
        entry = next(file for file in front["zoo"]["files"] if file["name"] == "model.safetensors")
        entry.update(size=base.stat().st_size, sha256=sha256_of(base))

    change_record(cards / "tiny-base", accept)
    with pytest.raises(CardError, match="was trained on tiny-base with fingerprint .* and the base here has"):
        load("tiny-nearl")


def test_a_pickle_in_place_of_safetensors_is_refused_before_it_is_opened(cards, tmp_path):
    path = cards / "tiny-nearl" / "model.safetensors"
    torch.save({"adapter.x": torch.ones(1)}, path)
    with pytest.raises(CardError, match="is a pickle; the zoo loads safetensors only"):
        load("tiny-nearl")
    import pickle

    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CardError, match="is a pickle"):
        verify("tiny-nearl", progress=False)


def test_cards_that_are_not_there_have_the_nearest_names(cards):
    with pytest.raises(CardError, match="did you mean tiny-nearl"):
        load("tiny-nearll")
    (cards / "tiny-nearl" / "model.safetensors").unlink()
    with pytest.raises(CardError, match=r"lacks its file model\.safetensors"):
        load("tiny-nearl")
