"""What each model's scores look like: mean, spread, intervals, and whether they look normal.

Scans of one patient are alike: the intervals count patients. Sources: t interval, ``scoring.intervals``; BCa
bootstrap, Efron, J. Am. Stat. Assoc. 82 (1987) 171-185; Shapiro and Wilk, Biometrika 52 (1965) 591-611.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from brainmets.scoring.intervals import mean_interval, patients_of, sums_by
from brainmets.statistics.tables import in_order
from brainmets.statistics.tests import NAN, Floats, bootstrap_mean, generator
from brainmets.vocabulary import RESECTION_CAVITY

MODEL = ["arm", "strategy", "region", "metric"]
SUMMARY = ("n", "mean", "sd", "ci_low", "ci_high", "bca_low", "bca_high", "median", "q1", "q3")


def describe(
    scores: pd.DataFrame, alpha: float, n_bootstrap: int, seed: int, patients: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Summary of every arm, strategy, region and metric.

    ``patients`` maps every case to its patient; without it each case is a patient of its own.

    Returns the columns arm, strategy, region, metric, n (finite values), mean, sd (n - 1), ci_low and ci_high (t
    interval of the mean at 1 - alpha), bca_low and bca_high (BCa bootstrap interval of the mean), median, q1, q3
    (linear quantiles), note; all in the metric's unit. Both intervals count patients. Where a number has no meaning
    it is empty and ``note`` says why; ``note`` also names the cases whose value is undefined or infinite, says how
    many patients the cases are of where they are fewer, and that the resection cavity is described and not tested.
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
        if group["region"].iloc[0] == RESECTION_CAVITY:
            notes.append("no network has an output for RC: described and not tested")
        finite = group[np.isfinite(group["value"])]
        whose = patients_of(finite["case"], patients or {})
        random = generator(seed, *map(str, key))
        summary, remarks = summarise(finite["value"].to_numpy(), whose, alpha, n_bootstrap, random)
        rows.append({**dict(zip(MODEL, key, strict=True)), **summary, "note": "; ".join([*notes, *remarks])})
    return in_order(pd.DataFrame(rows))


def summarise(
    values: Floats, patients: Sequence[str], alpha: float, n_bootstrap: int, random: np.random.Generator
) -> tuple[dict[str, float], list[str]]:
    """Summary of finite ``values`` (shape (n,), one per entry of ``patients``) as in ``describe``, and remarks."""
    n, n_patients = len(values), len(set(patients))
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
    elif n_patients == 1:
        summary = [n, mean, float(values.std(ddof=1)), NAN, NAN, NAN, NAN, median, q1, q3]
        remarks = [f"{n} cases of one patient: no interval"]
    else:
        sums, counts = sums_by(patients, values), sums_by(patients, np.ones(n))
        low, high, remarks = bootstrap_mean(sums, counts, alpha, n_bootstrap, random)
        of_t = mean_interval(sums, counts, 1 - alpha)
        summary = [n, mean, float(values.std(ddof=1)), *of_t, low, high, median, q1, q3]
        if n_patients < n:
            remarks = [f"{n} cases of {n_patients} patients", *remarks]
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
