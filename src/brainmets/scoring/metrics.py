"""Whole-region metrics of a predicted mask against a reference mask. Formulas and sources: ``docs/metrics.md``."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from brainmets.nifti import Spacing
from brainmets.scoring.boxes import Labels, Mask, crop, foreground_boxes, in_memory_order
from brainmets.scoring.emptiness import WHOLE_REGION, State, empty_policy, empty_value
from brainmets.scoring.surface import (
    Floats,
    Packing,
    Surface,
    SurfaceDistances,
    join,
    nearest_points,
    surface_elements,
    weighted_percentile,
)

__all__ = ["UNITS", "Overlap", "SurfacePair", "empty_policy", "region_metrics", "whole_region_metrics"]

NSD_TOLERANCE = 1.0
"""mm within which a surface element counts as agreeing, in ``nsd_1mm``."""

UNITS: dict[str, str] = {
    "dice": "1",
    "hd95": "mm",
    "hd": "mm",
    "sensitivity": "1",
    "specificity": "1",
    "precision": "1",
    "nsd_1mm": "1",
    "reference_volume": "mL",
    "predicted_volume": "mL",
}
"""Whole-region metrics, in the order of the scores table, with their units."""


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of a pair of masks: in both, in the reference, in the prediction, in the whole image."""

    both: int
    reference: int
    prediction: int
    image: int

    @property
    def state(self) -> State | None:
        """Which mask is empty; ``None`` where neither is."""
        if self.reference and self.prediction:
            return None
        if self.prediction:
            return "reference_empty"
        return "prediction_empty" if self.reference else "both_empty"


@dataclass(frozen=True)
class SurfacePair:
    """Two surfaces, and from each the nearest points of the other."""

    reference: Surface
    prediction: Surface
    to_prediction: SurfaceDistances
    to_reference: SurfaceDistances

    @classmethod
    def measure(cls, reference: Surface, prediction: Surface, spacing: Spacing) -> SurfacePair:
        """Find the nearest points both ways; ``spacing`` in mm per axis."""
        return cls(
            reference,
            prediction,
            nearest_points(reference, prediction, spacing),
            nearest_points(prediction, reference, spacing),
        )


def robust_hausdorff(
    to_prediction: Floats, reference_areas: Floats, to_reference: Floats, predicted_areas: Floats, percent: float
) -> float:
    """The larger of the two directions' area-weighted percentiles, in mm."""
    return max(
        weighted_percentile(to_prediction, reference_areas, percent),
        weighted_percentile(to_reference, predicted_areas, percent),
    )


def whole_region_metrics(
    overlap: Overlap, surfaces: SurfacePair, spacing: Spacing, diagonal: float
) -> dict[str, float]:
    """All of ``UNITS`` for one region.

    ``surfaces`` are surface elements; ``diagonal`` is the image's diagonal in mm, the distance given where one mask is
    empty. Empty masks follow ``empty_policy()``; no value is ever NaN or infinite.
    """
    negatives = overlap.image - overlap.reference
    voxel_ml = math.prod(spacing) / 1000
    values = {
        "specificity": (negatives - overlap.prediction + overlap.both) / negatives if negatives else 1.0,
        "reference_volume": overlap.reference * voxel_ml,
        "predicted_volume": overlap.prediction * voxel_ml,
    }
    if overlap.state is None:
        values |= _overlap_metrics(overlap) | _surface_metrics(surfaces)
    else:
        for metric in UNITS.keys() - values.keys():
            value = empty_value(WHOLE_REGION, metric, overlap.state, diagonal)
            assert value is not None
            values[metric] = value
    return {metric: float(values[metric]) for metric in UNITS}


def _overlap_metrics(overlap: Overlap) -> dict[str, float]:
    return {
        "dice": 2 * overlap.both / (overlap.reference + overlap.prediction),
        "sensitivity": overlap.both / overlap.reference,
        "precision": overlap.both / overlap.prediction,
    }


def _surface_metrics(surfaces: SurfacePair) -> dict[str, float]:
    forward, backward = surfaces.to_prediction.distances, surfaces.to_reference.distances
    reference, prediction = surfaces.reference.weights, surfaces.prediction.weights
    agreeing = reference[forward <= NSD_TOLERANCE].sum() + prediction[backward <= NSD_TOLERANCE].sum()
    return {
        "hd95": robust_hausdorff(forward, reference, backward, prediction, 95),
        "hd": max(forward.max(), backward.max()),
        "nsd_1mm": agreeing / (reference.sum() + prediction.sum()),
    }


def region_metrics(reference: Mask, prediction: Mask, spacing: Spacing) -> dict[str, float]:
    """All whole-region metrics of two 3D boolean masks of equal shape; ``spacing`` in mm, in the masks' axis order.

    Keys: those of ``UNITS``. Empty masks follow ``empty_policy()``. Raises ``ValueError`` for unequal shapes, other
    dimensions than three, or a spacing that is not positive.
    """
    first, second = _as_labels(reference, "reference"), _as_labels(prediction, "prediction")
    spacing = check_spacing(spacing)
    if first.shape != second.shape:
        raise ValueError(f"reference has shape {first.shape}, prediction {second.shape}: bring both to one grid first")
    surfaces: tuple[list[Surface], list[Surface]] = ([], [])
    both, packing = 0, Packing()
    first, second, spacing, _ = in_memory_order(first, second, spacing)
    for box in foreground_boxes(first, second):
        found = crop(box.reference > 0, box.prediction > 0)
        if found is None:
            continue
        x, y, z = (a + b for a, b in zip(box.origin, found[0], strict=True))
        place = packing.place((x, y, z), len(found[1][0]))
        both += int(np.count_nonzero(found[1][0] & found[1][1]))
        for kind, mask in zip(surfaces, found[1], strict=True):
            kind.append(surface_elements(mask, mask.view(np.uint8), 1, place, spacing))
    overlap = Overlap(both, int(np.count_nonzero(first)), int(np.count_nonzero(second)), first.size)
    pair = SurfacePair.measure(join(surfaces[0]), join(surfaces[1]), spacing)
    return whole_region_metrics(overlap, pair, spacing, image_diagonal(first.shape, spacing))


def image_diagonal(shape: tuple[int, ...], spacing: Spacing) -> float:
    """The image's diagonal in mm, voxels counted whole."""
    return math.sqrt(sum((n * step) ** 2 for n, step in zip(shape, spacing, strict=True)))


def check_spacing(spacing: Spacing) -> Spacing:
    """Three positive finite numbers, or ``ValueError``."""
    values = tuple(float(step) for step in spacing)
    if len(values) != 3 or not all(math.isfinite(step) and step > 0 for step in values):
        raise ValueError(f"spacing {values} must be three positive numbers in mm")
    return values[0], values[1], values[2]


def _as_labels(mask: npt.NDArray[np.bool_], name: str) -> Labels:
    mask = np.asarray(mask)
    if mask.ndim != 3:
        raise ValueError(f"{name} has {mask.ndim} dimensions; a 3D mask is needed")
    if mask.dtype != bool:
        raise ValueError(f"{name} is {mask.dtype}; a boolean mask is needed (such as labels == 3)")
    return mask.view(np.uint8)
