"""Outputs of several processes, each sample once and in order; random states. Real processes: tests/engine."""

import torch

from zoo.methods import distributed
from zoo.methods.distributed import gather_outputs, index_of_rows, random_states, restore_random_state


def test_outputs_come_back_in_the_order_of_the_split_and_each_sample_once(monkeypatch):
    """Two processes with interleaved samples; the second repeats sample 0 to have as many as the first."""
    first = [{"index": torch.tensor([0, 2]), "score": torch.tensor([0.0, 2.0])}]
    second = [{"index": torch.tensor([3]), "score": torch.tensor([3.0])}]
    second += [{"index": torch.tensor([1, 0]), "score": torch.tensor([1.0, 9.0])}]
    monkeypatch.setattr(distributed, "gather_objects", lambda item: [first, second])
    assert gather_outputs(first)["score"].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_samples_with_several_rows_keep_them_together(monkeypatch):
    batch = {"index": torch.tensor([4, 1])}
    rows = {**index_of_rows(batch, [2, 1]), "score": torch.tensor([40.0, 41.0, 10.0])}
    assert rows["index"].tolist() == [4, 4, 1]
    assert gather_outputs([rows])["score"].tolist() == [10.0, 40.0, 41.0]
    assert index_of_rows({}, [2, 1]) == {}


def test_outputs_without_an_index_are_concatenated():
    outputs = gather_outputs([{"score": torch.tensor([2.0])}, {"score": torch.tensor([1.0])}])
    assert outputs["score"].tolist() == [2.0, 1.0]


def test_a_restored_random_state_repeats_the_same_numbers():
    states = random_states()
    expected = torch.rand(3)
    restore_random_state(states)
    assert torch.equal(torch.rand(3), expected)
    before = torch.get_rng_state()
    restore_random_state([*states, *states])  # of two processes: this one has no state among them
    assert torch.equal(torch.get_rng_state(), before)
