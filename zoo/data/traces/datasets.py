"""Data sets of interleaved traces: the records as they are for evaluation, and as cached tokens for training."""

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
from zoo.data.base import Sample, ZooData, listed
from zoo.data.io.images import read_image
from zoo.data.traces.records import IvlRecord, check_images, read_records
from zoo.data.vocabulary import FindingVocabulary, KeywordLabeler, ReportLabeler
from zoo.errors import ArgumentError
from zoo.paths import cache_folder
from zoo.registry import Injected, register


class TraceCodec(Protocol):
    """What turns records into tokens: a method with its image tokenizer, text tokenizer and evidence mode."""

    pad: int
    max_tokens: int

    def image_fingerprint(self) -> str:
        """Decides the codes of an image."""

    def sequence_fingerprint(self) -> str:
        """Decides the ids of a record, given its images' codes."""

    def image_ids(self, images: list[torch.Tensor]) -> torch.Tensor:
        """Images (channels, height, width) of any sizes to ids (images, codes)."""

    def sequence(self, record: IvlRecord, images: Sequence[torch.Tensor]) -> tuple[list[int], list[int]] | None:
        """A record to ids and labels; None for one that is too long and left out."""


class Traces(Dataset[Sample]):
    """Records with their input image, and other evidence to try on each.

    ``swap`` is (step, image) or None: the evidence of another record's step for the same region where there is one in which
    another finding was seen, else for any region; None for a record without steps or a data set without another finding.
    """

    def __init__(self, records: list[IvlRecord], labeler: ReportLabeler | None = None) -> None:
        """Keep the records.

        Args:
            records: of the split.
            labeler: extracts findings from the steps' statements; without it statements are told apart by their text.
        """
        self.records, self._labeler = records, labeler

    def __len__(self) -> int:
        """Number of records."""
        return len(self.records)

    @cached_property
    def _seen(self) -> list[tuple[int, int, str, frozenset[str]]]:
        """Record, step, region and kinds of findings stated, of every step that has an image."""
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
        """Step, other record and its step; fixed for a data set and index."""
        own = [item for item in self._seen if item[0] == index]
        order = np.random.default_rng([7, index]).permutation(len(self._seen))
        for same_region in (True, False):
            for _, position, region, kinds in own:
                for other in (self._seen[i] for i in order):
                    if other[0] != index and other[3] != kinds and (other[2] == region or not same_region):
                        return position, other[0], other[1]
        return None

    def __getitem__(self, index: int) -> Sample:
        """``record``, ``image`` (channels, height, width), ``evidence`` (the record's other images) and ``swap``."""
        record = self.records[index]
        found = self.swap(index)
        swap = None
        if found is not None:
            donor = self.records[found[1]]
            swap = (found[0], read_image(donor.images[donor.steps[found[2]].image]))
        images = [read_image(path) for path in record.images]
        return {"record": record, "images": images, "swap": swap}


class TokenTraces(Dataset[Sample]):
    """Token sequences of records, memory-mapped: ``ids`` and ``labels`` (positions)."""

    def __init__(self, folder: Path) -> None:
        """Open a cache that :func:`tokenize` made."""
        self._ids, self._learned, self._ends = (
            np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("ids", "learned", "ends")
        )

    def __len__(self) -> int:
        """Number of records."""
        return len(self._ends)

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each record, so that those of a step can be alike."""
        return np.diff(self._ends, prepend=0).tolist()

    def __getitem__(self, index: int) -> Sample:
        """One sequence."""
        start, end = (int(self._ends[index - 1]) if index else 0), int(self._ends[index])
        input_ids = torch.from_numpy(self._ids[start:end].astype(np.int64))
        learned = torch.from_numpy(self._learned[start:end].copy())
        return {"input_ids": input_ids, "labels": input_ids.masked_fill(~learned, IGNORE_INDEX)}


def tokenize(records: list[IvlRecord], codec: TraceCodec) -> Path:
    """Tokenize records once into the cache; the images' codes are shared by all evidence modes.

    Returns:
        The folder of ``ids`` int32, ``learned`` bool and ``ends`` int64, flat over all records that are not left out.

    Raises:
        ArgumentError: all are left out.
    """
    digest = hashlib.sha256(codec.image_fingerprint().encode())
    for record in records:
        digest.update(repr((record.prompt, record.steps, record.report)).encode())
        for path in record.images:
            facts = path.stat()
            digest.update(f"{path}{facts.st_size}{facts.st_mtime_ns}".encode())
    folder = cache_folder() / "tokens" / digest.hexdigest()[:16]
    _once(folder / "codes", lambda: {"codes": _encode_images(records, codec)})
    codes = np.load(folder / "codes" / "codes.npy", mmap_mode="r", allow_pickle=False)
    sequences = folder / hashlib.sha256(codec.sequence_fingerprint().encode()).hexdigest()[:16]
    _once(sequences, lambda: _sequences(records, codes, codec))
    return sequences


def _once(folder: Path, make: Callable[[], dict[str, np.ndarray]]) -> None:
    """Make a folder of arrays whole or not at all; another process may make it at the same time."""
    if folder.is_dir():
        return
    arrays = make()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        for name, array in arrays.items():
            np.save(made / f"{name}.npy", array, allow_pickle=False)
        if not folder.is_dir():
            made.rename(folder)


def _encode_images(records: list[IvlRecord], codec: TraceCodec, batch: int = 32) -> np.ndarray:
    from rich.progress import track

    paths = [path for record in records for path in record.images]
    starts = range(0, len(paths), batch)
    codes = [
        codec.image_ids([read_image(path) for path in paths[start : start + batch]]).cpu().numpy().astype(np.int32)
        for start in track(starts, description="encoding images", transient=True)
    ]
    return np.concatenate(codes)


def _sequences(records: list[IvlRecord], codes: np.ndarray, codec: TraceCodec) -> dict[str, np.ndarray]:
    ids: list[np.ndarray] = []
    learned: list[np.ndarray] = []
    start = 0
    for record in records:
        images = [torch.from_numpy(row.copy()) for row in codes[start : start + len(record.images)]]
        start += len(record.images)
        if (sequence := codec.sequence(record, images)) is not None:
            ids.append(np.array(sequence[0], dtype=np.int32))
            learned.append(np.array(sequence[1]) != IGNORE_INDEX)
    if not ids:
        raise ArgumentError(f"all {len(records)} traces are longer than max_tokens={codec.max_tokens}; raise it")
    ends = np.cumsum([len(item) for item in ids])
    return {"ids": np.concatenate(ids), "learned": np.concatenate(learned), "ends": ends}


class TraceData(ZooData):
    """Traces in three splits. Training and validation are on cached tokens once a method has said how to make them."""

    _pad = 0

    def __init__(self, batch_size: int, eval_batch_size: int, num_workers: int, seed: int) -> None:
        """Set how samples are drawn; reports are generated ``eval_batch_size`` at a time."""
        super().__init__(batch_size, num_workers, seed)
        self.eval_batch_size = eval_batch_size

    def eval_batch_size_of(self, split: str) -> int:
        """Reports generated at a time; of token sequences, whose losses are measured, those of a step."""
        return self.batch_size if isinstance(self.split(split), TokenTraces) else self.eval_batch_size

    @abstractmethod
    def records(self, split: str) -> list[IvlRecord]:
        """Read (and, where need be, build) the records of a split."""

    def open_split(self, name: str) -> Dataset[Sample]:
        """The records as they are."""
        return Traces(self.records(name), self.metadata().get("labeler"))

    def tokenize(self, codec: TraceCodec) -> None:
        """From now on, training and validation samples are token sequences; warns of traces that are left out."""
        self._pad = codec.pad
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
        """Pad sequences on the right; everything else stays a list."""
        batch: dict[str, Any] = {key: listed([sample[key] for sample in samples]) for key in samples[0]}
        if "input_ids" in batch:
            batch["input_ids"] = pad_sequence(batch["input_ids"], batch_first=True, padding_value=self._pad)
            batch["labels"] = pad_sequence(batch["labels"], batch_first=True, padding_value=IGNORE_INDEX)
        return batch


@register("dataset", "ivl_jsonl")
class IvlJsonl(TraceData):
    """Traces from JSONL files in the form of MMRad-IVL-22K."""

    def __init__(
        self,
        train: str,
        val: str,
        test: str,
        findings: list[str] | None = None,
        prompt: str | None = None,
        batch_size: int = 1,
        eval_batch_size: int = 8,
        num_workers: int = 0,
        seed: Annotated[int, Injected] = 0,
    ) -> None:
        """Name the files; image paths in them are relative to their folders.

        Args:
            train: file of training records.
            val: of validation records.
            test: of test records.
            findings: names of the findings that generated reports are scored by; those that the records' ``findings`` name if
                None. Where there are neither, findings are not scored.
            prompt: what a report is asked for with; that of the first test record if None.
            batch_size: records a step.
            eval_batch_size: reports generated at a time.
            num_workers: loader processes.
            seed: of the order.
        """
        super().__init__(batch_size, eval_batch_size, num_workers, seed)
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
            RecordError: a record does not keep to the form, or not to its images.
        """
        records = self._read.get(split) or read_records(self.files[split])
        for record in records:
            check_images(record, self.files[split])
        return records
