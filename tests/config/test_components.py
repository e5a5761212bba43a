"""Resolved components: injection, slots, builders, and unpacked arguments."""

import inspect
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest

from zoo.config.building import build, resolve, resolve_recipe
from zoo.config.components import (
    Component,
    expected_class,
    is_injected,
    signature_of,
    unpacked_defaults,
)
from zoo.config.deprecations import RecipeDeprecationWarning
from zoo.config.recipe import RecipeError, read_recipe
from zoo.data.base import LoaderSpec
from zoo.data.classification.balance import ClassLoaderSpec
from zoo.errors import ArgumentError
from zoo.paths import checkpoints_folder
from zoo.registry import Injected, Slot, Unpacked, registry

GOLDEN = Path(__file__).parent.parent / "golden" / "dataset_arguments.json"
"""Arguments of every recipe's and card's dataset, defaults included, before the arguments were grouped; under today's keys."""

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


@dataclass(frozen=True)
class Size:
    height: int = 1
    width: int = 2


class Canvas:
    def __init__(self, title: str, size: Annotated[Size, Unpacked] = Size(width=5), depth: int = 3) -> None:
        self.title, self.size, self.depth = title, size, depth


def test_the_fields_stand_in_place_of_the_argument():
    parameters, hints = signature_of(Canvas)
    assert list(parameters) == ["title", "height", "width", "depth"]
    assert parameters["width"].default == 5 and hints["height"] is int
    assert unpacked_defaults(Canvas) == {"size": Size(width=5)}


def test_a_dataset_is_built_from_flat_arguments(striped_folder):
    data = build(
        "dataset", {"name": "image_folder", "folder": str(striped_folder), "batch_size": 3, "shots": 1}, seed=5
    )
    assert data.loader == ClassLoaderSpec(batch_size=3, seed=5)
    data = build("dataset", {"name": "image_folder", "folder": str(striped_folder), "seed": 7}, seed=5)
    assert data.loader == ClassLoaderSpec(batch_size=16, seed=7), (
        "a seed in the recipe is stronger than the injected one"
    )


def test_defaults_are_those_of_the_dataset():
    assert build("dataset", {"name": "chest_drr_findings"}).render.style == "portable"
    render = build("dataset", {"name": "chest_drr_ivl", "size": 64}).render
    assert (render.size, render.image_size, render.counts) == (64, 256, {"train": 64, "val": 64, "test": 64})


def test_mistakes_are_reported_by_their_flat_keys():
    node = {"name": "chest_drr", "batch_size": "four", "image_sise": 64, "loader": {}, "style": "lateral"}
    with pytest.raises(RecipeError) as caught:
        resolve("dataset", node, "data")
    messages = {problem.key: problem.message for problem in caught.value.problems}
    assert set(messages) == {"data.batch_size", "data.image_sise", "data.loader", "data.style"}
    assert "did you mean image_size" in messages["data.image_sise"] and "'portable'" in messages["data.style"]
    with pytest.raises(ArgumentError, match="batch_size is 0; it must be at least 1"):
        LoaderSpec(batch_size=0)


def test_arguments_that_do_not_go_together_are_reported_with_the_rest():
    with pytest.raises(RecipeError) as caught:
        resolve("dataset", {"name": "chest_drr", "ct": "a.nii", "batch_sise": 4}, "data")
    messages = {problem.key: problem.message for problem in caught.value.problems}
    assert messages["data"] == "ct and labels belong together: a chest CT and its label map"
    assert "did you mean batch_size" in messages["data.batch_sise"]
    with pytest.raises(RecipeError, match="scans: .*labels: field required; or lables: unexpected keyword argument"):
        resolve("dataset", {"name": "chest_drr", "scans": [{"ct": "a", "lables": "b"}]}, "data")


def test_no_field_has_the_name_of_another_argument():
    checked = 0
    for name in registry("dataset"):
        target = registry("dataset").resolve(name)
        defaults = unpacked_defaults(target)
        fields = [field for default in defaults.values() for field in vars(default)]
        names = [*fields, *(set(inspect.signature(target).parameters) - set(defaults))]
        assert len(names) == len(set(names)) and "batch_size" in names, name
        checked += 1
    assert checked >= 12


def test_earlier_names_are_read_with_a_warning():
    with pytest.warns(RecipeDeprecationWarning, match="'build_workers' was renamed to 'render_workers'"):
        data = build("dataset", {"name": "chest_drr_films", "workers": 1, "build_workers": 2, "picture_size": 32})
    assert (data.loader.num_workers, data.render.render_workers, data.output_size) == (1, 2, 32)


def test_every_recipe_and_card_still_resolves_to_the_same_dataset():
    golden = json.loads(GOLDEN.read_text())
    assert len(golden) >= 68
    for name, expected in golden.items():
        card = name.removeprefix("checkpoints/")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RecipeDeprecationWarning)
            recipe = read_recipe(name if card == name else checkpoints_folder() / card / "recipe.yaml")
        data = resolve_recipe(recipe).data
        defaults = {key: parameter.default for key, parameter in signature_of(data.target)[0].items()}
        resolved = {"name": data.name, **defaults, **data.arguments}
        assert {key: resolved[key] for key in expected} == expected, name
