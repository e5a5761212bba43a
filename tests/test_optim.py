"""Optimizers and schedules: decayed groups, learning rates by step."""

import pytest
import torch
from torch import nn

from zoo.optim import adamw, constant, cosine, linear


def test_vectors_and_scalars_are_not_decayed():
    layer = nn.Linear(3, 2)
    optimizer = adamw([*layer.parameters(), nn.Parameter(torch.ones(()))], lr=0.1, weight_decay=0.5)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay[id(layer.weight)] == 0.5 and decay[id(layer.bias)] == 0.0 and sorted(decay.values()) == [0.0, 0.0, 0.5]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (lambda o: constant(o, warmup_steps=2), [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        (lambda o: linear(o, total_steps=6, warmup_steps=2), [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]),
        (lambda o: cosine(o, total_steps=4), [1.0, 0.8536, 0.5, 0.1464, 0.0, 0.0, 0.0]),
        (lambda o: cosine(o, total_steps=2, floor=0.2), [1.0, 0.6, 0.2, 0.2, 0.2, 0.2, 0.2]),
    ],
)
def test_learning_rates_by_step(schedule, expected):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    scheduler = schedule(optimizer)
    rates = []
    for _ in expected:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx(expected, abs=1e-4)
