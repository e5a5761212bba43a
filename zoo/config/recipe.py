"""Recipes: a YAML file of registered names, read and merged here, checked in :mod:`zoo.config.validation`.

A recipe has the keys of :data:`SECTIONS`. A section with a ``name`` is a component: the name picks from the registry of
its slot, the other keys are arguments of its constructor, and an argument marked with a :class:`~zoo.registry.Slot` is a
component again. There is no import path, no expression and no look-up of the environment (:mod:`zoo.config.references`), so a recipe from a stranger runs
nothing but registered code.
"""

import os
import re
import typing
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from zoo.config.deprecations import RecipeDeprecationWarning, Upgrade
from zoo.config.locations import absolute_paths
from zoo.config.references import ReferenceProblem, forbidden_interpolations, resolve_references
from zoo.config.variants import VariantProblem, chosen_variants
from zoo.errors import ZooError
from zoo.paths import recipes_folder
from zoo.registry import nearest

SECTIONS = {
    "seed": "seed of everything random (default 0)",
    "data": "a dataset",
    "method": "a method",
    "optimizer": "an optimizer",
    "scheduler": "a learning-rate schedule; none if left out",
    "trainer": "arguments of lightning.Trainer",
    "init_from": "a card, or a list of cards, whose trained weights are the start",
    "base": "a recipe that this one changes, as METHOD/NAME or a path beside it",
    "variants": "settings that hold for one value of a key",
    "protocol": "the name of the protocol that it follows, for tables; free text",
}
"""Top-level keys of a recipe."""

COMPONENT_SECTIONS = {"data": "dataset", "method": "method", "optimizer": "optimizer", "scheduler": "scheduler"}
COMMAND_LINE = "command line"
"""What a problem with an override names as its file."""

_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a recipe: where it stands, under which key, and what to do."""

    file: str
    key: str
    message: str

    def __str__(self) -> str:
        """One line, ``FILE: KEY: MESSAGE``."""
        return f"{self.file}: {self.key}: {self.message}" if self.key else f"{self.file}: {self.message}"


class RecipeError(ZooError, ValueError):
    """Everything that is wrong with a recipe, at once."""

    def __init__(self, problems: list[Problem]) -> None:
        """Keep the problems and print them one a line."""
        self.problems = problems
        super().__init__("\n".join(map(str, problems)))


@dataclass(frozen=True)
class Recipe:
    """A read recipe: plain containers, references followed, not yet checked.

    ``layers`` are the files and overrides it was merged from, the last one strongest.
    """

    content: dict[str, Any]
    layers: list[tuple[str, dict[str, Any]]] = field(default_factory=list, repr=False)

    def __getitem__(self, section: str) -> Any:
        """The content of a section, None where it is left out."""
        return self.content.get(section, 0 if section == "seed" else None)

    def with_content(self, **sections: Any) -> "Recipe":
        """A copy with other content in some sections."""
        return Recipe({**self.content, **sections}, self.layers)

    def origin(self, key: str) -> str:
        """The file, or the command line, that set ``key`` last; for a key that nothing sets, its parent's."""
        parts = key.split(".")
        for length in range(len(parts), 0, -1):
            for source, content in self.layers[::-1]:
                if _contains(content, parts[:length]):
                    return source
        return self.layers[-1][0] if self.layers else "recipe"

    def folder_of(self, key: str) -> Path | None:
        """The folder of the file that set ``key`` last; None for the command line."""
        source = self.origin(key)
        return None if source == COMMAND_LINE else Path(source).parent

    def to_yaml(self) -> str:
        """The resolved recipe as YAML; reading it again gives the same content."""
        text: str = OmegaConf.to_yaml(OmegaConf.create(self.content))
        return text


def _contains(content: Any, parts: list[str]) -> bool:
    for part in parts:
        if not isinstance(content, Mapping) or part not in content:
            return False
        content = content[part]
    return True


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe given as a path or as ``METHOD/NAME`` of a published one.

    Raises:
        RecipeError: there is no such file; the message has the nearest published names.
    """
    path = _recipe_in((Path(), recipes_folder()), name)
    if path is None:
        file = os.path.abspath(name)
        message = f"no such recipe: neither a file {file} nor a published one"
        raise RecipeError([Problem(str(name), "", f"{message}{nearest(str(name), list_recipes())}")])
    return path


def _recipe_in(folders: typing.Iterable[Path], name: str | Path) -> Path | None:
    candidates = (folder / file for folder in folders for file in (name, f"{name}.yaml"))
    return next((candidate for candidate in candidates if os.path.isfile(candidate)), None)  # False for any text


def list_recipes() -> list[str]:
    """Names of all published recipes, ``METHOD/NAME``."""
    folder = recipes_folder()
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def read_recipe(name: str | Path, overrides: typing.Sequence[str] = (), *, record: bool = False) -> Recipe:
    """Read a recipe, its bases, variants and ``key=value`` overrides, replace names of earlier versions, and follow references.

    Files and folders that are there become absolute paths (:func:`zoo.config.locations.absolute_paths`).

    Args:
        name: a path, or ``METHOD/NAME`` of a published recipe.
        overrides: as ``["data.shots=4"]``; the last one is strongest. A text is one override.
        record: the file is the record of a run, which is read without a warning about old names in it.

    Raises:
        RecipeError: a file is missing or is no YAML mapping, there is a circular ``base:`` reference, an override is
            malformed, a reference leads nowhere, a key is given by its old name and its new one.
    """
    merged: dict[str, Any] = {}
    layers: list[tuple[str, dict[str, Any]]] = []
    notes: list[str] = []

    def add(source: str, content: dict[str, Any]) -> None:
        nonlocal merged
        content, renamed = _upgraded(source, content, merged)
        notes.extend(renamed if not record or source == COMMAND_LINE else [])
        layers.append((source, content))
        merged = _merge(merged, content)

    file, overriding = find_recipe(name), parse_overrides(overrides)
    for source, content in _file_layers(file, []):
        add(source, content)
    for content in _variants(str(file), _merge(merged, overriding)):
        add(str(file), content)
    if overriding:
        add(COMMAND_LINE, overriding)
    for read in ("base", "variants"):
        merged.pop(read, None)
    references = Upgrade(str(name))
    merged = references.references(merged, COMPONENT_SECTIONS)
    notes += references.notes if not record else []
    if notes:
        warnings.warn("\n".join(notes), RecipeDeprecationWarning, stacklevel=2)
    recipe = Recipe(_resolved(merged, layers), layers)
    return recipe.with_content(**absolute_paths(recipe.content, recipe.folder_of))


def _variants(file: str, merged: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        return list(chosen_variants(merged))
    except VariantProblem as error:
        raise RecipeError([Problem(file, error.key, str(error))]) from error


def _upgraded(source: str, content: dict[str, Any], base: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A layer with current names, and a line for each old one."""
    upgrade = Upgrade(source)
    components = {
        section: upgrade.component(kind, content[section], section, base.get(section))
        for section, kind in COMPONENT_SECTIONS.items()
        if section in content
    }
    if upgrade.conflicts:
        raise RecipeError([Problem(source, key, message) for key, message in upgrade.conflicts])
    return {**content, **components}, upgrade.notes


def _resolved(content: dict[str, Any], layers: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    try:
        return resolve_references(content)
    except ReferenceProblem as error:
        raise RecipeError([Problem(Recipe({}, layers).origin(error.key), error.key, str(error))]) from error


def _refuse_interpolations(source: str, content: dict[str, Any]) -> None:
    if problems := [Problem(source, key, message) for key, message in forbidden_interpolations(content)]:
        raise RecipeError(problems)


def _file_layers(path: Path, above: list[Path]) -> list[tuple[str, dict[str, Any]]]:
    """A recipe's file and, before it, its bases; ``above`` are the files that it is a base of."""
    content, base = _read_mapping(path), None
    if (name := content.get("base")) is not None:
        base = _base_of(path, name, [*above, path])
    return [*(_file_layers(base, [*above, path]) if base else []), (str(path), content)]


def _base_of(path: Path, name: Any, chain: list[Path]) -> Path:
    """The file that a recipe's ``base:`` names; the file that holds a wrong one is named."""
    if not isinstance(name, str):
        raise RecipeError([Problem(str(path), "base", f"is {name!r}; expected the name or path of a recipe")])
    own, published = path.resolve().parent, recipes_folder().resolve()
    base = _recipe_in((path.parent, recipes_folder()), name)
    if base is not None and not any(folder in base.resolve().parents for folder in (own, published)):
        message = (
            f"'{name}' is outside of the recipe's folder and of the published recipes; copy the base beside the recipe"
        )
        raise RecipeError([Problem(str(path), "base", message)])
    if base is None:
        raise RecipeError([Problem(str(path), "base", f"no recipe is named '{name}'{nearest(name, list_recipes())}")])
    if base.resolve() in [file.resolve() for file in chain]:
        raise RecipeError([Problem(str(path), "base", f"is circular: {' -> '.join(map(str, [*chain, base]))}")])
    return base


def _read_mapping(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MAX_BYTES:
        raise RecipeError([Problem(str(path), "", f"is larger than {_MAX_BYTES} bytes, the limit for a recipe")])
    try:
        config = OmegaConf.create(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, YAMLError, OmegaConfBaseException, AssertionError, ValueError, RecursionError) as error:
        # OmegaConf asserts that a file is a mapping or a list, and lets a date or number out of range escape.
        raise RecipeError([Problem(str(path), "", f"is not readable YAML{_place_of(error)}")]) from error
    if not isinstance(config, DictConfig):
        raise RecipeError([Problem(str(path), "", "is a list; expected a mapping of sections")])
    content = typing.cast(dict[str, Any], OmegaConf.to_container(config, resolve=False))
    if content and not content.keys() & SECTIONS.keys():
        raise RecipeError([Problem(str(path), "", f"is no recipe: it has none of the sections {', '.join(SECTIONS)}")])
    _refuse_interpolations(str(path), content)
    return content


def _place_of(error: Exception) -> str:
    """Where YAML breaks off, and why, without what the file holds: it may be no recipe, and its content nobody's business."""
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return "" if not isinstance(error, UnicodeDecodeError) else ": it is not UTF-8 text"
    reason = re.sub(r"'\S{2,}?'|\"\S{2,}?\"", "'...'", str(error.problem))
    return f": line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: {reason}"


def as_overrides(overrides: typing.Sequence[str]) -> list[str]:
    """Overrides as a list; a text is one override, and not a sequence of letters."""
    return [overrides] if isinstance(overrides, str) else list(overrides)


def parse_overrides(overrides: typing.Sequence[str]) -> dict[str, Any]:
    """``key=value`` overrides as one nested mapping; the last one is strongest.

    Raises:
        RecipeError: with every override that is malformed.
    """
    overrides = as_overrides(overrides)
    problems = [Problem(COMMAND_LINE, item, message) for item in overrides if (message := _override_problem(item))]
    if problems:
        raise RecipeError(problems)
    layer: dict[str, Any] = {}
    for item in overrides:
        try:
            content = OmegaConf.to_container(OmegaConf.from_dotlist([item]), resolve=False)
        except (YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
            raise RecipeError([Problem(COMMAND_LINE, item, f"is not readable: {error}")]) from error
        content = typing.cast(dict[str, Any], content)
        _refuse_interpolations(COMMAND_LINE, content)
        layer = _merge(layer, content)
    return layer


def _override_problem(item: str) -> str | None:
    return None if re.match(r"^[\w.-]+=", item) else "expected key=value, as data.shots=4"


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge mappings; a section that names another component replaces the one below, whose arguments do not apply to it."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(under, dict) and isinstance(value, Mapping) and value.get("name") in (None, under.get("name")):
            merged[key] = _merge(under, value)
        else:
            merged[key] = value
    return merged
