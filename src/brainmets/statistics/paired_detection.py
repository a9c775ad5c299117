"""Fine-tuned minus from scratch in lesions found and in false positives, each at its own frozen operating point.

Both models were asked for the same false positives a case on the training cases (``operating_point``), and see the
same held-out lesions: the difference is one of pairs. Lesions and scans of a patient are alike, so that patients are
what is counted:

- the difference in sensitivity is pooled, the sum over patients of lesions found by one and by the other over all
  lesions; that in false positives is over all cases;
- the test swaps both models' counts of a whole patient at once (all its scans, lesions and arms): all 2^n swaps up to
  16 patients with such lesions, 20,000 random ones beyond (``tests.permutation``);
- the interval resamples patients (percentiles, read at ``tests.widened``'s levels). Where no lesion was gained, or
  none was lost, no resample knows of one either: that end reaches at least as far as the two shares' own intervals say
  (squared and added, Newcombe's method 10, Stat. Med. 17 (1998) 873-890, on ``intervals.share_interval``).

All of it is exploratory: Holm's correction runs over the sizes and arms of a measure, and says so in ``FAMILY``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from brainmets.schemas import Column, Schema
from brainmets.schemas import read as read_by
from brainmets.scoring.intervals import NO_INTERVAL, Interval, patients_of, share_interval
from brainmets.statistics.comparisons import EXPLORATORY, MEAN_OVER_ARMS, Settings
from brainmets.statistics.froc import ALL_SIZES, SIZES, Size
from brainmets.statistics.operating_point import Applied
from brainmets.statistics.tests import Floats, generator, holm, permutation, smallest_p, widened
from brainmets.tables import TableError, lines
from brainmets.vocabulary import ARMS, COMPARED_STRATEGIES, DETECTION_SENSITIVITY, SCORE_COLUMNS, Model, ordered

SENSITIVITY, FALSE_POSITIVES = "sensitivity", "false_positives"
FAMILY = (
    "all rows are exploratory and two-sided: Holm within the rows of the same measure over the sizes (per arm with "
    "all arms together; mean over arms)"
)
COLUMNS = [
    "first", "region", "measure", "size", "family", "cases", "patients", "n", *COMPARED_STRATEGIES, "difference",
    "low", "high", "p_value", "p_holm", "smallest_p", "note",
]  # fmt: skip
COVARIATE_COLUMNS = [
    "first", "region", "covariate", "level", "measure", "family", "cases", "patients", "n", *COMPARED_STRATEGIES,
    "difference", "low", "high", "note",
]  # fmt: skip
KNOWN_COLUMNS = ["case", "covariate", "level"]
NOT_GIVEN = "(not given)"
MOST_LEVELS = 12
"""Levels of a covariate; a column of more is a number or a name, and no group has enough patients."""
LONGEST_LEVEL = 40
"""Characters of a level: longer ones are remarks, and what remarks tell is anyone's guess."""
DATE = re.compile(r"(?<!\d)(\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{4}|(19|20)\d{6})(?!\d)")


@dataclass(frozen=True)
class Counts:
    """One arm, or the mean of several, by patient: shape (p,) each.

    ``ours`` and ``theirs``: what the first and the second strategy counts (lesions found, or false positives);
    ``gained``: counted by the first alone, ``lost`` by the second alone; ``of``: lesions, or cases.
    """

    ours: Floats
    theirs: Floats
    gained: Floats
    lost: Floats
    of: Floats


def compare(applied: Mapping[Model, Applied], settings: Settings, sizes: Sequence[Size] = SIZES) -> pd.DataFrame:
    """Differences in sensitivity by size and in false positives a case, per arm and averaged over the arms.

    ``applied``: by (arm, strategy), of the same cases; an arm without both of ``COMPARED_STRATEGIES`` has no rows. One
    row per arm, measure and size, columns ``COLUMNS``: ``first`` (the arm, or "mean over arms" where there are
    several), ``measure`` ("sensitivity", or "false_positives" a case, of all sizes alone), ``n`` (lesions, or cases),
    ``patients`` (that have such), the value of either strategy, their difference with its interval, p of the label
    swaps, Holm's, the smallest p that so many unequal patients could give, ``note``. Without such a lesion nothing is
    compared and ``note`` says so. Raises ``ValueError`` for models of other cases or reference lesions.
    """
    arms = _arms(applied)
    rows = []
    for measure, size in [*((SENSITIVITY, size) for size in sizes), (FALSE_POSITIVES, ALL_SIZES)]:
        of_arms = {arm: _counts(_pair(applied, arm), measure, size, settings.patients) for arm in arms}
        if len(arms) > 1:
            of_arms[MEAN_OVER_ARMS] = mean(list(of_arms.values()))
        for arm, counts in of_arms.items():
            first = applied[arms[0], COMPARED_STRATEGIES[0]]
            random = generator(settings.seed, "paired detection", arm, measure, size.name)
            row: dict[str, object] = {"first": arm, "region": first.aim.region, "measure": measure, "size": size.name}
            row |= {"family": EXPLORATORY, "cases": len(first.cases), **described(counts, measure, settings, random)}
            rows.append(row | _tested(counts, settings, random))
    table = pd.DataFrame(rows, columns=COLUMNS)
    if len(table):
        averaged = (table["first"] == MEAN_OVER_ARMS).rename("averaged")
        blocks = table.groupby([averaged, "measure"])["p_value"]
        table["p_holm"] = blocks.transform(lambda p_values: holm(p_values.to_list()))
    return table


def per_patient(applied: Mapping[Model, Applied]) -> pd.DataFrame:
    """The share of each case's lesions that a model finds at its operating point, in the layout of score tables.

    Columns arm, strategy, case, region, metric ("detection_sensitivity"), value, unit ("1"). A case without a lesion
    of the region has no share and no row, whatever the model. Cases of one patient are averaged by who compares.
    """
    rows = [
        (arm, strategy, case, one.aim.region, DETECTION_SENSITIVITY, float(found.mean()), "1")
        for (arm, strategy), one in applied.items()
        for case, found in one.lesions.groupby("case", sort=True)["found"]
    ]
    return pd.DataFrame(rows, columns=list(SCORE_COLUMNS))


def described(counts: Counts, measure: str, settings: Settings, random: np.random.Generator) -> dict[str, object]:
    """Both strategies' values, their difference and its interval; missing, with a note, where there is nothing."""
    n, patients = float(counts.of.sum()), int((counts.of > 0).sum())
    row: dict[str, object] = {"patients": patients, "n": int(n)}
    if not n:
        return row | {"note": "no such lesion: nothing to compare"}
    values = [float(side.sum()) / n for side in (counts.ours, counts.theirs)]
    low, high = interval(counts, settings, random, shares=measure == SENSITIVITY)
    note = "" if not math.isnan(low) else "one patient" if patients < 2 else "no patient differs"
    row |= dict(zip(COMPARED_STRATEGIES, values, strict=True))
    row |= {"difference": values[0] - values[1], "low": low, "high": high}
    return row | {"note": f"{note}: no interval" if note else ""}


def interval(counts: Counts, settings: Settings, random: np.random.Generator, shares: bool) -> Interval:
    """Of the pooled difference by resampling patients, as the module's first lines say.

    ``shares``: whether what is counted is a part of ``of`` (lesions found), which alone has an end to reach out to.
    NaN for one patient, and for amounts that differ in no patient.
    """
    held = counts.of > 0
    of, n = counts.of[held], int(held.sum())
    if n < 2:
        return NO_INTERVAL
    gained, lost = counts.gained[held], counts.lost[held]
    change = counts.ours[held] - counts.theirs[held]
    if not shares and not change.any():
        return NO_INTERVAL
    weights = random.multinomial(n, np.full(n, 1 / n), settings.n_bootstrap).astype(float)
    level = widened(settings.alpha, n)
    low, high = np.quantile((weights @ change) / (weights @ of), [level / 2, 1 - level / 2])
    if shares:
        total, confidence = float(of.sum()), 1 - settings.alpha
        difference, plus, minus = (float(side.sum()) / total for side in (change, gained, lost))
        (plus_low, plus_high), (minus_low, minus_high) = (share_interval(s, of, confidence) for s in (gained, lost))
        if not minus:
            low = min(low, difference - math.hypot(plus - plus_low, minus_high - minus))
        if not plus:
            high = max(high, difference + math.hypot(plus_high - plus, minus - minus_low))
    return max(float(low), -1.0) if shares else float(low), min(float(high), 1.0) if shares else float(high)


def _tested(counts: Counts, settings: Settings, random: np.random.Generator) -> dict[str, object]:
    """The swaps of whole patients; the mean of what is swapped is the pooled difference."""
    held = counts.of > 0
    change = (counts.ours - counts.theirs)[held] * held.sum() / max(float(counts.of.sum()), 1.0)
    unequal = int(np.count_nonzero(change))
    swaps = permutation(np.asarray(change, np.float64), "two-sided", settings.alpha, random)
    return {"p_value": swaps.p_value, "smallest_p": smallest_p(unequal, "two-sided") if held.any() else math.nan}


# --- counts by patient ---------------------------------------------------------------------------------------------


def mean(arms: Sequence[Counts]) -> Counts:
    """The mean over arms of each patient's counts; all have the same lesions and cases."""

    def of_all(name: str) -> Floats:
        return np.asarray(np.mean([getattr(arm, name) for arm in arms], axis=0), np.float64)

    return Counts(*(of_all(name) for name in Counts.__dataclass_fields__))


def _arms(applied: Mapping[Model, Applied]) -> list[str]:
    """The arms with both strategies, all models being of the same cases, lesions and aim."""
    arms = [
        arm
        for arm in ordered([arm for arm, _ in applied], ARMS)
        if all((arm, strategy) in applied for strategy in COMPARED_STRATEGIES)
    ]
    models = [applied[arm, strategy] for arm in arms for strategy in COMPARED_STRATEGIES]
    for other in models[1:]:
        names = [f"{one.point.arm} {one.point.strategy}" for one in (models[0], other)]
        if set(other.cases) != set(models[0].cases) or other.aim != models[0].aim:
            raise ValueError(
                f"{' and '.join(names)}: of other cases, or chosen for another aim; run notebook 06 again"
            )
        sides = [
            set(one.lesions[["case", "lesion", "volume_mm3"]].itertuples(index=False, name=None))
            for one in (models[0], other)
        ]
        if sides[0] != sides[1]:
            raise ValueError(f"{' and '.join(names)}: of other reference lesions; run notebook 06 again")
    return arms


def _pair(applied: Mapping[Model, Applied], arm: str) -> tuple[Applied, Applied]:
    first, second = (applied[arm, strategy] for strategy in COMPARED_STRATEGIES)
    return first, second


def _counts(
    pair: tuple[Applied, Applied],
    measure: str,
    size: Size,
    patients: Mapping[str, str],
    cases: Collection[str] | None = None,
) -> Counts:
    """By patient, of ``cases`` alone where they are given."""
    chosen = [case for case in pair[0].cases if cases is None or case in cases]
    whose = dict(zip(chosen, patients_of(chosen, patients), strict=True))
    names = sorted(set(whose.values()))

    def by_patient(rows: pd.DataFrame, values: pd.Series | None = None) -> Floats:
        own = rows["case"].isin(chosen)
        one = pd.Series(1.0, index=rows.index) if values is None else values.astype(float)
        sums = one[own].groupby(rows.loc[own, "case"].map(whose)).sum()
        return np.asarray(sums.reindex(names, fill_value=0.0), np.float64)

    if measure == FALSE_POSITIVES:
        ours, theirs = (by_patient(one.false) for one in pair)
        of = np.asarray(pd.Series(whose).value_counts().reindex(names), np.float64)
        return Counts(ours, theirs, np.maximum(ours - theirs, 0), np.maximum(theirs - ours, 0), of)
    key = ["case", "lesion"]
    both = pair[0].lesions.merge(pair[1].lesions[[*key, "found"]], on=key, suffixes=("", "_other"), validate="1:1")
    both = both[(both["diameter_mm"] >= size.low) & (both["diameter_mm"] < size.high)]
    first, second = both["found"].astype(bool), both["found_other"].astype(bool)
    ours, theirs, gained, lost = (
        by_patient(both, values) for values in (first, second, first & ~second, second & ~first)
    )
    return Counts(ours, theirs, gained, lost, by_patient(both))


# --- covariates ----------------------------------------------------------------------------------------------------


def read_covariates(path: Path, patients: Mapping[str, str]) -> pd.DataFrame:
    """A table of what is known of each case or patient, such as primary tumour, scanner or treatment.

    A CSV with a column ``case`` or ``patient``, with the names that the study gives (pseudonyms, where it does), each
    once, and one column per covariate, whose values are words or groups; a field may be empty. ``patients`` maps every
    case of the study to its patient. Returns case, covariate, level (``NOT_GIVEN`` where there is none), a row for
    every case of the study. Its values stand in the report.

    Raises ``TableError`` for a table that ``schemas.read`` refuses, one without or with both keys, without a
    covariate, with a name that is no case (patient) of the study's, a covariate of more than ``MOST_LEVELS`` levels,
    and a level that is a name of the study's, holds a date, is longer than ``LONGEST_LEVEL`` or cannot be seen, or
    differs from another in upper and lower case alone.
    """
    (_, names), *_ = lines(path)
    keys = [name for name in ("case", "patient") if name in names]
    columns = [name for name in names if name not in keys]
    again = "correct the table of covariates"
    if len(keys) != 1 or not columns:
        raise TableError(
            f"{path}: has the columns {', '.join(names)}; a table of covariates has one named case or patient, and at "
            "least one more"
        )
    key = keys[0]
    schema = Schema({key: Column(), **{name: Column(empty=True) for name in columns}}, (), again, rows=False)
    table = read_by(path, schema)
    known = set(patients) if key == "case" else set(patients.values())
    unknown = table[~table[key].isin(known)]
    if len(unknown):
        raise TableError(  # without the name, which may be a person's
            f"{path}, line {unknown.index[0]}: the {key} is none of the study's {len(known)} ({len(unknown)} such "
            "row(s)); give the names that the study gives them (manifest of the audit)"
        )
    if (again_there := table[table.duplicated(key)]).size:
        raise TableError(f"{path}, line {again_there.index[0]}: {again_there[key].iloc[0]} occurs twice; {again}")
    by_key = table.set_index(key)
    rows = []
    for name in columns:
        values = by_key[name].str.strip()
        if problem := _unfit(values.unique().tolist(), {*patients, *patients.values()}):
            raise TableError(f"{path}: {name}: {problem}; values stand in the report: write groups (such as lung)")
        levels = {place: value or NOT_GIVEN for place, value in values.items()}
        if len(set(levels.values())) > MOST_LEVELS:
            raise TableError(
                f"{path}: {name} has {len(set(levels.values()))} different values, {MOST_LEVELS} are allowed: write "
                "groups (such as <60 and >=60), or take the column out"
            )
        for case, patient in sorted(patients.items()):
            rows.append((case, name, levels.get(case if key == "case" else patient, NOT_GIVEN)))
    return pd.DataFrame(rows, columns=KNOWN_COLUMNS)


def _unfit(values: Sequence[str], names: Collection[str]) -> str:
    """What makes values no groups, or tells whom they are of, without showing it; empty where nothing does."""
    hidden = {name.casefold() for name in names}
    if any(value.casefold() in hidden for value in values):
        return "a value is the name of a case or patient"
    if any(DATE.search(value) for value in values):
        return "a value holds a date, which tells who somebody is"
    if any(len(value) > LONGEST_LEVEL or not value.isprintable() for value in values):
        return f"a value is longer than {LONGEST_LEVEL} characters, or holds some that cannot be seen"
    if len({value.casefold() for value in values}) < len(values):
        return "two values differ in upper and lower case alone"
    return ""


def by_covariate(applied: Mapping[Model, Applied], covariates: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """``compare``'s differences, without a test, in the held-out cases of each level of each covariate: exploratory.

    ``covariates``: what ``read_covariates`` gives, or a table of its columns (``KNOWN_COLUMNS``) without rows. Columns
    ``COVARIATE_COLUMNS``; a level without a held-out case has no row.
    """
    arms = _arms(applied)
    rows = []
    cases = set(applied[arms[0], COMPARED_STRATEGIES[0]].cases) if arms else set()
    groups = covariates[covariates["case"].isin(cases)].groupby(["covariate", "level"], sort=True)["case"]
    for (covariate, level), own in groups:
        for measure in (SENSITIVITY, FALSE_POSITIVES):
            of_arms = {
                arm: _counts(_pair(applied, arm), measure, ALL_SIZES, settings.patients, set(own)) for arm in arms
            }
            if len(arms) > 1:
                of_arms[MEAN_OVER_ARMS] = mean(list(of_arms.values()))
            for arm, counts in of_arms.items():
                random = generator(settings.seed, "covariate", arm, measure, str(covariate), str(level))
                region = applied[arms[0], COMPARED_STRATEGIES[0]].aim.region
                row: dict[str, object] = {"first": arm, "region": region, "measure": measure}
                row |= {"covariate": covariate, "level": level, "family": EXPLORATORY, "cases": len(own)}
                rows.append(row | described(counts, measure, settings, random))
    return pd.DataFrame(rows, columns=COVARIATE_COLUMNS)
