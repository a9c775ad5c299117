"""Lesion tables: detection sensitivity by lesion size, and false positives per case.

Both read ``lesions.csv`` (see ``brainmets.scoring.folders``) and go by its ``detected_iou``: the one-to-one rule of
``brainmets.scoring.one_to_one``, not the challenge's. A table without that column is refused. Neither drops a size,
a region or a case that has no lesion.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
from scipy import stats

from brainmets.vocabulary import REGIONS


@dataclass(frozen=True)
class SizeBin:
    """Lesions of at least ``low`` and less than ``high`` mm^3."""

    name: str
    low: float
    high: float

    @property
    def range(self) -> str:
        """The bin in words, in mm^3."""
        if math.isinf(self.high):
            return f"{self.low:g} mm^3 and more"
        return f"{self.low:g} to below {self.high:g} mm^3"


SIZE_BINS: tuple[SizeBin, ...] = (
    SizeBin("tiny", 0.0, 65.0),
    SizeBin("small", 65.0, 524.0),
    SizeBin("medium", 524.0, 4189.0),
    SizeBin("large", 4189.0, math.inf),
)
"""Balls of 5, 10 and 20 mm in diameter part the bins; 10 mm is RANO-BM's limit of measurable disease, and 5 mm its
limit on thin slices (Lin et al., Lancet Oncology 2015)."""

_SERIES = ["arm", "strategy"]


def detection_by_size(
    lesions: pd.DataFrame,
    *,
    bins: Sequence[SizeBin] = SIZE_BINS,
    regions: Sequence[str] = tuple(REGIONS),
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Detected share of reference lesions by volume.

    One row per arm, strategy, region (``regions`` and any further one in the table) and bin, those without a lesion
    included. Columns: arm, strategy, region, bin, volume (the bin in words), n, detected, sensitivity, low, high.
    ``low`` and ``high`` are the exact binomial (Clopper-Pearson) interval; for n = 0 sensitivity is missing and the
    interval is 0 to 1. No lesion rows give no rows. Raises ``ValueError`` for bins that overlap or leave a gap, or a
    reference lesion outside all of them.
    """
    _check_columns(lesions, [*_SERIES, "region", "kind", "volume_mm3", "detected_iou"])
    _check_bins(bins)
    reference = lesions[lesions["kind"] == "reference"]
    outside = reference[~reference["volume_mm3"].between(bins[0].low, bins[-1].high)]
    if len(outside):
        raise ValueError(f"volume_mm3: {outside['volume_mm3'].iloc[0]} lies in none of the bins")
    rows = []
    for key, own in _groups(lesions, reference, regions):
        for size in bins:
            within = own[(own["volume_mm3"] >= size.low) & (own["volume_mm3"] < size.high)]
            n, detected = len(within), int(within["detected_iou"].astype(bool).sum())
            share = detected / n if n else math.nan
            rows.append((*key, size.name, size.range, n, detected, share, *binomial_interval(detected, n, confidence)))
    columns = [*_SERIES, "region", "bin", "volume", "n", "detected", "sensitivity", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def false_positives_per_case(
    lesions: pd.DataFrame, cases: Iterable[str], *, regions: Sequence[str] = tuple(REGIONS), confidence: float = 0.95
) -> pd.DataFrame:
    """Predicted lesions paired with no reference lesion, per case; every one of ``cases`` counts, lesions or not.

    One row per arm, strategy and region (``regions`` and any further one in the table). Columns: arm, strategy,
    region, n_cases, false_positives, per_case, low, high (exact Poisson interval of the mean, Garwood 1936),
    cases_with_false_positives, most_in_one_case. Raises ``ValueError`` for no cases, a case named twice, or lesions
    of a case that is not among them.
    """
    _check_columns(lesions, [*_SERIES, "case", "region", "kind", "detected_iou"])
    names = [str(case) for case in cases]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"cases: {names} must name at least one case, each once")
    if stray := sorted(set(lesions["case"].astype(str)) - set(names)):
        raise ValueError(f"lesions of cases that are not in the list of cases: {', '.join(stray)}")
    false = lesions[(lesions["kind"] == "predicted") & ~lesions["detected_iou"].astype(bool)]
    rows = []
    for key, own in _groups(lesions, false, regions):
        counts = own["case"].astype(str).value_counts().reindex(names, fill_value=0)
        total, n = int(counts.sum()), len(names)
        low, high = (bound / n for bound in poisson_interval(total, confidence))
        rows.append((*key, n, total, total / n, low, high, int((counts > 0).sum()), int(counts.max())))
    columns = [*_SERIES, "region", "n_cases", "false_positives", "per_case", "low", "high"]
    return pd.DataFrame(rows, columns=[*columns, "cases_with_false_positives", "most_in_one_case"])


def binomial_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact (Clopper-Pearson 1934) interval of a share; 0 to 1 for n = 0.

    >>> [round(bound, 3) for bound in binomial_interval(8, 10)]
    [0.444, 0.975]
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes: {successes} must lie between 0 and n = {n}")
    if not n:
        return 0.0, 1.0
    interval = stats.binomtest(successes, n).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


def poisson_interval(count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact (Garwood 1936) interval of a Poisson mean, given one count."""
    tail = (1 - confidence) / 2
    low = float(stats.chi2.ppf(tail, 2 * count)) / 2 if count else 0.0
    return low, float(stats.chi2.ppf(1 - tail, 2 * count + 2)) / 2


def _groups(
    lesions: pd.DataFrame, chosen: pd.DataFrame, regions: Sequence[str]
) -> Iterator[tuple[tuple[str, str, str], pd.DataFrame]]:
    """(arm, strategy, region) of all ``lesions`` and of ``regions``, and the rows of ``chosen`` that it has."""
    series = lesions[_SERIES].drop_duplicates().itertuples(index=False, name=None)
    for (arm, strategy), region in itertools.product(series, dict.fromkeys([*regions, *lesions["region"]])):
        own = (chosen["arm"] == arm) & (chosen["strategy"] == strategy) & (chosen["region"] == region)
        yield (arm, strategy, region), chosen[own]


def _check_columns(table: pd.DataFrame, needed: list[str]) -> None:
    if absent := [column for column in needed if column not in table.columns]:
        raise ValueError(f"the lesion table lacks the columns {', '.join(absent)}: score the cases anew")


def _check_bins(bins: Sequence[SizeBin]) -> None:
    if not bins or any(size.low >= size.high for size in bins):
        raise ValueError(f"bins: {list(bins)} must each have low below high")
    for before, after in itertools.pairwise(bins):
        if before.high != after.low:
            raise ValueError(f"bins: {before.name} ends at {before.high:g} mm^3, {after.name} starts at {after.low:g}")
