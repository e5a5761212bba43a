import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from zoo.data.base import EmptySplitError, LoaderSpec, Records, ResumableSampler, ZooData, collate
from zoo.errors import ArgumentError


class Numbers(Dataset):
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        return {"value": torch.tensor(index), "name": str(index), "record": (index,)}


class NumbersData(ZooData):
    """Ten numbers to train on and three to validate on; the test split is empty."""

    def open_split(self, name: str) -> Dataset:
        return Numbers({"train": 10, "val": 3, "test": 0}[name])


def test_sizes_of_a_loader_are_checked():
    for name, value in (("batch_size", 0), ("eval_batch_size", 0), ("num_workers", -1)):
        with pytest.raises(ArgumentError, match=f"{name} is {value}; it must be at least"):
            LoaderSpec(**{name: value})


def test_the_order_of_training_depends_on_the_seed():
    def order(seed: int) -> list[int]:
        data = NumbersData(LoaderSpec(batch_size=4, seed=seed))
        return torch.cat([batch["value"] for batch in data.train_dataloader()]).tolist()

    assert order(0) == order(0) != order(1)
    assert sorted(order(1)) == list(range(10))


def test_a_last_batch_that_is_not_full_can_be_left_out():
    def sizes(batch_size: int, drop_last: bool) -> list[int]:
        loader = NumbersData(LoaderSpec(batch_size=batch_size, drop_last=drop_last)).train_dataloader()
        return [len(batch["value"]) for batch in loader]

    assert sizes(4, False) == [4, 4, 2] and sizes(4, True) == [4, 4]
    assert sizes(16, True) == [10], "the only batch stays"
    data = NumbersData(LoaderSpec(batch_size=2, drop_last=True))
    assert [len(batch["value"]) for batch in data.eval_dataloader("val")] == [2, 1]


def test_evaluation_batches_are_in_order_with_their_index():
    batches = list(NumbersData(LoaderSpec(batch_size=4, eval_batch_size=2)).eval_dataloader("val"))
    assert [batch["index"].tolist() for batch in batches] == [[0, 1], [2]]
    assert [len(batch["value"]) for batch in NumbersData(LoaderSpec(batch_size=3)).eval_dataloader("val")] == [3]


def test_unknown_and_empty_splits_are_refused():
    with pytest.raises(ArgumentError, match="no split 'dev'; there are train, val and test"):
        NumbersData(LoaderSpec()).split("dev")

    class Empty(NumbersData):
        def open_split(self, name: str) -> Dataset:
            return Numbers(0)

    with pytest.raises(EmptySplitError, match="the training split of Empty has no samples"):
        Empty(LoaderSpec()).split("train")


def test_tensors_are_stacked_and_records_kept():
    batch = collate([Numbers(2)[index] for index in range(2)])
    assert batch["value"].tolist() == [0, 1] and batch["name"] == ["0", "1"]
    assert isinstance(batch["record"], Records) and list(batch["record"]) == [(0,), (1,)] and batch["record"][1] == (1,)


class Lengths(list):
    """A dataset whose samples are their lengths."""

    @property
    def lengths(self) -> list[int]:
        return list(self)


def test_samples_of_a_step_have_similar_lengths_in_any_number_of_processes():
    data = Lengths(np.random.default_rng(0).integers(10, 500, 256).tolist())
    single = list(ResumableSampler(data, 1, 0, 3, 16, (2, 0)))
    assert sorted(single) == list(range(256))
    spread = [np.ptp([data[index] for index in single[start : start + 16]]) for start in range(0, 256, 16)]
    assert np.mean(spread) < 100 < np.ptp(data) and single != list(ResumableSampler(data, 1, 0, 3, 16, (1, 0)))
    two = [list(ResumableSampler(data, 2, rank, 3, 8, (2, 0))) for rank in (0, 1)]
    assert [index for pair in zip(*two, strict=True) for index in pair] == single
    assert list(ResumableSampler(data, 1, 0, 3, 16, (2, 5))) == single[80:]
