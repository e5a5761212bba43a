"""Caches are used only as they were written: what is damaged is built again, and said; old caches without checksums stay usable."""

import os
import re
import subprocess
import sys
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.data.annotations.public_forms import FORMS
from tests.small_recipes import write_recipe
from tests.tiny_models import ivl_traces
from zoo.checksums import (
    content_hashes,
    damaged_in,
    list_checksums,
    load_checked,
    remove_damaged,
    save_checked,
    sha256_of,
    write_checksum,
)
from zoo.config.building import build
from zoo.config.recipe import read_recipe
from zoo.data.chest_drr.datasets.conversations import ChestDrrMedSegQa
from zoo.data.chest_drr.datasets.traces import ChestDrrIvl
from zoo.data.chest_drr.rendering import scans
from zoo.data.chest_drr.rendering.build import build_series, series_folder
from zoo.data.chest_drr.rendering.cases import CaseSpec
from zoo.data.chest_drr.rendering.scans import Scan, load_scan
from zoo.data.chest_drr.rendering.spec import RenderSpec
from zoo.data.io.decoded import DecodedImages
from zoo.data.io.images import read_image
from zoo.embedding_cache import EmbeddingCache
from zoo.engine import evaluation
from zoo.engine.assembly import assemble
from zoo.errors import ZooWarning
from zoo.metrics.weights import extracted
from zoo.paths import PACKAGE


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


def test_the_hash_of_a_large_file_is_kept_for_its_size_and_time(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"1")
    large.write_bytes(bytes(1_000_000))
    expected = [sha256_of(small), sha256_of(large)]
    assert content_hashes([small, large]) == expected
    (kept,) = (tmp_path / "cache" / "hashes").iterdir()
    assert kept.read_text() == expected[1]

    def of_another_process() -> str:
        code = "import pathlib, sys; from zoo.checksums import content_hash; print(content_hash(pathlib.Path(sys.argv[1])))"
        return subprocess.run([sys.executable, "-c", code, large], capture_output=True, text=True).stdout.strip()

    kept.write_text("1" * 64)
    assert of_another_process() == "1" * 64, "it is not read again"
    kept.write_bytes(bytes(64))
    assert of_another_process() == expected[1], "what is damaged is computed again"
    large.write_bytes(bytes(999_999) + b"1")
    os.utime(large, ns=(1, 1))
    assert content_hashes([large]) == [sha256_of(large)] != [expected[1]]


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


def test_small_files_of_a_folder_share_a_list(tmp_path, no_warnings):
    for name in ("a.png", "b.png", "c.txt"):
        (tmp_path / name).write_bytes(name.encode() * 50)
    assert damaged_in(tmp_path, "*.png", "things") == [], "taken as they are, and listed"
    assert damaged_in(tmp_path, "*.png", "things") == [] == damaged_in(tmp_path / "absent", "*.png", "things")
    _damage(tmp_path / "b.png")
    (tmp_path / "a.png").unlink()
    (tmp_path / "d.png").write_bytes(b"new")
    warnings.simplefilter("default", ZooWarning)
    for _ in range(2):  # until they are listed again
        with pytest.warns(
            ZooWarning, match=r"things: .*a.png and 1 more in the cache changed since written; built again"
        ):
            assert damaged_in(tmp_path, "*.png", "things") == [tmp_path / "a.png", tmp_path / "b.png"]
    list_checksums(tmp_path, "*.png")
    warnings.simplefilter("error", ZooWarning)
    assert damaged_in(tmp_path, "*.png", "things") == []
    (tmp_path / ".sha256s").write_bytes(bytes(100))
    assert damaged_in(tmp_path, "*.png", "things") == [], "a list that is damaged says nothing"


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


RENDER = RenderSpec(size=3, held_out=3, image_size=32, render_workers=1)


def _rendered(folder: Path) -> Any:
    series = build_series(SPEC, {"test": 3})["test"]
    return [(series.image(index).tolist(), series.record(index)) for index in range(3)]


def _questions(folder: Path) -> Any:
    conversations = ChestDrrMedSegQa(render=RENDER).conversations("test")
    return [(conversation.turns, np.asarray(Image.open(conversation.image)).tolist()) for conversation in conversations]


def _traces(folder: Path) -> Any:
    records = ChestDrrIvl(render=RENDER).records("test")
    return [(record.report, [np.asarray(Image.open(image)).tolist() for image in record.images]) for record in records]


def _crops(folder: Path) -> Any:
    if not (folder / "form").is_dir():
        FORMS["padchest_gr"](folder / "form")
    node = FORMS["padchest_gr"](folder / "again")
    data = build("dataset", {"name": "annotated_traces", "annotations": {**node, **_moved(node, folder)}})
    return [[np.asarray(Image.open(image)).tolist() for image in record.images] for record in data.records("train")]


def _moved(node: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The arguments of a form with the paths of the files that stay: a crop is named by its film's path and time."""
    old, new = str(folder / "again"), str(folder / "form")
    return {name: value.replace(old, new) for name, value in node.items() if isinstance(value, str)}


def _scan(folder: Path) -> Any:
    load_scan.cache_clear()
    for name in ("ct", "labels"):
        if not (folder / name).exists():
            (folder / name).write_text(name)
    return load_scan(Scan(str(folder / "ct"), str(folder / "labels")))


def _tokens(folder: Path) -> Any:
    if not (folder / "ivl").is_dir():
        ivl_traces(folder / "ivl")
    assembly = assemble(read_recipe(write_recipe(folder, "interleaved_reasoning small crop")))
    assembly.data.tokenize(assembly.method)
    samples = [assembly.data.split("train")[index] for index in range(2)]
    return [{name: torch.as_tensor(value).tolist() for name, value in sample.items()} for sample in samples]


def _embeddings(folder: Path) -> Any:
    cache = EmbeddingCache("f" * 64)
    return [tensor.tolist() for tensor in cache.get_or_compute(["a"], lambda _: [[torch.arange(100.0)]])[0]]


def _decoded(folder: Path) -> Any:
    if not (folder / "film.png").is_file():
        pixels = np.random.default_rng(0).integers(0, 256, (40, 30)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "film.png")
    assert torch.equal(DecodedImages()(folder / "film.png"), read_image(folder / "film.png"))
    return DecodedImages()(folder / "film.png").tolist()


def _outputs(folder: Path) -> Any:
    file = Path(os.environ["ZOO_CACHE"]) / "outputs-test.safetensors"
    file.parent.mkdir(exist_ok=True)
    return evaluation.collect_cached(None, file)["labels"].tolist()


def _metric_weights(folder: Path) -> Any:
    archive = folder / "weights.tar.gz"
    if not archive.is_file():
        (folder / "config.json").write_text("[1, 2, 3]" * 20)
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(folder / "config.json", "inner/config.json")
            tar.add(folder / "config.json", "config.json")
    unpacked = extracted(archive)
    return {str(file.relative_to(unpacked)): file.read_text() for file in unpacked.rglob("[!.]*") if file.is_file()}


CACHES: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "rendered": (_rendered, ["data/chest_drr/rendering/build.py"]),
    "questions": (_questions, ["data/chest_drr/datasets/conversations.py"]),
    "traces": (_traces, ["data/chest_drr/datasets/traces.py"]),
    "crops": (_crops, ["data/traces/annotated.py"]),
    "scans": (_scan, ["data/chest_drr/rendering/scans.py"]),
    "tokens": (_tokens, ["data/traces/tokens.py"]),
    "embeddings": (_embeddings, ["embedding_cache.py", "methods/medseg_r.py"]),
    "decoded images": (_decoded, ["data/io/decoded.py"]),
    "outputs": (_outputs, ["engine/evaluation.py"]),
    "weights of metrics": (_metric_weights, ["metrics/weights.py"]),
}
"""Every kind of cache: a function that reads it, and builds it where it is not there; and the modules that write it."""
_WRITES = re.compile(r"\b(cache_folder|series_folder|EmbeddingCache|save_checked)\(")
_NO_CACHES = {
    "paths.py": "defines the folder; cards there have hashes of their own",
    "checksums.py": "defines the checksums",
    "cli/explore.py": "names the folder",
    "metrics/judge.py": "replies, a line each; a damaged line is an error, for the reply would cost again",
    "engine/cache.py": "lists and removes what is there",
}


@pytest.mark.parametrize("kind", CACHES)
def test_every_file_of_every_cache_is_built_again_and_said(kind, tmp_path, series_cache, monkeypatch):
    """Zeros in place of half of each file in turn."""
    from zoo.data.chest_drr.rendering import build as rendering

    def render(spec, tasks, num_workers):
        for task in tasks:
            rendering._render_part(spec, task)

    monkeypatch.setattr(rendering, "_PART", 3)
    monkeypatch.setattr(rendering, "_render_parts", render)
    monkeypatch.setattr(scans, "read_scan", lambda scan: (np.arange(500.0), np.arange(500), (1.0, 2.0, 3.0)))
    monkeypatch.setattr(
        scans, "chest_volume", lambda units, labels, spacing: (units.tolist(), labels.tolist(), spacing)
    )
    monkeypatch.setattr(evaluation, "collect", lambda *_: {"labels": torch.arange(200)})
    cache = tmp_path / "cache"
    monkeypatch.setenv("ZOO_CACHE", str(cache))
    read, _ = CACHES[kind]
    expected = read(tmp_path)
    files = [file for file in sorted(cache.rglob("*")) if file.is_file() and not file.name.startswith(".")]
    files = [file for file in files if file.suffix != ".lock"]
    assert files and read(tmp_path) == expected
    if kind in ("questions", "traces"):  # the rendered parts that these were made of are a kind of their own
        files = [file for file in files if f"{kind}-" in str(file.relative_to(cache))]
        assert {file.suffix for file in files} == {".jsonl", ".png"}
    for file in files if len(files) < 12 else [*files[:4], *files[-4:]]:
        _damage(file)
        with pytest.warns(ZooWarning, match="changed since written; built again"):
            assert read(tmp_path) == expected, file
        with warnings.catch_warnings():
            warnings.simplefilter("error", ZooWarning)
            assert read(tmp_path) == expected, f"{file} was said to be built again, and was not"


def test_every_module_that_writes_a_cache_is_among_them():
    writing = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if _WRITES.search(path.read_text(encoding="utf-8"))
    }
    known = {module for _, modules in CACHES.values() for module in modules}
    assert writing - set(_NO_CACHES) == known
