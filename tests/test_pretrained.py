"""Fingerprints of weights, planning without them, and their size in memory."""

import pytest
import torch

from zoo.pretrained import (
    assume,
    canonical_name,
    fingerprint_of,
    is_folder_name,
    mark_quantized,
    should_load_weights,
    stored_as,
    stored_bytes,
    without_weights,
)


def test_a_fingerprint_depends_on_names_shapes_and_values_but_not_on_order_or_precision():
    first, second = torch.arange(4.0), torch.ones(2)
    fingerprint = fingerprint_of([("a", first), ("b", second)])
    assert fingerprint == fingerprint_of([("b", second.bfloat16()), ("a", first.bfloat16())])
    for changed in (
        [("c", first), ("b", second)],
        [("a", first.view(2, 2)), ("b", second)],
        [("a", first + 1), ("b", second)],
        [("a", first)],
    ):
        assert fingerprint_of(changed) != fingerprint


def test_wrapped_and_quantised_weights_have_the_fingerprint_of_the_stored_ones():
    weight, quantised = torch.ones(2, 2), torch.zeros(4, dtype=torch.uint8)
    stored_as(quantised, lambda: weight)
    expected = fingerprint_of([("layer.weight", weight)])
    assert fingerprint_of([("layer.weight", quantised)]) == expected
    assert fingerprint_of([("layer.parametrizations.weight.original", weight)]) == expected
    assert fingerprint_of([("layer.base_layer.weight", weight)]) == expected
    assert canonical_name("a.base_layer.weight") == "a.weight"


def test_assumptions_are_collected_only_where_weights_are_not_loaded():
    assume("nothing")
    assert should_load_weights()
    with without_weights() as assumptions:
        assert not should_load_weights()
        assume("stored in float16")
    assert should_load_weights() and assumptions == ["stored in float16"]


@pytest.mark.parametrize(
    ("quantization", "size"), [(None, 4.0), ("nf4", (4 + 8 / 64 + 32 / 16384) / 8), ("int8", 1 + 4 / 64)]
)
def test_bytes_of_a_weight(quantization, size):
    weight = torch.zeros(256, 64)
    if quantization:
        mark_quantized(weight, quantization)
    assert stored_bytes(weight) == pytest.approx(size * weight.numel())


def test_folders_are_told_from_hub_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert all(map(is_folder_name, ("./gpt2", "/models/gpt2", "~/gpt2", "a/b/c", "owner/name")))
    assert not any(map(is_folder_name, ("gpt2", "other/name")))
