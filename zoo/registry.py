"""Named components: one small registry per kind, filled without importing the components it names.

A component registers itself with a decorator on its class::

    @register("adapter", "oca")
    class OrthogonalCrossAttention(nn.Module): ...

The zoo's own components are found by parsing the source for that decorator, however it is written, as long as kind and
name are literals. So looking a name up, or listing all names, imports nothing heavy; the module is imported when the
component is resolved. Another package offers components with an entry point in the group ``zoo.components``, named
``KIND.NAME`` and pointing at ``module:Class``.
"""

import ast
import difflib
import importlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

from zoo.errors import ZooError
from zoo.paths import PACKAGE

T = TypeVar("T")

KINDS = {
    "vision_encoder": "images to tokens or features",
    "text_encoder": "text to tokens or features",
    "vision_language_encoder": "paired towers with a shared space, CLIP and its kin",
    "language_model": "text, and images where it takes them, to text",
    "adapter": "small trainable parts on frozen encoders",
    "decoder": "features or tokens to images and text",
    "head": "features to masks",
    "metric": "reports and references to scores",
    "method": "a LightningModule that wires components and losses",
    "dataset": "a LightningDataModule",
    "annotation_source": "files of a public form to annotated images, for a dataset",
    "optimizer": "an optimizer over the trainable parameters",
    "scheduler": "a learning-rate schedule, by step",
    "logger": "where the numbers of a run are written",
    "callback": "what a training does besides its steps",
}
"""Every kind of component, with what it is for."""

_MANY = 40
"""Names that no message lists."""
_DECORATORS = ("zoo.registry.register", "zoo.register")
_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class UnknownComponentError(ZooError, LookupError):
    """No component of the kind has this name."""


class DuplicateComponentError(ZooError, ValueError):
    """A second component of the same kind and name."""


class Slot:
    """Marks a constructor argument as a component of one kind: ``clip: Annotated[Clip, Slot("vision_language_encoder")]``."""

    def __init__(self, kind: str) -> None:
        """Name the kind; it must be one of :data:`KINDS`."""
        self.kind = _known_kind(kind)


class Injected:
    """Marks an argument that is injected by the zoo (class names, parameters, total steps); a recipe may leave it out."""


class Unpacked:
    """Marks an argument that is a dataclass: a recipe writes its fields as arguments of the component itself.

    ``loader: Annotated[LoaderSpec, Unpacked] = LoaderSpec(batch_size=4)`` is ``batch_size: 4`` in a recipe; what a recipe leaves
    out is as in the argument's default.
    """


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
        self._offered: set[str] = set()

    def add(self, name: str, target: str, *, offered: bool = False) -> None:
        """Record ``name`` for ``module:attribute``; the same pair twice is one entry.

        Args:
            name: of the component.
            target: its ``module:attribute``.
            offered: by an entry point, which may be mistaken about the attribute.

        Raises:
            DuplicateComponentError: ``name`` is taken by another target.
        """
        known = self._targets.setdefault(name, target)
        if known == target:
            self._offered |= {name} if offered else set()
        elif name in self._offered and known.partition(":")[0] == target.partition(":")[0]:
            raise DuplicateComponentError(
                f"the entry point '{self.kind}.{name}' names {known}, and the component registered by that name is {target}; "
                "correct the entry point"
            )
        else:
            raise DuplicateComponentError(
                f"{self.kind} '{name}' is already registered as {known}; {target} needs another name"
            )

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
        """Import and return the class or function registered as ``name``.

        Raises:
            UnknownComponentError: no such name, or its module or attribute does not exist.
        """
        module, _, attribute = self.target(name).partition(":")
        try:
            component: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        except (ModuleNotFoundError, AttributeError) as error:
            missing = error.name or ""
            if missing != attribute and not f"{module}.".startswith(f"{missing}."):
                raise  # an error of the module's code, or a package that it needs
            raise UnknownComponentError(
                f"{self.kind} '{name}' is registered as '{self.target(name)}', which does not exist: {error}"
            ) from error
        return component


def nearest(name: str, names: list[str]) -> str:
    """An ending for an error message: the names most like ``name``, else all of them, unless they are many."""
    close = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    if close:
        return "; did you mean " + " or ".join(close) + "?"
    if len(names) > _MANY:
        return f"; `zoo list` shows all {len(names)}"
    return "; there are: " + (", ".join(sorted(names)) or "none")


def _known_kind(kind: str) -> str:
    if kind not in KINDS:
        raise UnknownComponentError(f"no kind of component is named '{kind}'{nearest(kind, list(KINDS))}")
    return kind


def components_in(package: Path, name: str) -> Iterator[tuple[str, str, str]]:
    """Kind, name and ``module:attribute`` of every component that the files of a package register, importing none.

    A file that cannot be read or parsed is skipped with a warning, so that one broken file does not hide all others.

    Args:
        package: its folder.
        name: under which it is imported.
    """
    for path in sorted(package.rglob("*.py")):
        parts = (name, *path.relative_to(package).with_suffix("").parts)
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        try:
            source = path.read_text(encoding="utf-8")
            if "register" not in source:  # parsing takes the time, and most files register nothing
                continue
            components = list(_registered(ast.parse(source), ".".join(parts[:-1])))
        except (OSError, ImportError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            warnings.warn(f"{path} is skipped, its components cannot be read: {error}", stacklevel=2)
            continue
        yield from ((kind, component, f"{module}:{attribute}") for kind, component, attribute in components)


def _registered(tree: ast.Module, package: str) -> Iterator[tuple[str, str, str]]:
    """Kind, name and attribute of each registering decorator at the level of a module of ``package``."""
    imported: dict[str, str] = {}
    for node in _module_level(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            imported |= {alias.asname or alias.name: f"{source}.{alias.name}" for alias in node.names}
        elif isinstance(node, _Definition):
            for call in node.decorator_list:
                if isinstance(call, ast.Call) and _qualified_name(call.func, imported) in _DECORATORS:
                    yield *_kind_and_name(call), node.name


def _module_level(node: ast.AST) -> Iterator[ast.AST]:
    """Statements that run when a module is imported, those inside ``if``, ``try`` and ``with`` included."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, _Definition | ast.expr):
            yield from _module_level(child)


def _qualified_name(node: ast.expr, imported: dict[str, str]) -> str:
    """The dotted name of an expression, with what its first part was imported as."""
    if isinstance(node, ast.Attribute):
        return f"{_qualified_name(node.value, imported)}.{node.attr}"
    return imported.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def _kind_and_name(call: ast.Call) -> tuple[str, str]:
    """The two literal arguments of a decorator; ``ast.literal_eval`` raises ValueError for anything else."""
    arguments = dict(zip(("kind", "name"), call.args, strict=False))
    arguments |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    return ast.literal_eval(arguments.get("kind", "")), ast.literal_eval(arguments.get("name", ""))


def _offered_components() -> Iterator[tuple[str, str, str]]:
    for point in entry_points(group="zoo.components"):
        kind, _, name = point.name.partition(".")
        if kind in KINDS and name:
            yield kind, name, point.value
        else:
            package = point.dist.name if point.dist else "a package"
            warnings.warn(
                f"{package} offers '{point.name}', which is not KIND.NAME{nearest(kind, list(KINDS))}", stacklevel=2
            )


@cache
def _registries() -> dict[str, Registry]:
    registries = {kind: Registry(kind) for kind in KINDS}
    for offered, source in ((False, components_in(PACKAGE, "zoo")), (True, _offered_components())):
        for kind, name, target in source:
            registries[_known_kind(kind)].add(name, target, offered=offered)
    return registries


def registry(kind: str) -> Registry:
    """The registry of one kind.

    Raises:
        UnknownComponentError: no such kind.
    """
    return _registries()[_known_kind(kind)]


def component_classes() -> dict[str, tuple[str, str]]:
    """Class or function name of every component, with its kind and registered name."""
    classes = {}
    for kind in KINDS:
        for name in registry(kind):
            classes[registry(kind).target(name).partition(":")[2]] = (kind, name)
    return classes


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
