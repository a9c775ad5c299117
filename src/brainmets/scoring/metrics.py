"""Whole-region metrics of a predicted mask against a reference mask, and what every metric gives for an empty mask.

Formulas and sources: ``docs/metrics.md``. The rules for empty masks are one table, which the scoring code reads and a
notebook prints. They are the pessimistic ones: a missed region can never improve a mean. Agreement that there is
nothing gives the best value; everything else that a formula leaves undefined gives the worst value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from brainmets.nifti import Spacing
from brainmets.scoring.boxes import Labels, Mask, crop, foreground_boxes, in_memory_order
from brainmets.scoring.surface import Surface, SurfacePair, join, surface_elements, weighted_percentile

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

State = Literal["both_empty", "reference_empty", "prediction_empty"]
Rule = float | Literal["computed", "image diagonal", "374 mm", "373 mm", "excluded"]
"""A value; "computed" where the formula holds; "excluded" where no row is written."""
Rules = dict[str, tuple[Rule, Rule, Rule]]
"""Metric to its rule in each ``State``, in that order."""

_OVERLAP: tuple[Rule, Rule, Rule] = (1.0, 0.0, 0.0)
_DISTANCE: tuple[Rule, Rule, Rule] = (0.0, "image diagonal", "image diagonal")
_COMPUTED: tuple[Rule, Rule, Rule] = ("computed", "computed", "computed")
_COUNTS: Rules = {
    **dict.fromkeys(("lesion_tp", "lesion_fp", "lesion_fn"), _COMPUTED),
    **dict.fromkeys(("lesion_iou_tp", "lesion_iou_fp", "lesion_iou_fn"), _COMPUTED),
    "lesion_f1": _OVERLAP,
}

WHOLE_REGION: Rules = {
    "dice": _OVERLAP,
    "hd95": _DISTANCE,
    "hd": _DISTANCE,
    "sensitivity": _OVERLAP,
    "specificity": _COMPUTED,
    "precision": _OVERLAP,
    "nsd_1mm": _OVERLAP,
    "reference_volume": _COMPUTED,
    "predicted_volume": _COMPUTED,
}
"""Rules of the whole-region metrics; a mask is empty when it has no voxel."""

LESION_WISE: dict[str, Rules] = {
    "brats_2023": {"lesion_dice": _OVERLAP, "lesion_hd95": (0.0, "374 mm", "374 mm"), **_COUNTS},
    "brats_2026": {
        "lesion_dice": ("excluded", "excluded", 0.0),
        "lesion_hd95": ("excluded", "excluded", "373 mm"),
        "lesion_nsd": ("excluded", "excluded", 0.0),
        **_COUNTS,
        **{
            f"lesion_{size}_{name}": ("excluded", "excluded", "computed")
            for size in ("large", "small")
            for name in ("tp", "fp", "fn", "f1")
        },
    },
}
"""Rules of the lesion-wise metrics; a reference is empty when it has no lesion that the metric counts."""


def empty_value(rules: Rules, metric: str, state: State, diagonal: float = 0.0) -> float:
    """The value of ``metric`` where masks are empty; ``diagonal`` is the image's, in mm.

    Raises ``ValueError`` for a metric that is computed, or excluded, in that state.

    >>> empty_value(WHOLE_REGION, "hd95", "prediction_empty", diagonal=386.1)
    386.1
    """
    rule = rules[metric][get_args(State).index(state)]
    if rule in ("computed", "excluded"):
        raise ValueError(f"{metric} is {rule} where the masks are {state}: no value replaces it")
    return diagonal if rule == "image diagonal" else float(str(rule).removesuffix(" mm"))


def empty_policy() -> pd.DataFrame:
    """The whole policy as a table: definition, metric, both_empty, reference_empty, prediction_empty."""
    rows = [
        (definition, metric, *map(str, rule))
        for definition, rules in {"whole region": WHOLE_REGION, **LESION_WISE}.items()
        for metric, rule in rules.items()
    ]
    return pd.DataFrame(rows, columns=["definition", "metric", *get_args(State)])


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
        forward, backward = surfaces.to_prediction.distances, surfaces.to_reference.distances
        reference, prediction = surfaces.reference.weights, surfaces.prediction.weights
        agreeing = reference[forward <= NSD_TOLERANCE].sum() + prediction[backward <= NSD_TOLERANCE].sum()
        values |= {
            "dice": 2 * overlap.both / (overlap.reference + overlap.prediction),
            "sensitivity": overlap.both / overlap.reference,
            "precision": overlap.both / overlap.prediction,
            "hd95": max(weighted_percentile(forward, reference, 95), weighted_percentile(backward, prediction, 95)),
            "hd": max(forward.max(), backward.max()),
            "nsd_1mm": agreeing / (reference.sum() + prediction.sum()),
        }
    else:
        undefined = UNITS.keys() - values.keys()
        values |= {metric: empty_value(WHOLE_REGION, metric, overlap.state, diagonal) for metric in undefined}
    return {metric: float(values[metric]) for metric in UNITS}


def region_metrics(reference: Mask, prediction: Mask, spacing: Spacing) -> dict[str, float]:
    """All whole-region metrics of two 3D boolean masks of equal shape; ``spacing`` in mm, in the masks' axis order.

    Keys: those of ``UNITS``. Empty masks follow ``empty_policy()``. Raises ``ValueError`` for unequal shapes, other
    dimensions than three, or a spacing that is not positive.
    """
    first, second = _as_labels(reference, "reference"), _as_labels(prediction, "prediction")
    spacing = check_spacing(spacing)
    if first.shape != second.shape:
        raise ValueError(f"reference has shape {first.shape}, prediction {second.shape}: bring both to one grid first")
    first, second, spacing, _ = in_memory_order(first, second, spacing)
    surfaces: tuple[list[Surface], list[Surface]] = ([], [])
    both = 0
    for box in foreground_boxes(first, second):
        if found := crop(box.reference > 0, box.prediction > 0, box.origin):
            origin, *masks = found
            both += int(np.count_nonzero(masks[0] & masks[1]))
            for kind, mask in zip(surfaces, masks, strict=True):
                kind.append(surface_elements(mask.view(np.uint8), origin, spacing))
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
