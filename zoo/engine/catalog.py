"""Lists and descriptions of components, recipes and cards."""

import inspect
from pathlib import Path
from typing import Any

from zoo.cards.store import list_cards, read_card
from zoo.config.components import recipe_signature, unpacked_defaults
from zoo.config.recipe import list_recipes, read_recipe
from zoo.registry import KINDS, UnknownComponentError, nearest, registry


def list_all() -> dict[str, Any]:
    """All names: components by kind, recipes, datasets, cards."""
    return {
        "components": {kind: list(registry(kind)) for kind in KINDS},
        "recipes": list_recipes(),
        "datasets": list(registry("dataset")),
        "cards": list_cards(),
    }


def describe(name: str) -> dict[str, Any]:
    """Everything about a component (signature, docstring, file), recipe or card.

    Raises:
        UnknownComponentError: there is no such name; the message has the nearest ones.
    """
    for kind in KINDS:
        if name in registry(kind):
            return _describe_component(kind, name)
    if name in list_recipes() or Path(name).is_file():
        return {"recipe": name, "resolved": read_recipe(name).to_yaml()}
    if name in list_cards():
        card = read_card(name)
        return {"card": name, "folder": str(card.folder), **card.record.model_dump(mode="json")}
    names = [name for kind in KINDS for name in registry(kind)] + list_recipes() + list_cards()
    raise UnknownComponentError(f"no component, recipe or card is named '{name}'{nearest(name, names)}")


def _describe_component(kind: str, name: str) -> dict[str, Any]:
    component = registry(kind).resolve(name)
    module = inspect.getmodule(component)
    constructor = component.__init__ if inspect.isclass(component) else None
    unpacked = [f"{name}: {inspect.getdoc(type(default))}" for name, default in unpacked_defaults(component).items()]
    return {
        kind: name,
        "python": f"from {component.__module__} import {component.__qualname__}",
        "signature": f"{component.__qualname__}{recipe_signature(component)}",
        "source": inspect.getdoc(module) if module else "",
        "description": inspect.getdoc(component),
        "arguments": "\n\n".join(filter(None, [inspect.getdoc(constructor), *unpacked])),
    }
