"""Decoded images on disk: a film is decoded once, whatever the epoch, run or process, and read as it was decoded, bit for bit.

An image is kept by the hash of its file's content and of what says how it is read, so that a file may move, and is decoded again where it
changes. Its distinct values are kept once, with the number of its value for each pixel: exact, and as small as the file's depth.
"""

import hashlib
import json
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.checksums import content_hash
from zoo.data.io.images import read_image
from zoo.embedding_cache import Embedding, EmbeddingCache
from zoo.paths import cache_folder

DECODER_VERSION = 1
"""Raised whenever the same file is read as other pixels."""
_DECODERS = ("pillow", "pydicom", "nibabel")
_LIMIT = 100_000_000_000
_RESERVE = 2_000_000_000
_FOLDER = "images"

ImageReader = Callable[..., torch.Tensor]
"""Takes what :func:`~zoo.data.io.images.read_image` takes."""


class DecodedImages:
    """:func:`~zoo.data.io.images.read_image`, with a cache on disk.

    Safe for several processes. An image that is damaged in the cache is decoded again, which is said. Above ``limit`` bytes those that
    were not read for longest are deleted; nothing is written where less than ``reserve`` bytes would be left on the disk.
    """

    def __init__(self, limit: int = _LIMIT, reserve: int = _RESERVE, folder: Path | None = None) -> None:
        """Open the cache; in the zoo's if ``folder`` is None."""
        root = folder or cache_folder() / _FOLDER
        self._cache = EmbeddingCache(_decoders(), limit, root, what="decoded images", reserve=reserve)

    def __call__(self, path: str | Path, **options: int | None) -> torch.Tensor:
        """Read an image; arguments and errors are those of :func:`~zoo.data.io.images.read_image`."""
        file = Path(path)
        try:
            content = content_hash(file)
        except OSError:
            return read_image(file, **options)  # it says what is wrong
        given = {name: value for name, value in sorted(options.items()) if value is not None}
        key = hashlib.sha256(json.dumps([content, _suffix(file), given]).encode()).hexdigest()
        ((values, numbers),) = self._cache.get_or_compute([key], lambda _: [_packed(read_image(file, **options))])
        if not numbers.numel():
            return values
        return torch.from_numpy(values.numpy()[numbers.numpy()])  # several times as fast as torch's


def _suffix(file: Path) -> str:
    """The end of a name, which says how some formats are read."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    return "".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:])


def image_reader(cached: bool) -> ImageReader:
    """How files are read: decoded each time, or once."""
    return DecodedImages() if cached else read_image


@cache
def _decoders() -> str:
    """A name of everything that decodes; another version may decode otherwise."""
    names: dict[str, Any] = {"zoo": DECODER_VERSION, **{name: version(name) for name in _DECODERS}}
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def _packed(image: torch.Tensor) -> Embedding:
    """Distinct values and the number of each pixel's; the image itself and nothing where there are too many."""
    values, numbers = np.unique(image.numpy(), return_inverse=True)
    if len(values) > 1 << 16:
        return [image, torch.empty(0, dtype=torch.uint8)]
    kind = np.uint8 if len(values) <= 1 << 8 else np.uint16
    return [torch.from_numpy(values), torch.from_numpy(numbers.reshape(image.shape).astype(kind))]
