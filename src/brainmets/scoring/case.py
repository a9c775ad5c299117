"""All scores of one case: whole-region and lesion-wise metrics of each region, and the lesion table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from brainmets.nifti import Spacing
from brainmets.scoring import lesionwise, metrics
from brainmets.scoring.boxes import Box, Labels, Mask, crop, foreground_boxes, in_memory_order
from brainmets.scoring.components import Definition, LesionCounts, LesionLedger
from brainmets.scoring.lesionwise import LesionScores, score_brats_2023, score_brats_2026
from brainmets.scoring.metrics import Overlap, SurfacePair, check_spacing, image_diagonal, whole_region_metrics
from brainmets.scoring.surface import Floats, Packing, Surface, border_voxels, join, surface_elements
from brainmets.vocabulary import LABELS, REGIONS, RESECTION_CAVITY

UNITS: dict[str, str] = {**metrics.UNITS, **lesionwise.UNITS}
"""Every metric of the scores table, in its order, with its unit."""

_VALUES = {**REGIONS, RESECTION_CAVITY: (LABELS["rc"],)}


@dataclass
class CaseScores:
    """Rows without arm, strategy and case.

    ``scores``: region, metric, value, unit. ``excluded``: region, metric, reason. ``lesions``: region, kind, lesion,
    volume_mm3, x_mm, y_mm, z_mm, matched, dice, detected. ``has_cavity``: label 4 occurs.
    """

    scores: list[dict[str, Any]] = field(default_factory=list)
    excluded: list[dict[str, Any]] = field(default_factory=list)
    lesions: list[dict[str, Any]] = field(default_factory=list)
    has_cavity: bool = False


def score_case(
    reference: Labels,
    prediction: Labels,
    spacing: Spacing,
    affine: npt.NDArray[np.float64],
    lesion_definition: Definition,
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
    confusion = [_confusion(box) for box in boxes]
    result = CaseScores(has_cavity=any(bool(table[4].any() or table[:, 4].any()) for table in confusion))
    for region in regions:
        overlap = _overlap(confusion, _VALUES[region], reference.size)
        pieces = _Region(region, lesion_definition, spacing)
        for box in boxes if overlap.state != "both_empty" else ():
            pieces.add(box)
        elements = pieces.elements()
        values = whole_region_metrics(overlap, elements, spacing, image_diagonal(reference.shape, spacing))
        counts = pieces.ledger.counts()
        if lesion_definition == "brats_2023":
            lesions = score_brats_2023(counts, elements, spacing)
        else:
            lesions = score_brats_2026(counts, *pieces.borders(), spacing)
        values |= lesions.values
        result.scores += [
            {"region": region, "metric": metric, "value": float(values[metric]), "unit": unit}
            for metric, unit in UNITS.items()
            if metric in values
        ]
        result.excluded += [
            {"region": region, "metric": metric, "reason": reason} for metric, reason in lesions.excluded.items()
        ]
        result.lesions += _lesion_rows(region, counts, lesions, pieces.ledger.centroids(), affine)
    return result


class _Region:
    """One region's lesions and surfaces, collected box by box."""

    def __init__(self, region: str, definition: Definition, spacing: Spacing) -> None:
        self.ledger = LesionLedger(definition, float(np.prod(spacing)))
        self._spacing = spacing
        self._values = _VALUES[region]
        self._packing = Packing()
        self._elements: tuple[list[Surface], list[Surface]] = ([], [])
        self._borders: tuple[list[Surface], list[Surface]] = ([], [])
        self._with_borders = definition == "brats_2026"

    def add(self, box: Box) -> None:
        found = crop(self._mask(box.reference), self._mask(box.prediction))
        if found is None:
            return
        start, masks = found
        x, y, z = (a + b for a, b in zip(box.origin, start, strict=True))
        place = self._packing.place((x, y, z), len(masks[0]))
        part, first = self.ledger.add(masks[0], masks[1], place.origin)
        for kind, lesions in enumerate((part.reference, part.prediction)):
            self._elements[kind].append(surface_elements(masks[kind], lesions, first[kind], place, self._spacing))
            if self._with_borders:
                self._borders[kind].append(border_voxels(masks[kind], lesions, first[kind], place))

    def _mask(self, labels: Labels) -> Mask:
        # a few comparisons are several times faster than a look-up per voxel
        mask = labels == self._values[0]
        for value in self._values[1:]:
            mask |= labels == value
        return mask

    def elements(self) -> SurfacePair:
        return SurfacePair.measure(join(self._elements[0]), join(self._elements[1]), self._spacing)

    def borders(self) -> tuple[Surface, Surface]:
        return join(self._borders[0]), join(self._borders[1])


def _confusion(box: Box) -> npt.NDArray[np.int64]:
    """Voxels of a box by (reference label, predicted label), 16 by 16."""
    keys = (box.reference << 4) | box.prediction
    return np.bincount(keys.ravel(), minlength=256).reshape(16, 16)


def _overlap(confusion: list[npt.NDArray[np.int64]], values: tuple[int, ...], image: int) -> Overlap:
    table = sum(confusion, start=np.zeros((16, 16), dtype=np.int64))
    inside = list(values)
    return Overlap(
        both=int(table[np.ix_(inside, inside)].sum()),
        reference=int(table[inside].sum()),
        prediction=int(table[:, inside].sum()),
        image=image,
    )


def _lesion_rows(
    region: str,
    counts: LesionCounts,
    scores: LesionScores,
    centroids: tuple[Floats, Floats],
    affine: npt.NDArray[np.float64],
) -> list[dict[str, Any]]:
    volumes = (counts.reference_mm3, counts.predicted_mm3)
    ras = [centroid @ affine[:3, :3].T + affine[:3, 3] for centroid in centroids]
    order = [_largest_first(volume, centroid) for volume, centroid in zip(volumes, ras, strict=True)]
    shown = [_ranks(ordered) for ordered in order]
    # a predicted lesion shares the match of the reference lesions it belongs to
    partners: list[list[int]] = [[] for _ in volumes[1]]
    for lesion, found in enumerate(scores.matches):
        for predicted in found:
            partners[int(predicted)].append(lesion)
    rows = []
    for lesion in order[0]:
        matched = [int(shown[1][predicted]) for predicted in scores.matches[lesion]]
        rows.append((0, lesion, matched, scores.dice[lesion], scores.detected[lesion]))
    for lesion in order[1]:
        matched = [int(shown[0][partner]) for partner in partners[lesion]]
        dice = max((scores.dice[partner] for partner in partners[lesion]), default=0.0)
        rows.append((1, lesion, matched, dice, any(scores.detected[partner] for partner in partners[lesion])))
    table = []
    for kind, lesion, matched, dice, detected in rows:
        x, y, z = ras[kind][lesion]
        table.append(
            {
                "region": region,
                "kind": ("reference", "predicted")[kind],
                "lesion": int(shown[kind][lesion]),
                "volume_mm3": float(volumes[kind][lesion]),
                "x_mm": float(x),
                "y_mm": float(y),
                "z_mm": float(z),
                "matched": " ".join(map(str, sorted(matched))),
                "dice": float(dice),
                "detected": bool(detected),
            }
        )
    return table


def _largest_first(volumes: Floats, centroids: Floats) -> npt.NDArray[np.int64]:
    """Lesion numbers from the largest down; equal volumes by place, so that the boxes never show."""
    x, y, z = centroids[1:].T
    return np.lexsort((z, y, x, -volumes[1:])) + 1


def _ranks(order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Rank from 1 of each lesion number; index 0 unused."""
    ranks = np.zeros(len(order) + 1, dtype=np.int64)
    ranks[order] = np.arange(1, len(order) + 1)
    return ranks
