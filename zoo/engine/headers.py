"""The headers of all image files of a data set: a file that is no image is found before training reaches it."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from zoo.data.annotations.base import AnnotatedImage
from zoo.data.io.images import ImageError, header_size

Size = tuple[int, int]
"""Height and width."""


def read_sizes(images: Sequence[AnnotatedImage]) -> tuple[dict[Path, Size], list[str]]:
    """Open the header of each image file once, with a progress bar.

    Returns:
        The sizes of the files, and a message on each that cannot be read. NIfTI volumes are opened and have no size here.
    """
    from rich.console import Console
    from rich.progress import track

    listed = (path for image in images for path in (image.image, *image.others))
    files = list(dict.fromkeys(path for path in listed if isinstance(path, Path)))
    sizes: dict[Path, Size] = {}
    unreadable: list[str] = []
    console = Console(stderr=True)
    bar: dict[str, Any] = {"description": "opening images", "transient": True, "console": console}
    bar["disable"] = not console.is_terminal  # elsewhere it leaves an empty line
    with ThreadPoolExecutor() as pool:
        for file, size in track(zip(files, pool.map(_size_or_problem, files), strict=True), total=len(files), **bar):
            if isinstance(size, str):
                unreadable.append(size)
            elif size is not None:
                sizes[file] = size
    return sizes, unreadable


def _size_or_problem(file: Path) -> Size | str | None:
    try:
        return header_size(file)
    except ImageError as error:
        return str(error)


def sizes_of_boxes(images: Sequence[AnnotatedImage], sizes: Mapping[Path, Size]) -> str:
    """A sentence's beginning where films whose steps have boxes in pixels differ in size; empty where they do not."""
    boxed = [
        image.image
        for image in images
        if any(region.boxes and region.sentence and not region.relative for region in image.regions)
    ]
    found = sorted({sizes[path] for path in boxed if isinstance(path, Path) and path in sizes})
    if len(found) < 2:
        return ""
    shown = ", ".join(f"{width} x {height}" for height, width in found[:3]) + (", ..." if len(found) > 3 else "")
    return f"the films with boxes have {len(found)} sizes ({shown})"
