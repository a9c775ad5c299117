"""Scores of a study's branches side by side: its repeats, or its models of fewer training cases.

Every branch is scored on the same held-out cases, so that a patient is paired with itself across all of them. A branch
that lacks a model, a case or a value is refused: a mean over fewer cases would pass for training luck, or for a slower
learner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from brainmets.paths import StudyPaths
from brainmets.scoring.intervals import patients_of
from brainmets.statistics.comparisons import MEAN_OVER_ARMS
from brainmets.statistics.tables import (
    COLUMNS,
    KEY,
    SAME_VOLUME,
    ScoreTableError,
    find_score_files,
    read_scores,
    require_whole,
    unit_of,
    with_reference,
)
from brainmets.statistics.tests import Floats
from brainmets.vocabulary import (
    ARMS,
    COMPARED_STRATEGIES,
    PAPER_METRICS,
    REGION_ORDER,
    RESECTION_CAVITY,
    better,
    ordered,
)

REPEAT, TRAINING_CASES = "repeat", "training_cases"
"""The column that tells the branches of a table apart: which training it is, or of how many cases."""


@dataclass(frozen=True)
class Block:
    """One metric in one region of one arm (or of the mean over the arms), one number per patient, strategy and branch.

    ``values`` has shape (patients, 2, branches): the ``COMPARED_STRATEGIES`` in their order, the branches as in
    ``branches``; every value is finite. ``remarks`` say what was left out and how scans were counted.
    """

    arm: str
    region: str
    metric: str
    unit: str
    patients: tuple[str, ...]
    branches: tuple[int, ...]
    values: Floats
    remarks: tuple[str, ...] = ()

    @property
    def labels(self) -> dict[str, str]:
        """The first columns of a row about this block."""
        return {"arm": self.arm, "region": self.region, "metric": self.metric, "unit": self.unit}


def read_repeats(files: StudyPaths, repeats: int) -> pd.DataFrame:
    """The scores of both compared strategies in every repeat, as ``together`` joins them by ``repeat``.

    Raises ``ValueError`` for a table that is not what notebook 06 wrote, and ``ScoreTableError`` as ``together``.
    """
    return _read({repeat: files.branch(repeat=repeat) for repeat in range(1, repeats + 1)}, REPEAT)


def read_curve(files: StudyPaths, learning_curve: Sequence[int], every: int) -> pd.DataFrame:
    """The scores of both compared strategies with each number of training cases, joined by ``training_cases``.

    The study's own models are among them, with ``every`` case of the target that is not held out. Raises
    ``ValueError`` as ``read_repeats`` does, and for a number that is not below ``every``.
    """
    if learning_curve and max(learning_curve) >= every:
        raise ValueError(
            f"learning_curve: {max(learning_curve)} must be below {every}, the target's training cases: all of them "
            "are the study itself"
        )
    return _read({**{n: files.branch(training_cases=n) for n in learning_curve}, every: files}, TRAINING_CASES)


def tables_of(files: StudyPaths, repeats: int, learning_curve: Sequence[int]) -> list[Path]:
    """The score tables of every branch but the study itself: what a record names as read."""
    beside = [files.branch(repeat=repeat) for repeat in range(2, repeats + 1)]
    beside += [files.branch(training_cases=n) for n in learning_curve]
    return [table for branch in beside for table in find_score_files(branch.evaluations)]


def _read(branches: Mapping[int, StudyPaths], by: str) -> pd.DataFrame:
    tables = {}
    for branch, files in branches.items():
        require_whole(files)
        scores = read_scores(files.evaluations)
        tables[branch] = scores[scores["strategy"].isin(COMPARED_STRATEGIES)]
    return together(tables, by)


def together(tables: Mapping[int, pd.DataFrame], by: str) -> pd.DataFrame:
    """Score tables of the branches in one: their columns and ``by``, the branch, in rising order.

    Raises ``ScoreTableError`` for a branch that lacks a model, a case or a value of another (the resection cavity is
    not asked for, since few cases have one), and for a case whose reference volume differs between two branches.
    """
    joined = pd.concat([table[COLUMNS].assign(**{by: branch}) for branch, table in sorted(tables.items())])
    joined = joined.reset_index(drop=True)
    asked = joined[joined["region"] != RESECTION_CAVITY]
    for names, what in ((KEY[:2], "model"), (KEY[2:3], "case"), (KEY, "value")):
        held = {branch: set(own[names].itertuples(index=False, name=None)) for branch, own in asked.groupby(by)}
        every = set().union(*held.values())
        for branch in sorted(tables):
            if lacking := sorted(every - held.get(branch, set())):
                more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
                raise ScoreTableError(
                    f"{by} {branch} lacks the {what} {' '.join(map(str, lacking[0]))}{more}, which another {by} has; "
                    "every branch of a study is scored on the same cases: run notebook 06 for it again"
                )
    _refuse_other_references(joined, by)
    return joined


def _refuse_other_references(scores: pd.DataFrame, by: str) -> None:
    volumes = scores[(scores["metric"] == "reference_volume") & scores["value"].notna()]
    for (case, region), group in volumes.groupby(["case", "region"]):
        low, high = group["value"].min(), group["value"].max()
        if high - low > SAME_VOLUME * high:
            of = [group.loc[group["value"] == end, by].iloc[0] for end in (low, high)]
            raise ScoreTableError(
                f"case {case}, {region}: the reference volume is {low:.6g} in {by} {of[0]} and {high:.6g} in {by} "
                f"{of[1]}: one was scored against another reference; run notebook 06 for it again"
            )


def blocks(scores: pd.DataFrame, by: str, patients: Mapping[str, str]) -> Iterator[Block]:
    """Every metric with a direction, in every region but the resection cavity, of every arm with both strategies.

    ``scores`` is ``together``'s table, ``patients`` maps case to patient (empty: every case is a patient of its own).
    Where there are several such arms, their mean per patient comes last. Of a patient with several scans the mean is
    taken first. A case without the region in its reference, or with an undefined or infinite value in any branch or
    strategy, is left out of all of them; the latter is remarked. No block where no patient is left.
    """
    tested = with_reference(scores[scores["strategy"].isin(COMPARED_STRATEGIES)])
    tested = tested[tested["region"] != RESECTION_CAVITY]
    for metric in ordered(tested["metric"], PAPER_METRICS):
        if better(metric) is None:
            continue
        of_metric = tested[tested["metric"] == metric]
        for region in ordered(of_metric["region"], REGION_ORDER):
            yield from _of_arms(of_metric[of_metric["region"] == region], by, patients)


def _of_arms(scores: pd.DataFrame, by: str, patients: Mapping[str, str]) -> Iterator[Block]:
    """The blocks of one metric and region: each arm that has both strategies, then their mean."""
    branches = sorted(int(branch) for branch in set(scores[by]))
    wide = scores.pivot(index="case", columns=["arm", "strategy", by], values="value").sort_index()
    every, held = ordered(scores["arm"], ARMS), set(zip(scores["arm"], scores["strategy"], strict=True))
    arms = [arm for arm in every if all((arm, side) in held for side in COMPARED_STRATEGIES)]
    alone = [f"{arm} left out: it lacks a strategy" for arm in every if arm not in arms]
    found = {}
    for arm in arms:
        columns = [(arm, side, branch) for side in COMPARED_STRATEGIES for branch in branches]
        found[arm] = wide[columns].to_numpy(float).reshape(len(wide), len(COMPARED_STRATEGIES), len(branches))
    if len(arms) > 1:
        with np.errstate(invalid="ignore"):
            found[MEAN_OVER_ARMS] = np.mean([found[arm] for arm in arms], axis=0)
    for arm, values in found.items():
        last = arm == list(found)[-1]
        kept = np.isfinite(values).all(axis=(1, 2))
        if not kept.any():
            continue
        lost = ", ".join(wide.index[~kept])
        remarks = [*(alone if last else []), *([f"undefined or infinite in a branch: without {lost}"] if lost else [])]
        whose = np.array(patients_of(wide.index[kept], patients), dtype=str)
        names = sorted(set(whose))
        if len(names) < len(whose):
            remarks.append(f"{len(whose)} cases of {len(names)} patients, each counted once")
        means = np.stack([values[kept][whose == name].mean(axis=0) for name in names])
        region, metric = (str(scores[name].iloc[0]) for name in ("region", "metric"))
        labels = (arm, region, metric, unit_of(scores, metric))
        yield Block(*labels, tuple(names), tuple(branches), means, tuple(remarks))


def over_arms(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the mean over arms, or of the arm where there is one; ``table`` holds one metric and region."""
    means = table[table["arm"] == MEAN_OVER_ARMS]
    return means if len(means) else table
