"""What the joined scores may not hold: a value twice, two units, a missing case, a value that cannot be.

Every refusal is a ``ScoreTableError`` that names files, cases and values, and what to do.
"""

from __future__ import annotations

import pandas as pd

from brainmets.statistics.directions import better
from brainmets.statistics.table_text import ScoreTableError

KEY = ["arm", "strategy", "case", "region", "metric"]
SLACK = 1e-9
"""How far beyond a limit a value may lie for the rounding of its last digits."""
SAME_VOLUME = 1e-6
"""Relative difference up to which two reference volumes are one: what is left of single precision."""


def check(scores: pd.DataFrame) -> None:
    """Refuse scores that no comparison could trust.

    ``scores`` has the columns arm, strategy, case, region, metric, value and unit, and for the messages ``file`` and
    ``column``, the value's column in that file.
    """
    _refuse_duplicates(scores)
    _refuse_mixed_units(scores)
    _refuse_impossible(scores)
    _refuse_missing_cases(scores)
    _refuse_other_references(scores)


def _refuse_duplicates(scores: pd.DataFrame) -> None:
    again = scores[scores.duplicated(KEY, keep=False)]
    if len(again):
        row = again.iloc[0]
        same = again[(again[KEY] == row[KEY]).all(axis=1)]
        raise ScoreTableError(
            f"{row['arm']} {row['strategy']}: case {row['case']} has {len(same)} values of {row['metric']} "
            f"{row['region']} in {' and '.join(sorted(set(same['file'])))}; keep one"
        )


def _refuse_mixed_units(scores: pd.DataFrame) -> None:
    units = scores.groupby("metric")["unit"].unique()
    for metric, found in units.items():
        if len(found) > 1:
            raise ScoreTableError(f"{metric} comes in {' and in '.join(sorted(found))}; give every table one unit")


def _refuse_impossible(scores: pd.DataFrame) -> None:
    """Shares lie between 0 and 1; distances, volumes and counts are not negative. NaN is no value and passes."""
    share = scores["metric"].map(better) == "greater"
    low, high = scores["value"] < -SLACK, share & (scores["value"] > 1 + SLACK)
    wrong = scores[low | high]
    if len(wrong):
        row = wrong.iloc[0]
        limits = "between 0 and 1" if share[wrong.index[0]] else "at 0 or above"
        others = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise ScoreTableError(
            f"{row['file']}: case {row['case']}, {row['column']}: {row['metric']} {row['region']} is "
            f"{row['value']:g} and must lie {limits}{others}; score the case again, or correct the column"
        )


def _refuse_missing_cases(scores: pd.DataFrame) -> None:
    """Every model needs the same cases, regions and metrics; RC stands only where it occurs and is not asked for."""
    asked = scores[scores["region"] != "RC"]
    wanted = set(zip(asked["case"], asked["region"], asked["metric"], strict=True))
    problems = []
    for (arm, strategy), own in asked.groupby(["arm", "strategy"], sort=False):
        lacking = wanted - set(zip(own["case"], own["region"], own["metric"], strict=True))
        cases = sorted({case for case, _, _ in lacking} - set(own["case"]))
        where = f" ({' and '.join(sorted(set(own['file'])))})"
        if cases:
            problems.append(f"{arm} {strategy} has no case {', '.join(cases)}{where}")
        elif lacking:
            case, region, metric = sorted(lacking)[0]
            more = f" (and {len(lacking) - 1} more)"
            problems.append(f"{arm} {strategy} has no {metric} {region} of case {case}{more}{where}")
    if problems:
        raise ScoreTableError(
            "; ".join(problems)
            + ". Every model must be scored on the same cases: score what is missing (brainmets score --missing worst "
            "counts an absent prediction as empty) or take the case out of every table"
        )


def _refuse_other_references(scores: pd.DataFrame) -> None:
    """A case has one reference: its volume must be the same in every model's table."""
    volumes = scores[(scores["metric"] == "reference_volume") & scores["value"].notna()]
    for (case, region), group in volumes.groupby(["case", "region"]):
        group = group.sort_values("value")
        small, large = group.iloc[0], group.iloc[-1]
        if large["value"] - small["value"] > SAME_VOLUME * large["value"]:
            raise ScoreTableError(
                f"case {case}, {region}: the reference volume is {small['value']:.6g} {small['unit']} in "
                f"{small['file']} and {large['value']:.6g} in {large['file']}: one was scored against another "
                "reference; score both against the same one"
            )
