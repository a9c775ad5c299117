"""What fine-tuning makes a model forget: the source's own held-out cases, before and after.

Notebook 06 predicts them with the models as pretrained and as fine-tuned. The same patients stand on both sides, so
that the difference is theirs, with a t interval over patients.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brainmets.scoring.intervals import patients_of
from brainmets.statistics.repeats import interval, mean_over_patients
from brainmets.statistics.tables import ScoreTableError, in_order, read_scores, unit_of, values, with_reference
from brainmets.statistics.tests import percent
from brainmets.vocabulary import (
    ARMS,
    METRIC_TITLES,
    PAPER_METRICS,
    REGION_ORDER,
    RESECTION_CAVITY,
    SCORE_COLUMNS,
    arm_title,
    better,
    ordered,
)

BEFORE, AFTER = "pretrained", "finetune"
COLUMNS = [
    "arm", "region", "metric", "unit", "n_patients", "before", "after", "difference", "difference_low",
    "difference_high", "note",
]  # fmt: skip
NONE_HELD_OUT = (
    "No held-out case of the source was scored before and after fine-tuning, so that what fine-tuning makes a model "
    "forget is not measured (source.held_out)."
)


def read_forgetting(folder: Path, held_out: Collection[str]) -> pd.DataFrame:
    """The scores of the source's held-out cases before and after fine-tuning, as ``tables.read_scores`` reads them.

    Without held-out cases the table has no rows, whatever lies in ``folder``. Raises ``ScoreTableError`` where there
    are some and the tables lack a case or hold another one, and where an arm lacks one of the two strategies.
    """
    if not held_out:
        return pd.DataFrame(columns=list(SCORE_COLUMNS))
    scores = read_scores(folder)
    found, wanted = set(scores["case"]), set(held_out)
    if found != wanted:
        stray, absent = sorted(found - wanted), sorted(wanted - found)
        what = f"scores {stray[0]}, which the source does not hold out" if stray else f"lacks {absent[0]}"
        raise ScoreTableError(f"{folder}: {what}; run notebook 06 of this study again")
    for arm, own in scores.groupby("arm"):
        if lacking := [side for side in (BEFORE, AFTER) if side not in set(own["strategy"])]:
            raise ScoreTableError(
                f"{folder} has no scores of {arm} {' and '.join(lacking)}: before and after belong together; run "
                "notebook 06 for it"
            )
    return scores


def forgetting(scores: pd.DataFrame, patients: Mapping[str, str], alpha: float) -> pd.DataFrame:
    """Before and after fine-tuning, one row per arm, region and metric with a direction; columns ``COLUMNS``.

    ``scores`` is ``read_forgetting``'s table, ``patients`` maps the source's cases to patients. ``before`` and
    ``after`` are means over patients (one with several scans counts once, with their mean) in the metric's unit;
    ``difference`` is after minus before with its interval at 1 - alpha. Cases whose reference lacks the region are
    left out, and so are those with an undefined or infinite value on a side, which ``note`` names.
    """
    tested = with_reference(scores)
    tested = tested[tested["region"] != RESECTION_CAVITY]
    rows = []
    for metric in ordered(tested["metric"], PAPER_METRICS):
        if better(metric) is None:
            continue
        for region in ordered(tested.loc[tested["metric"] == metric, "region"], REGION_ORDER):
            table = values(tested, metric, region)
            for arm in ordered(table.columns.get_level_values("arm"), ARMS):
                sides = table[[(arm, BEFORE), (arm, AFTER)]]
                labels = {"arm": arm, "region": region, "metric": metric, "unit": unit_of(tested, metric)}
                rows.append({**labels, **_row(sides, patients, alpha)})
    return in_order(pd.DataFrame(rows, columns=COLUMNS))


def _row(sides: pd.DataFrame, patients: Mapping[str, str], alpha: float) -> dict[str, object]:
    kept = sides.dropna()
    lost = ", ".join(sides.index.difference(kept.index))
    remarks = [f"undefined or infinite on a side: without {lost}"] if lost else []
    whose = patients_of(kept.index, patients)
    means = kept.groupby(np.array(whose, dtype=str)).mean().to_numpy(float)
    if len(means) == 0:
        return {"n_patients": 0, "note": "; ".join(["no case with two finite values", *remarks])}
    found = mean_over_patients(means[:, 1] - means[:, 0])
    low, high = interval(found, alpha, "")
    if len(means) < len(kept):
        remarks.append(f"{len(kept)} cases of {len(means)} patients, each counted once")
    if len(means) == 1:
        remarks.append("one patient: no interval")
    before, after = means.mean(axis=0)
    limits = {"difference_low": low, "difference_high": high}
    row = {"n_patients": len(means), "before": before, "after": after, "difference": found.mean}
    return {**row, **limits, "note": "; ".join(remarks)}


def sentence(table: pd.DataFrame, metric: str, region: str, alpha: float) -> str:
    """What one metric and region say, arm by arm; that nothing is known where the source holds nothing out."""
    if table.empty:
        return NONE_HELD_OUT
    own = table[(table["metric"] == metric) & (table["region"] == region)].to_dict("records")
    of_arms = [f"{arm_title(row['arm'])} {_words(row)}" for row in own if row["n_patients"]]
    named = f"{METRIC_TITLES.get(metric, metric)} of {region}"
    if not of_arms:
        return f"No held-out case of the source has {named} before and after fine-tuning."
    return (
        f"On the source's held-out cases the mean {named} before and after fine-tuning is, with the "
        f"{percent(1 - alpha)} interval of the change: {'; '.join(of_arms)}."
    )


def _words(row: Mapping[Hashable, Any]) -> str:
    limits = (
        f"{row['difference_low']:+.3g} to {row['difference_high']:+.3g}" if row["n_patients"] > 1 else "no interval"
    )
    n = f"{row['n_patients']} patient{'s' * (row['n_patients'] > 1)}"
    return f"{row['before']:.3g} and {row['after']:.3g} ({row['difference']:+.3g}, {limits}; {n})"
