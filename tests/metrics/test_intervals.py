from statistics import harmonic_mean

import numpy as np
import pytest
import torch

from zoo.metrics.intervals import Measured, average, measure, measure_difference, measure_jointly


def mean(outputs):
    return float(outputs["value"].mean())


def test_the_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(120):
        sample = torch.from_numpy(rng.normal(1.0, 2.0, size=80))
        measured = measure(mean, [{"value": sample}], resamples=200, seed=trial)
        covered += measured.low <= 1.0 <= measured.high
    assert 106 <= covered <= 120


def test_seeds_widen_the_interval():
    steady = torch.linspace(0, 1, 200)
    together = [{"value": steady}, {"value": steady}]
    apart = [{"value": steady}, {"value": steady + 1}]
    narrow, wide = measure(mean, together), measure(mean, apart)
    assert narrow.value == pytest.approx(0.5) and wide.value == pytest.approx(1.0)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_the_same_seed_gives_the_same_interval():
    sample = [{"value": torch.randn(50)}]
    assert measure(mean, sample) == measure(mean, sample)


def test_runs_of_different_samples_are_refused():
    with pytest.raises(ValueError, match="must have the same number of samples"):
        measure(mean, [{"value": torch.zeros(3)}, {"value": torch.zeros(4)}])
    with pytest.raises(ValueError, match="they have none"):
        measure(mean, [])


def test_the_interval_of_an_average_is_narrower_than_its_parts():
    one, other = Measured(0.5, 0.4, 0.65, 30), Measured(0.7, 0.6, 0.85, 50)
    mean = average([one, other])
    assert mean.value == pytest.approx(0.6) and mean.n == 80
    assert mean.low == pytest.approx(0.6 - 0.1 / 2**0.5) and mean.high == pytest.approx(0.6 + 0.15 / 2**0.5)
    assert average([one]) == Measured(0.5, pytest.approx(0.4), pytest.approx(0.65), 30)


def test_a_paired_difference_covers_the_truth_about_95_times_in_100_and_is_narrower_than_its_parts():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(120):
        shared = torch.from_numpy(rng.normal(1.0, 2.0, size=80))
        own, other = ({"value": shared + torch.from_numpy(rng.normal(m, 0.5, size=80))} for m in (0.3, 0.0))
        measured = measure_difference(mean, [own], [other], resamples=200, seed=trial)
        covered += measured.low <= 0.3 <= measured.high
        assert measured.high - measured.low < 0.6 * (measure(mean, [own]).high - measure(mean, [own]).low)
    assert 106 <= covered <= 120


def test_differences_are_of_the_same_seeds_and_samples():
    seeds = [{"value": torch.zeros(40)}, {"value": torch.ones(40)}]
    assert measure_difference(mean, seeds, seeds) == Measured(0.0, 0.0, 0.0, 40)
    with pytest.raises(ValueError, match="pairs of runs; got 2 and 1"):
        measure_difference(mean, seeds, seeds[:1])
    with pytest.raises(ValueError, match="must have the same number of samples"):
        measure_difference(mean, seeds[:1], [{"value": torch.zeros(30)}])


def of_both(values):
    return harmonic_mean(values.mean(axis=0).tolist())


def test_the_interval_of_a_harmonic_mean_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    truth, covered, width, width_of_ends = harmonic_mean([0.8, 0.6]), 0, 0.0, 0.0
    for trial in range(100):
        base, novel = ([{"value": torch.from_numpy(rng.random(100) < share).float()}] for share in (0.8, 0.6))
        both = measure_jointly(mean, [[base, novel]], of_both, resamples=200, seed=trial)
        covered += both.low <= truth <= both.high
        one, other = measure(mean, base, resamples=200), measure(mean, novel, resamples=200)
        width += both.high - both.low
        width_of_ends += harmonic_mean([one.high, other.high]) - harmonic_mean([one.low, other.low])
        assert both.n == 200
    assert 89 <= covered <= 100
    assert width < 0.85 * width_of_ends  # as the mean of the ends would be: too wide


def test_sets_of_a_task_share_their_runs_and_tasks_do_not():
    constant = [[{"value": torch.full((20,), level)} for level in levels] for levels in ([0.2, 0.8], [0.8, 0.2])]
    together = measure_jointly(mean, [constant], lambda values: float(values.mean()))
    assert (together.low, together.high) == (pytest.approx(0.5), pytest.approx(0.5))
    apart = measure_jointly(mean, [[runs] for runs in constant], lambda values: float(values.mean()))
    assert apart.low < 0.45 and apart.high > 0.55
