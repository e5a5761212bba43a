"""Optimizers and schedules: decayed groups, learning rates by step."""

import warnings

import pytest
import torch
from torch import nn

from zoo.errors import ZooWarning
from zoo.optim import adam, adamw, constant, cosine, held_cosine, linear


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
        (lambda o: held_cosine(o, 8, 2, warmup_lr=0.1), [0.1, 0.1, 1.0, 1.0, 0.8536, 0.8536, 0.5, 0.5]),
        (lambda o: held_cosine(o, 99, 9, unit="step", period=2, warmup_lr=0.1), [0.1, 1.0, 0.5, 0.0, 0.5, 1.0, 0.5]),
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


@pytest.mark.parametrize("schedule", [linear, cosine])
def test_a_training_shorter_than_its_warmup_is_warned_of(schedule):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    with pytest.warns(ZooWarning, match="rises over 20 steps, and this training has 8"):
        schedule(optimizer, total_steps=8, warmup_steps=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule(optimizer, total_steps=21, warmup_steps=20)


class ConstantWarmup(torch.optim.lr_scheduler.LRScheduler):
    """The rates of CoOp's training by torch's own cosine, stepped once an epoch: 1e-5 first, then the cosine from its start."""

    def __init__(self, optimizer, epochs):
        self.cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        super().__init__(optimizer)

    def get_lr(self):
        return [1e-5] if self.last_epoch == 0 else self.cosine.get_last_lr()

    def step(self, epoch=None):
        if self.last_epoch >= 1:
            self.cosine.step()
        else:
            super().step()


@pytest.mark.parametrize(("epochs", "batches"), [(5, 3), (20, 1)])
def test_the_held_cosine_is_that_of_coops_training(epochs, batches):
    rates = {}
    for name, make in (
        ("official", lambda o: ConstantWarmup(o, epochs)),
        ("ours", lambda o: held_cosine(o, epochs * batches, batches)),
    ):
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.002)
        scheduler, rates[name] = make(optimizer), []
        for step in range(epochs * batches):
            rates[name].append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if name == "ours" or (step + 1) % batches == 0:
                scheduler.step()
    assert rates["ours"] == pytest.approx(rates["official"], rel=1e-6)
    assert rates["ours"][0] == 1e-5 and max(rates["ours"]) == 0.002


def test_options_reach_torchs_optimizers():
    parameters = [nn.Parameter(torch.ones(2, 2))]
    assert adamw(parameters, eps=1e-4).defaults["eps"] == 1e-4
    (group,) = adam(parameters, lr=2e-3, weight_decay=5e-4).param_groups
    assert (group["lr"], group["weight_decay"], group["betas"]) == (2e-3, 5e-4, (0.9, 0.999))
