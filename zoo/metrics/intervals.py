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
    """Value of a metric, averaged over runs of the same samples, with a bootstrap interval.

    Each resample draws runs and samples with replacement, so that the interval holds the variation of both. One run gives
    the ordinary percentile bootstrap over samples (Efron & Tibshirani, 1993).

    Args:
        metric: of per-sample outputs to one number.
        runs: outputs of each run (seed); tensors of the same first dimension.
        resamples: how many.
        seed: of the draws.

    Raises:
        ArgumentError: there is no run, or runs differ in their number of samples.
    """
    sizes = {len(next(iter(run.values()))) for run in runs}
    if len(sizes) != 1:
        raise ArgumentError(f"runs must have the same samples; they have {sorted(sizes) or 'none'}")
    count = sizes.pop()
    rng = np.random.default_rng(seed)
    value = float(np.mean([metric(run) for run in runs]))
    draws = []
    for _ in range(resamples):
        picked = torch.from_numpy(rng.integers(count, size=count))
        chosen = rng.integers(len(runs), size=len(runs))
        resampled = [metric({name: tensor[picked] for name, tensor in runs[run].items()}) for run in chosen]
        draws.append(float(np.mean(resampled)))
    low, high = np.percentile([draw for draw in draws if np.isfinite(draw)] or [value], [2.5, 97.5])
    return Measured(value, float(low), float(high), count)
