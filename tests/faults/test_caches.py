"""Caches are used only as they were written: what is damaged is built again, and said; old caches without checksums stay usable."""

import os
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from zoo.checksums import load_checked, remove_damaged, save_checked, write_checksum
from zoo.data.chest_drr.rendering.build import build_series, series_folder
from zoo.data.chest_drr.rendering.cases import CaseSpec
from zoo.embedding_cache import EmbeddingCache
from zoo.errors import ZooWarning


def _damage(file, content=None):
    """Zeros in place of a file's second half, its size and (at first) its time as before."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    file.write_bytes(data if content is None else content)
    os.utime(file, ns=(1, 1))


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ZooWarning)
        yield


def test_a_damaged_file_is_removed_and_said(tmp_path):
    good, bad, old = (tmp_path / name for name in ("good", "bad", "old"))
    for file in (good, bad, old):
        file.write_bytes(b"content" * 100)
    write_checksum(good)
    write_checksum(bad)
    _damage(bad)
    with pytest.warns(ZooWarning, match=f"things: {bad} in the cache changed since written; built again"):
        assert remove_damaged([good, bad, old, tmp_path / "absent"], "things") == [bad]
    assert good.is_file() and old.is_file() and not bad.exists()


def test_a_file_of_an_earlier_version_is_used_and_gets_a_checksum(tmp_path, no_warnings):
    file = tmp_path / "old"
    file.write_bytes(b"content")
    assert remove_damaged([file], "things") == []
    _damage(file)
    warnings.simplefilter("default", ZooWarning)
    with pytest.warns(ZooWarning):
        assert remove_damaged([file], "things") == [file]


def test_a_cache_that_may_only_be_read_is_used(tmp_path, no_warnings, monkeypatch):
    import zoo.checksums

    def refused(*_):
        raise PermissionError

    monkeypatch.setattr(zoo.checksums, "write_checksum", refused)
    (tmp_path / "old").write_bytes(b"content")
    assert remove_damaged([tmp_path / "old"], "things") == []


SPEC = CaseSpec(image_size=32, seed=4242)


@pytest.fixture(scope="module")
def series_cache(tmp_path_factory):
    """A rendered part of three cases in a cache of its own."""
    from zoo.data.chest_drr.rendering import build

    def render(spec, tasks, num_workers):
        for task in tasks:
            build._render_part(spec, task)

    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("series")
        patch.setenv("ZOO_CACHE", str(cache))
        patch.setattr(build, "_PART", 3)
        patch.setattr(build, "_render_parts", render)
        series = build_series(SPEC, {"test": 3})["test"]
        images = np.stack([series.image(index) for index in range(3)])
        yield cache, images, series.record(2)


@pytest.mark.parametrize("suffix", [".npy", ".jsonl"])
def test_rendered_parts_that_were_zeroed_are_rendered_again(series_cache, monkeypatch, suffix):
    cache, images, record = series_cache
    monkeypatch.setenv("ZOO_CACHE", str(cache))
    _damage(series_folder(SPEC) / f"test-00000{suffix}")
    with pytest.warns(ZooWarning, match="chest_drr: .*built again"):
        series = build_series(SPEC, {"test": 3})["test"]
    assert np.array_equal(np.stack([series.image(index) for index in range(3)]), images)
    assert series.record(2) == record


def test_rendered_parts_without_checksums_are_used(series_cache, monkeypatch, no_warnings):
    cache, images, _ = series_cache
    monkeypatch.setenv("ZOO_CACHE", str(cache))
    for file in series_folder(SPEC).glob(".*.sha256"):
        file.unlink()
    time = (series_folder(SPEC) / "test-00000.npy").stat().st_mtime_ns
    assert np.array_equal(build_series(SPEC, {"test": 3})["test"].image(0), images[0])
    assert (series_folder(SPEC) / "test-00000.npy").stat().st_mtime_ns == time


def test_embeddings_that_were_zeroed_are_computed_again(tmp_path):
    calls = []

    def encode(indices):
        calls.append(indices)
        return [[torch.arange(100.0), torch.ones(2, 3)] for _ in indices]

    cache = EmbeddingCache("f" * 64, folder=tmp_path)
    first = cache.get_or_compute(["a"], encode)
    file = next(tmp_path.rglob("a.safetensors"))
    _damage(file)
    with pytest.warns(ZooWarning, match="embeddings: .*built again"):
        again = cache.get_or_compute(["a"], encode)
    assert len(calls) == 2 and torch.equal(again[0][0], first[0][0])
    save_file({"0": torch.zeros(4)}, file)  # of an earlier version: no checksum in its header
    assert torch.equal(cache.get_or_compute(["a"], encode)[0][0], torch.zeros(4)) and len(calls) == 2


def test_tensors_with_a_checksum_are_read_by_any_reader_of_safetensors(tmp_path):
    from safetensors.torch import load_file

    tensors = {"a": torch.rand(3, 2).half(), "b": torch.tensor(3), "c": torch.zeros(0), "d": torch.ones(2).bool()}
    save_checked(tensors, tmp_path / "x")
    for found in (load_file(tmp_path / "x"), load_checked(tmp_path / "x")):
        assert all(torch.equal(found[name], value) for name, value in tensors.items())
    data = bytearray((tmp_path / "x").read_bytes())
    data[-4] ^= 1
    (tmp_path / "x").write_bytes(data)
    assert load_checked(tmp_path / "x") is None
    (tmp_path / "x").write_bytes(b"cut")
    assert load_checked(tmp_path / "x") is None
