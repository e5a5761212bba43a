"""Checksums of cached files: a cache is used only as it was written; what differs is removed, built again, and said.

A file's sum is in a hidden file beside it, that of tensors in the header of their safetensors file, and those of a folder of many small files
in one list. Files of versions without checksums are taken as they are, and get one where that is cheap.
"""

import hashlib
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from zoo.errors import ZooWarning
from zoo.files import replacing
from zoo.paths import cache_folder

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
_KEY = "sha256"
_LIST = ".sha256s"
_SUM_LENGTH = 64
_LARGE = 1_000_000
"""Bytes from which on a file is not read again to know its hash."""
_FEW = 8
"""Files from which on threads are worth their start."""


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(path: Path) -> str:
    """Hexadecimal sha256 of a file, computed once for its size and time; that of a large file is kept in the zoo's cache.

    Raises:
        OSError: there is no such file.
    """
    stat = path.stat()
    return _hash_once(os.path.abspath(path), stat.st_size, stat.st_mtime_ns)


@cache
def _hash_once(path: str, size: int, time: int) -> str:
    if size < _LARGE:
        return sha256_of(Path(path))
    name = hashlib.sha256(f"{path}\n{size}\n{time}".encode()).hexdigest()
    file = cache_folder() / "hashes" / name
    with suppress(OSError, ValueError):
        if re.fullmatch(r"[0-9a-f]{64}", kept := file.read_text(encoding="ascii")):
            return kept
    computed = sha256_of(Path(path))
    with suppress(OSError):  # a cache that may only be read
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file, durable=False) as partial:
            partial.write_text(computed, encoding="ascii")
    return computed


def content_hashes(paths: Iterable[Path]) -> list[str]:
    """:func:`content_hash` of files, several at a time."""
    return _mapped(content_hash, list(paths))


def write_checksum(file: Path, content: Path | None = None) -> None:
    """Write the checksum of a file beside it.

    Args:
        file: that is checked later.
        content: the file with its content, where it gets its name only afterwards.
    """
    with replacing(_beside(file), durable=False) as partial:
        partial.write_text(sha256_of(content or file) + "\n", encoding="ascii")


def remove_damaged(files: Iterable[Path], what: str) -> list[Path]:
    """Remove those files that are not as they were written, with a warning.

    Args:
        files: that exist or do not.
        what: they are, for the warning.

    Returns:
        The files that were removed.
    """
    there = [file for file in files if file.is_file()]
    damaged = [file for file, intact in zip(there, _mapped(_is_intact, there), strict=True) if not intact]
    for file in damaged:
        file.unlink(missing_ok=True)
        _beside(file).unlink(missing_ok=True)
    if damaged:
        say_rebuilt(what, damaged[0], len(damaged))
    return damaged


def damaged_in(folder: Path, pattern: str, what: str) -> list[Path]:
    """As :func:`remove_damaged`, for the small files of a folder, whose checksums are in one list; nothing is removed.

    Files that are not in the list are added to it as they are: those of an earlier version, and new ones. What is built again must be
    listed again, by :func:`list_checksums`.

    Args:
        folder: with the files and the list.
        pattern: of the files' names.
        what: they are, for the warning.

    Returns:
        The files that are not as listed, or not there.
    """
    if not folder.is_dir():
        return []
    listed, current = _listed(folder), _sums_in(folder, pattern)
    damaged = sorted(folder / name for name, value in listed.items() if current.get(name) != value)
    if damaged:
        say_rebuilt(what, damaged[0], len(damaged))
    if current.keys() - listed.keys():
        _write_list(folder, {**current, **listed})
    return damaged


def list_checksums(folder: Path, pattern: str) -> None:
    """List the small files of a folder as they are now."""
    _write_list(folder, _sums_in(folder, pattern))


def _sums_in(folder: Path, pattern: str) -> dict[str, str]:
    files = sorted(folder.glob(pattern))
    return dict(zip((file.name for file in files), _mapped(_sum_of_file, files), strict=True))


def _write_list(folder: Path, sums: Mapping[str, str]) -> None:
    with suppress(OSError), replacing(folder / _LIST, durable=False) as partial:  # a cache that may only be read
        partial.write_text("".join(f"{value}  {name}\n" for name, value in sums.items()), encoding="utf-8")


def _listed(folder: Path) -> dict[str, str]:
    """The list of a folder: the sum of each file by its name; empty where there is none that can be read."""
    try:
        lines = (folder / _LIST).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = (line.split("  ", 1) for line in lines)
    return {pair[1]: pair[0] for pair in pairs if len(pair) == 2 and len(pair[0]) == _SUM_LENGTH}


def _mapped(function: Callable[[Path], T], files: list[Path]) -> list[T]:
    if len(files) < _FEW:
        return list(map(function, files))
    with ThreadPoolExecutor(8) as pool:  # hashing leaves Python's lock
        return list(pool.map(function, files))


def say_rebuilt(what: str, first: Path, count: int = 1) -> None:
    """Warn that parts of a cache are damaged and built again."""
    files = f"{first} and {count - 1} more" if count > 1 else str(first)
    warnings.warn(f"{what}: {files} in the cache changed since written; built again", ZooWarning, stacklevel=3)


_sums: dict[tuple[str, int, int], str] = {}
"""Sums that this process has computed, by file, size and time: a data set opens its cache many times."""


def _sum_of_file(file: Path) -> str:
    stat = file.stat()
    key = (str(file), stat.st_size, stat.st_mtime_ns)
    if key not in _sums:
        _sums[key] = sha256_of(file)
    return _sums[key]


def _is_intact(file: Path) -> bool:
    """Whether a file has its checksum; one without gets its own."""
    beside = _beside(file)
    if beside.is_file():
        return beside.read_bytes().strip() == _sum_of_file(file).encode("ascii")
    with suppress(OSError):  # a cache that may only be read
        write_checksum(file)
    return True


def _beside(file: Path) -> Path:
    return file.with_name(f".{file.name}.sha256")


def save_checked(tensors: "Mapping[str, torch.Tensor]", file: Path) -> None:
    """Save tensors on the CPU as safetensors, with their checksum in the header."""
    from safetensors.torch import save_file

    save_file(dict(tensors), file, metadata={_KEY: _sum_of(tensors)})


def load_checked(file: Path) -> "dict[str, torch.Tensor] | None":
    """The tensors that :func:`save_checked` saved, on the CPU; None where they are damaged.

    Raises:
        OSError: there is no such file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as content:
            expected = (content.metadata() or {}).get(_KEY)
            tensors = {name: content.get_tensor(name) for name in content.keys()}
    except SafetensorError:
        return None
    return tensors if expected in (None, _sum_of(tensors)) else None


def _sum_of(tensors: "Mapping[str, torch.Tensor]") -> str:
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data if value.numel() else b"")
    return digest.hexdigest()
