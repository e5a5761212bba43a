"""Files and folders that are replaced whole or not at all: written beside, checked, then renamed.

A full disk, a signal or another process leaves what was there before.
"""

import ctypes
import errno
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from zoo.errors import WriteError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_STALE = 24 * 3600
"""Seconds after which a scratch folder belongs to a process that was killed."""


@contextmanager
def replacing(file: Path, *, durable: bool = True) -> Iterator[Path]:
    """A path beside ``file`` to write to, which replaces it at the end; after an exception it is removed.

    Args:
        file: to replace, or to write for the first time.
        durable: wait until it is on the disk, so that a power failure does not leave it empty; a cache can do without.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with replacing(file) as partial:
        ...     _ = partial.write_text("whole")
        >>> file.read_text()
        'whole'
    """
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        yield partial
        share(partial)
        if durable:
            _sync(partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A hidden folder in ``parent``, removed at the end; those that killed processes left there are removed first."""
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{prefix}*"):
        if time.time() - left.stat().st_mtime > _STALE:
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=prefix) as scratch:
        yield Path(scratch)


def replace_folder(draft: Path, target: Path) -> None:
    """Put the folder ``draft`` in the place of ``target``, if there is one, in a single step; its files are on the disk before.

    Both must be on one file system. The old folder is deleted once the new one is in place. Where the system cannot exchange two
    folders (it is not Linux, or a network file system), the old one is moved aside for a moment as ``.NAME.old``.
    """
    for path in draft.rglob("*"):
        if path.is_file():
            share(path)
            _sync(path)
    if not target.exists():
        draft.rename(target)
    elif _exchange(draft, target):
        shutil.rmtree(draft, ignore_errors=True)
    else:
        _replace_in_two_steps(draft, target)


def _replace_in_two_steps(draft: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    target.rename(old)
    try:
        draft.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders; False where the system cannot."""
    rename: Callable[..., int] | None = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise WriteError(code, os.strerror(code), str(other))


def share(file: Path) -> None:
    """Give a file the rights of any new file in its folder; safetensors lets only the owner read what it writes."""
    file.chmod(_new_file_rights(file.parent))


@cache
def _new_file_rights(folder: Path) -> int:
    probe = folder / f".rights.{os.getpid()}.{threading.get_ident()}"
    probe.touch()
    try:
        return stat.S_IMODE(probe.stat().st_mode)
    finally:
        probe.unlink()


def _sync(file: Path) -> None:
    """Wait until a file is on the disk."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
