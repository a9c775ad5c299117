"""Paired differences: Wilcoxon's signed-rank test, exact with ties and zeros, and the Hodges-Lehmann shift.

Sources: Wilcoxon, Biometrics Bull. 1 (1945) 80-83; zeros as Pratt, J. Am. Stat. Assoc. 54 (1959) 655-667; shift and
interval from Walsh averages, Hodges and Lehmann, Ann. Math. Stat. 34 (1963) 598-611.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from brainmets.statistics.directions import Alternative

EXACT_UP_TO = 100
"""Pairs up to which the null distribution is computed exactly; beyond, a normal approximation."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SignedRank:
    """Result of the test: ``statistic`` is the sum of the ranks of the positive differences.

    ``p_opposite`` is the p-value of the opposite one-sided alternative, NaN for a two-sided test.
    """

    n: int
    statistic: float
    p_value: float
    p_opposite: float
    exact: bool
    zeros: int
    tied: int
    smallest_p: float


def difference(first: Floats, second: Floats) -> Floats:
    """First minus second, 0 where both are infinite alike (two worst scores are equal); NaN where one is undefined."""
    with np.errstate(invalid="ignore"):
        return np.where(first == second, 0.0, first - second)


def mean_difference(differences: Floats) -> Floats:
    """Mean of each row of ``differences``; NaN where one is, or where one is infinite up and another down."""
    with np.errstate(invalid="ignore"):
        return differences.mean(axis=1)


def wilcoxon(differences: Floats, alternative: Alternative) -> SignedRank:
    """Wilcoxon signed-rank test of ``differences`` (shape (n,), none NaN) against symmetry around zero.

    ``alternative`` is "greater" (differences tend to be positive), "less" or "two-sided". Absolute differences are
    ranked together with the zeros, which then carry no sign (Pratt); tied ones share their mean rank, and so do
    infinite ones, which are the largest. The p-value
    is exact for these very ranks: the sum is compared with its distribution over all 2^m signs of the m non-zero
    differences. ``smallest_p`` is what the most extreme signs would give. Without a non-zero difference p is 1;
    without any difference it is NaN.
    """
    n = len(differences)
    if n == 0:
        nan = float("nan")
        return SignedRank(0, nan, nan, nan, True, 0, 0, nan)
    nonzero = differences != 0
    magnitudes = np.abs(differences)
    ranks = stats.rankdata(magnitudes)[nonzero]
    statistic = float(ranks[differences[nonzero] > 0].sum())
    _, counts = np.unique(magnitudes[nonzero], return_counts=True)
    tied = int(counts[counts > 1].sum())
    exact = n <= EXACT_UP_TO
    lower, upper = (_exact_tails if exact else _normal_tails)(ranks, statistic)
    p_value = _combine(lower, upper, alternative)
    opposite = {"greater": lower, "less": upper}.get(alternative, float("nan"))
    sides = 2 if alternative == "two-sided" else 1
    smallest = min(1.0, sides * 0.5 ** len(ranks))
    return SignedRank(n, statistic, p_value, min(1.0, opposite), exact, n - len(ranks), tied, smallest)


def sum_distribution(ranks: Floats) -> Floats:
    """Probabilities of the positive-rank sum when every sign is a fair coin; entry s is the sum s / 2.

    ``ranks`` are multiples of one half (mean ranks are). Without ranks the sum is 0 for certain.
    """
    doubled = np.rint(2 * ranks).astype(int)
    distribution = np.zeros(int(doubled.sum()) + 1)
    distribution[0] = 1.0
    for rank in doubled:
        shifted = np.zeros_like(distribution)
        shifted[rank:] = distribution[: len(distribution) - rank]
        distribution = (distribution + shifted) / 2
    return distribution


def hodges_lehmann(differences: Floats, alpha: float) -> tuple[float, float, float, float]:
    """Hodges-Lehmann shift of ``differences`` (none NaN) and its distribution-free interval.

    Returns shift (the median of the Walsh averages (d_i + d_j) / 2, i <= j), low, high and the interval's coverage
    for a continuous distribution: the smallest attainable one of at least 1 - alpha or, where so few differences
    cannot reach it (fewer than 6 at alpha 0.05), that of the widest interval. NaN for what has no value: all four
    without a difference, the interval with one. An infinite difference and its opposite average to 0; where many are
    infinite, so are shift or limits.
    """
    n = len(differences)
    nan = float("nan")
    if n == 0:
        return nan, nan, nan, nan
    rows, columns = np.triu_indices(n)
    with np.errstate(invalid="ignore"):
        sums = differences[rows] + differences[columns]
    walsh = np.sort(np.where(np.isnan(sums), 0.0, sums) / 2)
    shift = float(np.median(walsh))
    if n == 1:
        return shift, nan, nan, nan
    cumulative = np.cumsum(sum_distribution(np.arange(1.0, n + 1))[::2])
    cut = max(int(np.searchsorted(cumulative, alpha / 2, side="right")), 1)
    return shift, float(walsh[cut - 1]), float(walsh[len(walsh) - cut]), float(1 - 2 * cumulative[cut - 1])


def _exact_tails(ranks: Floats, statistic: float) -> tuple[float, float]:
    """P(sum <= statistic), P(sum >= statistic)."""
    distribution = sum_distribution(ranks)
    place = round(2 * statistic)
    return float(distribution[: place + 1].sum()), float(distribution[place:].sum())


def _normal_tails(ranks: Floats, statistic: float) -> tuple[float, float]:
    """The same by a normal approximation with the variance of these ranks and a continuity correction of one half."""
    if len(ranks) == 0:
        return 1.0, 1.0
    centred = statistic - ranks.sum() / 2
    spread = float(np.sqrt((ranks**2).sum())) / 2
    return float(stats.norm.cdf((centred + 0.5) / spread)), float(stats.norm.sf((centred - 0.5) / spread))


def _combine(lower: float, upper: float, alternative: Alternative) -> float:
    tails = {"greater": upper, "less": lower, "two-sided": 2 * min(lower, upper)}
    if alternative not in tails:
        raise ValueError(f"alternative: {alternative!r} must be greater, less or two-sided")
    return min(1.0, tails[alternative])
