import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest

from zoo.data.chest_drr.rendering import build as building
from zoo.data.chest_drr.rendering.cases import CaseSpec


def test_an_interrupted_build_resumes(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    spec = CaseSpec(image_size=32, classes=[None])
    first = building.build_series(spec, {"train": 40}, num_workers=2)["train"]
    folder = building.series_folder(spec)
    existing, lost = sorted(folder.glob("*.npy"))
    before = existing.stat().st_mtime_ns
    image = first.image(35)
    lost.unlink()
    resumed = building.build_series(spec, {"train": 40}, num_workers=1)["train"]
    assert existing.stat().st_mtime_ns == before and (resumed.image(35) == image).all()
    assert len(resumed) == 40 and resumed.record(39)["findings"] == []


def test_the_cache_of_the_packaged_ct_keeps_its_place():
    assert building.series_folder(CaseSpec()).name == "a3cda0b972ed2d0b"


def test_a_full_disk_is_reported_before_rendering(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(building.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(OSError, match="building needs .* MB"):
        building.build_series(CaseSpec(image_size=32), {"train": 1})


def test_two_builders_of_the_same_cases_render_them_once(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    renderings = []
    render = building._render_parts
    monkeypatch.setattr(building, "_render_parts", lambda *args: renderings.append(args) or render(*args))
    spec = CaseSpec(image_size=32, classes=[None])
    with ThreadPoolExecutor(2) as pool:
        builds = [pool.submit(building.build_series, spec, {"train": 8}, num_workers=1) for _ in range(2)]
        first, second = (build.result()["train"] for build in builds)
    assert len(renderings) == 1 and (first.image(7) == second.image(7)).all()


def test_a_worker_whose_build_was_killed_renders_nothing_more(tmp_path):
    part = ["test", 0, str(tmp_path / "part.npy"), str(tmp_path / "part.jsonl")]
    job = {"parent": os.getpid() + 1, "spec": asdict(CaseSpec(image_size=32)), "parts": [part]}
    command = [sys.executable, "-m", "zoo.data.chest_drr.rendering.build"]
    done = subprocess.run(command, input=json.dumps(job), text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


def test_a_killed_worker_is_reported_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))

    def killed(spec, share):
        process = subprocess.Popen(["sleep", "60"], stderr=subprocess.PIPE, text=True)
        process.send_signal(signal.SIGKILL)
        return process

    monkeypatch.setattr(building, "_start_worker", killed)
    with pytest.raises(
        building.RenderingError, match="most likely for lack of memory; choose fewer with render_workers"
    ):
        building.build_series(CaseSpec(image_size=32, seed=77), {"test": 1})
