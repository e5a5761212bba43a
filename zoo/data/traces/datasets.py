"""Datasets of interleaved traces: records for evaluation, and cached token sequences for training."""

import hashlib
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from zoo.constants import IGNORE_INDEX
from zoo.data.base import LoaderSpec, Sample, ZooData, to_list
from zoo.data.io.images import read_image
from zoo.data.traces.records import IvlRecord, check_images, read_records
from zoo.data.vocabulary import FindingVocabulary, KeywordLabeler, ReportLabeler
from zoo.errors import ArgumentError
from zoo.paths import cache_folder
from zoo.registry import Unpacked, register


class TraceCodec(Protocol):
    """Encodes records as tokens: a method with its image tokenizer, text tokenizer and evidence mode."""

    pad_token_id: int
    max_tokens: int

    def image_fingerprint(self) -> str:
        """Hash of everything that the codes of an image depend on."""

    def sequence_fingerprint(self) -> str:
        """Everything that the token ids of a record depend on, given the codes of its images."""

    def tokenize_images(self, images: list[torch.Tensor]) -> torch.Tensor:
        """Token ids (images, tokens per image) of images (channels, height, width) of any sizes."""

    def encode_record(self, record: IvlRecord, images: Sequence[torch.Tensor]) -> tuple[list[int], list[int]] | None:
        """Token ids and labels of a record; None for one that is too long and left out."""


class Traces(Dataset[Sample]):
    """Records with their images, and evidence of another record to replace one of their own by.

    ``swap`` is (step, image) or None: the evidence of another record's step with other findings, for the same region where there
    is one, else for any region. It is None for a record without steps, or where no step has other findings.
    """

    def __init__(self, records: list[IvlRecord], labeler: ReportLabeler | None = None) -> None:
        """Hold the records.

        Args:
            records: of the split.
            labeler: extracts the findings of a step's statement; without it, statements differ where their text does.
        """
        self.records, self._labeler = records, labeler

    def __len__(self) -> int:
        """Number of records."""
        return len(self.records)

    @cached_property
    def _steps(self) -> list[tuple[int, int, str, frozenset[str]]]:
        """Record, step, region and findings of every step."""
        return [
            (index, position, step.region, self._findings_in(step.statement))
            for index, record in enumerate(self.records)
            for position, step in enumerate(record.steps)
        ]

    def _findings_in(self, statement: str) -> frozenset[str]:
        if self._labeler is None:
            return frozenset([statement])
        return frozenset(finding for finding, _ in self._labeler.label(statement))

    def swap(self, index: int) -> tuple[int, int, int] | None:
        """Step of a record, another record, and its step; the same at each call."""
        steps = [item for item in self._steps if item[0] == index]
        order = np.random.default_rng([7, index]).permutation(len(self._steps))
        for same_region in (True, False):
            for _, position, region, findings in steps:
                for other in (self._steps[i] for i in order):
                    if other[0] != index and other[3] != findings and (other[2] == region or not same_region):
                        return position, other[0], other[1]
        return None

    def __getitem__(self, index: int) -> Sample:
        """``record``, ``images`` (each (channels, height, width), the input first) and ``swap``."""
        record = self.records[index]
        swap = None
        if (match := self.swap(index)) is not None:
            step, donor, donor_step = match
            swap = (step, read_image(self.records[donor].images[self.records[donor].steps[donor_step].image]))
        images = [read_image(path) for path in record.images]
        return {"record": record, "images": images, "swap": swap}


class TokenTraces(Dataset[Sample]):
    """Token sequences of records, memory-mapped: ``ids`` and ``labels`` (positions)."""

    def __init__(self, folder: Path) -> None:
        """Open a cache that :func:`tokenize` wrote."""
        self._ids, self._learned, self._ends = (
            np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("ids", "learned", "ends")
        )

    def __len__(self) -> int:
        """Number of records."""
        return len(self._ends)

    @cached_property
    def lengths(self) -> list[int]:
        """Number of tokens of each record, by which the sampler groups them."""
        return np.diff(self._ends, prepend=0).tolist()

    def __getitem__(self, index: int) -> Sample:
        """The sequence of one record."""
        start, end = (int(self._ends[index - 1]) if index else 0), int(self._ends[index])
        input_ids = torch.from_numpy(self._ids[start:end].astype(np.int64))
        learned = torch.from_numpy(self._learned[start:end].copy())
        return {"input_ids": input_ids, "labels": input_ids.masked_fill(~learned, IGNORE_INDEX)}


def tokenize(records: list[IvlRecord], codec: TraceCodec) -> Path:
    """Tokenize records once into the cache; the images' codes are shared by all evidence modes.

    Returns:
        The folder of ``ids`` int32, ``learned`` bool (tokens with a label) and ``ends`` int64, flat over the records that are
        not left out.

    Raises:
        ArgumentError: all are left out.
    """
    digest = hashlib.sha256(codec.image_fingerprint().encode())
    for record in records:
        digest.update(repr((record.prompt, record.steps, record.report)).encode())
        for path in record.images:
            stat = path.stat()
            digest.update(f"{path}{stat.st_size}{stat.st_mtime_ns}".encode())
    folder = cache_folder() / "tokens" / digest.hexdigest()[:16]
    _write_once(folder / "codes", lambda: {"codes": _encode_images(records, codec)})
    codes = np.load(folder / "codes" / "codes.npy", mmap_mode="r", allow_pickle=False)
    sequences = folder / hashlib.sha256(codec.sequence_fingerprint().encode()).hexdigest()[:16]
    _write_once(sequences, lambda: _encode_records(records, codes, codec))
    return sequences


def _write_once(folder: Path, build: Callable[[], dict[str, np.ndarray]]) -> None:
    """Write a folder of arrays atomically; another process may write it at the same time."""
    if folder.is_dir():
        return
    arrays = build()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        partial = Path(scratch) / "arrays"
        partial.mkdir()
        for name, array in arrays.items():
            np.save(partial / f"{name}.npy", array, allow_pickle=False)
        if not folder.is_dir():
            partial.rename(folder)


def _encode_images(records: list[IvlRecord], codec: TraceCodec, batch: int = 32) -> np.ndarray:
    from rich.progress import track

    paths = [path for record in records for path in record.images]
    starts = range(0, len(paths), batch)
    codes = [
        codec.tokenize_images([read_image(path) for path in paths[start : start + batch]])
        .cpu()
        .numpy()
        .astype(np.int32)
        for start in track(starts, description="encoding images", transient=True)
    ]
    return np.concatenate(codes)


def _encode_records(records: list[IvlRecord], codes: np.ndarray, codec: TraceCodec) -> dict[str, np.ndarray]:
    ids: list[np.ndarray] = []
    learned: list[np.ndarray] = []
    start = 0
    for record in records:
        images = [torch.from_numpy(row.copy()) for row in codes[start : start + len(record.images)]]
        start += len(record.images)
        if (sequence := codec.encode_record(record, images)) is not None:
            ids.append(np.array(sequence[0], dtype=np.int32))
            learned.append(np.array(sequence[1]) != IGNORE_INDEX)
    if not ids:
        raise ArgumentError(f"all {len(records)} traces are longer than max_tokens={codec.max_tokens}; raise it")
    ends = np.cumsum([len(item) for item in ids])
    return {"ids": np.concatenate(ids), "learned": np.concatenate(learned), "ends": ends}


class TraceData(ZooData):
    """Traces in three splits. After :meth:`tokenize`, training and validation samples are cached token sequences."""

    _pad = 0

    def eval_batch_size(self, split: str) -> int:
        """Reports generated at a time; as in training for token sequences, whose losses are measured."""
        return self.loader.batch_size if isinstance(self.split(split), TokenTraces) else super().eval_batch_size(split)

    @abstractmethod
    def records(self, split: str) -> list[IvlRecord]:
        """Read the records of a split; build them if the cache lacks them."""

    def open_split(self, name: str) -> Dataset[Sample]:
        """The records with their images."""
        return Traces(self.records(name), self.metadata().get("labeler"))

    def tokenize(self, codec: TraceCodec) -> None:
        """Make training and validation samples token sequences from now on; warns of traces that are left out."""
        self._pad = codec.pad_token_id
        for name in ("train", "val"):
            records = self.records(name)
            self._splits[name] = traces = TokenTraces(tokenize(records, codec))
            if left_out := len(records) - len(traces):
                rank_zero_warn(
                    f"{name}: {left_out} of {len(records)} traces are longer than max_tokens={codec.max_tokens} "
                    "and left out",
                    stacklevel=2,
                )

    def collate(self, samples: list[Sample]) -> dict[str, Any]:
        """Pad token sequences on the right; everything else becomes a list."""
        batch: dict[str, Any] = {key: to_list([sample[key] for sample in samples]) for key in samples[0]}
        if "input_ids" in batch:
            batch["input_ids"] = pad_sequence(batch["input_ids"], batch_first=True, padding_value=self._pad)
            batch["labels"] = pad_sequence(batch["labels"], batch_first=True, padding_value=IGNORE_INDEX)
        return batch


@register("dataset", "ivl_jsonl")
class IvlJsonl(TraceData):
    """Traces from JSONL files in the format of MMRad-IVL-22K."""

    def __init__(
        self,
        train: str,
        val: str,
        test: str,
        findings: list[str] | None = None,
        prompt: str | None = None,
        loader: Annotated[LoaderSpec, Unpacked] = LoaderSpec(batch_size=1, eval_batch_size=8),
    ) -> None:
        """Set the files; image paths in them are relative to their folders.

        Args:
            train: file of the training records.
            val: of the validation records.
            test: of the test records.
            findings: names of the findings that reports are scored by; those that the records' ``findings`` name if None. Without
                either, findings are not scored.
            prompt: that asks for a report; that of the first test record if None.
            loader: how batches are loaded.
        """
        super().__init__(loader)
        self.files = {"train": Path(train), "val": Path(val), "test": Path(test)}
        self.findings, self.prompt = findings, prompt

    @cached_property
    def _read(self) -> dict[str, list[IvlRecord]]:
        return {split: read_records(path) for split, path in self.files.items() if path.is_file()}

    def metadata(self) -> dict[str, Any]:
        """The prompt; and vocabulary and labeler of the findings that are named in the recipe or stated by the records."""
        if self.findings is not None:
            labels = [(finding, side) for finding in self.findings for side in ("", "left", "right")]
        else:
            records = [record for records in self._read.values() for record in records]
            labels = sorted({label for record in records for label in record.findings or ()})
        metadata: dict[str, Any] = {}
        if prompt := self.prompt or next((record.prompt for record in self._read.get("test", [])), None):
            metadata["prompt"] = prompt
        if labels:
            vocabulary = FindingVocabulary(tuple(labels))
            metadata |= {"vocabulary": vocabulary, "labeler": KeywordLabeler(vocabulary)}
        return metadata

    def records(self, split: str) -> list[IvlRecord]:
        """Read a split.

        Raises:
            RecordError: a record is malformed, or does not match its images.
        """
        records = self._read.get(split) or read_records(self.files[split])
        for record in records:
            check_images(record, self.files[split])
        return records
