"""What each model's scores look like: mean with interval, spread, counts, and whether they look normal.

Means run over the cases whose reference holds the region (``tables.with_reference``); the others are counted beside
every mean, and ``false_volumes`` says what was predicted there. Scans of one patient are alike: the intervals count
patients.

Sources: t interval on a transformed scale by the delta method, Oehlert, Am. Stat. 46 (1992) 27-29; Shapiro and Wilk,
Biometrika 52 (1965) 591-611.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit

from brainmets.scoring.intervals import mean_interval, patients_of, sums_by
from brainmets.statistics.tables import PRESENCE, in_order, lacks_reference, presence
from brainmets.statistics.tests import NAN, Floats
from brainmets.vocabulary import RESECTION_CAVITY, better

MODEL = ["arm", "strategy", "region", "metric"]
SUMMARY = ("n", "mean", "sd", "ci_low", "ci_high", "median", "q1", "q3")
COUNTS = [f"n_{name}" for name in PRESENCE]
FALSE_VOLUME_COLUMNS = ["arm", "strategy", "region", "n_cases", "n_predicted", "mean_ml", "largest_ml", "largest_in"]


def describe(scores: pd.DataFrame, alpha: float, patients: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Summary of every arm, strategy, region and metric.

    ``patients`` maps every case to its patient; without it each case is a patient of its own.

    Returns the columns arm, strategy, region, metric; n, the values that the mean holds (finite, and of a case whose
    reference has the region where the metric needs one); of all cases, n_both (reference and prediction hold the
    region), n_reference_only (it was missed), n_prediction_only (invented) and n_neither, empty where the table holds
    no volumes; mean, sd (n - 1), ci_low and ci_high (interval of the mean at 1 - alpha, never outside the metric's
    range: ``share_interval`` or ``amount_interval``), median, q1, q3 (linear quantiles), note; all in the metric's
    unit. Where a number has no meaning it is empty and ``note`` says why; ``note`` also names the cases whose value is
    undefined or infinite, and says of how many patients the cases are where these are fewer, and that the resection
    cavity is described and not tested.
    """
    scores = scores.reset_index(drop=True)
    without, counts = lacks_reference(scores), _counts(scores)
    rows = []
    for key, every in scores.groupby(MODEL, sort=False):
        group = every[~without[every.index]].sort_values("case")
        undefined, infinite = group["value"].isna(), np.isinf(group["value"])
        notes = []
        if group.empty:
            notes.append("no case has this region in its reference")
        if undefined.any():
            notes.append(f"undefined and left out: {', '.join(group['case'][undefined])}")
        if infinite.any():
            notes.append(f"infinite and left out, which favours this model: {', '.join(group['case'][infinite])}")
        if key[2] == RESECTION_CAVITY:
            notes.append("no network has an output for RC: described and not tested")
        finite = group[np.isfinite(group["value"])]
        whose = patients_of(finite["case"], patients or {})
        summary, remarks = summarise(finite["value"].to_numpy(), whose, alpha, share=better(str(key[3])) == "greater")
        remarks = remarks if len(group) else []
        rows.append({**dict(zip(MODEL, key, strict=True)), **summary, "note": "; ".join([*notes, *remarks])})
    table = pd.DataFrame(rows).merge(counts, on=MODEL[:3], how="left")
    columns = [*MODEL, "n", *COUNTS, *SUMMARY[1:], "note"]
    return in_order(table.astype(dict.fromkeys(COUNTS, "Int64"))[columns])


def _counts(scores: pd.DataFrame) -> pd.DataFrame:
    """Cases of each arm, strategy and region by which masks hold the region; columns MODEL's first three, COUNTS."""
    found = presence(scores)
    table = found.groupby(MODEL[:3], sort=False)["presence"].value_counts().unstack(fill_value=0)
    return table.reindex(columns=list(PRESENCE), fill_value=0).add_prefix("n_").reset_index()


def false_volumes(scores: pd.DataFrame) -> pd.DataFrame:
    """What each model predicts where there is nothing: the judgement of the cases that no mean of overlap holds.

    One row per arm, strategy and region that some case's reference lacks, with ``FALSE_VOLUME_COLUMNS``: n_cases
    without the region in their reference, n_predicted of them with a prediction of it, the mean volume predicted over
    these n_cases and the largest in mL, and its case (empty where nothing was predicted). No rows without volumes.
    """
    found = presence(scores)
    empty = found[found["presence"].isin(["prediction_only", "neither"])]
    volumes = scores.loc[scores["metric"] == "predicted_volume", [*MODEL[:3], "case", "value"]]
    rows = []
    for key, group in empty.merge(volumes, on=[*MODEL[:3], "case"]).groupby(MODEL[:3], sort=False):
        worst = group.sort_values(["value", "case"], ascending=[False, True]).iloc[0]
        named = worst["case"] if worst["value"] > 0 else ""
        n_predicted = int((group["value"] > 0).sum())
        rows.append((*key, len(group), n_predicted, group["value"].mean(), worst["value"], named))
    return in_order(pd.DataFrame(rows, columns=FALSE_VOLUME_COLUMNS))


def summarise(
    values: Floats, patients: Sequence[str], alpha: float, share: bool
) -> tuple[dict[str, float], list[str]]:
    """Summary of finite ``values`` (shape (n,), of ``patients``) as in ``describe``, and remarks.

    ``share`` says whether the values lie between 0 and 1; others are not negative.
    """
    n, n_patients = len(values), len(set(patients))
    if n == 0:
        return {"n": 0, **dict.fromkeys(SUMMARY[1:], NAN)}, ["no defined value"]
    mean = float(values.mean())
    q1, median, q3 = (float(value) for value in np.quantile(values, [0.25, 0.5, 0.75]))
    of_patients = f"{n_patients} patients" if n_patients > 1 else "one patient, who alone gives no interval"
    remarks = [f"{n} cases of {of_patients}"] if n_patients < n else []
    if n == 1:
        summary = [n, mean, NAN, NAN, NAN, median, q1, q3]
        remarks = ["one value has no spread: no sd, no interval"]
    elif np.ptp(values) == 0:
        mean = float(values[0])  # a mean of equal values may be off in its last digit
        summary = [n, mean, 0.0, *[mean] * 5]
        remarks.append("all values equal: the interval is that value")
    else:
        low, high = (share_interval if share else amount_interval)(values, patients, alpha)
        summary = [n, mean, float(values.std(ddof=1)), low, high, median, q1, q3]
    return dict(zip(SUMMARY, summary, strict=True)), remarks


def share_interval(values: Floats, patients: Sequence[str], alpha: float) -> tuple[float, float]:
    """Interval at 1 - alpha of the mean of shares between 0 and 1 (shape (n,), of ``patients``; not all equal).

    The t interval on the logit scale, turned back: logit(m) -+ t s / (m (1 - m)), with s the mean's standard error. It
    cannot leave 0 to 1, as the plain t interval does in half of the samples of five values around 0.9. NaN for one
    patient.

    >>> low, high = share_interval(np.array([0.8, 1.0]), ["a", "b"], alpha=0.05)
    >>> round(low, 3), round(high, 3)
    (0.0, 1.0)
    """
    mean = float(np.clip(values, 0, 1).mean())
    half = _half_width(values, patients, alpha) / (mean * (1 - mean))
    centre = np.log(mean / (1 - mean))
    return float(expit(centre - half)), float(expit(centre + half))


def amount_interval(values: Floats, patients: Sequence[str], alpha: float) -> tuple[float, float]:
    """Interval at 1 - alpha of the mean of what cannot be negative (mm, mL, counts; shape (n,), of ``patients``).

    The t interval, cut at 0: no mean lies below, so that the cut costs no coverage. NaN for one patient.

    >>> low, high = amount_interval(np.array([1.0, 3.0]), ["a", "b"], alpha=0.05)
    >>> round(low, 3), round(high, 3)
    (0.0, 14.706)
    """
    mean, half = float(values.mean()), _half_width(values, patients, alpha)
    return float(np.maximum(0.0, mean - half)), mean + half


def _half_width(values: Floats, patients: Sequence[str], alpha: float) -> float:
    low, high = mean_interval(sums_by(patients, values), sums_by(patients, np.ones(len(values))), 1 - alpha)
    return (high - low) / 2


def normality(scores: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """Shapiro-Wilk of every arm, strategy, region and metric; give it ``tables.with_reference``'s rows.

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
