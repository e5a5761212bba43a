"""Checksums of cached files: a cache is used only as it was written; what differs is removed, built again, and said.

A file's sum is in a hidden file beside it, that of tensors in the header of their safetensors file. Files of versions without
checksums are taken as they are, and get one where that is cheap.
"""

import hashlib
import warnings
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import ZooWarning
from zoo.files import replacing

if TYPE_CHECKING:
    import torch

_KEY = "sha256"


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    with ThreadPoolExecutor(8) as pool:  # hashing leaves Python's lock
        damaged = [file for file, intact in zip(there, pool.map(_is_intact, there), strict=True) if not intact]
    for file in damaged:
        file.unlink(missing_ok=True)
        _beside(file).unlink(missing_ok=True)
    if damaged:
        say_rebuilt(what, damaged[0], len(damaged))
    return damaged


def say_rebuilt(what: str, first: Path, count: int = 1) -> None:
    """Warn that parts of a cache are damaged and built again."""
    files = f"{first} and {count - 1} more" if count > 1 else str(first)
    warnings.warn(f"{what}: {files} in the cache changed since written; built again", ZooWarning, stacklevel=3)


_checked: set[tuple[str, int, int]] = set()
"""Files that this process has checked, with their size and time: a data set opens its cache many times."""


def _is_intact(file: Path) -> bool:
    """Whether a file has its checksum; one without gets its own."""
    stat = file.stat()
    key = (str(file), stat.st_size, stat.st_mtime_ns)
    if key in _checked:
        return True
    beside = _beside(file)
    if beside.is_file():
        if beside.read_bytes().strip() != sha256_of(file).encode("ascii"):
            return False
    else:
        with suppress(OSError):  # a cache that may only be read
            write_checksum(file)
    _checked.add(key)
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
