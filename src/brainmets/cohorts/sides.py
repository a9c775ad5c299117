"""The sides of a split: what the held-out cases hold, and the training and validation part of every fold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from brainmets.cohorts.rules import FINDING_COLUMNS, finding
from brainmets.cohorts.splits import Split
from brainmets.vocabulary import REGIONS, SEQUENCES


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

    An error where no network can learn what the test holds, or where no held-out case, or no training case of a fold,
    holds a lesion. A warning where the networks of some folds cannot learn a region, where the test or a fold's
    validation says nothing about one, or where the lesion-free cases are all held out or none is. A region that no
    case has is the audit's own finding.
    """
    found: dict[tuple[str, tuple[tuple[str, Any], ...]], list[str]] = {}
    for region in REGIONS:
        holders = set(cases.case[cases[f"{region}_mL"] > 0])
        for rule, values in _absences(region, holders, split) if holders else ():
            found.setdefault((rule, tuple(values.items())), []).append(region)
    rows = [
        finding(rule, "all", "", regions=_listed(regions), **dict(values)) for (rule, values), regions in found.items()
    ]
    free = cases.case[cases.WT_mL == 0].tolist()
    if len(free) < len(cases):
        rows += _about_lesion_free(free, split)
    return pd.DataFrame(rows, columns=list(FINDING_COLUMNS))


def sequence_sets(cases: pd.DataFrame, split: Split) -> pd.DataFrame:
    """Findings (``FINDING_COLUMNS``) about a cohort whose cases have not all the same sequences; else none.

    How many cases have which set, in training and held out, and a warning for every set that held-out cases alone
    have, and for every sequence that no training case of a fold has. ``cases`` is the audit's table of the cohort.
    The draw of a split does not look at the sequences.
    """
    whole, rows = [str(names) for names in cases.sequences], []
    if len(set(whole)) > 1:
        tested = cases.case.isin(split["held_out"])
        sides = {"training": cases.sequences[~tested], "held out": cases.sequences[tested]}
        counts = {side: part.value_counts(sort=False) for side, part in sides.items() if len(part)}
        by_set = [
            f"{side}: "
            + ", ".join(f"{counted[names]} with {names.replace(' ', '+')}" for names in sorted(counted.index))
            for side, counted in counts.items()
        ]
        rows.append(finding("sets of sequences", "all", "", counts="; ".join(by_set)))
        for names in sorted(set(sides["held out"]) - set(sides["training"])):
            holders = cases.case[tested & (cases.sequences == names)].tolist()
            shown = ", ".join(holders[:3]) + (", ..." if len(holders) > 3 else "")
            values = {"count": len(holders), "cases": shown, "sequences": names.replace(" ", ", ")}
            rows.append(finding("untaught set of sequences", "all", "", **values))
        of_case = {case: set(names.split()) for case, names in zip(cases.case, whole, strict=True)}
        for sequence in (name for name in SEQUENCES if any(name in names for names in of_case.values())):
            untaught = [
                str(number)
                for number, fold in enumerate(split["folds"])
                if not any(sequence in of_case[case] for case in fold["train"])
            ]
            if untaught:
                values = {"sequence": sequence, "folds": ", ".join(untaught)}
                rows.append(finding("sequence not taught in a fold", "all", "", **values))
    return pd.DataFrame(rows, columns=list(FINDING_COLUMNS))


def _about_lesion_free(free: list[str], split: Split) -> Iterator[dict[str, str]]:
    """Findings about cases without any lesion: folds that train on nothing else, a side that has none of them."""
    untaught = [str(number) for number, fold in enumerate(split["folds"]) if set(fold["train"]) <= set(free)]
    if untaught:
        yield finding("nothing taught in a fold", "all", "", folds=", ".join(untaught))
    tested = set(free) & set(split["held_out"])
    something_to_find = bool(set(split["held_out"]) - set(free))  # if not, that is an error of its own
    if len(free) > 1 and something_to_find and len(tested) in (0, len(free)):
        none = (
            "all of them are held out: no network learns from one"
            if tested
            else "none of them is held out: the test says nothing about patients without lesions"
        )
        yield finding("lesion-free cases on one side", "all", "", count=len(free), none=none)


def _absences(region: str, holders: set[str], split: Split) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rules that a region breaks, with the values of their messages."""
    tested = sorted(holders & set(split["held_out"]))
    if len(tested) == len(holders):
        shown = ", ".join(tested[:3]) + (", ..." if len(tested) > 3 else "")
        yield "not taught", {"count": len(tested), "cases": shown}
        return
    if split["held_out"] and not tested:
        yield "nothing to find" if region == "WT" else "not tested", {}
    untaught = [str(number) for number, fold in enumerate(split["folds"]) if not holders & set(fold["train"])]
    if untaught and region != "WT":  # without the whole tumour there is nothing at all, which is an error of its own
        yield "not taught in a fold", {"folds": ", ".join(untaught)}
    unseen = [str(number) for number, fold in enumerate(split["folds"]) if not holders & set(fold["val"])]
    if unseen:
        yield "not validated in a fold", {"folds": ", ".join(unseen)}


def _listed(regions: list[str]) -> str:
    """Such as "ET is" and "ET, TC are"."""
    return f"{', '.join(regions)} {'is' if len(regions) == 1 else 'are'}"
