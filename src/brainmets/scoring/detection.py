"""Lesion tables: detection sensitivity by lesion size, and false positives per case.

Both read ``lesions.csv`` (see ``brainmets.scoring.folders``) and go by its ``detected_iou``: the one-to-one rule of
``brainmets.scoring.one_to_one``, not the challenge's. A table without that column is refused. Neither drops a size,
a region or a case that has no lesion. Lesions of one patient are alike: every interval counts patients
(``brainmets.scoring.intervals``).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from brainmets.scoring.intervals import patients_of, rate_interval, share_interval, sums_by
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
    patients: Mapping[str, str] | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Detected share of reference lesions by volume.

    ``patients`` maps every case to its patient; without it each case is a patient of its own.

    One row per arm, strategy, region (``regions`` and any further one in the table) and bin, those without a lesion
    included. Columns: arm, strategy, region, bin, volume (the bin in words), patients (that have such a lesion), n,
    detected, sensitivity, low, high. ``low`` and ``high`` are ``intervals.share_interval``; for n = 0 sensitivity is
    missing and the interval is 0 to 1, as it is for the lesions of one patient. No lesion rows give no rows. Raises
    ``ValueError`` for bins that overlap or leave a gap, a reference lesion outside all of them, or a case that
    ``patients`` lacks.
    """
    _check_columns(lesions, [*_SERIES, "case", "region", "kind", "volume_mm3", "detected_iou"])
    _check_bins(bins)
    reference = lesions[lesions["kind"] == "reference"]
    outside = reference[~reference["volume_mm3"].between(bins[0].low, bins[-1].high)]
    if len(outside):
        raise ValueError(f"volume_mm3: {outside['volume_mm3'].iloc[0]} lies in none of the bins")
    rows = []
    for key, own in _groups(lesions, reference, regions):
        for size in bins:
            within = own[(own["volume_mm3"] >= size.low) & (own["volume_mm3"] < size.high)]
            whose, found = patients_of(within["case"], patients or {}), within["detected_iou"].to_numpy(bool)
            n, detected = len(within), int(found.sum())
            share = detected / n if n else math.nan
            interval = share_interval(sums_by(whose, found), sums_by(whose, [1] * n), confidence)
            rows.append((*key, size.name, size.range, len(set(whose)), n, detected, share, *interval))
    columns = [*_SERIES, "region", "bin", "volume", "patients", "n", "detected", "sensitivity", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def false_positives_per_case(
    lesions: pd.DataFrame,
    cases: Iterable[str],
    *,
    regions: Sequence[str] = tuple(REGIONS),
    patients: Mapping[str, str] | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Predicted lesions paired with no reference lesion, per case; every one of ``cases`` counts, lesions or not.

    ``patients`` maps every case to its patient; without it each case is a patient of its own.

    One row per arm, strategy and region (``regions`` and any further one in the table). Columns: arm, strategy,
    region, n_cases, patients, false_positives, per_case, low, high (``intervals.rate_interval``),
    cases_with_false_positives, most_in_one_case. Raises ``ValueError`` for no cases, a case named twice or that
    ``patients`` lacks, or lesions of a case that is not among them.
    """
    _check_columns(lesions, [*_SERIES, "case", "region", "kind", "detected_iou"])
    names = [str(case) for case in cases]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"cases: {names} must name at least one case, each once")
    if stray := sorted(set(lesions["case"].astype(str)) - set(names)):
        raise ValueError(f"lesions of cases that are not in the list of cases: {', '.join(stray)}")
    false = lesions[(lesions["kind"] == "predicted") & ~lesions["detected_iou"].astype(bool)]
    whose = patients_of(names, patients or {})
    scans = sums_by(whose, [1] * len(names))
    rows = []
    for key, own in _groups(lesions, false, regions):
        counts = own["case"].astype(str).value_counts().reindex(names, fill_value=0)
        total, n = int(counts.sum()), len(names)
        interval = rate_interval(sums_by(whose, counts), scans, confidence)
        rows.append((*key, n, len(scans), total, total / n, *interval, int((counts > 0).sum()), int(counts.max())))
    columns = [*_SERIES, "region", "n_cases", "patients", "false_positives", "per_case", "low", "high"]
    return pd.DataFrame(rows, columns=[*columns, "cases_with_false_positives", "most_in_one_case"])


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
