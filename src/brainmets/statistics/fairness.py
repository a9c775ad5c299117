"""Whether the comparison is a fair one: as many epochs on the target, or as many epochs in all?

Fine-tuned models were trained on the source before they are trained on the target for as many epochs as those from
scratch. Against ``scratch`` they have seen more cases *and* trained longer. The scratch control trains on the target
alone for as many epochs as both trainings of the fine-tuned together: against it the length is equal, and what is left
is what the source's cases teach. What longer training alone brings stands in the third comparison.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from brainmets.statistics.comparisons import Settings, Sides, strategy_sides
from brainmets.statistics.tests import hodges_lehmann
from brainmets.vocabulary import COMPARED_STRATEGIES, CONTROL

COMPARISONS: dict[tuple[str, str], str] = {
    COMPARED_STRATEGIES: "as many epochs on the target",
    (COMPARED_STRATEGIES[0], CONTROL): "as many epochs in all",
    (CONTROL, COMPARED_STRATEGIES[1]): "longer training alone",
}
"""First and second strategy, and what the two have alike or differ in."""
COLUMNS = ["comparison", "strategies", "arm", "metric", "region", "unit", "n", "shift", "low", "high", "note"]
_SAME_TARGET = (
    "Fine-tuned models are compared with models from scratch that trained for as many epochs on the target; the "
    "fine-tuned ones had been trained on the source before"
)
WITHOUT_CONTROL = (
    f"{_SAME_TARGET}. Whether a gain comes from the source's cases or from longer training, this study cannot say: it "
    "has no scratch control of the same total length (strategies: scratch_control)."
)
WITHOUT_SCRATCH = "No model from scratch was scored: what fine-tuning gains over it, this study does not say."
WITH_CONTROL = (
    f"{_SAME_TARGET}. Beside them stands a scratch control that trained on the target for as many epochs as both "
    "trainings together: a gain over it does not come from longer training. Whether other cases than the source's "
    "would have taught as much, neither comparison can say."
)


def fairness(scores: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Every comparison of ``COMPARISONS`` whose strategies were both scored; columns ``COLUMNS``.

    One row per metric with a direction, region and arm, and at last for the mean over arms where there are several.
    ``shift`` is the Hodges-Lehmann shift of first minus second over ``n`` patients in the metric's unit, with its
    distribution-free interval at 1 - alpha. Exploratory: no test is made of it. A table without rows where no two of
    the strategies were scored.
    """
    rows = [
        {"comparison": what, **_row(sides, settings.alpha)}
        for compared, what in COMPARISONS.items()
        for _, every in strategy_sides(scores, compared, settings.patients)
        for sides in every
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(sides: Sides, alpha: float) -> dict[str, object]:
    kept = sides.differences[~np.isnan(sides.differences)]
    shift, low, high, coverage = hodges_lehmann(kept, alpha)
    notes = [*sides.undefined(), *sides.few_patients()]
    if len(kept) < 2:
        notes.append("no interval: it takes two patients")
    elif coverage < 1 - alpha:
        notes.append(f"widest interval that {len(kept)} patients allow; it covers {coverage:.1%}")
    what = {"strategies": sides.strategies, "arm": sides.first, "metric": sides.metric, "region": sides.region}
    found = {"n": len(kept), "shift": shift, "low": low, "high": high}
    return {**what, "unit": sides.unit, **found, "note": sides.note(notes)}


def sentence(strategies: Collection[str]) -> str:
    """Which comparison the report makes, given the strategies that were scored, and what it cannot say."""
    if COMPARED_STRATEGIES[1] not in strategies:
        return WITHOUT_SCRATCH
    return WITH_CONTROL if CONTROL in strategies else WITHOUT_CONTROL
