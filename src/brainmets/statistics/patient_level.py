"""The patient as the unit: were all of its lesions found, was any, and is one without lesions left alone.

At the frozen operating point (``operating_point.apply``), of held-out patients. A patient with several scans is one:
all of the lesions of all scans, and the highest score of all scans. Specificity and the area under the ROC curve need
patients without a lesion; where there are none they are refused, with the reason in the table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from brainmets.scoring.candidates import Detections
from brainmets.scoring.intervals import Interval, auroc_of_patients, clopper_pearson, patients_of
from brainmets.statistics.operating_point import Applied
from brainmets.vocabulary import Model

COLUMNS = ["arm", "strategy", "region", "measure", "patients", "count", "value", "low", "high", "note"]
MEASURES = {
    "all_found": "patients with lesions, all of which are found",
    "any_found": "patients with lesions, at least one of which is found",
    "specificity": "patients without a lesion, in whom nothing is accepted",
    "auroc": "pairs of a patient with and one without lesions, in which the first has the higher candidate",
}


def table(
    applied: Mapping[Model, Applied],
    detections: Mapping[Model, Detections],
    alpha: float,
    patients: Mapping[str, str],
) -> pd.DataFrame:
    """One row per model and each of ``MEASURES``, columns ``COLUMNS``.

    ``detections``: the same held-out ones that the points were applied to; of them come the highest scores, of
    candidates of the point's smallest volume or more (a patient without one has -inf). ``patients`` maps every case to
    its patient. ``count`` of ``patients`` is the value, with Clopper and Pearson's interval at 1 - ``alpha``; of the
    area under the curve ``patients`` are all of both kinds, there is no ``count``, and the interval is that of
    ``intervals.auroc_of_patients``. A value that does not exist is missing, and ``note`` says why. Raises
    ``ValueError`` for detections of other cases.
    """
    rows = [row for model, one in applied.items() for row in _rows(one, detections[model], alpha, patients)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _rows(applied: Applied, detections: Detections, alpha: float, patients: Mapping[str, str]) -> list[list[object]]:
    if set(detections.cases) != set(applied.cases):
        raise ValueError("detections: of other cases than those that the operating point was applied to")
    whose = dict(zip(applied.cases, patients_of(applied.cases, patients), strict=True))
    names = sorted(set(whose.values()))
    found = applied.lesions["found"].astype(float).groupby(applied.lesions["case"].map(whose)).agg(["size", "sum"])
    free = [name for name in names if name not in found.index]
    called = set(applied.false["case"].map(whose))
    none = "" if len(found) else f"no lesion of {applied.aim.region} in any held-out patient"
    no_free = "" if free else "no lesion-free patient among the held-out ones: nothing can be said"
    quiet = sum(name not in called for name in free)
    return [
        _share(applied, "all_found", int((found["sum"] == found["size"]).sum()), len(found), alpha, none),
        _share(applied, "any_found", int((found["sum"] > 0).sum()), len(found), alpha, none),
        _share(applied, "specificity", quiet, len(free), alpha, no_free),
        _area(applied, _highest(applied, detections, whose).reindex(names), free, alpha, no_free or none),
    ]


def _highest(applied: Applied, detections: Detections, whose: Mapping[str, str]) -> pd.Series:
    own = detections.candidates
    own = own[(own["region"] == applied.aim.region) & (own["volume_mm3"] >= applied.point.smallest_mm3)]
    return own["score"].astype(float).groupby(own["case"].map(whose)).max()


def _share(applied: Applied, measure: str, count: int, n: int, alpha: float, refused: str) -> list[object]:
    if refused:
        return [*_of(applied, measure), n, None, math.nan, math.nan, math.nan, refused]
    return [*_of(applied, measure), n, count, count / n, *clopper_pearson(count, n, 1 - alpha), applied.point.note]


def _area(applied: Applied, highest: pd.Series, free: list[str], alpha: float, refused: str) -> list[object]:
    if refused:
        return [*_of(applied, "auroc"), len(highest), None, math.nan, math.nan, math.nan, refused]
    scores = highest.fillna(-math.inf)
    without = scores.index.isin(free)
    ill, well = (np.asarray(scores[side], np.float64) for side in (~without, without))
    area, interval = auroc_of_patients(ill, well, 1 - alpha)
    return [*_of(applied, "auroc"), len(scores), None, area, *interval, _few(interval)]


def _of(applied: Applied, measure: str) -> list[object]:
    return [applied.point.arm, applied.point.strategy, applied.aim.region, measure]


def _few(interval: Interval) -> str:
    return "one patient of a kind: the interval is open" if interval == (0.0, 1.0) else ""
