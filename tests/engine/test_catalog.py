"""Lists and descriptions."""

import pytest

from zoo.engine.catalog import describe, list_all
from zoo.registry import KINDS, UnknownComponentError


def test_everything_that_is_listed_under_a_heading_can_be_described():
    names = list_all()
    assert set(names["components"]) == set(KINDS)
    assert names["datasets"] == names["components"]["dataset"]
    for name in (names["recipes"][0], names["cards"][0], "oca", names["datasets"][0]):
        assert describe(name)


def test_a_component_has_signature_source_and_import():
    description = describe("useformer")
    assert description["python"] == "from zoo.adapters.useformer import USEformer"
    assert "2508.04101" in description["source"] and "Args" not in description["description"]
    width = next(row for row in description["arguments"] if row["name"] == "width")
    assert width == {"name": "width", "type": "int, from 1 to 10000000", "default": "128", "meaning": "inner width."}
    assert "loader=LoaderSpec(...)" in describe("chest_drr")["python"]


def test_a_recipe_is_resolved_and_a_card_has_its_record():
    assert "init_from: clip-minilm-chest-drr" in describe("coop/chest_drr_16shot")["resolved"]
    card = describe("clip-small-chest-drr")
    assert card["method"] == "clip_pretraining" and card["files"]


def test_an_unknown_name_has_the_nearest_ones():
    with pytest.raises(
        UnknownComponentError, match="no component, recipe or card is named 'usformer'; did you mean use"
    ):
        describe("usformer")
