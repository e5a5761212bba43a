"""From a recipe to the tree of its components, resolved once; whatever is built is built from that tree."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zoo.config.components import Component
from zoo.config.deprecations import RecipeDeprecationWarning, Upgrade
from zoo.config.recipe import COMPONENT_SECTIONS, Problem, Recipe, RecipeError
from zoo.config.validation import TRAINER_COMPONENTS, component_nodes, resolve_component, section_problems

LEARNED_WITH = {"template", "words", "pieces", "label_names", "region_names"}
"""Metadata that weights were learned with, by position in a list for most: a finished run or a card keeps them on other data."""
_VOCABULARY = {"words", "pieces"}
"""A tokenizer has rows of its own for each; one that was learned with words alone gets no pieces of other data either."""


@dataclass(frozen=True)
class ResolvedRecipe:
    """A checked recipe and the components that its sections name."""

    recipe: Recipe
    data: Component
    method: Component
    optimizer: Component
    scheduler: Component | None

    def with_metadata(self, metadata: Mapping[str, Any], *, overwrite: bool = False) -> "ResolvedRecipe":
        """The same with the method's injected arguments (class names, for example) filled in.

        Args:
            metadata: of the data set.
            overwrite: replace arguments injected before, from another data set, except :data:`LEARNED_WITH`.
        """
        method = self.method.without(metadata.keys() - LEARNED_WITH) if overwrite else self.method
        if overwrite and _has_vocabulary(method):
            metadata = {name: value for name, value in metadata.items() if name not in _VOCABULARY}
        method = method.with_metadata(metadata)
        recipe = self.recipe.with_content(method=method.to_dict())
        return ResolvedRecipe(recipe, self.data, method, self.optimizer, self.scheduler)


def _has_vocabulary(component: Component) -> bool:
    """Whether a component, or one in its slots, was given words or pieces."""
    return any(
        _has_vocabulary(value) if isinstance(value, Component) else name in _VOCABULARY and bool(value)
        for name, value in component.arguments.items()
    )


def resolve_recipe(recipe: Recipe) -> ResolvedRecipe:
    """Check every name and argument against the registries and signatures, without building anything.

    Raises:
        RecipeError: with all problems found.
    """
    problems: list[Problem] = []

    def report(key: str, message: str) -> None:
        problems.append(Problem(recipe.origin(key), key, message))

    section_problems(recipe, report)
    components: dict[str, Any] = {section: None for section in COMPONENT_SECTIONS}
    for section, kind in COMPONENT_SECTIONS.items():
        if recipe[section] is not None:
            components[section] = resolve_component(kind, recipe[section], section, report)
        elif section in ("data", "method", "optimizer"):
            report(section, "is missing")
    if problems:
        raise RecipeError(problems)
    return ResolvedRecipe(recipe, **components)


def check_recipe(recipe: Recipe) -> None:
    """As :func:`resolve_recipe`, for its errors alone."""
    resolve_recipe(recipe)


def resolve(kind: str, node: Mapping[str, Any], key: str = "", source: str = "recipe") -> Component:
    """Resolve a single component; names of earlier versions are replaced.

    Args:
        kind: of the component.
        node: a mapping with a ``name`` and arguments.
        key: where it stands, for messages.
        source: file or place that it is from, for messages.

    Raises:
        RecipeError: with everything that is wrong with it.
    """
    upgrade = Upgrade(source)
    node = upgrade.component(kind, node, key or kind)
    problems = [Problem(source, place, message) for place, message in upgrade.conflicts]
    if upgrade.notes:
        warnings.warn("\n".join(upgrade.notes), RecipeDeprecationWarning, stacklevel=2)
    component = resolve_component(
        kind, node, key or kind, lambda key, message: problems.append(Problem(source, key, message))
    )
    if problems or component is None:
        raise RecipeError(problems)
    return component


def trainer_components(recipe: Recipe, name: str) -> list[Component]:
    """The loggers or callbacks that a checked recipe names.

    Args:
        recipe: as read.
        name: the trainer's argument, ``logger`` or ``callbacks``.

    Raises:
        RecipeError: one does not fit its component.
    """
    nodes = component_nodes((recipe["trainer"] or {}).get(name, []))
    key = f"trainer.{name}"
    return [resolve(TRAINER_COMPONENTS[name], node, key, recipe.origin(key)) for node in nodes]


def build(kind: str, node: Mapping[str, Any], **injected: Any) -> Any:
    """Resolve and build a single component; ``injected`` values go to the parameters that the node leaves out.

    Raises:
        RecipeError: the node does not fit the component.
    """
    return resolve(kind, node).build(**injected)
