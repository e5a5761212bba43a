from concurrent.futures import ThreadPoolExecutor

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
