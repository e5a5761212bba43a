"""95% bootstrap intervals of any metric over samples, and over samples and seeds together."""

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
    sizes = {len(next(iter(run.values()))) for run in runs}
    if len(sizes) != 1:
        raise ArgumentError(f"runs must have the same number of samples; they have {sorted(sizes) or 'none'}")
    count = sizes.pop()
    rng = np.random.default_rng(seed)
    value = float(np.mean([metric(run) for run in runs]))
    values = []
    for _ in range(resamples):
        sample_idx = torch.from_numpy(rng.integers(count, size=count))
        run_idx = rng.integers(len(runs), size=len(runs))
        resampled = [metric({name: tensor[sample_idx] for name, tensor in runs[run].items()}) for run in run_idx]
        values.append(float(np.mean(resampled)))
    low, high = np.percentile([v for v in values if np.isfinite(v)] or [value], [2.5, 97.5])
    return Measured(value, float(low), float(high), count)


def average(measured: Sequence[Measured]) -> Measured:
    """Mean of values that were measured on different samples; errors are independent, so their squares add up."""
    value = float(np.mean([one.value for one in measured]))
    below, above = (
        float(np.sqrt(np.sum(np.square(errors)))) / len(measured)
        for errors in ([one.value - one.low for one in measured], [one.high - one.value for one in measured])
    )
    return Measured(value, value - below, value + above, sum(one.n for one in measured))
