"""Variants: settings of a recipe that hold for one value of a key, as the hyperparameters that authors give by data set.

``variants: {data.set: {BUSI: {method: {adapter: {weight: 10.0}}}}}`` changes the weight where ``data.set`` is BUSI, whether a
file or the command line says so. Variants stand above all files and below the command line.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from zoo.errors import ZooError


class VariantProblem(ZooError, ValueError):
    """Variants that are malformed, under ``key``."""

    def __init__(self, key: str, message: str) -> None:
        """Keep the key apart from the message."""
        self.key = key
        super().__init__(message)


def chosen_variants(recipe: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The settings of a merged recipe's variants that hold for its own values, in their order.

    Raises:
        VariantProblem: a variant is not of the form key, value, settings.
    """
    for key, by_value in _mapping(recipe.get("variants") or {}, "variants").items():
        settings = {str(value): content for value, content in _mapping(by_value, f"variants.{key}").items()}
        content = settings.get(str(_value_at(recipe, str(key))))
        if content is not None:
            yield _mapping(content, f"variants.{key}")


def _mapping(content: Any, key: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise VariantProblem(key, f"is {content!r:.50}; expected a mapping, as {{data.set: {{BUSI: {{seed: 1}}}}}}")
    return content


def _value_at(recipe: Mapping[str, Any], key: str) -> Any:
    node: Any = recipe
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node
