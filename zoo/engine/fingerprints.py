"""Fingerprints of what a measured row depends on besides its recipe: the content of records, and weights."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from zoo.cards.store import Card, card_chain
from zoo.config.locations import LOCAL, SOURCES
from zoo.config.recipe import Recipe
from zoo.data.traces.records import IvlRecord


def records_fingerprint(records: Sequence[IvlRecord]) -> str:
    """Hash of the content of records, in their order, and of the size and time of their images."""
    digest = hashlib.sha256()
    for record in records:
        content = asdict(replace(record, images=[], line=0)) | {"images": [_state(path) for path in record.images]}
        digest.update(json.dumps(content, default=str).encode())
    return digest.hexdigest()


def weights_fingerprint(recipe: Recipe, card: Card | None = None, run: Path | None = None) -> str:
    """Hash of the weights that a model is built with: those of its cards, by their records, and of files and folders, by size and time.

    Args:
        recipe: of the model.
        card: that it is.
        run: folder of the run that it is.
    """
    cards = [*card_chain(recipe["init_from"]), *([card] if card else [])]
    files = [run / "model.safetensors"] if run else []
    files += [path for source in _sources(recipe["method"]) for path in _files_of(source)]
    states = [[file.name, file.size, file.sha256] for one in cards for file in one.record.files]
    return hashlib.sha256(json.dumps([states, [_state(file) for file in files]]).encode()).hexdigest()


def find_differences(before: Any, now: Any, key: str = "") -> dict[str, tuple[Any, Any]]:
    """Keys of two nested mappings whose values differ, with both; None stands for a value that is not there."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        found: dict[str, tuple[Any, Any]] = {}
        for name in dict.fromkeys([*before, *now]):
            found |= find_differences(before.get(name), now.get(name), f"{key}.{name}" if key else str(name))
        return found
    return {} if before == now else {key: (before, now)}


def _state(path: Path) -> list[Any]:
    stat = path.stat()
    return [str(path), stat.st_size, stat.st_mtime_ns]


def _sources(node: Any) -> Iterator[Path]:
    """Files and folders that a section and the components in it name as the source of weights."""
    for name, value in node.items() if isinstance(node, Mapping) else ():
        if isinstance(value, str) and name in SOURCES:
            yield Path(value.removeprefix(LOCAL))
        else:
            yield from _sources(value)


def _files_of(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    return sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else []
