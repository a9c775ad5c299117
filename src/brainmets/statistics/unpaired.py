"""Two groups of scores without regard to pairing: Mann-Whitney U, and Cliff's delta.

Sources: Mann and Whitney, Ann. Math. Stat. 18 (1947) 50-60; Cliff, Psychol. Bull. 114 (1993) 494-509; resampling
whole cases for dependent values, Field and Welsh, J. R. Stat. Soc. B 69 (2007) 369-390.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

from brainmets.statistics.descriptive import FEW_CASES, bca_interval
from brainmets.statistics.directions import Alternative

Floats = npt.NDArray[np.float64]


def mann_whitney(first: Floats, second: Floats, alternative: Alternative) -> tuple[float, float, str]:
    """U of ``first``, the p-value and how it was computed ("exact" or "asymptotic"), for values that may be infinite.

    The computation is the one that scipy chooses by default, as the paper's authors had it: exact where one group
    has at most 8 values and no two are equal, otherwise normal with corrections for ties and continuity. An empty
    group gives NaN; where all values are equal p is 1.
    """
    if len(first) == 0 or len(second) == 0:
        return float("nan"), float("nan"), "none"
    together = np.concatenate([first, second])
    if len(np.unique(together)) == 1:
        return len(first) * len(second) / 2, 1.0, "exact"
    result = stats.mannwhitneyu(first, second, alternative=alternative, method="auto")
    untied = len(np.unique(together)) == len(together)
    exact = untied and min(len(first), len(second)) <= 8
    return float(result.statistic), float(result.pvalue), "exact" if exact else "asymptotic"


def cliffs_delta(first: Floats, second: Floats) -> float:
    """P(first > second) - P(first < second) over all pairs of defined values, between -1 and 1; NaN for no pair."""
    if len(first) == 0 or len(second) == 0:
        return float("nan")
    return float(_signs(first[:, None], second[None, :]).mean())


def cliffs_delta_interval(
    first: Floats, second: Floats, alpha: float, n_bootstrap: int, random: np.random.Generator
) -> tuple[float, float, list[str]]:
    """BCa bootstrap interval of Cliff's delta, resampling cases, and remarks.

    ``first`` and ``second`` have shape (cases, values per case), row i of both being the same case; NaN is an
    undefined value. Whole cases are drawn, because the values of one case (its arms, its two strategies) are not
    independent and an interval for independent groups would be wrong. With one case there is no interval (NaN).
    """
    n = len(first)
    if n < 2:
        return float("nan"), float("nan"), [f"{n} case(s): no interval for Cliff's delta"]
    wins = _signs(first[:, None, :, None], second[None, :, None, :]).sum(axis=(2, 3))
    n_first, n_second = (~np.isnan(first)).sum(axis=1), (~np.isnan(second)).sum(axis=1)

    def delta(weights: Floats) -> Floats:
        pairs = (weights @ n_first) * (weights @ n_second)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.einsum("bi,ij,bj->b", weights, wins, weights) / pairs

    estimate = float(delta(np.ones((1, n)))[0])
    draws = random.multinomial(n, np.full(n, 1 / n), n_bootstrap).astype(float)
    replicates, jackknife = delta(draws), delta(1 - np.eye(n))
    replicates, jackknife = replicates[np.isfinite(replicates)], jackknife[np.isfinite(jackknife)]
    if np.isnan(estimate) or len(jackknife) < 2:
        return float("nan"), float("nan"), ["too few defined values for an interval of Cliff's delta"]
    if np.ptp(replicates) == 0:
        return estimate, estimate, ["every resample gives the same Cliff's delta: its interval has no width"]
    low, high, corrected = bca_interval(estimate, replicates, jackknife, alpha)
    remarks = [f"{n} cases: the bootstrap interval rests on few distinct resamples"] if n < FEW_CASES else []
    if not corrected:
        remarks.append("BCa correction undefined: percentile interval")
    return low, high, remarks


def _signs(first: Floats, second: Floats) -> Floats:
    """1 where first is greater, -1 where second is, 0 where they are equal or one is NaN."""
    return (first > second).astype(float) - (first < second)
