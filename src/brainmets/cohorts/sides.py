"""The sides of a split: what the held-out cases hold, and the training and validation part of every fold."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

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
