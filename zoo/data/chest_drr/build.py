"""Builds series of chest_drr cases into the cache: several processes, a progress bar, and a build that can be resumed."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.chest_drr.cases import SPLITS, CaseSpec, render_case
from zoo.data.chest_drr.volume import source_folder
from zoo.paths import cache_folder

RENDERER_VERSION = 1
"""Raised whenever the same seed gives other bytes; it is part of every cache folder's name."""

_PART = 32


def series_folder(spec: CaseSpec) -> Path:
    """The cache folder of a series, named by everything that decides its bytes."""
    facts = json.dumps({"renderer": RENDERER_VERSION, **asdict(spec)})  # order counts: draws go by it
    return cache_folder() / "chest_drr" / hashlib.sha256(facts.encode()).hexdigest()[:16]


class CaseSeries:
    """Cases of one split on disk, read lazily: ``images`` (n, size, size) uint16 and one record each."""

    def __init__(self, folder: Path, split: str, count: int) -> None:
        """Open the first ``count`` cases of a built split."""
        self._parts = [_part_files(folder, split, start) for start in range(0, count, _PART)]
        self._images = [np.load(images, mmap_mode="r", allow_pickle=False) for images, _ in self._parts]
        self._records: dict[int, list[dict[str, Any]]] = {}
        self.count = count

    def __len__(self) -> int:
        """Number of cases."""
        return self.count

    def image(self, index: int) -> np.ndarray:
        """Image (size, size) uint16."""
        return np.asarray(self._images[index // _PART][index % _PART])

    def record(self, index: int) -> dict[str, Any]:
        """The truth about a case; see :meth:`Case.record`."""
        part = index // _PART
        if part not in self._records:
            lines = self._parts[part][1].read_text(encoding="utf-8").splitlines()
            self._records[part] = [json.loads(line) for line in lines]
        return self._records[part][index % _PART]


def build_series(spec: CaseSpec, counts: dict[str, int], workers: int | None = None) -> dict[str, CaseSeries]:
    """Render what is missing of a series and open it.

    Parts already there are kept, so that an interrupted build goes on where it stopped and a larger one extends it.

    Args:
        spec: what the cases are drawn from.
        counts: cases of each split.
        workers: processes; all cores if None.

    Raises:
        MissingDataError: the package with the CT is not installed and something must be rendered.
        OSError: the disk is full; what was rendered until then stays.
    """
    folder = series_folder(spec)
    missing = [task for task in _tasks(folder, counts) if not task[2].is_file()]
    if missing:
        source_folder()
        folder.mkdir(parents=True, exist_ok=True)
        _render_parts(spec, missing, workers or os.cpu_count() or 1)
    return {split: CaseSeries(folder, split, count) for split, count in counts.items()}


def _tasks(folder: Path, counts: dict[str, int]) -> Iterator[tuple[str, int, Path, Path]]:
    for split in SPLITS:
        for start in range(0, counts.get(split, 0), _PART):
            images, records = _part_files(folder, split, start)
            yield split, start, images, records


def _part_files(folder: Path, split: str, start: int) -> tuple[Path, Path]:
    name = f"{split}-{start // _PART:05d}"
    return folder / f"{name}.npy", folder / f"{name}.jsonl"


def _render_parts(spec: CaseSpec, tasks: list[tuple[str, int, Path, Path]], workers: int) -> None:
    import multiprocessing

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    free = shutil.disk_usage(tasks[0][2].parent).free
    needed = len(tasks) * _PART * (2 * spec.image_size**2 + 16_000)
    if free < needed:
        raise OSError(f"building needs {needed / 1e6:.0f} MB in {tasks[0][2].parent}, and {free / 1e6:.0f} MB are free")
    columns = (TextColumn("rendering chest_drr"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn()) as progress:
        bar = progress.add_task("", total=len(tasks) * _PART, rate="")
        # Forked processes would inherit torch's thread pool, which does not survive a fork.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context) as pool:
            try:
                for _ in pool.map(_render_part, [spec] * len(tasks), tasks):
                    speed = progress.tasks[0].speed
                    progress.update(bar, advance=_PART, rate=f"{speed:.1f} images/s" if speed else "")
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _render_part(spec: CaseSpec, task: tuple[str, int, Path, Path]) -> None:
    import torch

    torch.set_num_threads(1)
    split, start, image_file, record_file = task
    cases = [render_case(spec, split, index) for index in range(start, start + _PART)]
    lines = "".join(json.dumps({"index": start + i, **case.record()}) + "\n" for i, case in enumerate(cases))
    record_file.write_text(lines, encoding="utf-8")
    partial = image_file.with_suffix(f".{os.getpid()}.partial")
    try:
        with partial.open("wb") as out:
            np.save(out, np.stack([case.image for case in cases]), allow_pickle=False)
        partial.replace(image_file)  # the images come last and whole: a part with them is complete
    finally:
        partial.unlink(missing_ok=True)
