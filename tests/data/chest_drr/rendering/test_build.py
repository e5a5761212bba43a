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


def test_a_full_disk_is_reported_before_rendering(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(building.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(OSError, match="building needs .* MB"):
        building.build_series(CaseSpec(image_size=32), {"train": 1})
