"""All scores of one case: whole-region and lesion-wise metrics of each region, and the lesion table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from brainmets.nifti import Spacing
from brainmets.scoring import lesions as lesion_wise
from brainmets.scoring import metrics
from brainmets.scoring.boxes import Box, Labels, Mask, crop, foreground_boxes, in_memory_order
from brainmets.scoring.lesions import LesionCollector, Lesions, LesionScores, score_brats_2023, score_brats_2026
from brainmets.scoring.metrics import Overlap, check_spacing, image_diagonal, whole_region_metrics
from brainmets.scoring.one_to_one import one_to_one
from brainmets.scoring.surface import Floats, Ints, Surface, SurfacePair, border_voxels, join, surface_elements
from brainmets.vocabulary import LABELS, REGIONS, RESECTION_CAVITY, LesionDefinition

UNITS: dict[str, str] = {**metrics.UNITS, **lesion_wise.UNITS}
"""Every metric of the scores table, in its order, with its unit."""

_VALUES = {**REGIONS, RESECTION_CAVITY: (LABELS["rc"],)}


@dataclass
class CaseScores:
    """Rows without arm, strategy and case.

    ``scores``: region, metric, value, unit. ``excluded``: region, metric, reason. ``lesions``: region, kind, lesion,
    volume_mm3, x_mm, y_mm, z_mm, matched, dice, detected, detected_iou. ``values``: the labels other than 0
    of the reference and of the prediction.
    """

    scores: list[dict[str, Any]] = field(default_factory=list)
    excluded: list[dict[str, Any]] = field(default_factory=list)
    lesions: list[dict[str, Any]] = field(default_factory=list)
    values: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())


def score_case(
    reference: Labels,
    prediction: Labels,
    spacing: Spacing,
    affine: npt.NDArray[np.float64],
    lesion_definition: LesionDefinition,
    regions: Iterable[str] = (*REGIONS, RESECTION_CAVITY),
) -> CaseScores:
    """Score one pair of label maps: 3D, ``uint8``, BraTS labels, equal shapes, on one grid.

    ``spacing``: mm per axis; ``affine``: voxel index to RAS mm. Empty regions follow ``metrics.empty_policy()``.
    Lesions are numbered from the largest down within region and kind.
    """
    if reference.shape != prediction.shape or reference.ndim != 3:
        raise ValueError(f"label maps must be 3D and of one shape, not {reference.shape} and {prediction.shape}")
    spacing = check_spacing(spacing)
    reference, prediction, spacing, axes = in_memory_order(reference, prediction, spacing)
    affine = np.column_stack([affine[:, list(axes)], affine[:, 3]])
    boxes = foreground_boxes(reference, prediction)
    confusion = _confusion(boxes)
    of_reference, of_prediction = (np.flatnonzero(confusion.any(axis)).tolist() for axis in (1, 0))
    result = CaseScores(values=(frozenset(of_reference) - {0}, frozenset(of_prediction) - {0}))
    for region in regions:
        overlap = _overlap(confusion, _VALUES[region], reference.size)
        lesions, elements, borders = _collect(boxes, _VALUES[region], lesion_definition, spacing)
        pair = SurfacePair.measure(*elements, spacing)
        values = whole_region_metrics(overlap, pair, spacing, image_diagonal(reference.shape, spacing))
        if lesion_definition == "brats_2023":
            scores = score_brats_2023(lesions, pair, spacing)
        else:
            scores = score_brats_2026(lesions, *borders, spacing)
        rows, counts = _lesion_rows(region, lesions, scores, affine)
        values |= scores.values | counts
        result.scores += [
            {"region": region, "metric": metric, "value": float(values[metric]), "unit": unit}
            for metric, unit in UNITS.items()
            if metric in values
        ]
        result.excluded += [
            {"region": region, "metric": metric, "reason": reason} for metric, reason in scores.excluded.items()
        ]
        result.lesions += rows
    return result


def lesion_dice_of_case(
    reference: Labels, prediction: Labels, spacing: Spacing, definition: LesionDefinition
) -> dict[str, tuple[float | None, int]]:
    """By region of ``REGIONS`` what ``score_case`` gives as ``lesion_dice``, and the number of reference lesions.

    Far cheaper than ``score_case``, for many predictions of one case: no surface is looked at. ``None`` where the
    definition has no value.
    """
    reference, prediction, spacing, _ = in_memory_order(reference, prediction, check_spacing(spacing))
    boxes = foreground_boxes(reference, prediction)
    found = {}
    for region, values in REGIONS.items():
        collector = LesionCollector(definition, float(np.prod(spacing)))
        for box in boxes:
            if pair := crop(_mask(box.reference, values), _mask(box.prediction, values), box.origin):
                collector.add(pair[1], pair[2], pair[0])
        lesions = collector.lesions()
        found[region] = lesion_wise.lesion_dice(lesions, definition), len(lesions.mm3[0]) - 1
    return found


_Surfaces = tuple[Surface, Surface]
"""Of the reference and of the prediction."""


def _collect(
    boxes: list[Box], values: tuple[int, ...], definition: LesionDefinition, spacing: Spacing
) -> tuple[Lesions, _Surfaces, _Surfaces]:
    """The lesions, surface elements and border voxels (of brats_2026 only) of the region with these label values."""
    lesions = LesionCollector(definition, float(np.prod(spacing)))
    elements: tuple[list[Surface], list[Surface]] = ([], [])
    borders: tuple[list[Surface], list[Surface]] = ([], [])
    for box in boxes:
        found = crop(_mask(box.reference, values), _mask(box.prediction, values), box.origin)
        if found is None:
            continue
        origin, reference, prediction = found
        for kind, (numbers, first_lesion) in enumerate(lesions.add(reference, prediction, origin)):
            elements[kind].append(surface_elements(numbers, origin, spacing, first_lesion))
            if definition == "brats_2026":
                borders[kind].append(border_voxels(numbers, origin, first_lesion))
    return lesions.lesions(), (join(elements[0]), join(elements[1])), (join(borders[0]), join(borders[1]))


def _mask(labels: Labels, values: tuple[int, ...]) -> Mask:
    # a few comparisons are several times faster than a look-up per voxel
    mask = labels == values[0]
    for value in values[1:]:
        mask |= labels == value
    return mask


def _confusion(boxes: list[Box]) -> Ints:
    """Voxels of all boxes by (reference label, predicted label), 16 by 16."""
    counts = np.zeros(256, dtype=np.int64)
    for box in boxes:
        counts += np.bincount(((box.reference << 4) | box.prediction).ravel(), minlength=256)
    return counts.reshape(16, 16)


def _overlap(confusion: Ints, values: tuple[int, ...], image: int) -> Overlap:
    inside = list(values)
    return Overlap(
        both=int(confusion[np.ix_(inside, inside)].sum()),
        reference=int(confusion[inside].sum()),
        prediction=int(confusion[:, inside].sum()),
        image=image,
    )


def _lesion_rows(
    region: str, lesions: Lesions, scores: LesionScores, affine: npt.NDArray[np.float64]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Reference lesions, then predicted ones, each from the largest down and numbered in that order.

    And the region's counts by the one-to-one rule, which ``detected_iou`` tells lesion by lesion.
    """
    ras = [centroids @ affine[:3, :3].T + affine[:3, 3] for centroids in lesions.centroids]
    order = [_largest_first(mm3, place) for mm3, place in zip(lesions.mm3, ras, strict=True)]
    # argsort of an order gives each lesion's place in it
    shown = [np.concatenate([[0], np.argsort(ordered) + 1]) for ordered in order]
    clinical = one_to_one(lesions.components, (shown[0], shown[1]))
    # a predicted lesion shares the match of the reference lesions it belongs to
    partners: list[list[int]] = [[] for _ in lesions.mm3[1]]
    for lesion, matches in enumerate(scores.matches):
        for predicted in matches:
            partners[predicted].append(lesion)
    rows = [(0, lesion, scores.matches[lesion], [lesion]) for lesion in order[0]]
    rows += [(1, lesion, partners[lesion], partners[lesion]) for lesion in order[1]]
    table = [
        {
            "region": region,
            "kind": ("reference", "predicted")[kind],
            "lesion": int(shown[kind][lesion]),
            "volume_mm3": float(lesions.mm3[kind][lesion]),
            **dict(zip(("x_mm", "y_mm", "z_mm"), ras[kind][lesion].tolist(), strict=True)),
            "matched": " ".join(map(str, sorted(int(shown[1 - kind][other]) for other in matched))),
            "dice": max((float(scores.dice[one]) for one in references), default=0.0),
            "detected": any(bool(scores.detected[one]) for one in references),
            "detected_iou": bool((clinical.found, clinical.paired)[kind][lesion]),
        }
        for kind, lesion, matched, references in rows
    ]
    return table, clinical.counts()


def _largest_first(mm3: Floats, centroids: Floats) -> Ints:
    """Lesion numbers from the largest down; equal volumes by place, so that the boxes never show."""
    x, y, z = np.round(centroids[1:].T, 6)  # so that rounding puts none before its equal
    return np.lexsort((z, y, x, -mm3[1:])) + 1
