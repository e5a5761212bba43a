"""Verification of published metrics."""

import pytest

from tests.tiny_cards import at, change_record, rewrite_record
from zoo.cards.store import CardError
from zoo.engine.verification import verify, verify_all


def test_verify_measures_the_same_numbers(cards, striped_folder, capsys):
    checked = verify_all(["tiny-nearl", "tiny-nearl"], at(striped_folder))
    checked += verify("tiny-base", progress=False)
    assert {result.card for result in checked} == {"tiny-base", "tiny-nearl"}
    assert all(result.holds for result in checked)
    assert all(abs(result.measured - result.metric.value) < 1e-4 for result in checked)
    assert "tiny-nearl (2 of 2)" in capsys.readouterr().err


def test_a_changed_number_is_found_by_measuring(cards, striped_folder):
    def nudge(record):
        record["metrics"][0]["value"] += 0.25

    rewrite_record(cards / "tiny-nearl", nudge)
    checked = verify("tiny-nearl", at(striped_folder), progress=False)
    assert [result.holds for result in checked] == [False, True, True]


def test_a_model_index_that_disagrees_with_the_record_is_refused(cards):
    change_record(
        cards / "tiny-nearl", lambda front: front["model-index"][0]["results"][0]["metrics"][0].update(value=1.0)
    )
    with pytest.raises(CardError, match="differs from its record"):
        verify("tiny-nearl", progress=False)
