"""Traces as token sequences for training: encoded once into a cache that runs and evidence modes share, memory-mapped."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from zoo.checksums import remove_damaged, write_checksum
from zoo.constants import IGNORE_INDEX
from zoo.data.base import Sample
from zoo.data.io.images import read_image
from zoo.data.traces.records import IvlRecord
from zoo.errors import ArgumentError
from zoo.paths import cache_folder

TOKENS_VERSION = 2
"""Raised whenever the arrays of the cache change."""

_BATCH = 64


class TraceTokens(NamedTuple):
    """A record as a token sequence.

    Attributes:
        input_ids: token ids.
        labels: the same, with ``IGNORE_INDEX`` where nothing is learned.
        images: indices of the record's images that the model reads beside the ids, in order; none where ids are all it reads.
    """

    input_ids: list[int]
    labels: list[int]
    images: Sequence[int] = ()


class ImageKey(NamedTuple):
    """An image file, and whether it is read as a whole radiograph or as a close-up."""

    path: Path
    whole: bool


class TraceCodec(Protocol):
    """Encodes records as tokens: a method with its image encoder, text tokenizer and evidence mode.

    ``reads_images``: where True, encoded images are not cached; a sample has those of :meth:`prepare_image`.
    """

    pad_token_id: int
    max_tokens: int
    reads_images: bool

    def image_fingerprint(self) -> str:
        """Hash of everything that the encoding of an image depends on."""

    def sequence_fingerprint(self) -> str:
        """Everything that the token ids of a record depend on, given its encoded images."""

    def encode_images(self, images: list[torch.Tensor], whole: Sequence[bool]) -> torch.Tensor:
        """Token ids, features or pixels (images, ...) of images (channels, height, width) of any sizes."""

    def prepare_record(self, record: IvlRecord) -> IvlRecord:
        """A record as the model can see it: without boxes, or parts of them, outside of what it sees of an image."""

    def prepare_image(self, image: torch.Tensor, whole: bool) -> torch.Tensor:
        """Pixels of one image, where encoded images are not cached; needs no device."""

    def encode_record(self, record: IvlRecord, images: Sequence[torch.Tensor]) -> TraceTokens | None:
        """Token sequence of a record and its encoded images; None for one that is too long and left out.

        Where encoded images are not cached, ``images`` are empty.
        """


class TokenTraces(Dataset[Sample]):
    """Token sequences of records, memory-mapped: ``input_ids`` and ``labels`` (positions), ``image_inputs`` (images, ...)."""

    def __init__(self, folder: Path, images: Callable[[np.ndarray], torch.Tensor] | None) -> None:
        """Open a cache that :func:`tokenize` wrote.

        Args:
            folder: of the sequences.
            images: the inputs of images by their indices; None where sequences have none.
        """
        names = ("ids", "learned", "ends", "image_ids", "image_ends")
        self._ids, self._learned, self._ends, self._image_ids, self._image_ends = (
            np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names
        )
        self._images = images

    def __len__(self) -> int:
        """Number of records."""
        return len(self._ends)

    @cached_property
    def lengths(self) -> list[int]:
        """Number of tokens of each record, by which the sampler groups them."""
        return np.diff(self._ends, prepend=0).tolist()

    def __getitem__(self, index: int) -> Sample:
        """The sequence of one record."""
        tokens = _span(self._ends, index)
        input_ids = torch.from_numpy(self._ids[tokens].astype(np.int64))
        learned = torch.from_numpy(self._learned[tokens].copy())
        sample = {"input_ids": input_ids, "labels": input_ids.masked_fill(~learned, IGNORE_INDEX)}
        if self._images is not None:
            sample["image_inputs"] = self._images(self._image_ids[_span(self._image_ends, index)])
        return sample


def _span(ends: np.ndarray, index: int) -> slice:
    return slice(int(ends[index - 1]) if index else 0, int(ends[index]))


def tokenize(records: list[IvlRecord], codec: TraceCodec) -> TokenTraces:
    """Tokenize records once into the cache; encoded images are shared by all evidence modes.

    The arrays are ``ids`` int32, ``learned`` bool (tokens with a label), ``ends`` int64, and the indices ``image_ids`` with
    ``image_ends``, flat over the records that are not left out.

    Raises:
        ArgumentError: all are left out.
    """
    digest = hashlib.sha256(f"{TOKENS_VERSION}{codec.image_fingerprint()}".encode())
    for record in records:
        digest.update(repr((record.prompt, record.steps, record.report, record.close_up)).encode())
        for path in record.images:
            stat = path.stat()
            digest.update(f"{path}{stat.st_size}{stat.st_mtime_ns}".encode())
    folder = cache_folder() / "tokens" / digest.hexdigest()[:16]
    keys = list(dict.fromkeys(key for record in records for key in image_keys(record)))
    codes = None
    if not codec.reads_images:
        _write_once(folder / "codes", lambda: {"codes": _encode_images(keys, codec)})
        codes = np.load(folder / "codes" / "codes.npy", mmap_mode="r", allow_pickle=False)
    sequences = folder / hashlib.sha256(codec.sequence_fingerprint().encode()).hexdigest()[:16]
    _write_once(sequences, lambda: _encode_records(records, keys, codes, codec))
    has_images = bool(len(np.load(sequences / "image_ids.npy", mmap_mode="r", allow_pickle=False)))

    def cached(indices: np.ndarray) -> torch.Tensor:
        assert codes is not None
        return torch.from_numpy(codes[indices])

    def read(indices: np.ndarray) -> torch.Tensor:
        wanted = [keys[index] for index in indices]
        return torch.stack([codec.prepare_image(read_image(key.path), key.whole) for key in wanted])

    return TokenTraces(sequences, (read if codes is None else cached) if has_images else None)


def image_keys(record: IvlRecord) -> list[ImageKey]:
    """The images of a record, and how each is read: its inputs as radiographs, evidence and close-ups as they are."""
    return [ImageKey(path, index < record.inputs and not record.close_up) for index, path in enumerate(record.images)]


def _write_once(folder: Path, build: Callable[[], dict[str, np.ndarray]]) -> None:
    """Write a folder of arrays atomically, if it is not there as it was written; another process may do so at the same time."""
    if folder.is_dir():
        if not remove_damaged(folder.glob("*.npy"), "tokens"):
            return
        shutil.rmtree(folder)
    arrays = build()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        partial = Path(scratch) / "arrays"
        partial.mkdir()
        for name, array in arrays.items():
            np.save(partial / f"{name}.npy", array, allow_pickle=False)
            write_checksum(partial / f"{name}.npy")
        if not folder.is_dir():
            partial.rename(folder)


def _encode_images(keys: list[ImageKey], codec: TraceCodec) -> np.ndarray:
    from rich.progress import track

    codes: list[np.ndarray] = []
    with ThreadPoolExecutor() as pool:  # decoding a PNG leaves Python's lock
        for start in track(range(0, len(keys), _BATCH), description="encoding images", transient=True):
            batch = keys[start : start + _BATCH]
            images = list(pool.map(lambda key: read_image(key.path), batch))
            codes.append(_compact(codec.encode_images(images, [key.whole for key in batch]).cpu()))
    return np.concatenate(codes)


def _compact(codes: torch.Tensor) -> np.ndarray:
    """Token ids as int32, features as float16, pixels as they are."""
    if codes.is_floating_point():
        return codes.half().numpy()
    return codes.numpy() if codes.dtype == torch.uint8 else codes.numpy().astype(np.int32)


def _encode_records(
    records: list[IvlRecord], keys: list[ImageKey], codes: np.ndarray | None, codec: TraceCodec
) -> dict[str, np.ndarray]:
    position = {key: index for index, key in enumerate(keys)}
    sequences: list[TraceTokens] = []
    image_ids: list[list[int]] = []
    for record in records:
        rows = [position[key] for key in image_keys(record)]
        images = [] if codes is None else [torch.from_numpy(codes[row].copy()) for row in rows]
        if (sequence := codec.encode_record(record, images)) is not None:
            sequences.append(sequence)
            image_ids.append([rows[index] for index in sequence.images])
    if not sequences:
        raise ArgumentError(f"all {len(records)} traces are longer than max_tokens={codec.max_tokens}; raise it")
    return {
        "ids": np.concatenate([np.array(item.input_ids, dtype=np.int32) for item in sequences]),
        "learned": np.concatenate([np.array(item.labels) != IGNORE_INDEX for item in sequences]),
        "ends": np.cumsum([len(item.input_ids) for item in sequences]),
        "image_ids": np.array([index for row in image_ids for index in row], dtype=np.int64),
        "image_ends": np.array(list(accumulate(len(row) for row in image_ids)), dtype=np.int64),
    }
