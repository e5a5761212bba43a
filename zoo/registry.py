"""Named components: one small registry a kind, filled without importing what it names.

A component registers itself with a decorator on its class::

    @register("adapter", "oca")
    class OrthogonalCrossAttention(nn.Module): ...

The zoo's own components are found by reading that line from the source, so looking a name up, or listing all names,
imports nothing heavy; the module is imported when the component is resolved. Another package offers components with
an entry point in the group ``zoo.components``, named ``KIND.NAME`` and pointing at ``module:Class``.
"""

import difflib
import importlib
import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import entry_points
from typing import Annotated, Any, TypeVar, get_args, get_origin

from zoo.paths import PACKAGE

T = TypeVar("T")

KINDS = {
    "vision_encoder": "images to tokens or features",
    "text_encoder": "text to tokens or features, language models included",
    "vision_language_encoder": "paired towers with a shared space, CLIP and its kin",
    "adapter": "small trainable parts on frozen encoders",
    "decoder": "features or tokens to images and text",
    "head": "features to masks",
    "method": "a LightningModule that wires components and losses",
    "dataset": "a LightningDataModule",
    "optimizer": "an optimizer over the trainable parameters",
    "scheduler": "a learning-rate schedule, by step",
}
"""Every kind of component, with what it is for."""

_DECORATOR = re.compile(r'^@register\("(\w+)", "([\w.-]+)"\)\n(?:@.*\n)*(?:class|def) (\w+)', re.MULTILINE)


class UnknownComponentError(LookupError):
    """A name that no component of the kind has."""


class DuplicateComponentError(ValueError):
    """A second component of the same kind and name."""


class Slot:
    """Marks a constructor argument as a component of one kind: ``clip: Annotated[Clip, Slot("vision_language_encoder")]``."""

    def __init__(self, kind: str) -> None:
        """Name the kind; it must be one of :data:`KINDS`."""
        self.kind = _known_kind(kind)


class Supplied:
    """Marks an argument that the zoo supplies (class names, parameters, total steps); a recipe may leave it out."""


def slot_of(annotation: Any) -> str | None:
    """The kind of component that an argument with this annotation takes, or None for a plain value."""
    if get_origin(annotation) is Annotated:
        for mark in get_args(annotation)[1:]:
            if isinstance(mark, Slot):
                return mark.kind
    return next((kind for part in get_args(annotation) if (kind := slot_of(part))), None)


class Registry:
    """Names of one kind of component, each with the ``module:attribute`` that holds it."""

    def __init__(self, kind: str) -> None:
        """Make an empty registry of ``kind``."""
        self.kind = kind
        self._targets: dict[str, str] = {}

    def add(self, name: str, target: str) -> None:
        """Record ``name`` for ``module:attribute``; the same pair twice is one entry.

        Raises:
            DuplicateComponentError: ``name`` is taken by another target.
        """
        known = self._targets.setdefault(name, target)
        if known != target:
            raise DuplicateComponentError(f"{self.kind} '{name}' is {known} already; {target} needs another name")

    def __contains__(self, name: object) -> bool:
        """Whether a component has this name."""
        return name in self._targets

    def __iter__(self) -> Iterator[str]:
        """All names, sorted."""
        return iter(sorted(self._targets))

    def target(self, name: str) -> str:
        """The ``module:attribute`` of ``name``, without importing it.

        Raises:
            UnknownComponentError: no such name; the message has the nearest ones.
        """
        if name not in self._targets:
            raise UnknownComponentError(f"no {self.kind} is named '{name}'{nearest(name, list(self))}")
        return self._targets[name]

    def resolve(self, name: str) -> Callable[..., Any]:
        """Import and return the class or function registered as ``name``."""
        module, _, attribute = self.target(name).partition(":")
        return getattr(importlib.import_module(module), attribute)


def nearest(name: str, names: list[str]) -> str:
    """An ending for an error message: the names most like ``name``, else all of them."""
    close = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    if close:
        return "; did you mean " + " or ".join(close) + "?"
    return "; there are: " + (", ".join(sorted(names)) or "none")


def _known_kind(kind: str) -> str:
    if kind not in KINDS:
        raise UnknownComponentError(f"no kind of component is named '{kind}'{nearest(kind, list(KINDS))}")
    return kind


def _own_components() -> Iterator[tuple[str, str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(("zoo", *path.relative_to(PACKAGE).with_suffix("").parts))
        for kind, name, attribute in _DECORATOR.findall(path.read_text(encoding="utf-8")):
            yield kind, name, f"{module}:{attribute}"


def _offered_components() -> Iterator[tuple[str, str, str]]:
    for point in entry_points(group="zoo.components"):
        kind, _, name = point.name.partition(".")
        yield kind, name, point.value


@cache
def _registries() -> dict[str, Registry]:
    registries = {kind: Registry(kind) for kind in KINDS}
    for source in (_own_components(), _offered_components()):
        for kind, name, target in source:
            registries[_known_kind(kind)].add(name, target)
    return registries


def registry(kind: str) -> Registry:
    """The registry of one kind.

    Raises:
        UnknownComponentError: no such kind.
    """
    return _registries()[_known_kind(kind)]


def component_classes() -> dict[str, tuple[str, str]]:
    """Class or function name of every component, with its kind and registered name."""
    found = {}
    for kind in KINDS:
        for name in registry(kind):
            found[registry(kind).target(name).partition(":")[2]] = (kind, name)
    return found


def component_named(attribute: str) -> Callable[[], Any] | None:
    """A function that imports the component with this class name; None if there is none."""
    place = component_classes().get(attribute)
    return (lambda: registry(place[0]).resolve(place[1])) if place else None


def register(kind: str, name: str) -> Callable[[T], T]:
    """Class decorator: make a component known as ``name`` among its ``kind``.

    Raises:
        UnknownComponentError: no such kind.
        DuplicateComponentError: the name is taken.
    """

    def decorate(component: T) -> T:
        registry(kind).add(name, f"{component.__module__}:{component.__qualname__}")  # type: ignore[attr-defined]
        return component

    return decorate
