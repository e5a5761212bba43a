"""From a resolved recipe to the objects it names, trained weights of its base cards included."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from zoo.cards.store import card_chain, named_cards, read_weights
from zoo.config.building import ResolvedRecipe, resolve_recipe
from zoo.config.locations import left_out
from zoo.config.recipe import Problem, Recipe, RecipeError
from zoo.data.base import ZooData
from zoo.engine.class_names import match_classes
from zoo.errors import WeightsError
from zoo.language.word_tokenizer import extend_words
from zoo.methods.base import ZooModule
from zoo.pretrained import canonical_name


@dataclass
class Assembly:
    """What a recipe builds, and the recipe with the arguments injected from the data filled in."""

    recipe: Recipe
    method: ZooModule
    data: ZooData


def build_data(resolved: ResolvedRecipe) -> ZooData:
    """Build the recipe's dataset; nothing is rendered or read yet.

    Raises:
        RecipeError: it is a card's, whose data were the user's own files, and their place is not given.
    """
    _require_places(resolved, "data")
    data: ZooData = resolved.data.build(seed=resolved.recipe["seed"])
    return data


def assemble(recipe: Recipe, *, other_data: bool = False) -> Assembly:
    """Check a recipe and build its dataset and its method, with the weights of the ``init_from`` cards.

    Args:
        recipe: to build.
        other_data: replace the arguments injected from the data of an earlier run, which may differ.

    Raises:
        RecipeError: the recipe does not fit the registries.
        CardError: the card is not there, is damaged, or has weights for another model, or for other classes than the data.
    """
    resolved = resolve_recipe(recipe)
    data = build_data(resolved)
    if other_data:
        match_classes(resolved, data)
    metadata = with_vocabulary(data.metadata(), recipe)
    resolved = resolved.with_metadata(metadata, overwrite=other_data)
    method = build_method(resolved)
    method.use_metadata(metadata)
    return Assembly(resolved.recipe, method, data)


def with_vocabulary(metadata: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Metadata with the words of a tokenizer that the cards were learned with, from which a recipe starts, and what data add.

    The ids of a card's words and pieces stay as they are, since its embeddings are by id; pieces of the data follow.
    """
    learned: dict[str, list[str]] = {}
    for card in named_cards(recipe["init_from"]):
        learned |= _find_lists(card.recipe()["method"], ("words", "pieces"))
    if own := metadata.get("pieces"):
        learned = {"words": [], **learned}
        metadata = {**metadata, "pieces": extend_words(learned.get("pieces", []), own)}
    return {**learned, **metadata}


def _find_lists(node: Any, names: Collection[str]) -> dict[str, list[str]]:
    """Arguments of these names in a section and the components in it."""
    found: dict[str, list[str]] = {}
    for key, value in node.items() if isinstance(node, dict) else ():
        found |= {key: value} if key in names and isinstance(value, list) else _find_lists(value, names)
    return found


def build_method(resolved: ResolvedRecipe) -> ZooModule:
    """Build a resolved recipe's method, load the weights it starts from, and cast its base to the recipe's precision.

    Raises:
        RecipeError: it is a card's, whose base was a local folder, and its place is not given.
    """
    _require_places(resolved, "method")
    recipe = resolved.recipe
    with torch.random.fork_rng(devices=[]):  # initial weights depend on the seed alone
        torch.manual_seed(recipe["seed"])
        method: ZooModule = resolved.method.build()
    method.optimizer_recipe, method.scheduler_recipe = recipe["optimizer"], recipe["scheduler"]
    named = [card.folder for card in named_cards(recipe["init_from"])]
    for card in card_chain(recipe["init_from"]):
        load_matching_weights(method, read_weights(card), card.name, required=card.folder in named)
    precision = str((recipe["trainer"] or {}).get("precision", ""))
    method.set_base_precision(precision if precision in ("bf16-true", "16-true") else method.base_precision)
    return method


def _require_places(resolved: ResolvedRecipe, section: str) -> None:
    recipe = resolved.recipe
    if missing := list(left_out(recipe.content, section)):
        raise RecipeError([Problem(recipe.origin(key), key, message) for key, message in missing])


def load_matching_weights(
    method: ZooModule, weights: Mapping[str, torch.Tensor], source: str, *, required: bool = True
) -> list[str]:
    """Load every weight whose name and shape match, whatever adapters wrap the module.

    Args:
        method: to load into.
        weights: by name.
        source: their card, for errors.
        required: whether at least one must match. What a base itself started from may be of another kind.

    Returns:
        Names of the weights that match none (of a head for other classes, for example).

    Raises:
        WeightsError: no weight matches, or one of what stays frozen has another shape, so that the base would be in part random.
    """
    state_dict = method.state_dict()
    targets = {canonical_name(name): name for name in state_dict}
    weights = {method.name_of_base_weight(name): value for name, value in weights.items()}
    for name in weights.keys() & targets.keys():
        if name.endswith(method.extended_weights):
            weights[name] = _with_new_rows(weights[name], state_dict[targets[name]])
    matching = {
        targets[name]: value
        for name, value in weights.items()
        if name in targets and state_dict[targets[name]].shape == value.shape
    }
    _refuse_other_sizes(method, weights, targets, source)
    if required and not matching:
        raise WeightsError(
            f"no weight of '{source}' matches {type(method).__name__} by name and shape; is it a base for this method?"
        )
    method.load_state_dict(matching, strict=False)
    return sorted(weights.keys() - {canonical_name(name) for name in matching})


def _with_new_rows(value: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Rows that only the method has keep their initial values."""
    if len(value) < len(own) and value.shape[1:] == own.shape[1:]:
        return torch.cat([value.to(own), own[len(value) :]])
    return value


def _refuse_other_sizes(
    method: ZooModule, weights: Mapping[str, torch.Tensor], targets: Mapping[str, str], source: str
) -> None:
    """Heads may be for other classes; of what is frozen, a weight of another shape is of another model."""
    state_dict = method.state_dict()
    for name, value in weights.items():
        expected = state_dict[targets[name]].shape if name in targets else value.shape
        if expected != value.shape and name.split(".")[0] in method.frozen:
            raise WeightsError(
                f"'{name}' has shape {tuple(value.shape)} in '{source}' and {tuple(expected)} in the recipe; "
                "give the model the sizes of the base"
            )
