"""chest_drr as interleaved reasoning traces, written as files in the form of MMRad-IVL-22K."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image

from zoo.data.chest_drr.datasets.rendered import RenderedCases
from zoo.data.chest_drr.rendering.build import CaseSeries, series_folder
from zoo.data.chest_drr.rendering.cases import SPLITS
from zoo.data.chest_drr.text.traces import PROMPT, pairs_of, trace_of, words_of_traces
from zoo.data.io.crops import square_around
from zoo.data.traces.datasets import TraceData
from zoo.data.traces.records import IvlRecord, read_records
from zoo.registry import Injected, register

TRACES_VERSION = 2
"""Raised whenever the same case gives another trace."""


@register("dataset", "chest_drr_ivl")
class ChestDrrIvl(RenderedCases, TraceData):
    """Rendered radiographs with traces: regions looked at, close-ups as image evidence, boxes, findings, report."""

    def __init__(
        self,
        size: int = 2000,
        image_size: int = 256,
        style: Literal["standard", "portable"] = "standard",
        pairs: bool = False,
        variants: int = 1,
        batch_size: int = 16,
        eval_batch_size: int = 60,
        num_workers: int = 0,
        build_workers: int | None = None,
        seed: Annotated[int, Injected] = 0,
    ) -> None:
        """Choose what is rendered.

        Args:
            size: training traces; a tenth as many (at least 64) each for validation and test.
            image_size: side of the films in pixels; close-ups are cut from them at this resolution.
            style: of the film.
            pairs: in place of each trace, a film cut a little and a close-up, each with a list of its findings. What a base model
                is trained on.
            variants: traces a training case, of other regions and wording, or pairs.
            batch_size: traces a step.
            eval_batch_size: reports generated at a time.
            num_workers: loader processes.
            build_workers: rendering processes; all cores if None.
            seed: of the order; the traces themselves do not depend on it.
        """
        super().__init__(batch_size, eval_batch_size, num_workers, seed)
        self.choose(size, image_size, style, build_workers)
        self.pairs, self.variants = pairs, variants

    def metadata(self) -> dict[str, Any]:
        """The prompt, and the words of all traces, for a word-level tokenizer."""
        return {**super().metadata(), "prompt": PROMPT, "words": words_of_traces(self.spec.image_size)}

    def records(self, split: str) -> list[IvlRecord]:
        """Render and write what the cache lacks, and read it."""
        kind, variants = "pairs" if self.pairs else "traces", self.variants if split == "train" else 1
        folder = series_folder(self.spec) / f"{kind}-{TRACES_VERSION}"
        file = folder / f"{split}-{self.counts[split]}-{variants}.jsonl"
        if not file.is_file():
            write = _written_pairs if self.pairs else _written_traces
            write_records(self.series(split), split, file, write, variants)
        return read_records(file)


Writer = Callable[[dict[str, Any], np.ndarray, np.random.Generator], Iterator[tuple[dict[str, Any], list[np.ndarray]]]]
"""A case record and its film to records and their pictures."""


def write_records(series: CaseSeries, split: str, file: Path, write: Writer, variants: int = 1) -> None:
    """Write a series as a JSONL file, and its pictures as PNG files in a folder beside it."""
    from rich.progress import track

    folder = file.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    try:
        with partial.open("w", encoding="utf-8") as out:
            for index in track(range(len(series)), description=f"writing {file.stem}", transient=True):
                film, case = (series.image(index) >> 8).astype(np.uint8), series.record(index)
                for variant in range(variants):
                    rng = np.random.default_rng([SPLITS.index(split), index, variant])
                    for number, (record, pictures) in enumerate(write(case, film, rng)):
                        names = [f"{index:06d}-{variant}-{number}-{i}.png" for i in range(len(pictures))]
                        for name, picture in zip(names, pictures, strict=True):
                            Image.fromarray(picture).save(folder / name)
                        out.write(json.dumps({**record, "images": [f"{folder.name}/{name}" for name in names]}) + "\n")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _written_traces(
    case: dict[str, Any], film: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[dict[str, Any], list[np.ndarray]]]:
    trace = trace_of(case, film.shape[0], rng)
    squares = [square_around(box, *film.shape) for box in trace.pop("boxes")]
    yield trace, [film, *(film[top:bottom, left:right] for left, top, right, bottom in squares)]


def _written_pairs(
    case: dict[str, Any], film: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[dict[str, Any], list[np.ndarray]]]:
    for record, (left, top, right, bottom) in pairs_of(case, film.shape[0], rng):
        yield record, [film[top:bottom, left:right]]
