"""A model zoo for medical vision-language research: import a component, train a recipe, load a card.

Everything here is lazy: ``import zoo`` imports neither torch nor anything heavy. Registered components are here too, by
class name: ``zoo.USEformer``. Type checkers know all of it from ``__init__.pyi``, which ``docs/generate.py`` writes.

Example:
    >>> import zoo
    >>> zoo.USEformer.__module__
    'zoo.adapters.useformer'
"""

import importlib
from typing import Any

__version__ = "0.2.0.dev0"

_PUBLIC = {
    "LoaderSpec": "zoo.data.base",
    "ZooError": "zoo.errors",
    "assemble": "zoo.engine.assembly",
    "check_recipe": "zoo.config.building",
    "compare": "zoo.engine.comparison",
    "evaluate": "zoo.engine.api",
    "list_components": "zoo.engine.api",
    "list_models": "zoo.engine.api",
    "load": "zoo.engine.loading",
    "plan": "zoo.engine.planning",
    "predict": "zoo.engine.api",
    "publish": "zoo.engine.publishing",
    "read_image": "zoo.data.io.images",
    "read_recipe": "zoo.config.recipe",
    "register": "zoo.registry",
    "train": "zoo.engine.training",
    "verify": "zoo.engine.verification",
}
"""Public names, each with the module that defines it."""

__all__ = ["__version__", "registry", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Public functions, and every registered component by its class name."""
    if name == "registry":  # the module: importing it makes it an attribute here, so the name can be nothing else
        return importlib.import_module("zoo.registry")
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

    return sorted({*globals(), *__all__, *component_classes()})
