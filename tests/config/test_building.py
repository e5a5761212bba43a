"""Recipes resolved into components, and components built."""

import pytest

from zoo.config.building import build, resolve, resolve_recipe
from zoo.config.recipe import RecipeError, read_recipe


def test_a_recipe_is_resolved_into_its_components():
    resolved = resolve_recipe(read_recipe("nearl_clip/chest_drr_16shot"))
    assert (resolved.data.name, resolved.method.name) == ("chest_drr_findings", "nearl_clip")
    assert resolved.method.arguments["clip"].name == "minilm_clip"
    assert resolved.optimizer.kind == "optimizer" and resolved.scheduler.name == "cosine"
    without = resolve_recipe(read_recipe("nearl_clip/chest_drr_16shot", ["scheduler=null"]))
    assert without.scheduler is None


def test_metadata_is_filled_in_once_and_replaced_when_overwritten():
    resolved = resolve_recipe(read_recipe("coop/chest_drr_16shot"))
    first = resolved.with_metadata({"class_names": ["a", "b"]})
    assert first.recipe["method"]["class_names"] == ["a", "b"]
    kept = first.with_metadata({"class_names": ["c", "d"]})
    assert kept.recipe["method"]["class_names"] == ["a", "b"]
    replaced = first.with_metadata({"class_names": ["c", "d"]}, overwrite=True)
    assert replaced.recipe["method"]["class_names"] == ["c", "d"] == replaced.method.arguments["class_names"]


def test_other_data_do_not_widen_a_learned_vocabulary(tmp_path):
    of_card = resolve_recipe(read_recipe("interleaved_reasoning/chest_drr_base")).with_metadata({"words": ["heart"]})
    other = of_card.with_metadata(
        {"words": ["lung"], "pieces": ["h", "##e"], "prompt": "Report. <image>"}, overwrite=True
    )
    decoder = other.recipe["method"]["decoder"]
    assert decoder["words"] == ["heart"] and "pieces" not in decoder
    assert other.recipe["method"]["prompt"] == "Report. <image>"


def test_missing_sections_are_reported_together(tmp_path):
    (tmp_path / "empty.yaml").write_text("seed: 1\n")
    with pytest.raises(RecipeError) as caught:
        resolve_recipe(read_recipe(tmp_path / "empty.yaml"))
    assert [(problem.key, problem.message) for problem in caught.value.problems] == [
        (section, "is missing") for section in ("data", "method", "optimizer")
    ]


def test_a_single_component_is_built_with_injected_values():
    schedule = build("adapter", {"name": "oca", "rank": 4}, width=16)
    assert sum(p.numel() for p in schedule.parameters()) > 0
    with pytest.raises(
        RecipeError, match=r"recipe: adapter.rnk: unknown argument for OrthogonalCrossAttention; did you mean"
    ):
        build("adapter", {"name": "oca", "rnk": 4}, width=16)
    with pytest.raises(RecipeError, match="card: base.name: no adapter is named 'ocaa'"):
        resolve("adapter", {"name": "ocaa"}, "base", "card")
