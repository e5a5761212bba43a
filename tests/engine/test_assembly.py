"""From a recipe to its method and data."""

import importlib.util

import pytest
import torch

from zoo.cards.store import read_card, read_weights
from zoo.config.recipe import read_recipe
from zoo.engine.assembly import assemble, load_matching_weights
from zoo.errors import WeightsError


def test_arguments_injected_from_the_data_are_in_the_recipe(tiny_recipe):
    assembly = assemble(read_recipe(tiny_recipe))
    assert assembly.recipe["method"]["class_names"] == ["blank film", "dots", "stripes"] == assembly.method.class_names
    assert assemble(assembly.recipe).recipe.content == assembly.recipe.content


def test_initial_weights_depend_on_the_seed_alone(tiny_recipe):
    def weights(seed: int) -> torch.Tensor:
        torch.rand(seed + 3)
        return torch.cat(
            [p.flatten() for p in assemble(read_recipe(tiny_recipe, [f"seed={seed}"])).method.parameters()]
        )

    state = torch.get_rng_state()
    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))
    torch.set_rng_state(state)
    assemble(read_recipe(tiny_recipe))
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_that_match_by_name_and_shape_are_loaded_and_the_others_named(tiny_recipe):
    method = assemble(read_recipe(tiny_recipe)).method
    name, value = next(item for item in method.state_dict().items() if item[0].startswith("adapter."))
    weights = {name: torch.full_like(value, 0.25), "head.of.other.classes": torch.ones(7)}
    assert load_matching_weights(method, weights, "a card") == ["head.of.other.classes"]
    assert (method.state_dict()[name] == 0.25).all()
    with pytest.raises(WeightsError, match="no weight of 'a card' matches NearlClip by name and shape"):
        load_matching_weights(method, {name: torch.ones(1, 2, 3, 4, 5)}, "a card")


def test_a_frozen_base_of_another_size_is_refused(tiny_recipe):
    method = assemble(read_recipe(tiny_recipe)).method
    weights = {name: value for name, value in method.state_dict().items() if name.startswith("clip.")}
    name = "clip.model.visual.proj"
    with pytest.raises(WeightsError, match=r"'clip.model.visual.proj' has shape \(64, 48\) in 'a card' and \(64, 32\)"):
        load_matching_weights(method, {**weights, name: torch.ones(64, 48)}, "a card")


@pytest.mark.skipif(importlib.util.find_spec("all_minilm_l6_v2") is None, reason="MiniLM's package is not installed")
def test_what_a_base_started_from_may_be_of_another_kind():
    """The CLIP started from a U-Net, which NEARL has no place for; named by the recipe itself, it is an error."""
    recipe = read_recipe("nearl_clip/chest_drr_16shot")
    method = assemble(recipe).method
    name = "clip.model.visual.head.weight"
    assert torch.equal(method.state_dict()[name], read_weights(read_card("clip-minilm-chest-drr"))[name])
    with pytest.raises(WeightsError, match="no weight of 'unet-chest-drr' matches NearlClip"):
        assemble(read_recipe("nearl_clip/chest_drr_16shot", ["init_from=unet-chest-drr"]))
