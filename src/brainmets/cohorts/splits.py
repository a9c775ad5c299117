"""Held-out cases and cross-validation folds that keep the scans of a patient together.

The same folds serve fine-tuning and training from scratch: both strategies read the one ``splits.json``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
from sklearn.model_selection import GroupKFold


class FoldCases(TypedDict):
    """Names of one fold's cases."""

    train: list[str]
    val: list[str]


class Split(TypedDict):
    """One cohort's split: cases that no training ever sees, and the folds of the rest."""

    held_out: list[str]
    folds: list[FoldCases]


class SplitError(ValueError):
    """A split that cannot be made; the message names the parameter."""


def hold_out(patients: Mapping[str, str], wanted: int | Sequence[str], seed: int, cohort: str = "") -> list[str]:
    """Choose the held-out cases, sorted by name.

    ``patients`` maps case to patient. ``wanted`` is a list of case names, or a count: whole patients are then drawn
    at random (``seed``), skipping a patient whose cases would exceed the count. ``cohort`` (source or target) is for
    messages. Raises ``SplitError`` where a named case does not exist, where a patient would be on both sides,
    where the count cannot be met exactly, or where nothing would be left to train on.

    >>> hold_out({"P01_a": "P01", "P01_b": "P01", "P02": "P02"}, ["P01_b", "P01_a"], seed=1)
    ['P01_a', 'P01_b']
    """
    parameter = f"{cohort}.held_out" if cohort else "held_out"
    if isinstance(wanted, int):
        if wanted >= len(patients):
            raise SplitError(
                f"{parameter}: {wanted} of {len(patients)} cases: nothing is left to train on; lower it, or add cases"
            )
        return _draw(patients, wanted, seed, parameter)
    chosen = sorted(wanted)
    if unknown := sorted(set(chosen) - set(patients)):
        names = ", ".join(name + _nearest(name, patients) for name in unknown)
        whose = f"the {cohort} cohort" if cohort else "the cohort"
        raise SplitError(f"{parameter} names cases that {whose} does not have: {names}")
    torn = sorted({patients[case] for case in chosen} & {patients[case] for case in set(patients) - set(chosen)})
    if torn:
        raise SplitError(
            f"{parameter} separates the scans of patient(s) {', '.join(torn)}: list all of a patient's cases or none"
        )
    if len(chosen) >= len(patients):
        raise SplitError(f"{parameter} lists all {len(patients)} cases: nothing is left to train on; list fewer")
    return chosen


def _nearest(name: str, known: Mapping[str, str]) -> str:
    found = difflib.get_close_matches(name, sorted(known), n=1)
    return f" (did you mean {found[0]!r}?)" if found else f" (its cases are named like {min(known)!r})"


def _draw(patients: Mapping[str, str], count: int, seed: int, parameter: str) -> list[str]:
    names = sorted(set(patients.values()))
    chosen: list[str] = []
    for index in np.random.default_rng(seed).permutation(len(names)):
        cases = [case for case, patient in patients.items() if patient == names[index]]
        if len(chosen) + len(cases) <= count:
            chosen += cases
    if len(chosen) != count:
        raise SplitError(
            f"{parameter}: {count} cases cannot be held out without separating a patient's scans ({len(chosen)} can): "
            "choose another count, or list the cases"
        )
    return sorted(chosen)


def make_folds(patients: Mapping[str, str], n_folds: int, seed: int) -> list[FoldCases]:
    """Cross-validation folds over the cases in ``patients`` (case to patient), grouped by patient.

    Each case is in exactly one fold's ``val``. Raises ``SplitError`` with fewer patients than folds.
    """
    cases = sorted(patients)
    groups = [patients[case] for case in cases]
    if len(set(groups)) < n_folds:
        raise SplitError(f"n_folds: {n_folds} folds need as many patients, there are {len(set(groups))}")
    splitter = GroupKFold(n_folds, shuffle=True, random_state=seed)
    return [
        FoldCases(train=[cases[i] for i in train], val=[cases[i] for i in val])
        for train, val in splitter.split(cases, groups=groups)
    ]


def split_cohort(
    patients: Mapping[str, str], held_out: int | Sequence[str], n_folds: int, seed: int, cohort: str = ""
) -> Split:
    """Hold cases out, then make folds of the rest; ``cohort`` (source or target) is for messages."""
    chosen = hold_out(patients, held_out, seed, cohort)
    rest = {case: patient for case, patient in patients.items() if case not in chosen}
    every, left = len(set(patients.values())), len(set(rest.values()))
    if left < n_folds:
        where, parameter = (f"{cohort}: ", f"{cohort}.held_out") if cohort else ("", "held_out")
        taken = f", {every - left} held out, leaves {left}" if chosen else ""
        lower = f"{parameter} or audit.n_folds" if chosen else "audit.n_folds"
        raise SplitError(
            f"{where}{every} patient{'s' * (every != 1)}{taken}; audit.n_folds is {n_folds}: "
            f"lower {lower}, or add patients"
        )
    return Split(held_out=chosen, folds=make_folds(rest, n_folds, seed))
