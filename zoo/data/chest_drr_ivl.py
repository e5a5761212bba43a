"""chest_drr as interleaved reasoning traces, written as files in the form of MMRad-IVL-22K."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from PIL import Image

from zoo.data.chest_drr.build import CaseSeries, build_series, series_folder
from zoo.data.chest_drr.cases import SPLITS, CaseSpec
from zoo.data.chest_drr.findings import SEVERITIES
from zoo.data.chest_drr.traces import CLOSE_UP_PROMPT, trace_of, words_of_traces
from zoo.data.chest_drr.volume import LICENSE, LIMITATIONS, SOURCE_TEXT
from zoo.data.close_up import square_around
from zoo.data.ivl import IvlRecord, read_records
from zoo.data.ivl_traces import TraceData
from zoo.registry import Supplied, register

TRACES_VERSION = 1
"""Raised whenever the same case gives another trace."""


@register("dataset", "chest_drr_ivl")
class ChestDrrIvl(TraceData):
    """Rendered radiographs with traces: regions looked at, close-ups as image evidence, boxes, findings, report."""

    license: ClassVar[str] = LICENSE
    source: ClassVar[str] = SOURCE_TEXT
    limitations: ClassVar[str] = LIMITATIONS

    def __init__(
        self,
        size: int = 2000,
        image_size: int = 256,
        style: Literal["standard", "portable"] = "standard",
        pairs: bool = False,
        batch_size: int = 16,
        eval_batch_size: int = 60,
        workers: int = 0,
        build_workers: int | None = None,
        seed: Annotated[int, Supplied] = 0,
    ) -> None:
        """Choose what is rendered.

        Args:
            size: training traces; a tenth as many (at least 64) each for validation and test.
            image_size: side of the films in pixels; close-ups are cut from them at this resolution.
            style: of the film.
            pairs: in place of each trace, single pictures with what is seen in them: the film with its report, and each
                close-up with its statement. What a base model is trained on.
            batch_size: traces a step.
            eval_batch_size: reports generated at a time.
            workers: loader processes.
            build_workers: rendering processes; all cores if None.
            seed: of the order; the traces themselves do not depend on it.
        """
        super().__init__(batch_size, eval_batch_size, workers, seed)
        kinds = {kind: list(severities) for kind, severities in SEVERITIES.items()}
        self.spec = CaseSpec(style=style, image_size=image_size, kinds=kinds)
        held_out = max(size // 10, 64)
        self.counts = {"train": size, "val": held_out, "test": held_out}
        self.pairs, self.build_workers = pairs, build_workers

    def facts(self) -> dict[str, Any]:
        """The words of all traces, for a word-level tokenizer."""
        return {"words": words_of_traces(self.spec.image_size)}

    def records(self, split: str) -> list[IvlRecord]:
        """Render and write what the cache lacks, and read it."""
        folder = series_folder(self.spec) / f"traces-{TRACES_VERSION}"
        file = folder / f"{split}-{self.counts[split]}.jsonl"
        if not file.is_file():
            series = build_series(self.spec, {split: self.counts[split]}, self.build_workers)[split]
            write_traces(series, split, file)
        records = read_records(file)
        return [pair for record in records for pair in as_pairs(record)] if self.pairs else records


def as_pairs(record: IvlRecord) -> list[IvlRecord]:
    """The film with its report, and each close-up with its statement, as records without steps."""
    close_ups = [
        replace(record, prompt=CLOSE_UP_PROMPT, steps=[], report=step.statement, images=[record.images[step.image]])
        for step in record.steps
    ]
    return [replace(record, steps=[], images=record.images[:1]), *close_ups]


def write_traces(series: CaseSeries, split: str, file: Path) -> None:
    """Write a series as a JSONL file, and its films and close-ups as PNG files in a folder beside it."""
    from rich.progress import track

    folder = file.parent / split
    folder.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    try:
        with partial.open("w", encoding="utf-8") as out:
            for index in track(range(len(series)), description=f"writing {split} traces", transient=True):
                out.write(json.dumps(_written_trace(series, split, index, folder)) + "\n")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _written_trace(series: CaseSeries, split: str, index: int, folder: Path) -> dict[str, Any]:
    film = series.image(index)
    trace = trace_of(series.record(index), film.shape[0], np.random.default_rng([SPLITS.index(split), index]))
    pictures = [film]
    for box in trace.pop("boxes"):
        left, top, right, bottom = square_around(box, *film.shape)
        pictures.append(film[top:bottom, left:right])
    names = [f"{index:06d}-{position}.png" for position in range(len(pictures))]
    for name, picture in zip(names, pictures, strict=True):
        Image.fromarray((picture >> 8).astype(np.uint8)).save(folder / name)
    return {**trace, "images": [f"{folder.name}/{name}" for name in names]}
