"""Variants: what holds for one value of a key, above the files and below the command line."""

import pytest

from zoo.config.recipe import RecipeError, read_recipe
from zoo.config.variants import VariantProblem, chosen_variants

RECIPE = """
data: {name: chest_drr_findings, task: side, shots: 16}
method: {name: clip_adaptation, clip: {name: small_clip}, adapter: {name: kgcoop, weight: 8.0}}
optimizer: {name: sgd, lr: 0.5}
variants:
  data.task:
    side: {method: {adapter: {weight: 10.0}}}
    lobe: {method: {adapter: {weight: 6.0}}, seed: 3}
  data.shots: {1: {trainer: {max_epochs: 50}}, 16: {trainer: {max_epochs: 200}}}
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def weight_of(recipe, *overrides):
    return read_recipe(recipe, overrides)["method"]["adapter"]["weight"]


def test_settings_follow_the_value_wherever_it_is_given(recipe, tmp_path):
    assert weight_of(recipe) == 10.0
    assert weight_of(recipe, "data.task=lobe") == 6.0 and read_recipe(recipe, ["data.task=lobe"])["seed"] == 3
    assert weight_of(recipe, "data.task=normal") == 8.0, "no variant"
    above = tmp_path / "above.yaml"
    above.write_text("base: recipe\ndata: {task: lobe}\n")
    assert weight_of(above) == 6.0
    assert [read_recipe(recipe, [f"data.shots={k}"])["trainer"] for k in (1, 4, 16)] == [
        {"max_epochs": 50},
        None,
        {"max_epochs": 200},
    ]


def test_the_command_line_is_stronger_and_the_record_holds_what_was_chosen(recipe, tmp_path):
    assert weight_of(recipe, "method.adapter.weight=1.5") == 1.5
    chosen = read_recipe(recipe, ["data.task=lobe"])
    assert "variants" not in chosen.content and chosen.origin("method.adapter.weight") == str(recipe)
    record = tmp_path / "record.yaml"
    record.write_text(chosen.to_yaml())
    assert weight_of(record, "data.task=side") == 6.0, "a finished run is not trained again"


def test_a_recipe_can_leave_out_the_variants_of_its_base(recipe, tmp_path):
    above = tmp_path / "above.yaml"
    above.write_text("base: recipe\nvariants: null\n")
    assert weight_of(above) == 8.0


@pytest.mark.parametrize("variants", ["[a]", "{data.task: 3}", "{data.task: {side: 3}}"])
def test_malformed_variants_are_refused_with_the_key(variants, recipe):
    recipe.write_text(RECIPE.split("variants:")[0] + f"variants: {variants}\n")
    with pytest.raises(RecipeError, match=r"recipe.yaml: variants\S*: is .*; expected a mapping"):
        read_recipe(recipe)


def test_a_key_that_leads_nowhere_chooses_nothing():
    assert list(chosen_variants({"variants": {"data.set.more": {"x": {"seed": 1}}}, "data": {"set": "x"}})) == []
    with pytest.raises(VariantProblem):
        list(chosen_variants({"variants": "x"}))
