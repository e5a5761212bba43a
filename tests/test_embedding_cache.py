"""The disk cache of frozen image embeddings."""

from pathlib import Path

import torch

from zoo.embedding_cache import Embedding, EmbeddingCache


class Encoder:
    """Counts the images that it encodes, by their indices."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def __call__(self, indices: list[int]) -> list[Embedding]:
        self.calls.append(indices)
        return [[torch.full((100,), float(index)), torch.zeros(2)] for index in indices]


def test_each_embedding_is_computed_once_for_an_encoder(tmp_path):
    encode, cache = Encoder(), EmbeddingCache("f" * 64, folder=tmp_path)
    first = cache.get_or_compute(["a", "b"], encode)
    second = cache.get_or_compute(["b", "c", "a"], encode)
    assert encode.calls == [[0, 1], [1]]
    assert torch.equal(second[0][0], first[1][0]) and torch.equal(second[2][0], first[0][0]) and len(second[2]) == 2
    EmbeddingCache("e" * 64, folder=tmp_path).get_or_compute(["a"], encode)
    assert encode.calls[-1] == [0], "another encoder"


def test_a_damaged_file_is_computed_again(tmp_path):
    encode, cache = Encoder(), EmbeddingCache("f" * 64, folder=tmp_path)
    cache.get_or_compute(["a"], encode)
    next(tmp_path.rglob("a.safetensors")).write_bytes(b"cut")
    assert torch.equal(cache.get_or_compute(["a"], encode)[0][0], torch.zeros(100)) and len(encode.calls) == 2


def test_a_full_disk_costs_the_cache_and_not_the_run(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zoo.embedding_cache.save_checked", full)
    encode, cache = Encoder(), EmbeddingCache("f" * 64, folder=tmp_path)
    assert len(cache.get_or_compute(["a"], encode)) == len(cache.get_or_compute(["a"], encode)) == 1
    assert len(encode.calls) == 2 and not [path for path in Path(tmp_path).rglob("*") if path.is_file()]


def test_the_least_recently_used_are_deleted_over_the_limit(tmp_path):
    cache = EmbeddingCache("d" * 64, limit=2500, folder=tmp_path)
    for name in "abcdef":
        cache.get_or_compute([name], Encoder())
    kept = {path.stem for path in tmp_path.rglob("*.safetensors")}
    assert "f" in kept and "a" not in kept
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) <= 2500
