"""Builds series of chest_drr cases in the cache: in several processes, with a progress bar, and resumable."""

import ctypes
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from zoo.checksums import remove_damaged, write_checksum
from zoo.data.chest_drr.rendering.cases import SPLITS, CaseSpec, render_case
from zoo.data.chest_drr.rendering.scans import SCAN_VERSION, Scan, load_scan
from zoo.data.chest_drr.rendering.volume import source_folder
from zoo.errors import ZooError
from zoo.files import replacing
from zoo.paths import cache_folder

RENDERER_VERSION = 1
"""Raised whenever the same seed gives other bytes; it is part of every cache folder's name."""

_PART = 32
_PR_SET_PDEATHSIG = 1
_KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 29),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""Lets glibc keep the hundreds of megabytes of one case for the next; returning them took a third of the time."""
Part = tuple[str, int, Path, Path]
"""Split, first index, file of images, file of records."""


class RenderingError(ZooError, OSError):
    """Rendering cannot start or continue; the cases rendered so far are kept."""


def series_folder(spec: CaseSpec) -> Path:
    """The cache folder of a series, named by a hash of everything that its bytes depend on."""
    content = {name: value for name, value in asdict(spec).items() if name != "scans"}
    if spec.scans:
        content["scans"] = [SCAN_VERSION, *(scan.key() for scan in spec.scans)]
    key = json.dumps({"renderer": RENDERER_VERSION, **content})  # unsorted: sampling depends on the order
    return cache_folder() / "chest_drr" / hashlib.sha256(key.encode()).hexdigest()[:16]


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
        """The ground truth of a case; see :meth:`~zoo.data.chest_drr.rendering.cases.Case.to_record`."""
        part = index // _PART
        if part not in self._records:
            lines = self._parts[part][1].read_text(encoding="utf-8").splitlines()
            self._records[part] = [json.loads(line) for line in lines]
        return self._records[part][index % _PART]


def build_series(spec: CaseSpec, counts: dict[str, int], num_workers: int | None = None) -> dict[str, CaseSeries]:
    """Render what the cache lacks of a series, and open it.

    Existing parts are kept, so that an interrupted build resumes and a larger one extends it.

    Args:
        spec: of the cases.
        counts: cases of each split.
        num_workers: processes; all cores if None.

    Raises:
        MissingDataError: cases must be rendered, and the package with the CT is not installed, or a file of a scan is missing.
        ScanError: a scan cannot be rendered.
        RenderingError: the disk is full; the cases rendered so far are kept.
    """
    folder = series_folder(spec)
    _remove_damaged_parts(folder, counts)
    if _missing_parts(folder, counts):
        _check_source(spec)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):  # another process may be building the same
            if missing := _missing_parts(folder, counts):
                _render_parts(spec, missing, num_workers or os.cpu_count() or 1)
    return {split: CaseSeries(folder, split, count) for split, count in counts.items()}


def _remove_damaged_parts(folder: Path, counts: dict[str, int]) -> None:
    """Remove parts whose images or records are not as they were rendered, with a warning, so that they are rendered again."""
    parts = [(images, records) for _, _, images, records in _tasks(folder, counts) if images.is_file()]
    for damaged in remove_damaged([file for part in parts for file in part], "chest_drr"):
        damaged.with_suffix(".npy").unlink(missing_ok=True)
    for images, records in parts:
        if not records.is_file():
            images.unlink(missing_ok=True)


def _check_source(spec: CaseSpec) -> None:
    """Find the packaged CT, or read and check the user's, before processes are started."""
    for scan in spec.scans or ():
        load_scan(scan)
    if not spec.scans:
        source_folder()


def _missing_parts(folder: Path, counts: dict[str, int]) -> list[Part]:
    return [task for task in _tasks(folder, counts) if not task[2].is_file()]


def _tasks(folder: Path, counts: dict[str, int]) -> Iterator[Part]:
    for split in SPLITS:
        for start in range(0, counts.get(split, 0), _PART):
            images, records = _part_files(folder, split, start)
            yield split, start, images, records


def _part_files(folder: Path, split: str, start: int) -> tuple[Path, Path]:
    name = f"{split}-{start // _PART:05d}"
    return folder / f"{name}.npy", folder / f"{name}.jsonl"


def _render_parts(spec: CaseSpec, tasks: list[Part], num_workers: int) -> None:
    """Render parts in subprocesses.

    They are not started by multiprocessing, which would run the user's script again in each.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    folder = tasks[0][2].parent
    free, needed = shutil.disk_usage(folder).free, len(tasks) * _PART * (2 * spec.image_size**2 + 16_000)
    if free < needed:
        raise RenderingError(f"building needs {needed / 1e6:.0f} MB in {folder}, and {free / 1e6:.0f} MB are free")
    columns = (TextColumn("rendering chest_drr"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    num_workers = min(num_workers, len(tasks))
    shares = [tasks[start::num_workers] for start in range(num_workers)]
    processes = [_start_worker(spec, share) for share in shares]
    try:
        with Progress(*columns, TimeRemainingColumn()) as progress:
            bar = progress.add_task("", total=len(tasks) * _PART, rate="")
            while any(process.poll() is None for process in processes):
                time.sleep(0.2)
                done = sum(task[2].is_file() for task in tasks) * _PART
                speed = progress.tasks[0].speed
                progress.update(bar, completed=done, rate=f"{speed:.1f} images/s" if speed else "")
    finally:
        for process in processes:
            process.terminate()
    failed = [process for process in processes if process.returncode]
    if failed:
        raise RenderingError(f"rendering failed; the cases rendered so far are kept. {_reason(failed[0])}")


def _reason(process: subprocess.Popen[str]) -> str:
    """Why a worker failed: the last line it wrote, or the signal that killed it."""
    _, errors = process.communicate()
    if process.returncode == -signal.SIGKILL:
        return "a process was killed, most likely for lack of memory; choose fewer with render_workers"
    return (errors.strip().splitlines() or [f"exit status {process.returncode}"])[-1]


def _start_worker(spec: CaseSpec, share: list[Part]) -> subprocess.Popen[str]:
    job = {
        "parent": os.getpid(),
        "spec": asdict(spec),
        "parts": [[split, start, str(images), str(records)] for split, start, images, records in share],
    }
    command = [sys.executable, "-m", "zoo.data.chest_drr.rendering.build"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**_KEEP_MEMORY, **os.environ}
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(job))
    process.stdin.close()
    process.stdin = None
    return process


def end_with_parent() -> None:
    """Have this process killed as soon as its parent ends, however that ends; Linux can."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _work(job: dict[str, Any]) -> None:
    import torch

    torch.set_num_threads(1)
    if scans := job["spec"]["scans"]:
        job["spec"]["scans"] = [Scan(**scan) for scan in scans]
    for split, start, images, records in job["parts"]:
        if os.getppid() != job["parent"]:
            return  # the build was killed, and nobody waits for the rest
        _render_part(CaseSpec(**job["spec"]), (split, start, Path(images), Path(records)))


def _render_part(spec: CaseSpec, task: Part) -> None:
    split, start, image_file, record_file = task
    cases = [render_case(spec, split, index) for index in range(start, start + _PART)]
    lines = "".join(json.dumps({"index": start + i, **case.to_record()}) + "\n" for i, case in enumerate(cases))
    record_file.write_text(lines, encoding="utf-8")
    write_checksum(record_file)
    with replacing(image_file, durable=False) as partial:  # written last: a part that has its images is complete
        with partial.open("wb") as out:
            np.save(out, np.stack([case.image for case in cases]), allow_pickle=False)
        write_checksum(image_file, partial)


if __name__ == "__main__":
    end_with_parent()
    _work(json.load(sys.stdin))
