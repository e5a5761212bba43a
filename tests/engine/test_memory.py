"""Memory of a training step on fake tensors."""

from contextlib import nullcontext

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from zoo.engine.memory import LiveMemory, measure_step


def test_live_memory_counts_storages_from_birth_to_death():
    with FakeTensorMode():
        weight = torch.empty(100, 100, requires_grad=True)
        with LiveMemory([weight]) as memory:
            one = torch.empty(100, 100)
            view = one.view(-1)[:10]
            assert memory.allocated == 40_000
            two = (one @ weight).detach()
            assert memory.allocated == memory.peak == 80_000 and memory.flops == 2 * 100**3
            del one
            assert memory.allocated == 80_000, "a view keeps the whole"
            del view, two
            assert memory.allocated == 0 and memory.peak == 80_000


@pytest.mark.parametrize(("foreach", "least", "most"), [(True, 10, 11), (False, 1, 3)])
def test_an_optimizers_step_has_a_workspace(foreach, least, most):
    """AdamW on ten weights: state of two copies of each; square roots of all of them at once, or of one after the other."""
    size = 400_000
    with FakeTensorMode():
        weights = [torch.nn.Parameter(torch.empty(1000, 100)) for _ in range(10)]
        optimizer = torch.optim.AdamW(weights, foreach=foreach)

        def loss() -> torch.Tensor:
            return sum(weight.square().sum() for weight in weights)

        step = measure_step(weights, weights, optimizer, loss, nullcontext(), accumulates=False)
    assert step.gradients == 10 * size and step.optimizer == pytest.approx(20 * size, rel=0.001)
    assert least * size <= step.update_workspace <= (most + 0.01) * size
