"""The sides of a split: what the held-out cases hold, and the training and validation part of every fold."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from brainmets.cohorts.audit import FINDING_COLUMNS, Severity
from brainmets.cohorts.splits import Split
from brainmets.vocabulary import REGIONS


def sides(split: Split, cases: list[str]) -> Iterator[tuple[str, list[str]]]:
    """(name, cases) of every side: "held out" (where there are any), "training" (all folds together), and
    "fold 0 training", "fold 0 validation", ... for each fold.
    """
    if split["held_out"]:
        yield "held out", split["held_out"]
    yield "training", [case for case in cases if case not in split["held_out"]]
    for number, fold in enumerate(split["folds"]):
        yield f"fold {number} training", fold["train"]
        yield f"fold {number} validation", fold["val"]


def describe(cases: pd.DataFrame, split: Split) -> pd.DataFrame:
    """One row per side, indexed by its name: its cases, how many of them hold ET, TC and WT, and their load.

    ``cases`` is the audit's table of the cohort. Columns: cases, ET, TC, WT (counts), median_WT_mL, largest_WT_mL.
    """
    rows = {}
    for side, names in sides(split, cases.case.tolist()):
        part = cases[cases.case.isin(names)]
        holding = {region: int((part[f"{region}_mL"] > 0).sum()) for region in REGIONS}
        loads = {"median_WT_mL": part.WT_mL.median(), "largest_WT_mL": part.WT_mL.max()}
        rows[side] = {"cases": len(part), **holding, **loads}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("side")


def absent_regions(cases: pd.DataFrame, split: Split) -> pd.DataFrame:
    """Findings (``FINDING_COLUMNS``) about regions that a side of the split lacks and another side has.

    An error where no network can learn what the test holds, or where no held-out case holds a lesion. A warning where
    the networks of some folds cannot learn a region, or where the test or a fold's validation says nothing about one.
    A region that no case has is the audit's own finding.
    """
    found: dict[tuple[Severity, str], list[str]] = {}
    for region in REGIONS:
        holders = set(cases.case[cases[f"{region}_mL"] > 0])
        for about in _absences(region, holders, split) if holders else ():
            found.setdefault(about, []).append(region)
    rows = [
        {"severity": severity, "case": "all", "file": "", "finding": f"{_listed(regions)} {text}"}
        for (severity, text), regions in found.items()
    ]
    return pd.DataFrame(rows, columns=list(FINDING_COLUMNS))


def _absences(region: str, holders: set[str], split: Split) -> Iterator[tuple[Severity, str]]:
    tested = sorted(holders & set(split["held_out"]))
    if len(tested) == len(holders):
        yield (
            "error",
            f"in no training case, yet in {len(tested)} held-out one(s) ({', '.join(tested[:3])}"
            f"{', ...' if len(tested) > 3 else ''}): no network can learn it; hold out other cases (a list, `draw: "
            "by_load` or another seed), or add cases",
        )
        return
    if split["held_out"] and not tested:
        if region == "WT":
            yield "error", "in no held-out case: no lesion could be found in the test; hold out other cases"
        else:
            yield "warning", "in no held-out case: the test says nothing about finding it; hold out other cases"
    untaught = [number for number, fold in enumerate(split["folds"]) if not holders & set(fold["train"])]
    if untaught:
        yield (
            "warning",
            f"in no training case of fold(s) {', '.join(map(str, untaught))}: the networks of these folds cannot "
            "learn it; do not train such a fold alone, and draw anew (another seed, `draw: by_load`) where you can",
        )
    unseen = [number for number, fold in enumerate(split["folds"]) if not holders & set(fold["val"])]
    if unseen:
        yield (
            "warning",
            f"in no validation case of fold(s) {', '.join(map(str, unseen))}: the validation of these folds says "
            "nothing about it",
        )


def _listed(regions: list[str]) -> str:
    """Such as "ET is" and "ET, TC are"."""
    return f"{', '.join(regions)} {'is' if len(regions) == 1 else 'are'}"
