"""Datasets of interleaved traces: records for evaluation, and cached token sequences for training."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from zoo.constants import IGNORE_INDEX
from zoo.data.base import LoaderSpec, Sample, ZooData, to_list
from zoo.data.io.decoded import ImageReader
from zoo.data.io.images import read_image
from zoo.data.traces.pieces import text_pieces
from zoo.data.traces.records import IvlRecord, check_images, read_records
from zoo.data.traces.tokens import TokenTraces, TraceCodec, tokenize
from zoo.data.vocabulary import FindingVocabulary, KeywordLabeler, ReportLabeler
from zoo.errors import counted
from zoo.registry import Unpacked, register


class Traces(Dataset[Sample]):
    """Records with their images, and evidence of another record to replace one of their own by.

    ``swap`` is (step, image) or None: the evidence of another record's step with other findings, for the same region where there
    is one, else for any region. It is None for a record without steps, or where no step has other findings.
    """

    def __init__(
        self,
        records: list[IvlRecord],
        labeler: ReportLabeler | None = None,
        *,
        any_step: bool = False,
        read: ImageReader = read_image,
    ) -> None:
        """Hold the records.

        Args:
            records: of the split.
            labeler: extracts the findings of a step's statement; without it, statements differ where their text does.
            any_step: whether evidence is replaced at any step, sampled by record, or at the first one where it can be.
            read: reads their images.
        """
        self.records, self._labeler, self._any_step, self._read = records, labeler, any_step, read

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
        rng = np.random.default_rng([7, index])
        order = rng.permutation(len(self._steps))
        if self._any_step:
            steps = [steps[position] for position in rng.permutation(len(steps))]
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
            swap = (step, self._read(self.records[donor].images[self.records[donor].steps[donor_step].image]))
        images = [self._read(path) for path in record.images]
        return {"record": record, "images": images, "swap": swap}


def _count_boxes(records: list[IvlRecord]) -> int:
    return sum(step.box is not None for record in records for step in record.steps)


class TraceData(ZooData):
    """Traces in three splits. After :meth:`tokenize`, training and validation samples are cached token sequences."""

    any_step = False
    """See :class:`Traces`."""
    _pad = 0

    def eval_batch_size(self, split: str) -> int:
        """Reports generated at a time; as in training for token sequences, whose losses are measured."""
        return self.loader.batch_size if isinstance(self.split(split), TokenTraces) else super().eval_batch_size(split)

    @abstractmethod
    def records(self, split: str) -> list[IvlRecord]:
        """Read the records of a split; build them if the cache lacks them."""

    def open_split(self, name: str) -> Dataset[Sample]:
        """The records with their images."""
        return Traces(self.records(name), self.metadata().get("labeler"), any_step=self.any_step, read=self.read_file)

    def tokenize(self, codec: TraceCodec) -> None:
        """Make training and validation samples token sequences from now on; warns of traces that are left out."""
        self._pad = codec.pad_token_id
        for name in ("train", "val"):
            given = self.records(name)
            records = [codec.prepare_record(record) for record in given]
            if hidden := _count_boxes(given) - _count_boxes(records):
                rank_zero_warn(
                    f"{name}: {counted(hidden, 'box')} outside of what the model sees of the image, left out",
                    stacklevel=2,
                )
            self._splits[name] = traces = tokenize(records, codec)
            if left_out := len(records) - len(traces):
                rank_zero_warn(
                    f"{name}: {left_out} of {len(records)} traces are longer than max_tokens={codec.max_tokens} "
                    "and left out",
                    stacklevel=2,
                )

    def collate(self, samples: list[Sample]) -> dict[str, Any]:
        """Pad token sequences on the right, concatenate their image inputs; everything else becomes a list."""
        batch: dict[str, Any] = {key: to_list([sample[key] for sample in samples]) for key in samples[0]}
        if "input_ids" in batch:
            batch["input_ids"] = pad_sequence(batch["input_ids"], batch_first=True, padding_value=self._pad)
            batch["labels"] = pad_sequence(batch["labels"], batch_first=True, padding_value=IGNORE_INDEX)
            batch["label_batch_idx"], batch["label_token_idx"] = (batch["labels"] != IGNORE_INDEX).nonzero(
                as_tuple=True
            )
        if "image_inputs" in batch:
            batch["image_inputs"] = torch.cat(batch["image_inputs"])
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
        self._read: dict[str, list[IvlRecord]] = {}

    def _read_split(self, split: str) -> list[IvlRecord]:
        """A split's records, read once: a file that is malformed does not hide the others."""
        if split not in self._read:
            self._read[split] = read_records(self.files[split])
        return self._read[split]

    def _read_all(self) -> dict[str, list[IvlRecord]]:
        """The records of the splits whose files are there."""
        return {split: self._read_split(split) for split, path in self.files.items() if path.is_file()}

    def metadata(self) -> dict[str, Any]:
        """The prompt; ``pieces`` of words; vocabulary and labeler of the findings that the recipe names or the records state.

        Words and findings are those of all splits whose files are there.
        """
        read = self._read_all()
        if self.findings is not None:
            labels = [(finding, side) for finding in self.findings for side in ("", "left", "right")]
        else:
            records = [record for records in read.values() for record in records]
            labels = sorted({label for record in records for label in record.findings or ()})
        metadata: dict[str, Any] = {"pieces": text_pieces(_texts(read))} if read else {}
        if prompt := self.prompt or next((record.prompt for record in read.get("test", [])), None):
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
        records = self._read_split(split)
        for record in records:
            check_images(record, self.files[split])
        return records


def _texts(read: Mapping[str, list[IvlRecord]]) -> Iterator[str]:
    """What is written in records."""
    for record in (record for records in read.values() for record in records):
        yield from (record.prompt, record.report, *(f"{step.opening} {step.statement}" for step in record.steps))
