"""Frozen image embeddings on disk: computed once for an image and an encoder, whatever the epoch or run."""

import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError

from zoo.checksums import load_checked, save_checked, say_rebuilt
from zoo.errors import ZooWarning
from zoo.files import replacing
from zoo.paths import cache_folder

Embedding = list[torch.Tensor]
"""An encoder's output for one image."""


class EmbeddingCache:
    """A folder of safetensors, one an image, keyed by the encoder's fingerprint and the image's hash.

    Over ``limit`` bytes, the least recently used embeddings are deleted.
    """

    def __init__(
        self,
        fingerprint: str,
        limit: int = 20_000_000_000,
        folder: Path | None = None,
        *,
        what: str = "embeddings",
        reserve: int = 0,
    ) -> None:
        """Open the embeddings of one encoder.

        Args:
            fingerprint: of the encoder's weights.
            limit: bytes of all embeddings in the folder, those of other encoders included.
            folder: the zoo's cache if None.
            what: they are, for warnings.
            reserve: bytes that stay free on the disk: nothing more is kept then, which is said once.
        """
        self._root = folder or cache_folder() / "embeddings"
        self._folder, self._limit = self._root / fingerprint[:16], limit
        self._what, self._reserve = what, reserve
        self._size: int | None = None

    def get_or_compute(
        self, hashes: Sequence[str], compute: Callable[[list[int]], list[Embedding]], device: torch.device | str = "cpu"
    ) -> list[Embedding]:
        """Embeddings of images, in order.

        Args:
            hashes: of the images.
            compute: called once, with the indices of all images whose embedding is not cached.
            device: of cached embeddings.
        """
        embeddings = [self._read(name, device) for name in hashes]
        missing = [index for index, embedding in enumerate(embeddings) if embedding is None]
        for index, embedding in zip(missing, compute(missing) if missing else [], strict=True):
            self._write(hashes[index], embedding)
            embeddings[index] = embedding
        return [embedding for embedding in embeddings if embedding is not None]

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"

    def _read(self, name: str, device: torch.device | str) -> Embedding | None:
        file = self._file(name)
        try:
            tensors = load_checked(file)
            os.utime(file)
        except OSError:  # missing, or evicted meanwhile
            return None
        if tensors is None:
            say_rebuilt(self._what, file)
            return None
        return [tensors[str(index)].to(device) for index in range(len(tensors))]

    def _write(self, name: str, embedding: Embedding) -> None:
        file = self._file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        if self._reserve and not self._has_room(sum(value.nbytes for value in embedding)):
            return
        content = {str(i): value.detach().cpu().contiguous().clone() for i, value in enumerate(embedding)}
        try:
            with replacing(file, durable=False) as partial:
                save_checked(content, partial)
        except (OSError, SafetensorError):  # a full disk costs the cache, not the run
            return
        self._make_room(file.stat().st_size)

    def _has_room(self, size: int) -> bool:
        free = shutil.disk_usage(self._folder).free
        if free - size >= self._reserve:
            return True
        message = f"{self._what}: {free / 1e9:.1f} GB are free on the disk of {self._root}; no more are kept there"
        warnings.warn(message, ZooWarning, stacklevel=2)
        return False

    def _make_room(self, added: int) -> None:
        self._size = self._total() if self._size is None else self._size + added
        if self._size <= self._limit:
            return
        files = sorted(self._root.rglob("*.safetensors"), key=lambda path: path.stat().st_mtime)
        total = self._total()
        for file in files:
            if total <= 0.9 * self._limit:
                break
            total -= file.stat().st_size
            file.unlink(missing_ok=True)
        self._size = total

    def _total(self) -> int:
        return sum(path.stat().st_size for path in self._root.rglob("*.safetensors"))
