"""What is in the cache, and its removal, which touches nothing else."""

import json
import re

import pytest
from typer.testing import CliRunner

from zoo.cli.app import app
from zoo.engine.cache import cache_contents, clean_cache
from zoo.errors import ArgumentError
from zoo.paths import CACHE_KINDS, PACKAGE


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache with files of three kinds and one that is not the zoo's; links lead out of it."""
    root, outside = tmp_path / "cache", tmp_path / "outside"
    for name, size in (("cards/a/b", 10), ("embeddings/x", 20), ("embeddings/y/z", 30), ("mine.txt", 5)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"0" * size)
    outside.mkdir()
    (outside / "precious").write_text("x" * 1000)
    (root / "embeddings" / "link").symlink_to(outside)
    (root / "tokens").symlink_to(outside)
    (root / "cards" / "broken").symlink_to(outside / "gone")
    monkeypatch.setenv("ZOO_CACHE", str(root))
    return root


def test_every_folder_that_the_zoo_writes_to_is_a_kind():
    names = {"cards", "images"}
    for path in PACKAGE.rglob("*.py"):
        names |= set(re.findall(r'cache_folder\(\) / "(\w+)"', path.read_text()))
    assert names == set(CACHE_KINDS) and len(names) >= 6


def test_kinds_are_counted_without_following_links(cache):
    sizes = {cached.kind: (cached.files, cached.bytes) for cached in cache_contents()}
    assert sizes.keys() == {"cards", "embeddings", "tokens", "other"} and sizes["other"] == (1, 5)
    assert sizes["cards"][0] == 2 and 50 <= sizes["embeddings"][1] < 1000 and sizes["tokens"][1] < 1000


def test_a_kind_is_removed_and_what_links_lead_to_stays(cache):
    assert clean_cache("embeddings") == ["embeddings"] and not (cache / "embeddings").exists()
    assert clean_cache("embeddings") == []
    assert set(clean_cache("all")) == {"cards", "tokens"}
    assert [path.name for path in cache.iterdir()] == ["mine.txt"]
    assert (cache.parent / "outside" / "precious").read_text() == "x" * 1000


@pytest.mark.parametrize("kind", ["..", "mine.txt", "other", "", "/", "embeddings/y"])
def test_nothing_but_a_kind_is_removed(cache, kind):
    with pytest.raises(ArgumentError, match="no kind of cache is named"):
        clean_cache(kind)
    assert len(list(cache.iterdir())) == 4


def test_an_empty_cache_has_no_kinds(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "none"))
    assert cache_contents() == [] and clean_cache("all") == []


def test_the_command_asks_before_it_removes(cache):
    call = CliRunner().invoke
    shown = json.loads(call(app, ["cache", "--json"]).stdout)
    assert shown["folder"] == str(cache) and {row["kind"] for row in shown["kinds"]} >= {"cards", "other"}
    refused = call(app, ["cache", "--clean", "cards"], input="n\n")
    assert "Remove cards" in refused.output and "nothing was removed" in refused.output and (cache / "cards").is_dir()
    assert "removed cards" in call(app, ["cache", "--clean", "cards"], input="y\n").output
    assert "removed embeddings" in call(app, ["cache", "--clean", "all", "--yes"]).output
    assert not (cache / "embeddings").exists() and (cache / "mine.txt").is_file()
    wrong = call(app, ["cache", "--clean", "embedings"])
    assert wrong.exit_code == 1 and "did you mean embeddings" in wrong.stderr
