"""What each metric gives when a mask is empty: one table, which the scoring code reads and a notebook can print.

The rules are the pessimistic ones: a missed region can never improve a mean. Agreement that there is nothing gives
the best value; everything else that a formula leaves undefined gives the worst value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd

State = Literal["both_empty", "reference_empty", "prediction_empty"]
Computed = Literal["computed", "image diagonal", "374 mm", "373 mm", "excluded"]
Rule = float | Computed


@dataclass(frozen=True)
class EmptyRule:
    """The value in each of the three cases; "computed" where the formula holds, "excluded" where no row is written."""

    both_empty: Rule
    reference_empty: Rule
    prediction_empty: Rule


_OVERLAP = EmptyRule(1.0, 0.0, 0.0)
_DISTANCE = EmptyRule(0.0, "image diagonal", "image diagonal")
_COMPUTED = EmptyRule("computed", "computed", "computed")

WHOLE_REGION: dict[str, EmptyRule] = {
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

_COUNTS = {"lesion_tp": _COMPUTED, "lesion_fp": _COMPUTED, "lesion_fn": _COMPUTED, "lesion_f1": _OVERLAP}

LESION_WISE: dict[str, dict[str, EmptyRule]] = {
    "brats_2023": {
        "lesion_dice": _OVERLAP,
        "lesion_hd95": EmptyRule(0.0, "374 mm", "374 mm"),
        **_COUNTS,
    },
    "brats_2026": {
        "lesion_dice": EmptyRule("excluded", "excluded", 0.0),
        "lesion_hd95": EmptyRule("excluded", "excluded", "373 mm"),
        "lesion_nsd": EmptyRule("excluded", "excluded", 0.0),
        **_COUNTS,
        **{
            f"lesion_{size}_{name}": EmptyRule("excluded", "excluded", "computed")
            for size in ("large", "small")
            for name in ("tp", "fp", "fn", "f1")
        },
    },
}
"""Rules of the lesion-wise metrics; a reference is empty when it has no lesion that the metric counts."""


def empty_value(rules: dict[str, EmptyRule], metric: str, state: State, diagonal: float) -> float | None:
    """The value that stands for ``metric``; ``None`` where it is excluded. ``diagonal`` is the image's, in mm.

    Raises ``ValueError`` for a metric whose formula holds in that state.
    """
    rule: Rule = getattr(rules[metric], state)
    if isinstance(rule, float):
        return rule
    if rule == "computed":
        raise ValueError(f"{metric} is computed where the masks are {state}: no rule stands in for it")
    if rule == "excluded":
        return None
    return diagonal if rule == "image diagonal" else float(rule.removesuffix(" mm"))


def empty_policy() -> pd.DataFrame:
    """The whole policy as a table: definition, metric, both_empty, reference_empty, prediction_empty."""
    rows = [("whole region", metric, rule) for metric, rule in WHOLE_REGION.items()]
    rows += [(name, metric, rule) for name, rules in LESION_WISE.items() for metric, rule in rules.items()]
    return pd.DataFrame(
        [
            {
                "definition": definition,
                "metric": metric,
                "both_empty": str(rule.both_empty),
                "reference_empty": str(rule.reference_empty),
                "prediction_empty": str(rule.prediction_empty),
            }
            for definition, metric, rule in rows
        ]
    )
