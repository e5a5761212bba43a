"""Renamed recipe keys and components: a recipe with the old names is read as if it had the new ones.

A key or component that is renamed gets an entry in :data:`RENAMED_KEYS` or :data:`RENAMED_COMPONENTS`, in the same commit.
Old names are replaced wherever a recipe is read (file, base, ``key=value`` override), before it is validated, and the user
sees a :class:`RecipeDeprecationWarning`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo.config.components import signature_of
from zoo.config.references import REFERENCE
from zoo.registry import registry, slot_of


class RecipeDeprecationWarning(FutureWarning):
    """Raised when a recipe uses names of an earlier version; a FutureWarning, since Python hides DeprecationWarning by default."""


@dataclass(frozen=True)
class RenamedComponent:
    """A component that had another name before version ``since``."""

    kind: str
    old: str
    new: str
    since: str


@dataclass(frozen=True)
class RenamedKey:
    """An argument that had another name before version ``since``.

    ``component`` is the component, by its current name, that takes the argument; None stands for all of the kind. A component
    whose signature still has the old name, or lacks the new one, is left alone: it may come from another package.
    """

    kind: str
    old: str
    new: str
    since: str
    component: str | None = None


RENAMED_COMPONENTS: list[RenamedComponent] = []

RENAMED_KEYS: list[RenamedKey] = [
    RenamedKey("dataset", "workers", "num_workers", since="0.2.0"),
    RenamedKey("dataset", "build_workers", "render_workers", since="0.2.0"),
    RenamedKey("dataset", "at_most", "max_findings", since="0.2.0", component="chest_drr"),
    RenamedKey("dataset", "picture_size", "output_size", since="0.2.0", component="chest_drr_films"),
    RenamedKey("dataset", "close_ups", "crop_probability", since="0.2.0", component="chest_drr_films"),
    RenamedKey("dataset", "form", "format", since="0.2.0", component="medseg_files"),
    RenamedKey("method", "ways", "direction", since="0.2.0", component="nearl_clip"),
    RenamedKey("adapter", "ways", "direction", since="0.2.0", component="nearl"),
    RenamedKey("method", "external_metrics", "report_metrics", since="0.2.0"),
]


@dataclass(frozen=True)
class Upgrade:
    """Replaces old names in a recipe's components, and keeps what there is to say about it."""

    source: str
    notes: list[str] = field(default_factory=list)
    conflicts: list[tuple[str, str]] = field(default_factory=list)

    def component(self, kind: str, node: Any, key: str, base: Any = None) -> Any:
        """A component's section with current names, in its slots too.

        Args:
            kind: of the component.
            node: its section; anything but a mapping is left to the validation.
            key: where the section stands in the recipe.
            base: the section that this one changes, with current names; it has the component's name where ``node`` has none.
        """
        if not isinstance(node, dict):
            return node
        node = self._rename_component(kind, node, key)
        base = base if isinstance(base, Mapping) else {}
        name = node.get("name", base.get("name"))
        base = base if name == base.get("name") else {}
        upgraded: dict[Any, Any] = {}
        for argument, value in node.items():
            renamed = _renamed_key(kind, name, argument)
            current = renamed.new if renamed else argument
            if renamed and (current in node or current in upgraded):
                message = f"is an old name of '{current}', which is given too; remove one of them"
                self.conflicts.append((f"{key}.{argument}", message))
                continue
            if renamed:
                self._note(f"{key}.{argument}", f"'{argument}' was renamed to '{current}' in version {renamed.since}")
            if _has_old_names(value) and (slot := _slot_kind(kind, name, current)):
                value = self.component(slot, value, f"{key}.{current}", base.get(current))
            upgraded[current] = value
        return upgraded

    def references(self, content: dict[str, Any], kinds: Mapping[str, str]) -> dict[str, Any]:
        """A merged recipe, its keys current, with current names in its interpolations (``${data.batch_size}``) too.

        Args:
            content: the recipe.
            kinds: of the components, by section.
        """

        def upgrade(value: Any, place: list[str]) -> Any:
            if isinstance(value, dict):
                return {key: upgrade(item, [*place, str(key)]) for key, item in value.items()}
            if isinstance(value, list):
                return [upgrade(item, [*place, str(index)]) for index, item in enumerate(value)]
            return REFERENCE.sub(lambda match: replace(match, place), value) if isinstance(value, str) else value

        def replace(match: re.Match[str], place: list[str]) -> str:
            above = place[: len(place) - len(match[1])] if match[1] else []  # one dot is the mapping that it stands in
            path = [*above, *match[2].split(".")]
            current = _current_path(content, path, kinds)
            if current == path:
                return match[0]
            self._note(".".join(place), f"'{'.'.join(path)}' was renamed to '{'.'.join(current)}'")
            return f"${{{'.'.join(current)}}}"

        return {key: upgrade(value, [str(key)]) for key, value in content.items()}

    def _rename_component(self, kind: str, node: dict[str, Any], key: str) -> dict[str, Any]:
        for renamed in RENAMED_COMPONENTS:
            if (renamed.kind, renamed.old) == (kind, node.get("name")):
                self._note(f"{key}.name", f"'{renamed.old}' was renamed to '{renamed.new}' in version {renamed.since}")
                return {**node, "name": renamed.new}
        return node

    def _note(self, key: str, message: str) -> None:
        self.notes.append(f"{self.source}: {key}: {message}; the old name still works, please change it")


def _renamed_key(kind: str, name: Any, argument: Any) -> RenamedKey | None:
    for renamed in RENAMED_KEYS:
        if (renamed.kind, renamed.old) == (kind, argument) and renamed.component in (None, name):
            parameters, _ = _signature(kind, name)
            if renamed.new in parameters and renamed.old not in parameters:
                return renamed
    return None


def _current_path(content: Mapping[str, Any], path: list[str], kinds: Mapping[str, str]) -> list[str]:
    node, kind, current = content.get(path[0]), kinds.get(path[0]), path[:1]
    for part in path[1:]:
        if kind and isinstance(node, Mapping):
            renamed = _renamed_key(kind, node.get("name"), part)
            part = renamed.new if renamed else part
            inner = node.get(part)
            kind = _slot_kind(kind, node.get("name"), part) if isinstance(inner, Mapping) else None
            node = inner
        current.append(part)
    return current


def _signature(kind: str, name: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Parameters and type hints of a component, which is imported; none where no component has that name."""
    known = isinstance(name, str) and name in registry(kind)
    return signature_of(registry(kind).resolve(name)) if known else ({}, {})


def _slot_kind(kind: str, name: Any, argument: str) -> str | None:
    return slot_of(_signature(kind, name)[1].get(argument))


def _has_old_names(value: Any) -> bool:
    """Whether a mapping has an old name somewhere: few have, and only those are worth an import."""
    if not isinstance(value, Mapping):
        return False
    if value.get("name") in [renamed.old for renamed in RENAMED_COMPONENTS]:
        return True
    keys = {renamed.old for renamed in RENAMED_KEYS}
    return any(key in keys or _has_old_names(item) for key, item in value.items())
