"""What each model's scores look like: mean, spread, intervals, and whether they look normal.

Sources: t interval, any textbook; BCa bootstrap, Efron, J. Am. Stat. Assoc. 82 (1987) 171-185; Shapiro and Wilk,
Biometrika 52 (1965) 591-611.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from brainmets.statistics.tables import in_order

MODEL = ["arm", "strategy", "region", "metric"]
FEW_CASES = 5
"""Below this a bootstrap draws from so few distinct resamples that its interval says little."""

Floats = npt.NDArray[np.float64]


def generator(seed: int, *names: str) -> np.random.Generator:
    """A random generator of its own for every named quantity: adding a row elsewhere changes no other number."""
    return np.random.default_rng([seed, zlib.crc32("/".join(names).encode())])


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
        defined = np.isfinite(group["value"].to_numpy())
        values = group["value"].to_numpy()[defined]
        notes = []
        undefined, infinite = group["value"].isna(), np.isinf(group["value"])
        if undefined.any():
            notes.append(f"undefined and left out: {', '.join(group['case'][undefined])}")
        if infinite.any():
            notes.append(f"infinite and left out, which favours this model: {', '.join(group['case'][infinite])}")
        summary, remark = summarise(values, alpha, n_bootstrap, generator(seed, *map(str, key)))
        rows.append({**dict(zip(MODEL, key, strict=True)), **summary, "note": "; ".join([*notes, *remark])})
    return in_order(pd.DataFrame(rows))


def summarise(
    values: Floats, alpha: float, n_bootstrap: int, random: np.random.Generator
) -> tuple[dict[str, float], list[str]]:
    """Summary of finite ``values`` (shape (n,)) as in ``describe``, and remarks on what has no meaning at this n."""
    n = len(values)
    nan = float("nan")
    names = ("mean", "sd", "ci_low", "ci_high", "bca_low", "bca_high", "median", "q1", "q3")
    if n == 0:
        return {"n": 0, **dict.fromkeys(names, nan)}, ["no defined value"]
    mean = float(values.mean())
    q1, median, q3 = (float(value) for value in np.quantile(values, [0.25, 0.5, 0.75]))
    if n == 1:
        summary = (mean, nan, nan, nan, nan, nan, median, q1, q3)
        return {"n": 1, **dict(zip(names, summary, strict=True))}, ["one value has no spread: no sd, no interval"]
    if np.ptp(values) == 0:
        mean = float(values[0])  # a mean of equal values may be off in its last digit
        summary = (mean, 0.0, mean, mean, mean, mean, mean, mean, mean)
        return {"n": n, **dict(zip(names, summary, strict=True))}, ["all values equal: both intervals are that value"]
    sd = float(values.std(ddof=1))
    half = float(stats.t.ppf(1 - alpha / 2, n - 1)) * sd / np.sqrt(n)
    low, high, remarks = bootstrap_mean(values, alpha, n_bootstrap, random)
    summary = (mean, sd, mean - half, mean + half, low, high, median, q1, q3)
    return {"n": n, **dict(zip(names, summary, strict=True))}, remarks


def bootstrap_mean(
    values: Floats, alpha: float, n_bootstrap: int, random: np.random.Generator
) -> tuple[float, float, list[str]]:
    """BCa interval of the mean of at least two values that are not all equal, and remarks."""
    n = len(values)
    replicates = values[random.integers(0, n, (n_bootstrap, n))].mean(axis=1)
    jackknife = (values.sum() - values) / (n - 1)
    low, high, corrected = bca_interval(float(values.mean()), replicates, jackknife, alpha)
    remarks = [f"n = {n}: the bootstrap interval rests on few distinct resamples"] if n < FEW_CASES else []
    if not corrected:
        remarks.append("BCa correction undefined: percentile interval")
    return low, high, remarks


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
    shifted = [bias + float(stats.norm.ppf(level)) for level in levels]
    corrected = 0 < below < 1 and all(acceleration * shift < 1 for shift in shifted)
    if corrected:
        levels = [float(stats.norm.cdf(bias + shift / (1 - acceleration * shift))) for shift in shifted]
    low, high = np.quantile(replicates, levels)
    return float(low), float(high), corrected


def normality(scores: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """Shapiro-Wilk of every arm, strategy, region and metric.

    Returns arm, strategy, region, metric, n, statistic (W), p_value, normal_rejected (p below alpha; empty where
    untested), note. Needs three values that are not all equal; ``note`` says where that is not so.
    """
    rows = []
    for key, group in scores.groupby(MODEL, sort=False):
        values = group["value"].to_numpy()
        values = values[np.isfinite(values)]
        statistic, p_value, note = shapiro(values)
        rejected = "" if np.isnan(p_value) else str(p_value < alpha)
        rows.append(
            {
                **dict(zip(MODEL, key, strict=True)),
                "n": len(values),
                "statistic": statistic,
                "p_value": p_value,
                "normal_rejected": rejected,
                "note": note,
            }
        )
    return in_order(pd.DataFrame(rows))


def shapiro(values: Floats) -> tuple[float, float, str]:
    """W, p and an empty note; NaN, NaN and the reason where the test has no meaning."""
    if len(values) < 3:
        return float("nan"), float("nan"), f"n = {len(values)}: Shapiro-Wilk needs 3 values"
    if np.ptp(values) == 0:
        return float("nan"), float("nan"), "all values equal: no distribution to test"
    result = stats.shapiro(values)
    return float(result.statistic), float(result.pvalue), ""
