"""Every single test with its effect and interval, and the bootstrap that gives an interval where no formula does.

Of paired differences: Wilcoxon's signed-rank test, exact with ties and zeros, and the Hodges-Lehmann shift. Of two
groups without regard to pairing: Mann-Whitney U and Cliff's delta. Sources: Wilcoxon, Biometrics Bull. 1 (1945) 80-83;
zeros as Pratt, J. Am. Stat. Assoc. 54 (1959) 655-667; Hodges and Lehmann, Ann. Math. Stat. 34 (1963) 598-611; Mann and
Whitney, Ann. Math. Stat. 18 (1947) 50-60; Cliff, Psychol. Bull. 114 (1993) 494-509; swapping labels within pairs,
Fisher, The Design of Experiments (1935), chapter 3, and the interval that turns it round, Hartigan, J. Am. Stat.
Assoc. 64 (1969) 1303-1317; BCa bootstrap, Efron, J. Am. Stat. Assoc. 82 (1987) 171-185, its levels for few values,
Hesterberg, Am. Stat. 69 (2015) 371-386; resampling whole patients, Field and Welsh, J. R. Stat. Soc. B 69 (2007)
369-390; Holm, Scand. J. Stat. 6 (1979) 65-70.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from brainmets.vocabulary import Alternative

EXACT_UP_TO = 100
"""Pairs up to which the null distribution is computed exactly; beyond, a normal approximation."""
EXACT_SWAPS, RANDOM_SWAPS = 16, 20_000
"""Pairs up to which all 2^n swaps are gone through, and the number of random ones beyond."""
FEW_CASES = 5
"""Below this a bootstrap draws from so few distinct resamples that its interval says little."""
DECIMALS_MM, DECIMALS = 4, 12
NAN = float("nan")

Floats = npt.NDArray[np.float64]


def percent(level: float) -> str:
    """A level of confidence in percent, with the digits that it has: 99.9% is no 100%.

    >>> percent(1 - 0.05), percent(1 - 2 * 0.0125), percent(1 - 0.001)
    ('95%', '97.5%', '99.9%')
    """
    return f"{100 * level:.4g}%"


# --- paired differences ------------------------------------------------------------------------------------------


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


def rounded(differences: Floats, unit: str) -> Floats:
    """Differences (any shape) without the noise of how numbers are stored, so that ties are seen as ties.

    Distances are rounded to 0.0001 mm: image headers hold spacing in single precision, so that two equal boundaries
    may differ by 0.0000014 mm, and a rank test would count that as an improvement. Other units are rounded to 1e-12.
    """
    return np.round(differences, DECIMALS_MM if unit == "mm" else DECIMALS)


def wilcoxon(differences: Floats, alternative: Alternative) -> SignedRank:
    """Wilcoxon signed-rank test of ``differences`` (shape (n,), none NaN) against symmetry around zero.

    ``alternative`` is "greater" (differences tend to be positive), "less" or "two-sided". Absolute differences are
    ranked together with the zeros, which then carry no sign (Pratt); tied ones share their mean rank, and so do
    infinite ones, which are the largest. The p-value is exact for these very ranks: the sum is compared with its
    distribution over all 2^m signs of the m non-zero differences. ``smallest_p`` is what the most extreme signs would
    give. Without a non-zero difference p is 1; without any difference it is NaN.

    >>> wilcoxon(np.array([1.0, 2.0, 3.0]), "greater").p_value  # all three positive: one of 2^3 signs
    0.125
    """
    n = len(differences)
    if n == 0:
        return SignedRank(0, NAN, NAN, NAN, True, 0, 0, NAN)
    nonzero = differences != 0
    magnitudes = np.abs(differences)
    ranks = stats.rankdata(magnitudes)[nonzero]
    statistic = float(ranks[differences[nonzero] > 0].sum())
    _, counts = np.unique(magnitudes[nonzero], return_counts=True)
    tied = int(counts[counts > 1].sum())
    exact = n <= EXACT_UP_TO
    lower, upper = (_exact_tails if exact else _normal_tails)(ranks, statistic)
    opposite = {"greater": lower, "less": upper}.get(alternative, NAN)
    smallest = smallest_p(len(ranks), alternative)
    p_value = p_of_tails(lower, upper, alternative)
    return SignedRank(n, statistic, p_value, min(1.0, opposite), exact, n - len(ranks), tied, smallest)


def smallest_p(n: int, alternative: Alternative) -> float:
    """The smallest p that ``n`` non-zero differences could give."""
    return min(1.0, (2 if alternative == "two-sided" else 1) * 0.5**n)


def p_of_tails(lower: float, upper: float, alternative: Alternative) -> float:
    """The p-value, from the probabilities of the observed statistic or less and of it or more."""
    tails = {"greater": upper, "less": lower, "two-sided": 2 * min(lower, upper)}
    if alternative not in tails:
        raise ValueError(f"alternative: {alternative!r} must be greater, less or two-sided")
    return min(1.0, float(tails[alternative]))


def sum_distribution(ranks: Floats) -> Floats:
    """Probabilities of the positive-rank sum when every sign is a fair coin; entry s is the sum s / 2.

    ``ranks`` are multiples of one half (mean ranks are). Without ranks the sum is 0 for certain.

    >>> sum_distribution(np.array([1.0, 2.0]))  # sums 0, 1, 2 and 3 are equally likely
    array([0.25, 0.  , 0.25, 0.  , 0.25, 0.  , 0.25])
    """
    doubled = np.rint(2 * ranks).astype(int)
    distribution = np.zeros(int(doubled.sum()) + 1)
    distribution[0] = 1.0
    for rank in doubled:
        shifted = np.zeros_like(distribution)
        shifted[rank:] = distribution[: len(distribution) - rank]
        distribution = (distribution + shifted) / 2
    return distribution


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


def hodges_lehmann(differences: Floats, alpha: float) -> tuple[float, float, float, float]:
    """Hodges-Lehmann shift of ``differences`` (none NaN) and its distribution-free interval.

    Returns shift (the median of the Walsh averages (d_i + d_j) / 2, i <= j), low, high and the interval's coverage
    for a continuous distribution: the smallest attainable one of at least 1 - alpha or, where so few differences
    cannot reach it (fewer than 6 at alpha 0.05), that of the widest interval. NaN for what has no value: all four
    without a difference, the interval with one. An infinite difference and its opposite average to 0; where many are
    infinite, so are shift or limits.

    >>> hodges_lehmann(np.array([1.0, 2.0, 6.0]), alpha=0.05)  # three differences allow no better than 75%
    (2.75, 1.0, 6.0, 0.75)
    """
    n = len(differences)
    if n == 0:
        return NAN, NAN, NAN, NAN
    rows, columns = np.triu_indices(n)
    with np.errstate(invalid="ignore"):
        sums = differences[rows] + differences[columns]
    walsh = np.sort(np.where(np.isnan(sums), 0.0, sums) / 2)
    shift = float(np.median(walsh))
    if n == 1:
        return shift, NAN, NAN, NAN
    cumulative = np.cumsum(sum_distribution(np.arange(1.0, n + 1))[::2])
    cut = max(int(np.searchsorted(cumulative, alpha / 2, side="right")), 1)
    return shift, float(walsh[cut - 1]), float(walsh[len(walsh) - cut]), float(1 - 2 * cumulative[cut - 1])


@dataclass(frozen=True)
class Swaps:
    """Mean difference, its test and interval (``coverage``: what it attains); ``drawn``: random swaps, 0 if all."""

    n: int
    mean: float
    p_value: float
    low: float
    high: float
    coverage: float
    drawn: int


def permutation(differences: Floats, alternative: Alternative, alpha: float, random: np.random.Generator) -> Swaps:
    """Test of a mean difference by swapping the two labels within pairs, and the interval that turns the test round.

    ``differences`` (shape (n,), finite) change sign where a pair's labels are swapped; under the hypothesis that
    the label is without effect every set of swaps was equally likely. All 2^n are compared up to 16 pairs, 20,000
    random ones with the observed beyond. A shift is in the interval where the two-sided test of the differences less
    the shift keeps it, whose limits are means of subsets of the differences (Hartigan): exact for symmetric
    differences. Where so few pairs cannot reach 1 - alpha, the widest interval is given. NaN for what has no value:
    all without a difference, the interval with one.

    >>> permutation(np.array([1.0, 2.0, 6.0]), "greater", 0.05, np.random.default_rng(1)).p_value  # one of 2^3 swaps
    0.125
    """
    n = len(differences)
    if n == 0:
        return Swaps(0, NAN, NAN, NAN, NAN, NAN, 0)
    drawn = 0 if n <= EXACT_SWAPS else RANDOM_SWAPS
    chosen = random.integers(0, 2, (drawn, n)) if drawn else (np.arange(1, 2**n)[:, None] >> np.arange(n)) & 1
    chosen = chosen[chosen.any(axis=1)].astype(float)
    sums, swaps = chosen @ differences, len(chosen) + 1  # with the observed labels
    slack = 1e-12 * float(np.abs(differences).max())
    upper, lower = ((1 + int((sign * sums <= slack).sum())) / swaps for sign in (1, -1))
    mean, p_value = float(differences.mean()), p_of_tails(lower, upper, alternative)
    if n == 1:
        return Swaps(1, mean, p_value, NAN, NAN, NAN, drawn)
    means = np.sort(sums / chosen.sum(axis=1))
    cut = max(int(alpha / 2 * swaps), 1)
    return Swaps(n, mean, p_value, float(means[cut - 1]), float(means[-cut]), 1 - 2 * cut / swaps, drawn)


# --- two groups --------------------------------------------------------------------------------------------------


def mann_whitney(first: Floats, second: Floats, alternative: Alternative) -> tuple[float, float, str]:
    """U of ``first``, the p-value and how it was computed ("exact" or "asymptotic"), for values that may be infinite.

    The computation is the one that scipy chooses by default, as the paper's authors had it: exact where one group
    has at most 8 values and no two are equal, otherwise normal with corrections for ties and continuity. An empty
    group gives NaN; where all values are equal p is 1.
    """
    if len(first) == 0 or len(second) == 0:
        return NAN, NAN, "none"
    together = np.concatenate([first, second])
    distinct = len(np.unique(together))
    if distinct == 1:
        return len(first) * len(second) / 2, 1.0, "exact"
    result = stats.mannwhitneyu(first, second, alternative=alternative, method="auto")
    exact = distinct == len(together) and min(len(first), len(second)) <= 8
    return float(result.statistic), float(result.pvalue), "exact" if exact else "asymptotic"


def cliffs_delta(first: Floats, second: Floats) -> float:
    """P(first > second) - P(first < second) over all pairs of defined values, between -1 and 1; NaN for no pair."""
    if len(first) == 0 or len(second) == 0:
        return NAN
    return float(_signs(first[:, None], second[None, :]).mean())


def cliffs_delta_interval(
    first: Floats,
    second: Floats,
    patients: Sequence[str],
    alpha: float,
    n_bootstrap: int,
    random: np.random.Generator,
) -> tuple[float, float, list[str]]:
    """BCa bootstrap interval of Cliff's delta, resampling patients, and remarks.

    ``first`` and ``second`` have shape (cases, values per case), row i of both being the same case, of
    ``patients[i]``; NaN is an undefined value. Whole patients are drawn, because the values of one (its scans, their
    arms, their two strategies) are not independent and an interval for independent groups would be wrong. With one
    patient there is no interval (NaN).
    """
    names = np.asarray(patients, str)
    own = (np.unique(names)[:, None] == names).astype(float)
    n = len(own)
    if n < 2:
        return NAN, NAN, [f"{n} patient(s): no interval for Cliff's delta"]
    wins = own @ _signs(first[:, None, :, None], second[None, :, None, :]).sum(axis=(2, 3)) @ own.T
    n_first, n_second = (own @ (~np.isnan(side)).sum(axis=1) for side in (first, second))
    return _delta_interval(wins, n_first, n_second, alpha, n_bootstrap, random, "Cliff's delta")


def auroc(first: Floats, second: Floats) -> float:
    """Area under the ROC curve: P(first > second) + P(first = second) / 2; NaN where one side has no value.

    >>> auroc(np.array([0.9, 0.5]), np.array([0.5, 0.1]))  # three pairs in order, one tie
    0.875
    """
    if len(first) == 0 or len(second) == 0:
        return NAN
    return (1 + float(_wins(np.sort(first), np.sort(second))) / (len(first) * len(second))) / 2


def clustered_auroc_interval(
    first: Sequence[Floats],
    second: Sequence[Floats],
    alpha: float,
    n_bootstrap: int,
    random: np.random.Generator,
) -> tuple[float, float, list[str]]:
    """BCa bootstrap interval of ``auroc`` over all values of both sides, resampling patients, and remarks.

    ``first[i]`` and ``second[i]`` are the values of patient i, of any number, none NaN: those of one patient are alike
    and are drawn together. It is Cliff's delta's interval, halved and moved: AUROC = (1 + delta) / 2. With one patient
    there is no interval (NaN).
    """
    n = len(first)
    if n < 2:
        return NAN, NAN, [f"{n} patient(s): no interval for the AUROC"]
    ones, others = ([np.sort(values) for values in side] for side in (first, second))
    wins = np.array([[_wins(one, other) for other in others] for one in ones], float)
    n_first, n_second = (np.array([len(values) for values in side], float) for side in (first, second))
    low, high, remarks = _delta_interval(wins, n_first, n_second, alpha, n_bootstrap, random, "the AUROC")
    return (1 + low) / 2, (1 + high) / 2, remarks


def _wins(first: Floats, second: Floats) -> int:
    """Pairs of two sorted arrays in which the first is greater, less those in which the second is."""
    below = np.searchsorted(second, first, "left").sum()
    return int(below + np.searchsorted(second, first, "right").sum()) - len(first) * len(second)


def _delta_interval(
    wins: Floats,
    n_first: Floats,
    n_second: Floats,
    alpha: float,
    n_bootstrap: int,
    random: np.random.Generator,
    what: str,
) -> tuple[float, float, list[str]]:
    """Of P(first > second) - P(first < second): ``wins`` by pairs of (at least two) patients, and their values.

    ``what`` is its name in the remarks.
    """
    n = len(wins)

    def delta(weights: Floats) -> Floats:
        pairs = (weights @ n_first) * (weights @ n_second)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(((weights @ wins) * weights).sum(axis=1) / pairs)

    estimate = float(delta(np.ones((1, n)))[0])
    draws = random.multinomial(n, np.full(n, 1 / n), n_bootstrap).astype(float)
    replicates, jackknife = delta(draws), delta(1 - np.eye(n))
    replicates, jackknife = replicates[np.isfinite(replicates)], jackknife[np.isfinite(jackknife)]
    if np.isnan(estimate) or len(jackknife) < 2:
        return NAN, NAN, [f"too few defined values for an interval of {what}"]
    if np.ptp(replicates) == 0:
        return estimate, estimate, [f"every resample gives the same value of {what}: its interval has no width"]
    low, high, corrected = bca_interval(estimate, replicates, jackknife, widened(alpha, n))
    return low, high, _remarks(n, corrected)


def _signs(first: Floats, second: Floats) -> Floats:
    """1 where first is greater, -1 where second is, 0 where they are equal or one is NaN."""
    return (first > second).astype(float) - (first < second)


# --- the bootstrap and Holm --------------------------------------------------------------------------------------


def generator(seed: int, *names: str) -> np.random.Generator:
    """A random generator of its own for every named quantity: adding a row elsewhere changes no other number."""
    return np.random.default_rng([seed, zlib.crc32("/".join(names).encode())])


def widened(alpha: float, n: int) -> float:
    """The level to read a bootstrap of ``n`` units at, so that its interval has t's width where the units are normal.

    A resample of n units has n / (n - 1) times too little variance, and the normal quantiles that the levels stand for
    know nothing of an estimated spread (Hesterberg 2015, "expanded" percentiles). Close to ``alpha`` for many.
    """
    t = float(stats.t.ppf(1 - alpha / 2, n - 1))
    return 2 * float(stats.norm.sf(t * np.sqrt(n / (n - 1))))


def bca_interval(estimate: float, replicates: Floats, jackknife: Floats, alpha: float) -> tuple[float, float, bool]:
    """Bias-corrected and accelerated bootstrap interval at 1 - alpha (Efron 1987).

    ``replicates`` are the statistic on resamples, ``jackknife`` on the sample with one case left out each time.
    Returns low, high, and whether the correction was possible: where the estimate lies outside all replicates the
    bias is infinite, and where 1 - a (z0 + z) is not positive the level has no meaning; then the percentile interval
    is given.
    """
    below = float(np.mean(replicates < estimate) + np.mean(replicates == estimate) / 2)
    deviations = jackknife.mean() - jackknife
    spread = float((deviations**2).sum())
    acceleration = float((deviations**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    levels = [alpha / 2, 1 - alpha / 2]
    bias = float(stats.norm.ppf(below))
    z = float(stats.norm.isf(alpha / 2))  # of a tiny alpha too, where 1 - alpha / 2 would round to 1
    shifted = [bias - z, bias + z]
    corrected = 0 < below < 1 and all(acceleration * shift < 1 for shift in shifted)
    if corrected:
        levels = [float(stats.norm.cdf(bias + shift / (1 - acceleration * shift))) for shift in shifted]
    low, high = np.quantile(replicates, levels)
    return float(low), float(high), corrected


def _remarks(n: int, corrected: bool) -> list[str]:
    remarks = [f"{n} patients: the bootstrap interval rests on few distinct resamples"] if n < FEW_CASES else []
    return remarks if corrected else [*remarks, "BCa correction undefined: percentile interval"]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given; NaN stays NaN and does not count in the family.

    >>> holm([0.01, float("nan"), 0.5])
    [0.02, nan, 0.5]
    """
    # statsmodels' multipletests gives the same numbers, but collects all garbage of the process in every call
    adjusted = np.array(p_values, float)
    rising = np.argsort(adjusted, kind="stable")[: np.count_nonzero(~np.isnan(adjusted))]
    raw = adjusted[rising] * np.arange(len(rising), 0, -1)
    adjusted[rising] = np.minimum(1.0, np.maximum.accumulate(raw))
    return [float(value) for value in adjusted]
