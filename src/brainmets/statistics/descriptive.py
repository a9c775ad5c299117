"""What each model's scores look like: mean, spread, intervals, and whether they look normal.

Sources: t interval, any textbook; BCa bootstrap, Efron, J. Am. Stat. Assoc. 82 (1987) 171-185; Shapiro and Wilk,
Biometrika 52 (1965) 591-611.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from brainmets.statistics.tables import in_order
from brainmets.statistics.tests import NAN, Floats, bootstrap_mean, generator

MODEL = ["arm", "strategy", "region", "metric"]
SUMMARY = ("n", "mean", "sd", "ci_low", "ci_high", "bca_low", "bca_high", "median", "q1", "q3")


def describe(scores: pd.DataFrame, alpha: float, n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Summary of every arm, strategy, region and metric.

    Returns the columns arm, strategy, region, metric, n (finite values), mean, sd (n - 1), ci_low and ci_high (t
    interval of the mean at 1 - alpha), bca_low and bca_high (BCa bootstrap interval of the mean), median, q1, q3
    (linear quantiles), note; all in the metric's unit. Where a number has no meaning it is empty and ``note`` says
    why; ``note`` also names the cases whose value is undefined or infinite.
    """
    rows = []
    for key, group in scores.groupby(MODEL, sort=False):
        group = group.sort_values("case")
        undefined, infinite = group["value"].isna(), np.isinf(group["value"])
        notes = []
        if undefined.any():
            notes.append(f"undefined and left out: {', '.join(group['case'][undefined])}")
        if infinite.any():
            notes.append(f"infinite and left out, which favours this model: {', '.join(group['case'][infinite])}")
        values = group["value"][np.isfinite(group["value"])].to_numpy()
        summary, remarks = summarise(values, alpha, n_bootstrap, generator(seed, *map(str, key)))
        rows.append({**dict(zip(MODEL, key, strict=True)), **summary, "note": "; ".join([*notes, *remarks])})
    return in_order(pd.DataFrame(rows))


def summarise(
    values: Floats, alpha: float, n_bootstrap: int, random: np.random.Generator
) -> tuple[dict[str, float], list[str]]:
    """Summary of finite ``values`` (shape (n,)) as in ``describe``, and remarks on what has no meaning at this n."""
    n = len(values)
    if n == 0:
        return {"n": 0, **dict.fromkeys(SUMMARY[1:], NAN)}, ["no defined value"]
    mean = float(values.mean())
    q1, median, q3 = (float(value) for value in np.quantile(values, [0.25, 0.5, 0.75]))
    if n == 1:
        summary = [n, mean, NAN, NAN, NAN, NAN, NAN, median, q1, q3]
        remarks = ["one value has no spread: no sd, no interval"]
    elif np.ptp(values) == 0:
        mean = float(values[0])  # a mean of equal values may be off in its last digit
        summary = [n, mean, 0.0, *[mean] * 7]
        remarks = ["all values equal: both intervals are that value"]
    else:
        sd = float(values.std(ddof=1))
        half = float(stats.t.ppf(1 - alpha / 2, n - 1)) * sd / np.sqrt(n)
        low, high, remarks = bootstrap_mean(values, alpha, n_bootstrap, random)
        summary = [n, mean, sd, mean - half, mean + half, low, high, median, q1, q3]
    return dict(zip(SUMMARY, summary, strict=True)), remarks


def normality(scores: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """Shapiro-Wilk of every arm, strategy, region and metric.

    Returns arm, strategy, region, metric, n, statistic (W), p_value, normal_rejected (p below alpha; empty where
    untested), note. Needs three values that are not all equal; ``note`` says where that is not so.
    """
    rows = []
    for key, group in scores.groupby(MODEL, sort=False):
        values = group["value"][np.isfinite(group["value"])].to_numpy()
        statistic, p_value, note = shapiro(values)
        rejected = "" if np.isnan(p_value) else str(p_value < alpha)
        rows.append((*key, len(values), statistic, p_value, rejected, note))
    columns = [*MODEL, "n", "statistic", "p_value", "normal_rejected", "note"]
    return in_order(pd.DataFrame(rows, columns=columns))


def shapiro(values: Floats) -> tuple[float, float, str]:
    """W, p and an empty note; NaN, NaN and the reason where the test has no meaning."""
    if len(values) < 3:
        return NAN, NAN, f"n = {len(values)}: Shapiro-Wilk needs 3 values"
    if np.ptp(values) == 0:
        return NAN, NAN, "all values equal: no distribution to test"
    result = stats.shapiro(values)
    return float(result.statistic), float(result.pvalue), ""
