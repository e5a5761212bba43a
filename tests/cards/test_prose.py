"""A card's README."""

import re

from zoo.cards.store import read_card


def test_the_prose_has_the_records_numbers(cards):
    text = (cards / "tiny-nearl" / "README.md").read_text()
    for metric in read_card("tiny-nearl").record.metrics:
        assert re.search(rf"\| {metric.name} \| {metric.value:.4f} \| {metric.interval[0]:.4f} to", text)
