"""A component of a recipe, resolved: the registered class, its arguments, and the components in its slots."""

import collections.abc
import inspect
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Annotated, Any

from zoo.registry import Injected, Unpacked


@dataclass(frozen=True)
class Component:
    """A registered class or function with the arguments of a recipe; an argument in a slot is a :class:`Component` again."""

    kind: str
    name: str
    target: Any
    arguments: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The component as a recipe's section."""
        arguments = {k: v.to_dict() if isinstance(v, Component) else v for k, v in self.arguments.items()}
        return {"name": self.name, **arguments}

    def with_metadata(self, metadata: Mapping[str, Any]) -> "Component":
        """Fill in the injected arguments that are left out here and in the slots, from a data set's metadata."""
        parameters, hints = signature_of(self.target)
        known = {k: v for k, v in metadata.items() if k in parameters and is_injected(hints.get(k))}
        inner = {k: v.with_metadata(metadata) for k, v in self.arguments.items() if isinstance(v, Component)}
        return replace(self, arguments={**known, **self.arguments, **inner})

    def without(self, names: collections.abc.Iterable[str]) -> "Component":
        """The component without some of its arguments."""
        names = set(names)
        return replace(self, arguments={k: v for k, v in self.arguments.items() if k not in names})

    def build(self, **injected: Any) -> Any:
        """Build the component and those in its slots; ``injected`` values go to parameters that the recipe leaves out."""
        return self.builder(**injected)()

    def builder(self, **injected: Any) -> partial[Any]:
        """The class with its arguments bound.

        A slot annotated ``Callable[..., X]`` receives the builder of its component, and calls it with the remaining arguments.
        """
        parameters, hints = signature_of(self.target)
        arguments = {name: value for name, value in injected.items() if name in parameters}
        for name, value in self.arguments.items():
            if isinstance(value, Component):
                build = value.builder()
                arguments[name] = build if _takes_builder(hints[name]) else build()
            else:
                arguments[name] = value
        return partial(self.target, **_packed(self.target, arguments))


def signature_of(target: Any) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
    """Parameters of a constructor or function as a recipe writes them, and their type hints.

    The fields of a dataclass argument that is marked :class:`~zoo.registry.Unpacked` stand in its place.
    """
    parameters: dict[str, inspect.Parameter] = {}
    hints: dict[str, Any] = {}
    named, annotations = _python_signature(target)
    for name, parameter in named.items():
        if not is_unpacked(annotations.get(name)):
            parameters[name] = parameter
            hints |= {name: annotations[name]} if name in annotations else {}
            continue
        default = parameter.default
        hints |= typing.get_type_hints(type(default), include_extras=True)
        for field in fields(default):
            parameters[field.name] = parameter.replace(
                name=field.name, default=getattr(default, field.name), annotation=hints[field.name]
            )
    return parameters, hints


def unpacked_defaults(target: Any) -> dict[str, Any]:
    """The arguments of a component whose fields a recipe writes in their place, with their defaults."""
    parameters, hints = _python_signature(target)
    return {name: parameters[name].default for name, hint in hints.items() if name in parameters and is_unpacked(hint)}


def _packed(target: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments as the constructor takes them, from those that a recipe has."""
    packed = dict(arguments)
    for name, default in unpacked_defaults(target).items():
        values = {field.name: packed.pop(field.name) for field in fields(default) if field.name in packed}
        packed[name] = replace(default, **values)
    return packed


def _python_signature(target: Any) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    function = target.__init__ if inspect.isclass(target) else target
    return parameters, typing.get_type_hints(function, include_extras=True)


def is_injected(annotation: Any) -> bool:
    """Whether an argument with this annotation is injected."""
    return _is_marked(annotation, Injected)


def is_unpacked(annotation: Any) -> bool:
    """Whether a recipe writes the fields of an argument with this annotation in its place."""
    return _is_marked(annotation, Unpacked)


def _is_marked(annotation: Any, kind: type) -> bool:
    return typing.get_origin(annotation) is Annotated and any(
        isinstance(mark, kind) or mark is kind for mark in typing.get_args(annotation)[1:]
    )


def expected_class(annotation: Any) -> type | None:
    """The class that a slot's component must be, or build: X of ``Annotated[X, Slot]`` or ``Callable[..., X]``."""
    if inspect.isclass(annotation):
        return annotation
    parts = [part for part in typing.get_args(annotation) if part is not type(None)]
    if typing.get_origin(annotation) is collections.abc.Callable:
        return expected_class(parts[-1])
    return expected_class(parts[0]) if parts else None


def _takes_builder(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    return origin is collections.abc.Callable or any(
        _takes_builder(part) for part in typing.get_args(annotation) if typing.get_origin(part)
    )
