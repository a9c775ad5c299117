"""Intervals that count patients: closed forms, and seeded simulations of what they cover."""

import math

import numpy as np
import pytest

from brainmets.scoring.intervals import (
    clopper_pearson,
    garwood,
    jackknife_error,
    mean_interval,
    patients_of,
    rate_interval,
    share_interval,
    sums_by,
)

DRAWS = 400


def covered(intervals: list[tuple[float, float]], truth: float) -> float:
    return float(np.mean([low <= truth <= high for low, high in intervals]))


def test_exact_intervals() -> None:
    # Clopper-Pearson bounds solve the binomial tail for 2.5 %: closed form at the ends
    assert clopper_pearson(0, 10, 0.95) == (0.0, pytest.approx(1 - 0.025 ** (1 / 10)))
    assert clopper_pearson(10, 10, 0.95) == (pytest.approx(0.025 ** (1 / 10)), 1.0)
    low, high = clopper_pearson(3, 10, 0.95)
    tail = [math.comb(10, k) * low**k * (1 - low) ** (10 - k) for k in range(3, 11)]
    assert sum(tail) == pytest.approx(0.025)
    assert sum(math.comb(10, k) * high**k * (1 - high) ** (10 - k) for k in range(4)) == pytest.approx(0.025)
    low, high = garwood(2, 0.95)
    assert 1 - math.exp(-low) * (1 + low) == pytest.approx(0.025)
    assert math.exp(-high) * (1 + high + high**2 / 2) == pytest.approx(0.025)
    assert clopper_pearson(0, 0, 0.95) == (0.0, 1.0)
    with pytest.raises(ValueError, match="between 0 and n"):
        clopper_pearson(3, 2, 0.95)


def test_a_case_is_its_own_patient_where_nothing_is_known() -> None:
    assert patients_of(["a", "b"], {}) == ["a", "b"]
    assert patients_of(["a", "b"], {"a": "p", "b": "p", "c": "q"}) == ["p", "p"]
    with pytest.raises(ValueError, match="nothing says whose scan b is"):
        patients_of(["a", "b"], {"a": "p"})
    assert sums_by(["q", "p", "q"], [1, 2, 3]).tolist() == [2, 4]


def test_one_patient_alone_leaves_everything_open() -> None:
    one = np.array([5.0])
    assert share_interval(one, 2 * one, 0.95) == share_interval(np.array([]), np.array([]), 0.95) == (0, 1)
    assert rate_interval(one, one, 0.95) == (0, math.inf)
    assert np.isnan(mean_interval(one, one, 0.95)).all()


def test_independent_lesions_of_many_patients_give_the_exact_interval() -> None:
    """A design effect below 1 counts as 1, and t is close to the normal quantile."""
    of = np.ones(2000)
    found = np.arange(2000) % 4 == 0
    assert share_interval(found.astype(float), of, 0.95) == pytest.approx(clopper_pearson(500, 2000, 0.95), abs=1e-3)
    even = np.full(2000, 3.0)
    low, high = garwood(6000, 0.95)
    assert rate_interval(even, of, 0.95) == pytest.approx((low / 2000, high / 2000), abs=1e-3)


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0])
    left_out = (values.sum() - values) / 3
    assert jackknife_error(left_out) == pytest.approx(values.std(ddof=1) / 2)


def test_the_share_of_clustered_lesions_is_covered() -> None:
    """Ten patients, four lesions each in the mean, intraclass correlation 0.4: the exact interval covers 3 in 4."""
    random = np.random.default_rng(5)
    naive, ours = [], []
    for _ in range(DRAWS):
        of = random.geometric(1 / 4, 10).astype(float)
        found = random.binomial(of.astype(int), random.beta(1.2, 0.3, 10)).astype(float)
        naive.append(clopper_pearson(found.sum(), of.sum(), 0.95))
        ours.append(share_interval(found, of, 0.95))
    assert covered(naive, 0.8) < 0.85
    assert covered(ours, 0.8) > 0.94


def test_the_rate_of_counts_that_vary_more_than_poissons_is_covered() -> None:
    """Ten patients with counts of mean 2 and variance 6: the exact Poisson interval covers 4 in 5."""
    random = np.random.default_rng(5)
    naive, ours = [], []
    for _ in range(DRAWS):
        events = random.negative_binomial(1, 1 / 3, 10).astype(float)
        low, high = garwood(events.sum(), 0.95)
        naive.append((low / 10, high / 10))
        ours.append(rate_interval(events, np.ones(10), 0.95))
    assert covered(naive, 2) < 0.87
    assert covered(ours, 2) > 0.93
