"""Fingerprints of what a measured row depends on besides its recipe: the content of records, and weights."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from zoo.cards.store import PICKLES, Card, card_chain
from zoo.checksums import content_hashes
from zoo.config.locations import LOCAL, SOURCES
from zoo.config.recipe import Recipe
from zoo.data.traces.records import IvlRecord


def records_fingerprint(records: Sequence[IvlRecord]) -> str:
    """Hash of the content of records, in their order, and of their images, wherever they are and whenever they were written."""
    digest = hashlib.sha256()
    images = iter(content_hashes(path for record in records for path in record.images))
    for record in records:
        content = asdict(replace(record, images=[], line=0)) | {"images": [next(images) for _ in record.images]}
        digest.update(json.dumps(content, default=str).encode())
    return digest.hexdigest()


def weights_fingerprint(recipe: Recipe, card: Card | None = None, run: Path | None = None) -> str:
    """Hash of the weights that a model is built with: those of its cards, by their records, and files and folders, by content.

    Of a folder all files count by name and whole content, but hidden ones and pickles, which are not read. Those of the hub are known by
    their names alone. A large file is hashed once for its size and time (:func:`~zoo.checksums.content_hash`).

    Args:
        recipe: of the model.
        card: that it is.
        run: folder of the run that it is.
    """
    cards = [*card_chain(recipe["init_from"]), *([card] if card else [])]
    files = [(run.name, run / "model.safetensors")] if run else []
    files += [named for source in _sources(recipe["method"]) for named in _files_of(source)]
    states = [[file.name, file.size, file.sha256] for one in cards for file in one.record.files]
    hashes = content_hashes(file for _, file in files)
    content = [states, [name for name, _ in files], hashes]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def find_differences(before: Any, now: Any, key: str = "") -> dict[str, tuple[Any, Any]]:
    """Keys of two nested mappings whose values differ, with both; None stands for a value that is not there."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        found: dict[str, tuple[Any, Any]] = {}
        for name in dict.fromkeys([*before, *now]):
            found |= find_differences(before.get(name), now.get(name), f"{key}.{name}" if key else str(name))
        return found
    return {} if before == now else {key: (before, now)}


def _sources(node: Any) -> Iterator[Path]:
    """Files and folders that a section and the components in it name as the source of weights."""
    for name, value in node.items() if isinstance(node, Mapping) else ():
        if isinstance(value, str) and name in SOURCES:
            yield Path(value.removeprefix(LOCAL))
        else:
            yield from _sources(value)


def _files_of(source: Path) -> list[tuple[str, Path]]:
    """A file, or the files of a folder that are read, each with its name in it."""
    if source.is_file():
        return [("", source)]
    named = sorted((path.relative_to(source).as_posix(), path) for path in source.rglob("*"))
    return [
        (name, path)
        for name, path in named
        if path.is_file() and path.suffix not in PICKLES and not any(part.startswith(".") for part in name.split("/"))
    ]
