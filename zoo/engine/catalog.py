"""Lists and descriptions of components, recipes and cards."""

import inspect
from pathlib import Path
from typing import Any

from zoo.cards.store import list_cards, read_card
from zoo.config.recipe import list_recipes, read_recipe
from zoo.engine.descriptions import describe_arguments, plain_text, python_arguments
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
    """Everything about a component (paper, equation, arguments), recipe or card, in plain text.

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
    packed = python_arguments(component)
    return {
        kind: name,
        "python": f"from {component.__module__} import {component.__qualname__}"
        + (f"  # {packed} in place of their fields" if packed else ""),
        "source": plain_text(inspect.getdoc(module)) if module else "",
        "description": plain_text((inspect.getdoc(component) or "").partition("\nArgs:\n")[0]).strip(),
        "arguments": describe_arguments(component),
    }
