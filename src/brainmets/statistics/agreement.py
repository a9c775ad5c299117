"""Agreement of predicted with reference volumes, and detection of lesions by their size, for every model.

Source of the limits: Bland and Altman, Lancet 327 (1986) 307-310, and Stat. Methods Med. Res. 8 (1999) 135-160; of
their exact intervals: Carkeet, Optom. Vis. Sci. 92 (2015) e71-e80.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from brainmets.scoring.intervals import mean_interval, patients_of, sums_by
from brainmets.statistics.tables import in_order, models, values
from brainmets.vocabulary import REGION_ORDER, ordered

AGREEMENT_COLUMNS = [
    "arm", "strategy", "region", "n", "bias", "bias_low", "bias_high", "sd", "lower_limit", "lower_limit_low",
    "lower_limit_high", "upper_limit", "upper_limit_low", "upper_limit_high", "trend", "trend_p", "note",
]  # fmt: skip
DETECTION_KEY = ["arm", "strategy", "region"]


def volume_pairs(scores: pd.DataFrame) -> pd.DataFrame:
    """Both volumes of every case: arm, strategy, region, case, reference, predicted, mean, difference, all in mL.

    ``difference`` is predicted minus reference. Cases where one volume is undefined have NaN. A table without rows
    where the scores hold no volumes.
    """
    parts = []
    for region in ordered(scores["region"], REGION_ORDER):
        reference, predicted = (values(scores, f"{kind}_volume", region) for kind in ("reference", "predicted"))
        for arm, strategy in models(scores):
            pair = pd.DataFrame({"reference": reference[(arm, strategy)], "predicted": predicted[(arm, strategy)]})
            parts.append(pair.reset_index().assign(arm=arm, strategy=strategy, region=region))
    table = pd.concat(parts, ignore_index=True)
    table["mean"] = (table["reference"] + table["predicted"]) / 2
    table["difference"] = table["predicted"] - table["reference"]
    columns = ["arm", "strategy", "region", "case", "reference", "predicted", "mean", "difference"]
    return table.dropna(subset=["reference", "predicted"], how="all")[columns].reset_index(drop=True)


def bland_altman(pairs: pd.DataFrame, alpha: float, patients: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Bland-Altman of ``volume_pairs`` per arm, strategy and region; columns ``AGREEMENT_COLUMNS``, volumes in mL.

    bias = mean of predicted minus reference, limits = bias -+ z sd with z of 1 - alpha; intervals at 1 - alpha by t
    for the bias and by the noncentral t for the limits, exact for normal differences. ``trend`` is Spearman's
    correlation of difference with mean: far from 0, the limits do not hold for all sizes. Without two cases there are
    no limits, without three no trend; ``note`` says so.

    ``patients`` maps every case to its patient (without it each case is its own): the bias's interval counts patients.
    The limits describe single scans; where there are fewer patients than cases, their intervals and the trend have no
    correction for that, and ``note`` says so.
    """
    rows = []
    for key, group in pairs.groupby(DETECTION_KEY, sort=False):
        undefined = group.loc[group["difference"].isna(), "case"]
        group = group.dropna(subset=["difference"])
        notes = [f"undefined volume in {', '.join(undefined)}"] if len(undefined) else []
        row: dict[str, object] = {**dict(zip(DETECTION_KEY, key, strict=True)), "n": len(group)}
        difference = group["difference"].to_numpy(float)
        if len(group):
            row["bias"] = float(difference.mean())
        if len(group) < 2:
            notes.append(f"{len(group)} case(s): no limits of agreement")
        else:
            whose = patients_of(group["case"], patients or {})
            row |= limits(difference, whose, alpha)
            if len(set(whose)) < len(whose):
                fewer = f"{len(whose)} cases of {len(set(whose))} patients"
                notes.append(f"{fewer}: the limits' intervals and the trend take cases as independent")
        if len(group) < 3:
            notes.append("trend needs three cases")
        elif np.ptp(difference) == 0 or np.ptp(group["mean"]) == 0:
            notes.append("equal values: no trend")
        else:
            trend = stats.spearmanr(group["mean"], difference)
            row |= {"trend": float(trend.statistic), "trend_p": float(trend.pvalue)}
        rows.append({**row, "note": "; ".join(notes)})
    table = pd.DataFrame(rows, columns=AGREEMENT_COLUMNS)
    return in_order(table) if len(table) else table


def limits(difference: np.ndarray, patients: Sequence[str], alpha: float) -> dict[str, float]:
    """Bias, sd and limits of at least two differences (one per entry of ``patients``) with their intervals."""
    n, bias, sd = len(difference), float(difference.mean()), float(difference.std(ddof=1))
    z, error = float(stats.norm.ppf(1 - alpha / 2)), sd / np.sqrt(n)
    low, high = mean_interval(sums_by(patients, difference), sums_by(patients, np.ones(n)), 1 - alpha)
    near, far = stats.nct.ppf([alpha / 2, 1 - alpha / 2], n - 1, z * np.sqrt(n)) * error
    found = {"sd": sd, "bias_low": low, "bias_high": high}
    found |= {"lower_limit": bias - z * sd, "lower_limit_low": bias - far, "lower_limit_high": bias - near}
    found |= {"upper_limit": bias + z * sd, "upper_limit_low": bias + near, "upper_limit_high": bias + far}
    return {name: float(value) for name, value in found.items()}
