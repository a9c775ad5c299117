"""The lesions of a region: how they are separated, matched and scored, under two definitions.

Both are written from the challenges' published rules; ``docs/metrics.md`` gives sources, and where the two disagree.

* ``brats_2023``: reference lesions are 26-connected components, united where they touch after one dilation by the
  18-neighbourhood; every predicted component that the dilated lesion touches is its match, all of them united;
  reference lesions of 2 mm^3 or less do not count; a missed or false lesion scores Dice 0 and HD95 374 mm. HD95 is
  the area-weighted one of surface elements.
* ``brats_2026``: 26-connected components, matched one to one so that the sum of Dice is largest; means over
  reference lesions of at least 27 mm^3 and false positives; a missed or false lesion scores 0, and 373 mm. HD95 and
  NSD are those of border voxels, unweighted.

Which lesions a reader is told were found is neither's to say: see ``one_to_one``.
"""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from brainmets.nifti import Spacing
from brainmets.scoring.boxes import Index, Mask
from brainmets.scoring.metrics import LESION_WISE, empty_value
from brainmets.scoring.one_to_one import Components
from brainmets.scoring.surface import (
    Floats,
    Ints,
    Numbers,
    Surface,
    SurfacePair,
    restricted,
    weighted_percentile,
)
from brainmets.vocabulary import LesionDefinition

UNITS: dict[str, str] = {
    "lesion_dice": "1",
    "lesion_hd95": "mm",
    "lesion_nsd": "1",
    "lesion_tp": "count",
    "lesion_fp": "count",
    "lesion_fn": "count",
    "lesion_f1": "1",
    "lesion_iou_tp": "count",
    "lesion_iou_fp": "count",
    "lesion_iou_fn": "count",
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
class Lesions:
    """The lesions of a region, reference lesions first in each tuple; index 0 of their arrays is unused.

    ``mm3``: volume by lesion number; ``centroids`` (n + 1, 3): mean voxel index. ``pairs`` (n, 2): the numbers of
    lesions (reference, predicted) that overlap, and ``shared`` (n) their common voxels. ``touching`` (n, 2): pairs
    that the definition takes for a match. ``components``: the same masks without a definition.
    """

    mm3: tuple[Floats, Floats]
    centroids: tuple[Floats, Floats]
    voxel_mm3: float
    pairs: Ints
    shared: Ints
    touching: Ints
    components: Components

    def dice(self, reference: int, predicted: Ints) -> float:
        """Dice of a reference lesion with several predicted lesions united."""
        chosen = (self.pairs[:, 0] == reference) & np.isin(self.pairs[:, 1], predicted)
        both = float(self.shared[chosen].sum()) * self.voxel_mm3
        return 2 * both / float(self.mm3[0][reference] + self.mm3[1][predicted].sum())


class LesionCollector:
    """Collects the lesions of a region crop by crop; numbers run on from one crop to the next."""

    def __init__(self, definition: LesionDefinition, voxel_mm3: float) -> None:
        self._definition = definition
        self._voxel_mm3 = voxel_mm3
        self._n = np.zeros(2, np.int64)
        self._n_components = 0
        one, several, none, pairs = np.zeros(1), np.zeros((1, 3)), np.zeros(0, np.int64), np.zeros((0, 2), np.int64)
        self._found: list[tuple[npt.NDArray[np.generic], ...]] = [(one, one, several, several, pairs, none, pairs)]
        zero = np.zeros(1, np.int64)
        self._components: list[tuple[Ints, ...]] = [(zero, zero, zero, pairs, none)]

    def add(self, reference: Mask, prediction: Mask, origin: Index) -> tuple[tuple[Numbers, int], tuple[Numbers, int]]:
        """Number one crop's lesions from 1 on, with the running number of the first: of the reference, then predicted.

        ``origin`` is the image index of the crop's first voxel.
        """
        first, second, touching = _number(reference, prediction, self._definition)
        pairs, shared = _pairs(first, second, reference & prediction)
        sizes = [cc3d.statistics(numbers) for numbers in (first, second)]
        voxels = [size["voxel_counts"][1:].astype(np.float64) for size in sizes]
        centroids = [size["centroids"][1:] + np.asarray(origin) for size in sizes]
        self._found.append((*voxels, *centroids, pairs + self._n, shared, touching + self._n))
        self._add_components(reference, prediction, first, second)
        one, other = (int(n) + 1 for n in self._n)
        self._n += [len(found) for found in voxels]
        return (first, one), (second, other)

    def _add_components(self, reference: Mask, prediction: Mask, first: Numbers, second: Numbers) -> None:
        """The crop's components; ``first`` and ``second`` are its lesion numbers from 1 on."""
        # a predicted lesion is one component under either definition
        numbers = first if self._definition == "brats_2026" else components(reference)
        pairs, shared = _pairs(numbers, second, reference & prediction)
        sizes = [np.bincount(one.ravel())[1:] for one in (numbers, second)]
        lesion = np.zeros(len(sizes[0]) + 1, np.int64)
        lesion[numbers[reference]] = first[reference]
        before = (self._n_components, self._n[1])
        self._components.append((*sizes, lesion[1:] + self._n[0], pairs + before, shared))
        self._n_components += len(sizes[0])

    def lesions(self) -> Lesions:
        """Everything that was added."""
        first, second, *centroids, pairs, shared, touching = map(np.concatenate, zip(*self._found, strict=True))
        mm3 = first * self._voxel_mm3, second * self._voxel_mm3
        one, other, lesion, overlapping, common = map(np.concatenate, zip(*self._components, strict=True))
        components = Components((one, other), lesion, overlapping, common)
        return Lesions(mm3, (centroids[0], centroids[1]), self._voxel_mm3, pairs, shared, touching, components)


def _number(reference: Mask, prediction: Mask, definition: LesionDefinition) -> tuple[Numbers, Numbers, Ints]:
    """The definition's lesion numbers of both masks, and the pairs (n, 2) of lesions that touch."""
    predicted = components(prediction)
    if definition == "brats_2026":
        first = components(reference)
        return first, predicted, _pairs(first, predicted, reference & prediction)[0]
    dilated = _dilated(np.pad(reference, 1))
    inside = (slice(1, -1),) * 3
    united = components(dilated)[inside]
    return united * reference, predicted, _pairs(united, predicted, dilated[inside] & prediction)[0]


def components(mask: Mask) -> Numbers:
    """The 26-connected components of a mask (3D) by number, from 1, the same however it lies in memory."""
    # as uint8: cc3d 4.1.1 fails on boolean arrays that are one voxel wide on two axes
    return np.asarray(cc3d.connected_components(np.ascontiguousarray(mask).view(np.uint8), connectivity=26))


def equivalent_mm(volume_mm3: npt.ArrayLike) -> Floats:
    """The diameters of balls of these volumes.

    >>> equivalent_mm([523.6]).round(2).tolist()
    [10.0]
    """
    diameters: Floats = np.cbrt(6 * np.asarray(volume_mm3, float) / np.pi)
    return diameters


def _dilated(mask: Mask) -> Mask:
    """One dilation by the 18-neighbourhood (faces and edges): the union of 3x3 squares in the three planes."""

    def along(array: Mask, axis: int) -> Mask:
        grown = array.copy()
        ahead: list[slice] = [slice(None)] * 3
        behind: list[slice] = [slice(None)] * 3
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        grown[tuple(ahead)] |= array[tuple(behind)]
        grown[tuple(behind)] |= array[tuple(ahead)]
        return grown

    first, second = along(mask, 0), along(mask, 1)
    return along(first, 1) | along(first, 2) | along(second, 2)


def _pairs(first: Numbers, second: Numbers, both: Mask) -> tuple[Ints, Ints]:
    """Pairs of numbers that share voxels (n, 2), and how many each pair shares; ``both``: where both have a number."""
    one, other = first[both].astype(np.int64), second[both].astype(np.int64)
    width = int(other.max(initial=0)) + 1
    keys, shared = np.unique(one * width + other, return_counts=True)
    return np.stack(np.divmod(keys, width), axis=1), shared


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


def score_brats_2023(lesions: Lesions, surfaces: SurfacePair, spacing: Spacing) -> LesionScores:
    """Score one region under brats_2023; ``surfaces`` are the region's surface elements."""
    matches, dice, counted, false = _of_brats_2023(lesions)
    detected = np.array([len(found) > 0 for found in matches])
    found, missed = int((counted & detected).sum()), int((counted & ~detected).sum())
    values: dict[str, float] = {"lesion_tp": found, "lesion_fp": false, "lesion_fn": missed}
    if found + missed + false:
        pairs = _PairDistances(surfaces, spacing, lesions)
        hd95 = [pairs.hd95(lesion, matches[lesion]) for lesion in np.flatnonzero(counted & detected).tolist()]
        n = found + missed + false
        values |= {
            "lesion_dice": _mean_dice(dice, counted, false),
            "lesion_hd95": (sum(hd95) + (missed + false) * PENALTY_2023_MM) / n,
            "lesion_f1": _f1(found, false, missed),
        }
    else:
        rules, undefined = LESION_WISE["brats_2023"], ("lesion_dice", "lesion_hd95", "lesion_f1")
        values |= {metric: empty_value(rules, metric, "both_empty") for metric in undefined}
    return LesionScores(values, {}, matches, dice, detected)


def score_brats_2026(lesions: Lesions, reference: Surface, prediction: Surface, spacing: Spacing) -> LesionScores:
    """Score one region under brats_2026; ``reference`` and ``prediction`` are the region's border voxels.

    That definition's scorer reads arrays as (z, y, x) and spacing as (x, y, z), and so exchanges the first and the
    last voxel side. Its printed values can only be met by doing the same; they are right where both sides are equal.
    """
    spacing = (spacing[2], spacing[1], spacing[0])
    n_reference, n_predicted = len(lesions.mm3[0]) - 1, len(lesions.mm3[1]) - 1
    matches, dice = _of_brats_2026(lesions)
    matched = dice > 0
    detected = dice >= DETECTED_DICE
    large = _large(lesions)
    small = ~large
    small[0] = False
    tp = int(matched.sum())
    false, missed = n_predicted - tp, n_reference - tp
    values: dict[str, float] = {"lesion_tp": tp, "lesion_fp": false, "lesion_fn": missed}
    if n_reference or n_predicted:
        values["lesion_f1"] = _f1(tp, false, missed)
    else:
        values["lesion_f1"] = empty_value(LESION_WISE["brats_2026"], "lesion_f1", "both_empty")
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
        pairs = _PairDistances(surfaces, spacing, lesions)
        both = [pairs.unweighted(lesion, matches[lesion]) for lesion in paired.tolist()]
        n = int(large.sum()) + false
        penalised = n - len(both)
        values |= {
            "lesion_dice": _mean_dice(dice, large, false),
            "lesion_hd95": (sum(hd95 for hd95, _ in both) + penalised * PENALTY_2026_MM) / n,
            "lesion_nsd": sum(nsd for _, nsd in both) / n,
        }
    else:
        reason = f"the reference has no lesion of {LARGE_MM3:g} mm^3 or more"
        excluded |= dict.fromkeys(means, reason)
    return LesionScores(values, excluded, matches, dice, detected)


def lesion_dice(lesions: Lesions, definition: LesionDefinition) -> float | None:
    """The definition's ``lesion_dice`` alone, for which no surface is needed; ``None`` where it has no value."""
    if definition == "brats_2023":
        _, dice, counted, false = _of_brats_2023(lesions)
        if not counted.any() and not false:
            return empty_value(LESION_WISE["brats_2023"], "lesion_dice", "both_empty")
    else:
        _, dice = _of_brats_2026(lesions)
        counted = _large(lesions)
        if not counted.any():
            return None
        false = len(lesions.mm3[1]) - 1 - int((dice > 0).sum())
    return _mean_dice(dice, counted, false)


def _of_brats_2023(lesions: Lesions) -> tuple[list[Ints], Floats, npt.NDArray[np.bool_], int]:
    """By reference lesion: its match, its Dice with it, and whether it counts; and the number of false positives."""
    n_reference, n_predicted = len(lesions.mm3[0]) - 1, len(lesions.mm3[1]) - 1
    matches = _grouped(lesions.touching, n_reference)
    dice = np.array([lesions.dice(lesion, found) if len(found) else 0.0 for lesion, found in enumerate(matches)])
    counted = lesions.mm3[0] > IGNORED_MM3
    counted[0] = False
    return matches, dice, counted, n_predicted - len(np.unique(lesions.touching[:, 1]))


def _of_brats_2026(lesions: Lesions) -> tuple[list[Ints], Floats]:
    """By reference lesion: its match, and its Dice with it (0 where there is none)."""
    n_reference = len(lesions.mm3[0]) - 1
    dice = np.zeros(n_reference + 1)
    matches = [np.zeros(0, np.int64) for _ in range(n_reference + 1)]
    for lesion, predicted, value in _best_matching(lesions):
        matches[lesion] = np.array([predicted])
        dice[lesion] = value
    return matches, dice


def _large(lesions: Lesions) -> npt.NDArray[np.bool_]:
    large: npt.NDArray[np.bool_] = lesions.mm3[0] >= LARGE_MM3
    large[0] = False
    return large


def _mean_dice(dice: Floats, counted: npt.NDArray[np.bool_], false: int) -> float:
    """Over the lesions that count and the false positives, which have Dice 0."""
    return float(dice[counted].sum() / (int(counted.sum()) + false))


def _best_matching(lesions: Lesions) -> list[tuple[int, int, float]]:
    """One-to-one pairs (reference, predicted, Dice) of overlapping lesions with the largest sum of Dice."""
    if not len(lesions.pairs):
        return []
    rows, row = np.unique(lesions.pairs[:, 0], return_inverse=True)
    columns, column = np.unique(lesions.pairs[:, 1], return_inverse=True)
    both = 2 * lesions.shared * lesions.voxel_mm3
    value = both / (lesions.mm3[0][lesions.pairs[:, 0]] + lesions.mm3[1][lesions.pairs[:, 1]])
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


class _PairDistances:
    """Scores of one reference lesion and its match, out of the surface distances of the whole region."""

    def __init__(self, surfaces: SurfacePair, spacing: Spacing, lesions: Lesions) -> None:
        self._surfaces = surfaces
        self._spacing = spacing
        self._of_reference = _grouped_points(surfaces.reference.lesions, len(lesions.mm3[0]) - 1)
        self._of_prediction = _grouped_points(surfaces.prediction.lesions, len(lesions.mm3[1]) - 1)

    def hd95(self, lesion: int, predicted: Ints) -> float:
        """Area-weighted symmetric 95th percentile in mm."""
        (forward, first), (backward, second) = self._distances(lesion, predicted)
        return max(weighted_percentile(forward, first, 95), weighted_percentile(backward, second, 95))

    def unweighted(self, lesion: int, predicted: Ints) -> tuple[float, float]:
        """95th percentile of both directions' distances pooled, in mm, and NSD at the smallest voxel side."""
        (forward, _), (backward, _) = self._distances(lesion, predicted)
        tolerance = min(self._spacing)
        nsd = (np.mean(forward <= tolerance) + np.mean(backward <= tolerance)) / 2
        return float(np.percentile(np.concatenate([forward, backward]), 95)), float(nsd)

    def _distances(self, lesion: int, predicted: Ints) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        """Distances in mm and weights of the reference lesion's points, then of its match's points."""
        first = self._of_reference[lesion]
        second = np.concatenate([self._of_prediction[number] for number in predicted])
        both, spacing = self._surfaces, self._spacing
        forward = restricted(both.reference, first, both.prediction, second, both.to_prediction, spacing)
        backward = restricted(both.prediction, second, both.reference, first, both.to_reference, spacing)
        return (forward, both.reference.weights[first]), (backward, both.prediction.weights[second])


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
