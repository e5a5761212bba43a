"""chest_drr as interleaved reasoning traces, written as records in the format of MMRad-IVL-22K."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from filelock import FileLock
from PIL import Image

from zoo.checksums import damaged_in, list_checksums, remove_damaged, write_checksum
from zoo.data.base import LoaderSpec
from zoo.data.chest_drr.datasets.rendered import RenderedCases
from zoo.data.chest_drr.rendering.build import CaseSeries, series_folder
from zoo.data.chest_drr.rendering.cases import SPLITS
from zoo.data.chest_drr.rendering.spec import RenderSpec
from zoo.data.chest_drr.text.traces import PROMPT, Search, build_pairs, build_trace, trace_words
from zoo.data.io.crops import square_box
from zoo.data.traces.datasets import TraceData
from zoo.data.traces.records import Box, IvlRecord, read_records
from zoo.files import replacing
from zoo.ranges import PositiveInt
from zoo.registry import Unpacked, register

TRACES_VERSION = 3
"""Raised whenever the trace of the same case changes."""
_IMAGES = "[0-9]*.png"


@register("dataset", "chest_drr_ivl")
class ChestDrrIvl(RenderedCases, TraceData):
    """Rendered radiographs with traces: regions examined, crops as image evidence, boxes, findings, report."""

    def __init__(
        self,
        pairs: bool = False,
        variants: PositiveInt = 1,
        search: Search = "targeted",
        render: Annotated[RenderSpec, Unpacked] = RenderSpec(),
        loader: Annotated[LoaderSpec, Unpacked] = LoaderSpec(batch_size=16, eval_batch_size=60),
    ) -> None:
        """Set what is rendered and written.

        Args:
            pairs: instead of each trace, a randomly cropped radiograph and the crop of a region, each with a list of its findings;
                a base model is trained on them.
            variants: traces of a training case, of other regions and wording, or pairs.
            search: which regions a trace examines: one for each finding and one or two more, or the same ones in every film.
            render: how many radiographs are rendered, and how; crops have their resolution.
            loader: how batches are loaded; the traces do not depend on its seed.
        """
        super().__init__(loader)
        self.configure_rendering(render)
        self.pairs, self.variants, self.search = pairs, variants, search
        self.any_step = search == "systematic"

    def metadata(self) -> dict[str, Any]:
        """The prompt, and the words of all traces for a word-level tokenizer, as well."""
        return {**super().metadata(), "prompt": PROMPT, "words": trace_words(self.spec.image_size)}

    def records(self, split: str) -> list[IvlRecord]:
        """Render and write what the cache lacks, and read it."""
        kind, variants = "pairs" if self.pairs else "traces", self.variants if split == "train" else 1
        suffix = "" if self.search == "targeted" else f"-{self.search}"
        folder = series_folder(self.spec) / f"{kind}-{TRACES_VERSION}{suffix}"
        file = folder / f"{split}-{self.counts[split]}-{variants}.jsonl"
        remove_damaged([file], "traces")
        if not file.is_file():
            series, write = self.series(split), partial(_write_pairs if self.pairs else _write_traces, self.search)
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):  # another process may be writing the same
                if not file.is_file():
                    write_records(series, split, file, write, variants)
        if damaged := damaged_in(file.with_suffix(""), _IMAGES, "traces"):
            series = self.series(split)
            for image in damaged:
                index, *box = map(int, image.stem.split("-"))
                _write_square(_pixels(series, index), (box[0], box[1], box[2], box[3]), image)
            list_checksums(file.with_suffix(""), _IMAGES)
        return read_records(file)


Writer = Callable[[dict[str, Any], int, np.random.Generator], Iterator[tuple[dict[str, Any], list[Box]]]]
"""Turns a case record and its image's size into trace records and the squares of the image that are theirs."""


def write_records(series: CaseSeries, split: str, file: Path, write: Writer, variants: int = 1) -> None:
    """Write a series as a JSONL file, and its images, each once, as PNG files in a folder beside it."""
    from rich.progress import track

    folder = file.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(file, durable=False) as partial_file:
        with partial_file.open("w", encoding="utf-8") as out, ThreadPoolExecutor() as pool:
            for index in track(range(len(series)), description=f"writing {file.stem}", transient=True):
                image, case = _pixels(series, index), series.record(index)
                squares: dict[str, Box] = {}
                for variant in range(variants):
                    rng = np.random.default_rng([SPLITS.index(split), index, variant])
                    for record, boxes in write(case, len(image), rng):
                        names = [f"{index:06d}-{'-'.join(map(str, box))}.png" for box in boxes]
                        out.write(json.dumps({**record, "images": [f"{folder.name}/{name}" for name in names]}) + "\n")
                        squares |= dict(zip(names, boxes, strict=True))
                list(
                    pool.map(lambda item, image=image: _write_square(image, item[1], folder / item[0]), squares.items())
                )
        write_checksum(file, partial_file)


def _pixels(series: CaseSeries, index: int) -> np.ndarray:
    return (series.image(index) >> 8).astype(np.uint8)


def _write_square(image: np.ndarray, box: Box, path: Path) -> None:
    left, top, right, bottom = box
    with replacing(path, durable=False) as partial_file:
        Image.fromarray(image[top:bottom, left:right]).save(partial_file, format="PNG", compress_level=1)


def _write_traces(
    search: Search, case: dict[str, Any], size: int, rng: np.random.Generator
) -> Iterator[tuple[dict[str, Any], list[Box]]]:
    trace = build_trace(case, size, rng, search)
    yield trace, [(0, 0, size, size), *(square_box(box, size, size) for box in trace.pop("boxes"))]


def _write_pairs(
    search: Search, case: dict[str, Any], size: int, rng: np.random.Generator
) -> Iterator[tuple[dict[str, Any], list[Box]]]:
    for record, square in build_pairs(case, size, rng, search):
        yield record, [square]
