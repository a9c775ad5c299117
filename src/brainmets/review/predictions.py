"""One model's predictions beside the reference: its best, its middle and its worst held-out case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from brainmets.figures import Drawing, wrapped
from brainmets.review.case import ReviewCase
from brainmets.review.panels import (
    AREA_TITLES,
    MISSED,
    OUTLINE,
    best_sequence,
    brightness,
    compare,
    draw_slice,
    outline,
    window_around,
)
from brainmets.statistics.tables import with_reference
from brainmets.vocabulary import SEQUENCE_TITLES, Model, model_title, region_mask


def best_middle_worst(scores: pd.DataFrame, region: str) -> dict[str, float]:
    """The cases with the best, the middle and the worst Dice of ``region``, in that order, with their Dice.

    ``scores`` is the long score table of one model. Cases whose reference lacks the region come in only where all do:
    their Dice is a rule's (docs/metrics.md). Of an even number of cases the middle one is the better of the two in the
    middle; three cases or fewer are all given. Equal cases keep the table's order.
    """
    judged = with_reference(scores)
    scores = judged if ((judged["metric"] == "dice") & (judged["region"] == region)).any() else scores
    dice = scores[(scores["metric"] == "dice") & (scores["region"] == region)].set_index("case")["value"]
    dice = dice.sort_values(ascending=False, kind="stable")
    places = sorted({0, (len(dice) - 1) // 2, len(dice) - 1})
    return {str(case): float(value) for case, value in dice.iloc[places].items()}


def side_by_side(cases: Sequence[ReviewCase], model: Model, region: str, dice: Mapping[str, float]) -> Drawing:
    """One row per case: on the left the reference's outline, on the right what the prediction found, missed and added.

    Both pictures show one axial slice (``largest_slice``) of the sequence that shows the region best, in a window
    around what is marked on it. ``dice``, of the whole volume, by the cases' names.
    """
    figure = Drawing(figsize=(6, 3.0 * len(cases) + 0.9), layout="constrained")
    rows = figure.subplots(len(cases), 2, squeeze=False)
    for (left, right), case in zip(rows, cases, strict=True):
        volume, predicted_labels = case.images[best_sequence(region, case.images)], case.predictions[model]
        z = largest_slice(region_mask(case.reference, region), region_mask(predicted_labels, region))
        reference, predicted = (region_mask(labels[:, :, z], region) for labels in (case.reference, predicted_labels))
        window = window_around(reference | predicted, case.spacing_mm, reference.shape)
        for panel in (left, right):
            draw_slice(panel, volume[:, :, z][window], case.spacing_mm, brightness(volume))
            panel.set_axis_off()
        outline(left, reference[window], case.spacing_mm, MISSED)
        compare(right, reference[window], predicted[window], case.spacing_mm)
        left.set_title(f"{case.name}: reference\naxial slice {z}", fontsize=9)
        score = f"Dice {dice[case.name]:.2f}" if region_mask(case.reference, region).any() else f"no {region} there"
        right.set_title(f"{case.name}: prediction\n{score}", fontsize=9)
    keys: list[Patch | Line2D] = [Patch(color=colour, alpha=0.7, label=title) for colour, title in AREA_TITLES.items()]
    keys.append(Line2D([], [], color=MISSED, label="outline of the reference (left)"))
    keys.append(Line2D([], [], color=OUTLINE, label="outline of the prediction (right)"))
    figure.legend(handles=keys, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    sequence = " or ".join(dict.fromkeys(SEQUENCE_TITLES[best_sequence(region, case.images)] for case in cases))
    title = f"{model_title(*model)}: {region} on {sequence}, the best Dice first"
    figure.suptitle(wrapped(title, figure.get_figwidth(), 10), fontsize=10)
    return figure


def largest_slice(reference: npt.NDArray[np.bool_], predicted: npt.NDArray[np.bool_]) -> int:
    """The axial slice of masks (x, y, z) with most of the reference, of equal ones the lowest.

    Without a reference the one with most of the prediction, and the middle slice where both are empty.
    """
    for mask in (reference, predicted):
        if mask.any():
            return int(np.count_nonzero(mask, axis=(0, 1)).argmax())
    return reference.shape[2] // 2
