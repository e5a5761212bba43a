"""A model zoo for medical vision-language research: import a component, train a recipe, load a card.

Everything here is lazy: ``import zoo`` imports neither torch nor anything heavy.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "load": "zoo.engine.loading",
    "verify": "zoo.engine.verification",
    "publish": "zoo.engine.publishing",
    "read_image": "zoo.data.images",
    "read_recipe": "zoo.config.recipe",
    "check_recipe": "zoo.config.building",
    "assemble": "zoo.engine.assembly",
    "train": "zoo.engine.training",
    "compare": "zoo.engine.comparison",
    "plan": "zoo.engine.planning",
    "register": "zoo.registry",
    "registry": "zoo.registry",
}


def __getattr__(name: str) -> Any:
    """Public functions, and every registered component by its class name."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if not name.startswith("_"):
        from zoo.registry import component_named

        if (target := component_named(name)) is not None:
            return target()
    raise AttributeError(f"module 'zoo' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Public names, component classes included."""
    from zoo.registry import component_classes

    return sorted([*globals(), *_PUBLIC, *component_classes()])
