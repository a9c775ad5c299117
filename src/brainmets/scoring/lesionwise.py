"""Lesion-wise scores under the two definitions that the BraTS metastases challenges have used.

Both are written from the challenges' published rules; ``docs/metrics.md`` gives sources, and where the two disagree.

* ``brats_2023``: reference lesions are 26-connected components, united where they touch after one dilation by the
  18-neighbourhood; every predicted component that the dilated lesion touches is its match, all of them united;
  reference lesions of 2 mm^3 or less do not count; a missed or false lesion scores Dice 0 and HD95 374 mm. HD95 is
  the area-weighted one of surface elements.
* ``brats_2026``: 26-connected components, matched one to one so that the sum of Dice is largest; means over
  reference lesions of at least 27 mm^3 and false positives; a missed or false lesion scores 0, and 373 mm. HD95 and
  NSD are those of border voxels, unweighted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from brainmets.nifti import Spacing
from brainmets.scoring.components import Definition, LesionCounts
from brainmets.scoring.emptiness import LESION_WISE, empty_value
from brainmets.scoring.metrics import SurfacePair
from brainmets.scoring.surface import Floats, Ints, Surface, SurfaceDistances, restricted, restricted_percentile

UNITS: dict[str, str] = {
    "lesion_dice": "1",
    "lesion_hd95": "mm",
    "lesion_nsd": "1",
    "lesion_tp": "count",
    "lesion_fp": "count",
    "lesion_fn": "count",
    "lesion_f1": "1",
    **{
        f"lesion_{size}_{name}": unit
        for size in ("large", "small")
        for name, unit in (("tp", "count"), ("fp", "count"), ("fn", "count"), ("f1", "1"))
    },
}

IGNORED_MM3 = 2.0  # brats_2023: reference lesions up to this volume do not count
PENALTY_2023_MM = 374.0
LARGE_MM3 = 27.0  # brats_2026: from this volume a reference lesion is large
DETECTED_DICE = 0.2  # brats_2026: from this Dice a matched lesion is detected
PENALTY_2026_MM = 373.0


@dataclass(frozen=True)
class LesionScores:
    """What a definition says of one region.

    ``values``: metric (a key of ``UNITS``) to value. ``excluded``: metric to the reason why it has no value. The
    arrays run over reference lesion numbers, index 0 unused: ``matches`` holds the predicted lesions that are each
    one's match, ``dice`` its Dice with them (0 where missed), ``detected`` whether the definition calls it found.
    """

    values: dict[str, float]
    excluded: dict[str, str]
    matches: list[Ints]
    dice: Floats
    detected: npt.NDArray[np.bool_]


def score_brats_2023(counts: LesionCounts, surfaces: SurfacePair, spacing: Spacing) -> LesionScores:
    """Score one region under brats_2023; ``surfaces`` are the region's surface elements."""
    n_reference, n_predicted = len(counts.reference_mm3) - 1, len(counts.predicted_mm3) - 1
    matches = _grouped(counts.touching, n_reference)
    dice = np.array([counts.dice(lesion, found) if len(found) else 0.0 for lesion, found in enumerate(matches)])
    detected = np.array([len(found) > 0 for found in matches])
    counted = counts.reference_mm3 > IGNORED_MM3
    counted[0] = False
    false = n_predicted - len(np.unique(counts.touching[:, 1]))
    found, missed = int((counted & detected).sum()), int((counted & ~detected).sum())
    values: dict[str, float] = {"lesion_tp": found, "lesion_fp": false, "lesion_fn": missed}
    if found + missed + false:
        pairs = _PairDistances(surfaces, spacing, n_reference, n_predicted)
        hd95 = [pairs.hd95(lesion, matches[lesion]) for lesion in np.flatnonzero(counted & detected).tolist()]
        n = found + missed + false
        values |= {
            "lesion_dice": dice[counted].sum() / n,
            "lesion_hd95": (sum(hd95) + (missed + false) * PENALTY_2023_MM) / n,
            "lesion_f1": _f1(found, false, missed),
        }
    else:
        values |= {metric: _empty("brats_2023", metric) for metric in ("lesion_dice", "lesion_hd95", "lesion_f1")}
    return LesionScores(values, {}, matches, dice, detected)


def score_brats_2026(counts: LesionCounts, reference: Surface, prediction: Surface, spacing: Spacing) -> LesionScores:
    """Score one region under brats_2026; ``reference`` and ``prediction`` are the region's border voxels.

    That definition's scorer reads arrays as (z, y, x) and spacing as (x, y, z), and so exchanges the first and the
    last voxel side. Its printed values can only be met by doing the same; they are right where both sides are equal.
    """
    spacing = (spacing[2], spacing[1], spacing[0])
    n_reference, n_predicted = len(counts.reference_mm3) - 1, len(counts.predicted_mm3) - 1
    dice = np.zeros(n_reference + 1)
    matches = [np.zeros(0, np.int64) for _ in range(n_reference + 1)]
    for lesion, predicted, value in _best_matching(counts):
        matches[lesion] = np.array([predicted])
        dice[lesion] = value
    matched = dice > 0
    detected = dice >= DETECTED_DICE
    large = counts.reference_mm3 >= LARGE_MM3
    small = ~large
    large[0] = small[0] = False
    tp = int(matched.sum())
    false, missed = n_predicted - tp, n_reference - tp
    values: dict[str, float] = {"lesion_tp": tp, "lesion_fp": false, "lesion_fn": missed}
    nothing = not n_reference and not n_predicted
    values["lesion_f1"] = _empty("brats_2026", "lesion_f1") if nothing else _f1(tp, false, missed)
    excluded: dict[str, str] = {}
    for size, members in (("large", large), ("small", small)):
        names = [f"lesion_{size}_{name}" for name in ("tp", "fp", "fn", "f1")]
        if members.any():
            hits, misses = int((members & detected).sum()), int((members & ~detected).sum())
            values |= dict(zip(names, (hits, false, misses, _f1(hits, false, misses)), strict=True))
        else:
            excluded |= dict.fromkeys(names, f"the reference has no {size} lesion ({LARGE_MM3:g} mm^3 parts them)")
    means = ("lesion_dice", "lesion_hd95", "lesion_nsd")
    if large.any():
        paired = np.flatnonzero(large & matched)
        partners = [int(matches[lesion][0]) for lesion in paired]
        # all pairs are measured at once, without the lesions that are in none
        reference = reference.of(np.flatnonzero(np.isin(reference.lesions, paired)))
        prediction = prediction.of(np.flatnonzero(np.isin(prediction.lesions, partners)))
        surfaces = SurfacePair.measure(reference, prediction, spacing)
        pairs = _PairDistances(surfaces, spacing, n_reference, n_predicted)
        both = [pairs.unweighted(lesion, matches[lesion]) for lesion in paired.tolist()]
        n = int(large.sum()) + false
        penalised = n - len(both)
        values |= {
            "lesion_dice": dice[large].sum() / n,
            "lesion_hd95": (sum(hd95 for hd95, _ in both) + penalised * PENALTY_2026_MM) / n,
            "lesion_nsd": sum(nsd for _, nsd in both) / n,
        }
    else:
        reason = f"the reference has no lesion of {LARGE_MM3:g} mm^3 or more"
        excluded |= dict.fromkeys(means, reason)
    return LesionScores(values, excluded, matches, dice, detected)


def _best_matching(counts: LesionCounts) -> list[tuple[int, int, float]]:
    """One-to-one pairs (reference, predicted, Dice) of overlapping lesions with the largest sum of Dice."""
    if not len(counts.pairs):
        return []
    rows, row = np.unique(counts.pairs[:, 0], return_inverse=True)
    columns, column = np.unique(counts.pairs[:, 1], return_inverse=True)
    both = 2 * counts.shared * counts.voxel_mm3
    value = both / (counts.reference_mm3[counts.pairs[:, 0]] + counts.predicted_mm3[counts.pairs[:, 1]])
    # a pair without overlap costs a little more than 1, as in panoptica, whose matching the challenge uses
    cost = np.full((len(rows), len(columns)), 1.0 + 1e-6)
    cost[row, column] = 1.0 - value
    dice = np.zeros(cost.shape)
    dice[row, column] = value
    return [
        (int(rows[i]), int(columns[j]), float(dice[i, j]))
        for i, j in zip(*linear_sum_assignment(cost), strict=True)
        if dice[i, j] > 0
    ]


_Way = tuple[Surface, Ints, Surface, Ints, SurfaceDistances]


class _PairDistances:
    """Scores of one reference lesion and its match, out of the surface distances of the whole region."""

    def __init__(self, surfaces: SurfacePair, spacing: Spacing, n_reference: int, n_predicted: int) -> None:
        self._surfaces = surfaces
        self._spacing = spacing
        self._of_reference = _grouped_points(surfaces.reference.lesions, n_reference)
        self._of_prediction = _grouped_points(surfaces.prediction.lesions, n_predicted)

    def hd95(self, lesion: int, predicted: Ints) -> float:
        """Area-weighted symmetric 95th percentile in mm."""
        return max(restricted_percentile(*way, self._spacing, 95) for way in self._ways(lesion, predicted))

    def unweighted(self, lesion: int, predicted: Ints) -> tuple[float, float]:
        """95th percentile of both directions' distances pooled, in mm, and NSD at the smallest voxel side."""
        forward, backward = (restricted(*way, self._spacing) for way in self._ways(lesion, predicted))
        tolerance = min(self._spacing)
        nsd = (np.mean(forward <= tolerance) + np.mean(backward <= tolerance)) / 2
        return float(np.percentile(np.concatenate([forward, backward]), 95)), float(nsd)

    def _ways(self, lesion: int, predicted: Ints) -> tuple[_Way, _Way]:
        """From the reference lesion to its match and back: what ``restricted`` takes."""
        first = self._of_reference[lesion]
        second = np.concatenate([self._of_prediction[number] for number in predicted])
        reference, prediction = self._surfaces.reference, self._surfaces.prediction
        return (
            (reference, first, prediction, second, self._surfaces.to_prediction),
            (prediction, second, reference, first, self._surfaces.to_reference),
        )


def _grouped(pairs: Ints, n: int) -> list[Ints]:
    """The second numbers of ``pairs`` by first number, 0 to ``n``."""
    ordered = pairs[np.argsort(pairs[:, 0], kind="stable")]
    return np.split(ordered[:, 1], np.searchsorted(ordered[:, 0], np.arange(1, n + 1)))


def _grouped_points(lesions: Ints, n: int) -> list[Ints]:
    """Indices of a surface's points by lesion number, 0 to ``n``."""
    order = np.argsort(lesions, kind="stable")
    return np.split(order, np.searchsorted(lesions[order], np.arange(1, n + 1)))


def _f1(tp: int, fp: int, fn: int) -> float:
    return 2 * tp / (2 * tp + fp + fn)


def _empty(definition: Definition, metric: str) -> float:
    value = empty_value(LESION_WISE[definition], metric, "both_empty", diagonal=0.0)
    assert value is not None
    return value
