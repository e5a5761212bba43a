"""What is in the zoo's cache, by kind, and removal of a kind."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import ArgumentError, WriteError
from zoo.paths import CACHE_KINDS, cache_folder
from zoo.registry import nearest


@dataclass(frozen=True)
class Cached:
    """A kind of the cache on disk; links are counted, and not followed."""

    kind: str
    files: int
    bytes: int
    content: str


def cache_contents() -> list[Cached]:
    """Every kind that is in the cache, and under "other" what is not the zoo's."""
    root, contents = cache_folder(), []
    for kind, content in CACHE_KINDS.items():
        if os.path.lexists(root / kind):
            contents.append(Cached(kind, *_size(root / kind), content))
    others = [path for path in root.iterdir() if path.name not in CACHE_KINDS] if root.is_dir() else []
    if others:
        sizes = [_size(path) for path in others]
        total = (sum(size[0] for size in sizes), sum(size[1] for size in sizes))
        contents.append(Cached("other", *total, "not the zoo's, and never removed"))
    return contents


def _size(path: Path) -> tuple[int, int]:
    """Number of files and bytes below a path."""
    if path.is_symlink() or not path.is_dir():
        return 1, path.lstat().st_size
    files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    return len(files), sum(file.lstat().st_size for file in files if os.path.lexists(file))


def chosen_kinds(kind: str) -> list[str]:
    """A kind, or all that are in the cache.

    Raises:
        ArgumentError: there is no such kind.
    """
    if kind != "all" and kind not in CACHE_KINDS:
        raise ArgumentError(f"no kind of cache is named '{kind}'{nearest(kind, [*CACHE_KINDS, 'all'])}")
    here = [cached.kind for cached in cache_contents() if cached.kind in CACHE_KINDS]
    return [name for name in here if kind in ("all", name)]


def clean_cache(kind: str) -> list[str]:
    """Remove a kind from the cache, or all; a link is removed, and never what it leads to.

    Returns:
        The kinds that were removed.

    Raises:
        ArgumentError: there is no such kind.
        WriteError: a file cannot be removed.
    """
    kinds = chosen_kinds(kind)
    for name in kinds:
        path = cache_folder() / name
        try:
            if path.is_symlink() or not path.is_dir():
                path.unlink()
            else:
                shutil.rmtree(path)  # removes links that it meets, without following them
        except OSError as error:
            raise WriteError(error.errno, f"{error.strerror}; not all of '{name}' was removed", str(path)) from error
    return kinds
