"""Films are decoded once, and read as they were decoded; what is damaged in the cache is decoded again, and said."""

import multiprocessing
import os
import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.data.annotations.public_forms import label_table
from tests.data.io.dicom_files import write_dicom
from tests.small_recipes import write_recipe
from tests.tiny_models import ivl_traces, medseg_files
from zoo.config.building import build
from zoo.config.recipe import read_recipe
from zoo.data.io import decoded
from zoo.data.io.decoded import DecodedImages, image_reader
from zoo.data.io.images import ImageError, read_image
from zoo.engine.training import train
from zoo.errors import ArgumentError, ZooWarning

RNG = np.random.default_rng(0)


@pytest.fixture
def count(monkeypatch):
    """Files that are decoded."""
    files = []

    def counted(path, **options):
        files.append(path)
        return read_image(path, **options)

    monkeypatch.setattr(decoded, "read_image", counted)
    return files


@pytest.fixture
def films(tmp_path):
    """A windowed DICOM, a PNG of 12 bits in 16, a colour JPEG, and a DICOM with more values than 16 bits can number."""
    deep = RNG.integers(0, 4096, (40, 30)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(RNG.integers(0, 256, (40, 30, 3)).astype(np.uint8)).save(tmp_path / "colour.jpg")
    window = {"BitsStored": 12, "WindowCenter": 2000, "WindowWidth": 3333, "RescaleSlope": 1.7, "RescaleIntercept": -3}
    write_dicom(tmp_path / "film.dcm", deep, **window)
    wide = RNG.permutation(1 << 17).reshape(256, 512).astype(np.uint32)
    write_dicom(tmp_path / "wide.dcm", wide)
    return [tmp_path / name for name in ("film.dcm", "deep.png", "colour.jpg", "wide.dcm")]


def test_every_bit_is_as_decoded(films, tmp_path, count):
    cached = DecodedImages(folder=tmp_path / "cache")
    for film in films:
        expected = read_image(film)
        assert all(torch.equal(cached(film), expected) for _ in range(3)), film
    assert count == films, "each once"
    assert read_image(films[3]).unique().numel() > 1 << 16, "too many values to number"
    sizes = sorted(file.stat().st_size for file in (tmp_path / "cache").rglob("*.safetensors"))
    assert sizes[0] < 40 * 30 * 3 + 2000, "a byte for each number of eight bits"


def test_content_and_options_are_what_counts(films, tmp_path, count):
    cached, film = DecodedImages(folder=tmp_path / "cache"), films[1]
    cached(film)
    moved = tmp_path / "elsewhere" / "other.png"
    moved.parent.mkdir()
    shutil.copy(film, moved)
    assert torch.equal(cached(moved), cached(film)) and len(count) == 1
    assert torch.equal(cached(film, bits=16), read_image(film, bits=16)) and len(count) == 2
    assert not torch.equal(cached(film, bits=16), cached(film))
    Image.fromarray(np.full((40, 30), 9, dtype=np.uint16)).save(film)
    assert cached(film).unique().numel() == 1, "the file has changed"


def test_errors_are_those_of_reading(tmp_path):
    cached = DecodedImages(folder=tmp_path / "cache")
    with pytest.raises(ImageError, match="there is no such file"):
        cached(tmp_path / "absent.png")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    for _ in range(2):
        with pytest.raises(ImageError, match="bad.png"):
            cached(tmp_path / "bad.png")
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_what_is_damaged_is_decoded_again_and_said(films, tmp_path, count):
    cached = DecodedImages(folder=tmp_path / "cache")
    expected = cached(films[0])
    (file,) = (tmp_path / "cache").rglob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-600:] = bytes(600)
    file.write_bytes(content)
    with pytest.warns(ZooWarning, match=r"decoded images: .*changed since written; built again"):
        assert torch.equal(cached(films[0]), expected)
    assert torch.equal(cached(films[0]), expected) and len(count) == 2


def test_a_disk_that_fills_costs_the_cache_and_not_the_run(films, tmp_path, monkeypatch, count):
    usage = namedtuple("usage", "total used free")
    cached = DecodedImages(folder=tmp_path / "cache", reserve=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 1500, 1500))
    with pytest.warns(ZooWarning, match=r"decoded images: 0\.0 GB are free on the disk of .*; no more are kept"):
        assert torch.equal(cached(films[0]), read_image(films[0]))
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    limited = DecodedImages(folder=tmp_path / "small", limit=5000, reserve=0)
    for index in range(8):
        Image.fromarray(RNG.integers(0, 256, (40, 30)).astype(np.uint8)).save(tmp_path / f"{index}.png")
        limited(tmp_path / f"{index}.png")
    total = sum(file.stat().st_size for file in (tmp_path / "small").rglob("*.safetensors"))
    assert 0 < total <= 5000


def _read_all(folder, files):
    cached = DecodedImages(folder=folder)
    ok = all(torch.equal(cached(file), read_image(file)) for _ in range(3) for file in files)
    os._exit(0 if ok else 1)


def test_several_processes_share_it(films, tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_read_all, args=(tmp_path / "cache", films)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    files = [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert len(files) == len(films) and all(file.suffix == ".safetensors" for file in files), "nothing half is left"


def test_a_training_with_it_is_the_same(tiny_recipe, tmp_path, monkeypatch, count):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "zoo"))
    settings = ["trainer.max_epochs=2", "trainer.limit_val_batches=0"]
    plain = train(read_recipe(tiny_recipe, settings), tmp_path / "plain")
    count.clear()  # without the cache, files are read each time
    kept = train(read_recipe(tiny_recipe, [*settings, "data.cache=true"]), tmp_path / "kept")
    assert len(count) == len(set(count)) == 36, "two epochs, each file once"
    expected = load_file(plain / "model.safetensors")
    assert all(torch.equal(value, expected[name]) for name, value in load_file(kept / "model.safetensors").items())
    workers = train(
        read_recipe(tiny_recipe, [*settings, "data.cache=true", "data.num_workers=2"]), tmp_path / "workers"
    )
    assert all(torch.equal(value, expected[name]) for name, value in load_file(workers / "model.safetensors").items())
    assert len(count) == 36


def test_every_kind_of_files_can_be_kept(tmp_path, monkeypatch, count):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "zoo"))
    label_table(tmp_path / "labels")
    medseg_files(tmp_path / "medseg")
    ivl_traces(tmp_path / "ivl")
    for name in ("clip_multi_label", "finding_unet", "interleaved_reasoning small crop"):
        node = read_recipe(write_recipe(tmp_path, name), ["data.cache=true"])["data"]
        count.clear()
        build("dataset", node).split("test")[0]
        decoded_once = len(count)
        build("dataset", node).split("test")[0]
        assert len(count) == decoded_once >= 1, name


def test_rendered_images_are_refused():
    with pytest.raises(ArgumentError, match="ChestDrrFindings keeps its rendered images in any case"):
        build("dataset", {"name": "chest_drr_findings", "cache": True})
    assert image_reader(False) is read_image
