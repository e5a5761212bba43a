"""From a checked recipe to the objects it names, trained weights of its base cards included."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from zoo.cards.store import card_chain, read_weights
from zoo.data.module import ZooData
from zoo.methods.base import ZooModule
from zoo.pretrained import plain_name
from zoo.recipe import Recipe, build, check_recipe, is_supplied, signature_of
from zoo.registry import registry, slot_of


@dataclass
class Assembly:
    """What a recipe builds, and the recipe with everything that the data supplied written out."""

    recipe: Recipe
    method: ZooModule
    data: ZooData | None = None


def build_data(recipe: Recipe) -> ZooData:
    """Build the recipe's dataset; nothing is rendered or read yet."""
    return build("dataset", recipe["data"], seed=recipe["seed"])


def assemble(recipe: Recipe) -> Assembly:
    """Check a recipe and build its dataset and its method, with the weights of the ``init_from`` cards.

    Raises:
        RecipeError: the recipe does not fit the registries.
        CardError: the card is not there, is damaged, or has weights for another model.
    """
    check_recipe(recipe)
    data = build_data(recipe)
    resolved = with_facts(recipe, data.facts())
    return Assembly(resolved, build_method(resolved), data)


def with_facts(recipe: Recipe, facts: Mapping[str, Any]) -> Recipe:
    """Write what the data supplies (class names, say) into the method's section, so that it can be built without data."""
    return recipe.with_content(method=_with_facts("method", recipe["method"], facts))


def _with_facts(kind: str, node: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """A component's section, and those of the components in its slots, with the supplied arguments that they leave out."""
    parameters, hints = signature_of(registry(kind).resolve(node["name"]))
    supplied = {name: value for name, value in facts.items() if name in parameters and is_supplied(hints.get(name))}
    inner = {
        name: _with_facts(slot, value, facts)
        for name, value in node.items()
        if isinstance(value, Mapping) and (slot := slot_of(hints.get(name)))
    }
    return {**supplied, **node, **inner}


def build_method(recipe: Recipe) -> ZooModule:
    """Build a resolved recipe's method and load the weights it starts from."""
    method: ZooModule = build("method", recipe["method"])
    method.optimizer_recipe, method.scheduler_recipe = recipe["optimizer"], recipe["scheduler"]
    for card in card_chain(recipe["init_from"]):
        load_where_it_fits(method, read_weights(card), card.name)
    return method


def load_where_it_fits(method: ZooModule, weights: Mapping[str, torch.Tensor], source: str) -> list[str]:
    """Load every weight that the method has a place for, whatever adapters were put around it.

    Returns:
        Names of the weights without a place (a head for other classes, say).

    Raises:
        ValueError: not one weight has a place.
    """
    own = method.state_dict()
    places = {plain_name(name): name for name in own}
    weights = {method.name_of_base_weight(name): value for name, value in weights.items()}
    fitting = {
        places[name]: value
        for name, value in weights.items()
        if name in places and own[places[name]].shape == value.shape
    }
    if not fitting:
        raise ValueError(
            f"no weight of '{source}' has a place in {type(method).__name__}; is it a base for this method?"
        )
    method.load_state_dict(fitting, strict=False)
    return sorted(weights.keys() - {plain_name(name) for name in fitting})
