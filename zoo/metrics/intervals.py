"""95% bootstrap intervals of any metric, and of differences, over samples, and over samples and seeds together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from zoo.errors import ArgumentError

Outputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Measured:
    """A value with its 95% percentile interval over ``n`` samples."""

    value: float
    low: float
    high: float
    n: int


def measure(
    metric: Callable[[Outputs], float], runs: Sequence[Outputs], resamples: int = 500, seed: int = 0
) -> Measured:
    """Value of a metric, averaged over runs on the same samples, with a bootstrap interval.

    Each resample samples runs and samples with replacement, so that the interval covers the variation of both. With one run
    this is the percentile bootstrap over samples (Efron & Tibshirani, 1993).

    Args:
        metric: function of per-sample outputs.
        runs: outputs of each run (seed); tensors with the same first dimension.
        resamples: number of resamples.
        seed: of the resampling.

    Raises:
        ArgumentError: there is no run, or the runs differ in their number of samples.
    """
    return measure_jointly(metric, [[runs]], lambda values: float(values[0, 0]), resamples, seed)


def measure_difference(
    metric: Callable[[Outputs], float],
    runs: Sequence[Outputs],
    others: Sequence[Outputs],
    resamples: int = 500,
    seed: int = 0,
) -> Measured:
    """How much higher a metric is for some runs than for others on the same samples, by the paired bootstrap.

    Each resample takes the same samples of both, and the same seeds, so that what is hard for both does not widen the interval.

    Args:
        metric: function of per-sample outputs.
        runs: outputs of each run (seed).
        others: outputs of the runs that they are compared with, in the order of the same seeds.
        resamples: number of resamples.
        seed: of the resampling.

    Raises:
        ArgumentError: there are not as many of both, or they differ in their number of samples.
    """
    if len(runs) != len(others):
        raise ArgumentError(f"differences are of pairs of runs; got {len(runs)} and {len(others)}")
    pairs = [
        {f"{index}{name}": value for index, outputs in enumerate(pair) for name, value in outputs.items()}
        for pair in zip(runs, others, strict=True)
    ]

    def difference(outputs: Outputs) -> float:
        own, other = ({k[1:]: v for k, v in outputs.items() if k[0] == index} for index in "01")
        return metric(own) - metric(other)

    return measure(difference, pairs, resamples, seed)


def measure_jointly(
    metric: Callable[[Outputs], float],
    tasks: Sequence[Sequence[Sequence[Outputs]]],
    combine: Callable[[np.ndarray], float],
    resamples: int = 500,
    seed: int = 0,
) -> Measured:
    """A function of a metric's values on several sets of samples, with a bootstrap interval of the function itself.

    Args:
        metric: function of per-sample outputs.
        tasks: for each task its sets of samples, and for each set the outputs of every run. A resample takes the same runs for
            all sets of a task, since they are measured with the same weights; runs of different tasks are independent.
        combine: function of the values (tasks, sets), each averaged over runs, as the harmonic mean of two sets.
        resamples: number of resamples.
        seed: of the resampling.

    Raises:
        ArgumentError: a set has no run, or its runs differ in their number of samples.
    """
    counts = [[_sample_count(runs) for runs in sets] for sets in tasks]
    rng = np.random.default_rng(seed)
    value = combine(np.array([[np.mean([metric(run) for run in runs]) for runs in sets] for sets in tasks]))
    values = []
    for _ in range(resamples):
        rows = []
        for sets, sizes in zip(tasks, counts, strict=True):
            sample_idx = [torch.from_numpy(rng.integers(count, size=count)) for count in sizes]
            run_idx = rng.integers(len(sets[0]), size=len(sets[0]))
            rows.append([_mean_of(metric, runs, run_idx, idx) for runs, idx in zip(sets, sample_idx, strict=True)])
        values.append(combine(np.array(rows)))
    low, high = np.percentile([v for v in values if np.isfinite(v)] or [value], [2.5, 97.5])
    return Measured(value, float(low), float(high), sum(map(sum, counts)))


def _sample_count(runs: Sequence[Outputs]) -> int:
    sizes = {len(value) for run in runs for value in run.values()}
    if len(sizes) != 1:
        raise ArgumentError(f"runs must have the same number of samples; they have {sorted(sizes) or 'none'}")
    return sizes.pop()


def _mean_of(
    metric: Callable[[Outputs], float], runs: Sequence[Outputs], run_idx: np.ndarray, sample_idx: torch.Tensor
) -> float:
    """The metric on resampled samples, averaged over resampled runs."""
    resampled = [metric({name: tensor[sample_idx] for name, tensor in runs[run].items()}) for run in run_idx]
    return float(np.mean(resampled))


def average(measured: Sequence[Measured]) -> Measured:
    """Mean of values that were measured on different samples; errors are independent, so their squares add up."""
    value = float(np.mean([one.value for one in measured]))
    below, above = (
        float(np.sqrt(np.sum(np.square(errors)))) / len(measured)
        for errors in ([one.value - one.low for one in measured], [one.high - one.value for one in measured])
    )
    return Measured(value, value - below, value + above, sum(one.n for one in measured))
