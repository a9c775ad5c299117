"""Two sets of scores of the same cases side by side: five measures of each, and their paired differences.

Every measure is a sum over cases divided by another. Dice, lesion-wise Dice and lesion F1 are means over the cases
whose reference holds the region; ``lesions_found`` is the share of all lesions, and ``false_positives`` the number a
case, by the one-to-one rule, over every case. Intervals count patients. That of a difference is t's, of the ratio of
the patients' summed differences to what they are divided by (Cochran, Sampling Techniques, 3rd ed. (1977), chapter 6).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from brainmets.scoring import intervals
from brainmets.scoring.intervals import NO_INTERVAL, Interval, patients_of, sums_by
from brainmets.statistics.descriptive import share_interval, summarise
from brainmets.statistics.tables import with_reference
from brainmets.vocabulary import REGION_ORDER, ordered

MEANS = ("dice", "lesion_dice", "lesion_f1")
FOUND, FALSE = "lesions_found", "false_positives"
MEASURES = {
    "dice": "Dice",
    "lesion_dice": "Lesion-wise Dice",
    "lesion_f1": "Lesion F1",
    FOUND: "Lesions found",
    FALSE: "False positives a case",
}
"""Each measure with its heading."""


@dataclass(frozen=True)
class Measured:
    """One measure in one region: by case what is summed, ``part``, and what its sum is divided by, ``of``."""

    region: str
    measure: str
    part: pd.Series
    of: pd.Series

    @property
    def value(self) -> float:
        """The measure; NaN where there is nothing to divide by."""
        total = float(self.of.sum())
        return float(self.part.sum()) / total if total else math.nan

    def interval(self, patients: Mapping[str, str], confidence: float) -> Interval:
        """Its interval over patients, by what the measure is: a mean of shares, a share of lesions, or a rate."""
        if not float(self.of.sum()):
            return NO_INTERVAL
        whose = patients_of(self.part.index, patients)
        if self.measure in MEANS:
            summary, _ = summarise(self.part.to_numpy(float), whose, 1 - confidence, share_interval)
            return summary["ci_low"], summary["ci_high"]
        parts, totals = sums_by(whose, self.part), sums_by(whose, self.of)
        between = intervals.share_interval if self.measure == FOUND else intervals.rate_interval
        return between(parts, totals, confidence)

    def less(self, other: Measured, patients: Mapping[str, str], confidence: float) -> tuple[float, float, float]:
        """What it is less the other's, case by case, with its interval.

        Raises ``ValueError`` for another measure or region, and for unequal cases.
        """
        if (self.region, self.measure) != (other.region, other.measure):
            raise ValueError(f"{self.measure} of {self.region} beside {other.measure} of {other.region}")
        if not self.of.sort_index().equals(other.of.sort_index()):
            raise ValueError(f"{self.measure} of {self.region}: the two sides are not of the same cases and lesions")
        total = float(self.of.sum())
        if not total:
            return math.nan, *NO_INTERVAL
        change = (self.part - other.part).to_numpy(float)
        whose = patients_of(self.part.index, patients)
        low, high = intervals.mean_interval(sums_by(whose, change), sums_by(whose, self.of), confidence)
        return float(change.sum()) / total, low, high


def measured(scores: pd.DataFrame) -> Iterator[Measured]:
    """Every region's measures of one model's ``scores`` (``scores.csv``), in the order of regions and ``MEASURES``.

    A measure that no case has a value of is left out; one that only cases without the region have stays, of no case.
    """
    held = with_reference(scores)
    for region in ordered(scores["region"], REGION_ORDER):
        for metric in MEANS:
            if (part := _by_case(held, region, metric)).size or _by_case(scores, region, metric).size:
                yield Measured(region, metric, part, pd.Series(1.0, index=part.index))
        found, missed, false = (_by_case(scores, region, f"lesion_iou_{kind}") for kind in ("tp", "fn", "fp"))
        if found.size:
            yield Measured(region, FOUND, found, found + missed)
            yield Measured(region, FALSE, false, pd.Series(1.0, index=false.index))


def _by_case(scores: pd.DataFrame, region: str, metric: str) -> pd.Series:
    rows = scores[(scores["region"] == region) & (scores["metric"] == metric)]
    values = pd.Series(rows["value"].to_numpy(float), index=rows["case"].astype(str))
    return values[np.isfinite(values)].sort_index()
