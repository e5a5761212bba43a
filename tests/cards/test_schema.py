"""The schema of a card's record."""

import pytest

from tests.tiny_cards import change_record
from zoo.cards.store import CardError, read_card


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda front: front["zoo"].update(version="one"), "version: String should match"),
        (lambda front: front["zoo"].update(metrics=[]), "metrics: List should have at least 1"),
        (
            lambda front: front["zoo"]["files"].append({"name": "../../evil", "size": 1, "sha256": "0" * 64}),
            "files.*name",
        ),
        (lambda front: front["zoo"].update(extra=1), "extra: Extra inputs"),
        (lambda front: front.pop("zoo"), "valid dictionary"),
    ],
)
def test_records_are_checked_by_the_schema(cards, change, message):
    change_record(cards / "tiny-nearl", change)
    with pytest.raises(CardError, match=message):
        read_card("tiny-nearl")
