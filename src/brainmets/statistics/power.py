"""How many held-out cases would be needed to see the difference that was seen here.

A case is a patient here: where several scans are of one, the patient counts once. By simulation: cases are drawn with
replacement from the observed paired differences, tested, and counted. The answer holds if the differences seen here
are what the population looks like, which a handful of cases cannot promise; it says how large a study of the same kind
should be, not whether this one found anything. Source of resampling for sample size: Collings and Hamilton, Biometrics
44 (1988) 847-860.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
from scipy import stats

from brainmets.statistics.comparisons import COMPARED, Settings, strategy_sides
from brainmets.statistics.tests import FEW_CASES, NAN, Floats, generator, hodges_lehmann, sum_distribution
from brainmets.vocabulary import COMPARED_STRATEGIES, PAPER_METRICS, Alternative

POWER_COLUMNS = [
    *COMPARED, "metric", "region", "test", "alternative", "n_observed", "shift", "alpha", "power_at_n_observed",
    "target_power", "cases_needed", "power_at_cases_needed", "n_simulations", "note",
]  # fmt: skip
TARGET_POWER = 0.8
MOST_CASES = 500
SCANNED = (*range(1, 51), *range(55, 101, 5), *range(120, 201, 20), *range(250, 501, 50))
"""Numbers of cases that are tried, up to ``MOST_CASES``: power is not monotone in n, since the exact test's level is
not, so that a search by halving could stop at a number above which power falls again."""
NO_IMPROVEMENT = "the observed shift is no improvement: no number of cases would show one"
SIMULATIONS = 1000
EXACT_UP_TO = 50


def cases_needed(scores: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Held-out cases for 80% power of the paired comparisons of the paper's metrics; columns ``POWER_COLUMNS``.

    One row per paired comparison of ``finetune_vs_scratch``, at ``alpha`` without Holm's correction. ``cases_needed``
    is the number of cases from which on every larger number in ``SCANNED`` reaches the target. It is empty, and
    ``note`` says why, where the observed shift is no improvement, where fewer than five differences are there to draw
    from, or where ``MOST_CASES`` do not reach the target.
    """
    rows = []
    for pooled, paired in strategy_sides(scores, COMPARED_STRATEGIES, settings.patients):
        if pooled.metric not in PAPER_METRICS:
            continue
        for sides in paired:
            random = generator(settings.seed, "power", f"paired: {sides.first}", sides.metric, sides.region)
            differences = sides.differences[~np.isnan(sides.differences)]
            rows.append({**sides.labels("paired"), **needed(differences, sides.better, settings.alpha, random)})
    return pd.DataFrame(rows, columns=POWER_COLUMNS)


def needed(
    differences: Floats, alternative: Alternative, alpha: float, random: np.random.Generator
) -> dict[str, object]:
    """The row of one comparison: ``differences`` are the observed ones, first minus second, none NaN."""
    n = len(differences)
    row: dict[str, object] = {
        "test": "Wilcoxon signed-rank",
        "alternative": alternative,
        "n_observed": n,
        "shift": hodges_lehmann(differences, alpha)[0],
        "alpha": alpha,
        "power_at_n_observed": NAN,
        "target_power": TARGET_POWER,
        "cases_needed": NAN,
        "power_at_cases_needed": NAN,
        "n_simulations": SIMULATIONS,
    }
    if n < FEW_CASES:
        return {**row, "note": f"{n} observed differences: too few to draw from"}
    row["power_at_n_observed"] = power(differences, n, alternative, alpha, random)
    sign = 1 if alternative == "greater" else -1
    ranks = stats.rankdata(np.abs(differences)) * np.sign(differences)
    if sign * ranks.sum() <= 0:
        return {**row, "note": NO_IMPROVEMENT}
    cases, reached = None, NAN
    for scanned in reversed([number for number in SCANNED if number <= MOST_CASES]):
        found = power(differences, scanned, alternative, alpha, random)
        if found < TARGET_POWER:
            break
        cases, reached = scanned, found
    if cases is None:
        return {**row, "note": f"more than {MOST_CASES} cases"}
    return {**row, "cases_needed": cases, "power_at_cases_needed": reached, "note": ""}


def power(differences: Floats, n: int, alternative: Alternative, alpha: float, random: np.random.Generator) -> float:
    """Share of ``SIMULATIONS`` draws of ``n`` differences that the one-sided signed-rank test rejects at ``alpha``.

    Drawing with replacement repeats values that would differ in new cases: such ties are broken at random, so that
    the ranks are whole numbers. Zeros are ranked first and carry no sign (Pratt). Critical sums are exact up to
    50 cases and by the normal approximation with continuity correction beyond.
    """
    sign = 1 if alternative == "greater" else -1
    drawn = random.integers(0, len(differences), (SIMULATIONS, n))
    size = stats.rankdata(np.abs(differences), method="dense")[drawn]  # 1, 2, ...; a fraction breaks ties at random
    order = np.argsort(size + random.random(drawn.shape), axis=1)
    positive = np.take_along_axis((sign * differences > 0)[drawn], order, axis=1)
    sums = positive @ np.arange(1, n + 1)
    zeros, which = np.unique((differences == 0)[drawn].sum(axis=1), return_inverse=True)
    critical = np.array([critical_sum(n, int(count), alpha) for count in zeros])
    return float(np.mean(sums >= critical[which]))


@cache
def critical_sum(n: int, zeros: int, alpha: float) -> float:
    """Smallest sum of positive ranks that the test of ``n`` differences, ``zeros`` of them zero, rejects.

    Infinite where no sum is rejected.
    """
    ranks = np.arange(zeros + 1.0, n + 1)
    if n > EXACT_UP_TO:
        return float(ranks.sum() / 2 + 0.5 + stats.norm.isf(alpha) * np.sqrt((ranks**2).sum()) / 2)
    upper = np.cumsum(sum_distribution(ranks)[::-2])[::-1]  # P(sum >= s), s = 0, 1, ...
    rejected = np.flatnonzero(upper <= alpha)
    return float(rejected[0]) if len(rejected) else float("inf")
