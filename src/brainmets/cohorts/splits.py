"""Held-out cases and cross-validation folds that keep the scans of a patient together.

The same folds serve fine-tuning and training from scratch: both strategies read the one ``splits.json``.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from statistics import fmean
from typing import TypedDict

import numpy as np
from sklearn.model_selection import GroupKFold

from brainmets.cohorts.cohort import RERUN, digest_of, read_manifest
from brainmets.files import read_json, write_json
from brainmets.paths import StudyPaths


class FoldCases(TypedDict):
    """Names of one fold's cases."""

    train: list[str]
    val: list[str]


class Split(TypedDict):
    """One cohort's split: cases that no training ever sees, and the folds of the rest."""

    held_out: list[str]
    folds: list[FoldCases]


class SplitError(ValueError):
    """A split that cannot be made, or is not this study's; the message names the parameter or the file."""


def hold_out(
    patients: Mapping[str, str],
    wanted: int | Sequence[str],
    seed: int,
    cohort: str = "",
    loads: Mapping[str, float] | None = None,
) -> list[str]:
    """Choose the held-out cases, sorted by name.

    ``patients`` maps case to patient. ``wanted`` is a list of case names, or a count: whole patients are then drawn
    by ``seed``, passing over a patient whose cases do not fit into the count. They are drawn at random, or, where
    ``loads`` gives each case's tumour volume, by load: the patients in order of their mean load are cut into as many
    equal strata as patients are wanted, and one is drawn from each. ``cohort`` (source or target) is for messages.
    Raises ``SplitError`` where a named case does not exist, where a patient would be on both sides, where the count
    cannot be met exactly, or where nothing would be left to train on.

    >>> hold_out({"P01_a": "P01", "P01_b": "P01", "P02": "P02"}, ["P01_b", "P01_a"], seed=1)
    ['P01_a', 'P01_b']
    """
    parameter = f"{cohort}.held_out" if cohort else "held_out"
    if isinstance(wanted, int):
        if wanted >= len(patients):
            raise SplitError(
                f"{parameter}: {wanted} of {len(patients)} cases: nothing is left to train on; lower it, or add cases"
            )
        order = _any_order(patients, seed) if loads is None else _order_over_loads(patients, wanted, seed, loads)
        return _fill(order, patients, wanted, parameter)
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


def _any_order(patients: Mapping[str, str], seed: int) -> list[str]:
    names = sorted(set(patients.values()))
    return [names[index] for index in np.random.default_rng(seed).permutation(len(names))]


def _order_over_loads(patients: Mapping[str, str], count: int, seed: int, loads: Mapping[str, float]) -> list[str]:
    """The patients so that the first ones come from every stratum of load, one each."""
    ranked = _by_load(patients, loads)
    wanted = max(1, round(count * len(ranked) / len(patients)))  # patients that hold so many cases
    draw = np.random.default_rng(seed)
    strata = [draw.permutation(stratum).tolist() for stratum in np.array_split(ranked, wanted)]
    draw.shuffle(strata)
    return [patient for one_of_each in zip_longest(*strata) for patient in one_of_each if patient is not None]


def _by_load(patients: Mapping[str, str], loads: Mapping[str, float]) -> list[str]:
    """The patients in rising order of the mean load of their cases, equal ones by name."""
    of_patient: dict[str, list[float]] = {}
    for case, patient in patients.items():
        of_patient.setdefault(patient, []).append(loads[case])
    return sorted(of_patient, key=lambda patient: (fmean(of_patient[patient]), patient))


def _fill(order: Sequence[str], patients: Mapping[str, str], count: int, parameter: str) -> list[str]:
    """The cases of the first patients in ``order`` that together have ``count``, those that do not fit left out."""
    sizes = Counter(patients.values())
    attainable = [{0}]  # numbers of cases that the last 0, 1, 2, ... patients of the order can give
    for patient in reversed(order):
        attainable.append(attainable[-1] | {sizes[patient] + others for others in attainable[-1]})
    possible = attainable.pop()
    if count not in possible:
        nearest = max(number for number in possible if number <= count)
        raise SplitError(
            f"{parameter}: {count} cases cannot be held out without separating a patient's scans ({nearest} can): "
            "choose another count, or list the cases"
        )
    chosen: set[str] = set()
    missing = count
    for patient in order:
        if missing - sizes[patient] in attainable.pop():
            chosen.add(patient)
            missing -= sizes[patient]
    return sorted(case for case, patient in patients.items() if patient in chosen)


def make_folds(
    patients: Mapping[str, str], n_folds: int, seed: int, loads: Mapping[str, float] | None = None
) -> list[FoldCases]:
    """Cross-validation folds over the cases in ``patients`` (case to patient), grouped by patient.

    Each case is in exactly one fold's ``val``. Folds are of equal size as far as whole patients allow, and drawn at
    random by ``seed``; where ``loads`` gives each case's tumour volume, every run of ``n_folds`` patients in the order
    of their mean load gives one to each fold. Raises ``SplitError`` with fewer patients than folds.
    """
    cases = sorted(patients)
    groups = [patients[case] for case in cases]
    if len(set(groups)) < n_folds:
        raise SplitError(f"n_folds: {n_folds} folds need as many patients, there are {len(set(groups))}")
    if loads is not None:
        fold_of = _folds_over_loads(patients, n_folds, seed, loads)
        return [
            FoldCases(
                train=[case for case in cases if fold_of[patients[case]] != fold],
                val=[case for case in cases if fold_of[patients[case]] == fold],
            )
            for fold in range(n_folds)
        ]
    splitter = GroupKFold(n_folds, shuffle=True, random_state=seed)
    return [
        FoldCases(train=[cases[i] for i in train], val=[cases[i] for i in val])
        for train, val in splitter.split(cases, groups=groups)
    ]


def _folds_over_loads(
    patients: Mapping[str, str], n_folds: int, seed: int, loads: Mapping[str, float]
) -> dict[str, int]:
    ranked = _by_load(patients, loads)
    draw = np.random.default_rng(seed)
    folds = [int(fold) for _ in range(0, len(ranked), n_folds) for fold in draw.permutation(n_folds)]
    return dict(zip(ranked, folds, strict=False))


def split_cohort(
    patients: Mapping[str, str],
    held_out: int | Sequence[str],
    n_folds: int,
    seed: int,
    cohort: str = "",
    loads: Mapping[str, float] | None = None,
) -> Split:
    """Hold cases out, then make folds of the rest.

    ``loads`` (case to tumour volume) draws both by load, ``None`` at random; whether a split is possible depends on
    neither. ``cohort`` (source or target) is for messages.
    """
    chosen = hold_out(patients, held_out, seed, cohort, loads)
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
    return Split(held_out=chosen, folds=make_folds(rest, n_folds, seed, loads))


# --- fewer training cases ------------------------------------------------------------------------------------------


def subset(split: Split, patients: Mapping[str, str], n: int, seed: int) -> list[str]:
    """``n`` of the split's training cases, sorted by name: those of the first patients in an order drawn by ``seed``.

    ``patients`` maps case to patient and may hold others too. All cases of a patient are taken or none, and no patient
    is passed over, so that a smaller number's cases are among a larger one's; the order does not depend on ``n``. A
    fold trains on those of them that it would train on anyhow. Raises ``SplitError`` where ``n`` is not below the
    number of training cases, where it would separate a patient's scans, and where a fold would be left without a case.

    >>> split = split_cohort({f"P{number}": f"P{number}" for number in range(8)}, 2, 3, seed=1)
    >>> set(subset(split, {f"P{number}": f"P{number}" for number in range(8)}, 4, seed=1)) < set(training_cases(split))
    True
    """
    require_fewer(split, n)
    of_patient: dict[str, list[str]] = {}
    for case in training_cases(split):
        of_patient.setdefault(patients[case], []).append(case)
    names = sorted(of_patient)
    draw = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))  # not as the held-out ones
    chosen: list[str] = []
    for index in draw.permutation(len(names)):
        before = len(chosen)
        chosen += of_patient[names[index]]
        if len(chosen) >= n:
            break
    if len(chosen) > n:
        raise SplitError(
            f"learning_curve: {n} training cases would separate a patient's scans; {before} and {len(chosen)} do not"
        )
    for number, fold in enumerate(split["folds"]):
        if not set(fold["train"]) & set(chosen):
            raise SplitError(
                f"learning_curve: {n} training cases leave none to fold {number}, which is validated with them; list "
                "a larger number"
            )
    return sorted(chosen)


def require_fewer(split: Split, n: int) -> None:
    """Raise ``SplitError`` unless ``n`` is below the number of the split's training cases."""
    if n >= (every := len(training_cases(split))):
        raise SplitError(
            f"learning_curve: {n} training cases of {every} that the target has beside its held-out ones: list "
            f"smaller numbers; with all {every} the study trains anyhow"
        )


def training_cases(split: Split) -> list[str]:
    """Every case that is not held out, by name."""
    return sorted({case for fold in split["folds"] for case in (*fold["train"], *fold["val"])})


# --- the file ------------------------------------------------------------------------------------------------------


def write(files: StudyPaths, split: Mapping[str, Split]) -> Path:
    """Write ``splits.json``: the cohorts' splits, with the study's name and what tells its cohorts from others.

    The manifests of the same audit must be written before.
    """
    cohorts = {cohort: digest_of(files.manifest(cohort)) for cohort in split}
    return write_json(files.splits, {"study": files.study, "cohorts": cohorts, **split})


def read(files: StudyPaths, cohort: str) -> Split:
    """The split of a cohort ("source" or "target") as the study's audit wrote it.

    Raises ``FileNotFoundError`` where there is none, and ``SplitError`` where the file is another study's, where the
    manifest was written for other cases or label maps, or where the file does not hold each case once.
    """
    path = files.splits
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} of study {files.study} is not there: run notebook 01 first")
    content = read_json(path)
    study, digests, split = content.get("study"), content.get("cohorts"), _as_split(content.get(cohort))
    if study is None or not isinstance(digests, dict) or split is None:
        raise SplitError(f"{path.name} holds no split of the {cohort} cohort as notebook 01 writes it: {RERUN}")
    if study != files.study:
        raise SplitError(f"{path.name} is of study {study!r}, not of {files.study!r}: {RERUN}")
    if digests.get(cohort) != digest_of(files.manifest(cohort)):
        raise SplitError(
            f"{path.name} was drawn from another {cohort} cohort than manifest.json lists (other cases or label "
            f"maps): one of them is another study's; {RERUN}"
        )
    known = sorted(read_manifest(files.manifest(cohort)))
    if any(sorted([*split["held_out"], *fold["train"], *fold["val"]]) != known for fold in split["folds"]):
        raise SplitError(f"{path.name} does not hold every case of the {cohort} cohort once per fold: {RERUN}")
    return split


def require_held_out(files: StudyPaths, cases: Iterable[str], table: str) -> None:
    """Raise ``SplitError`` unless ``cases``, those that ``table`` scores, are the target's held-out ones."""
    scored, held_out = set(cases), set(read(files, "target")["held_out"])
    stray, absent = sorted(scored - held_out), sorted(held_out - scored)
    if stray or absent:
        what = f"holds {len(stray)} case(s) that are not" if stray else f"lacks {len(absent)} of those that are"
        raise SplitError(
            f"{table} {what} held out in this study, such as {(stray or absent)[0]!r}: another study's table, or one "
            "from before notebook 01 ran again; run notebook 06 of this study again"
        )


def _as_split(content: object) -> Split | None:
    """A split, if this has the form of one: a list of names, and at least one fold of two such lists."""

    def names(value: object) -> bool:
        return isinstance(value, list) and all(isinstance(name, str) for name in value)

    if not isinstance(content, dict) or not names(content.get("held_out")):
        return None
    folds = content.get("folds")
    if not isinstance(folds, list) or not folds:
        return None
    if not all(isinstance(one, dict) and names(one.get("train")) and names(one.get("val")) for one in folds):
        return None
    return Split(held_out=content["held_out"], folds=[FoldCases(train=one["train"], val=one["val"]) for one in folds])
