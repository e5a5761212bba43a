"""Checks of a recipe's sources, packages, strategy and devices before any weight is loaded."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from zoo.cards.store import CardError, card_chain
from zoo.config.building import ResolvedRecipe, trainer_components
from zoo.config.components import Component
from zoo.config.locations import DATA_PATHS, LEFT_OUT, LOCAL, value_at, was_left_out
from zoo.config.recipe import Problem, Recipe, RecipeError
from zoo.data.io.tables import SPLITS
from zoo.encoders.loading import not_downloaded
from zoo.engine.loggers import missing_package
from zoo.engine.strategies import StrategyError, check_strategy
from zoo.errors import ZooError
from zoo.metrics.clinical import build_report_metrics
from zoo.paths import recipes_folder
from zoo.pretrained import is_folder_name

_HUB_SECONDS = 10
"""For which the hub's answer is waited for."""
_PACKAGES = {"gguf_file": "gguf", "quantization": "bitsandbytes", "attention": "flash_attn"}
"""Arguments that need a package; of attention, one of its values."""


def preflight(resolved: ResolvedRecipe, *, to_run: bool = False, to_read: bool = False) -> list[str]:
    """Check what a recipe refers to: sources of weights, base cards, packages, strategy and devices.

    Args:
        resolved: the recipe.
        to_run: it is about to run here, so that missing data and what loggers and report metrics need are a problem and not a note.
        to_read: its data are about to be read, so that missing ones are a problem, unless a published recipe names them as an
            example.

    Returns:
        Notes: what is missing on this machine, such as GPUs and packages.

    Raises:
        RecipeError: with everything that cannot work on any machine, such as a folder without weights.
    """
    recipe, problems = resolved.recipe, []
    for key, message in (*_source_problems(resolved.method), *_other_problems(resolved)):
        problems.append(Problem(recipe.origin(key), key, message))
    data = list(_missing_data(resolved.data))
    others = [*_missing_loggers(recipe), *_missing_of_metrics(resolved.method)]
    needed = [(key, message) for key, message in data if to_run or (to_read and _is_users(recipe, key))]
    needed += others if to_run else []
    missing = [item for item in (*data, *others) if item not in needed]
    problems += [Problem(recipe.origin(key), key, message) for key, message in needed]
    if problems:
        raise RecipeError(problems)
    missing_notes = [f"{key} {message}" for key, message in missing]
    return [*missing_notes, *_package_notes(resolved.method), *_notes(recipe)]


def _is_users(recipe: Recipe, key: str) -> bool:
    """Whether a file or folder is one that the user names, and not the example of a published recipe."""
    is_example = Path(recipe.origin(key)).is_relative_to(recipes_folder())
    return not is_example and value_at(recipe.content, key) != LEFT_OUT


def missing_data(resolved: ResolvedRecipe) -> list[str]:
    """The keys of files and folders of the data that are not here."""
    return [key for key, _ in _missing_data(resolved.data)]


def _arguments(component: Component, key: str) -> Iterator[tuple[Component, str, str, Any]]:
    """Every plain argument in a tree of components: its component, its key in the recipe, its name and value."""
    for name, value in component.arguments.items():
        place = f"{key}.{name}"
        if isinstance(value, Component):
            yield from _arguments(value, place)
        else:
            yield component, place, name, value


def _source_problems(method: Component) -> Iterator[tuple[str, str]]:
    for _, key, name, value in _arguments(method, "method"):
        if name in ("source", "model") and isinstance(value, str):
            folder = value.removeprefix(LOCAL)
            if folder != value or is_folder_name(value):
                yield from ((key, message) for message in _folder_problems(folder))


def _folder_problems(folder: str) -> Iterator[str]:
    """Files that a folder of weights lacks."""
    path = Path(folder).expanduser()
    if not path.is_dir():
        yield f"there is no folder {folder}"
        return
    if not any(path.glob("*config.json")):
        yield f"{folder} has no config.json"
    if not any(path.glob("*.safetensors")) and not any(path.glob("*.gguf")):
        pickles = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in path.glob(pattern))
        pickle = f", and {pickles[0]} is a pickle, which the zoo does not load" if pickles else ""
        yield f"{folder} has no safetensors{pickle}"


def _other_problems(resolved: ResolvedRecipe) -> Iterator[tuple[str, str]]:
    recipe = resolved.recipe
    if str((recipe["trainer"] or {}).get("precision", "")).startswith("64"):
        yield "trainer.precision", "is double precision, which is not supported; use 32-true"
    try:
        card_chain(recipe["init_from"])
    except CardError as error:
        yield "init_from", str(error)
    try:
        check_strategy(recipe)
    except StrategyError as error:
        if "pip install" not in str(error):
            yield "trainer.strategy", str(error)


def missing_for_method(method: Component) -> list[str]:
    """What a method lacks to be loaded and scored on this machine: folders, weights of the hub, packages, what report metrics need.

    The hub is asked for the header of a file of weights that are not in its cache; nothing is downloaded.
    """
    problems = [*_source_problems(method), *_hub_problems(method), *_missing_of_metrics(method)]
    return [*(f"{key}: {message}" for key, message in problems), *_package_notes(method)]


def _hub_problems(method: Component) -> Iterator[tuple[str, str]]:
    for component, key, name, value in _arguments(method, "method"):
        if name != "source" or not isinstance(value, str):
            continue
        if value == LEFT_OUT:
            yield key, was_left_out(key)
        elif value.count("/") == 1 and not is_folder_name(value):
            if error := _hub_error(value, component.arguments.get("revision")):
                yield key, not_downloaded(value, error, key)


def _hub_error(repository: str, revision: str | None) -> Exception | None:
    """Why weights can neither be read from the hub's cache nor be downloaded."""
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    cached = try_to_load_from_cache(repository, "config.json", revision=revision)
    if isinstance(cached, str) and any(Path(cached).parent.glob("*.safetensors")):
        return None
    try:
        get_hf_file_metadata(hf_hub_url(repository, "config.json", revision=revision), timeout=_HUB_SECONDS)
    except errors.EntryNotFoundError:  # there is such a repository
        return None
    except (OSError, ValueError, errors.HTTPError) as error:  # type: ignore[attr-defined]
        return error
    return None


def _missing_of_metrics(method: Component) -> Iterator[tuple[str, str]]:
    """Packages, folders and keys that report metrics need, as far as it can be said without loading them."""
    for name, metric in build_report_metrics(method.arguments.get("report_metrics") or []).items():
        try:
            getattr(metric, "check", lambda: None)()
        except ZooError as error:
            yield "method.report_metrics", f"{name}: {error}"


def _missing_data(data: Component) -> Iterator[tuple[str, str]]:
    scans = data.arguments.get("scans") or []
    nested = [
        (f"data.{name}", value.arguments) for name, value in data.arguments.items() if isinstance(value, Component)
    ]
    listed = [(f"data.scans.{i}", scan) for i, scan in enumerate(scans)]
    for place, arguments in [("data", data.arguments), *nested, *listed]:
        for name in DATA_PATHS:
            value = arguments.get(name)
            if isinstance(value, str) and not any(Path(value.replace("{split}", split)).exists() for split in SPLITS):
                key = f"{place}.{name}"
                yield key, was_left_out(key) if value == LEFT_OUT else f"is {value}, which does not exist"


def _missing_loggers(recipe: Recipe) -> Iterator[tuple[str, str]]:
    for component in trainer_components(recipe, "logger"):
        if message := missing_package(component.name):
            yield "trainer.logger", f"{component.name} {message}"


def _package_notes(method: Component) -> Iterator[str]:
    for component, _, name, value in _arguments(method, "method"):
        package = _PACKAGES.get(name)
        is_used = value == "flash_attention_2" if name == "attention" else value
        if package and is_used and find_spec(package) is None:
            yield f"{name} of {component.name} needs the package {package}, which is not installed"


def _notes(recipe: Recipe) -> Iterator[str]:
    trainer = recipe["trainer"] or {}
    devices, accelerator = trainer.get("devices", 1), str(trainer.get("accelerator", "auto"))
    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (isinstance(devices, int) and devices > max(here, 1) and accelerator != "cpu") or (
        accelerator in ("gpu", "cuda") and not here
    ):
        yield f"requests {devices} device(s) with accelerator '{accelerator}'; this machine has {here} GPUs"
    try:
        check_strategy(recipe)
    except StrategyError as error:
        yield str(error)
