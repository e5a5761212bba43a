"""The same image under two names: found by the content of the files, whatever they are called."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

from zoo.checksums import sha256_of
from zoo.data.annotations.base import PRESENT, AnnotatedImage, Problems
from zoo.errors import counted

_PIECE = 4096
_SHOWN = 10
_NAMES = 4


def report_repeats(images: Sequence[AnnotatedImage], problems: Problems) -> None:
    """Report files of the same content: in two splits a problem, since what is measured was learned; within one a note.

    A file with several records in one split, as of conversations, is none. Near-duplicates are not looked for.

    Args:
        images: of all splits.
        problems: get the messages, the first ten of each sort and the number of all.
    """
    by_file: dict[Path, list[AnnotatedImage]] = defaultdict(list)
    for image in images:
        if isinstance(image.image, Path):
            by_file[image.image].append(image)
    groups = same_content(by_file)
    grouped = {path for group in groups for path in group}
    leaks, copies = [], []
    for group in [*groups, *([path] for path in by_file if path not in grouped)]:
        listed = [image for path in group for image in by_file[path]]
        if len({image.split for image in listed}) > 1:
            leaks.append(_message(listed))
        elif len(group) > 1:
            copies.append(_message(listed))
    for messages, report in ((leaks, problems.messages.append), (copies, problems.note)):
        for message in messages[:_SHOWN]:
            report(message)
        if len(messages) > _SHOWN:
            report(f"and {counted(len(messages) - _SHOWN, 'more image', 'is')} there twice")


def same_content(files: Iterable[Path]) -> list[list[Path]]:
    """Groups of files whose content is the same, byte for byte, in the order of the files.

    Only files of the same size are opened, and read whole only where their beginning, middle and end are the same.
    """
    groups = [list(dict.fromkeys(files))]
    keys: tuple[Callable[[Path], Hashable], ...] = (lambda file: file.stat().st_size, _pieces, sha256_of)
    for key in keys:
        groups = [divided for group in groups for divided in _divided(group, key)]
    return groups


def _divided(files: Sequence[Path], key: Callable[[Path], Hashable]) -> list[list[Path]]:
    """The files by a key, those with a key of their own left out."""
    by_key: dict[Hashable, list[Path]] = defaultdict(list)
    for file in files:
        by_key[key(file)].append(file)
    return [group for group in by_key.values() if len(group) > 1]


def _pieces(file: Path) -> str:
    size, digest = file.stat().st_size, hashlib.sha256()
    with file.open("rb") as opened:
        for start in (0, max(size // 2 - _PIECE // 2, 0), max(size - _PIECE, 0)):
            opened.seek(start)
            digest.update(opened.read(_PIECE))
    return digest.hexdigest()


def _message(listed: Sequence[AnnotatedImage]) -> str:
    """Which files, in which splits, and their labels where those differ."""
    places = list(
        dict.fromkeys(f"{image.image} ({image.split})" if image.split else str(image.image) for image in listed)
    )
    shown = ", ".join(places[: _NAMES - 1]) if len(places) > _NAMES else ", ".join(places[:-1])
    last = f"{len(places) - _NAMES + 1} more" if len(places) > _NAMES else places[-1]
    labels = list(dict.fromkeys(_labels(image) for image in listed))
    stated = f", with the labels {' and '.join(labels)}" if len(labels) > 1 else ""
    files = {image.image for image in listed}
    if len(files) == 1:
        return f"{shown} and {last}: the same file is in several splits{stated}"
    return f"{shown} and {last} have the same content{stated}"


def _labels(image: AnnotatedImage) -> str:
    return ", ".join(f"'{name}'" for name, value in sorted(image.labels.items()) if value == PRESENT) or "none"
