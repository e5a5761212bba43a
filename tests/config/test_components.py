"""Resolved components: injection, slots, builders."""

from collections.abc import Callable
from typing import Annotated

import pytest

from zoo.config.components import Component, expected_class, is_injected, signature_of
from zoo.registry import Injected, Slot

CLIP = "vision_language_encoder"


class Tower:
    def __init__(self, width: int, names: Annotated[list[str], Injected] = ()) -> None:
        self.width, self.names = width, names


class Model:
    def __init__(
        self,
        tower: Annotated[Tower, Slot(CLIP)],
        second_tower: Annotated[Callable[..., Tower], Slot(CLIP)],
        names: Annotated[list[str], Injected],
        depth: int = 1,
    ) -> None:
        self.tower, self.second, self.names, self.depth = tower, second_tower(width=9), names, depth


def model(**arguments) -> Component:
    tower = Component(CLIP, "tower", Tower, {"width": 3})
    builder = Component(CLIP, "tower", Tower, {})
    return Component("method", "model", Model, {"tower": tower, "second_tower": builder, **arguments})


def test_metadata_fills_injected_arguments_here_and_in_slots_unless_the_recipe_sets_them():
    metadata = {"names": ["a", "b"], "depth": 7, "unrelated": 1}
    built = model().with_metadata(metadata).build()
    assert built.names == built.tower.names == built.second.names == ["a", "b"]
    assert built.depth == 1, "an argument that is not injected is the recipe's"
    assert model(names=["c"]).with_metadata(metadata).build().names == ["c"]


def test_a_slot_takes_a_component_or_its_builder():
    built = model(names=[]).build(depth=4)
    assert built.tower.width == 3 and built.second.width == 9 and built.depth == 4


def test_a_component_is_a_recipe_section_again():
    assert model(depth=2).to_dict() == {
        "name": "model",
        "tower": {"name": "tower", "width": 3},
        "second_tower": {"name": "tower"},
        "depth": 2,
    }
    assert model(depth=2).without(["depth", "second_tower", "tower"]).to_dict() == {"name": "model"}


@pytest.mark.parametrize(
    ("annotation", "injected"),
    [
        (Annotated[int, Injected], True),
        (Annotated[int, Injected()], True),
        (Annotated[int, "text"], False),
        (int, False),
    ],
)
def test_injected_arguments_are_marked(annotation, injected):
    assert is_injected(annotation) == injected


def test_the_class_of_a_slot_is_read_from_its_annotation():
    _, hints = signature_of(Model)
    assert expected_class(hints["tower"]) is expected_class(hints["second_tower"]) is Tower
