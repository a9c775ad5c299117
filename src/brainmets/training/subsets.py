"""Predicting a case with some of its sequences left out: every non-empty set that can be made of what it has."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from brainmets.cohorts.cohort import Case, read_manifest
from brainmets.files import read_json, shaped
from brainmets.paths import StudyPaths
from brainmets.statistics.subsets import name_of
from brainmets.training.inference import Ensemble, write_prediction
from brainmets.vocabulary import STAGE_COHORTS, Stage


def learnt(ensemble: Ensemble, trained: Iterable[Case]) -> set[str] | None:
    """The sets of sequences that the ``trained`` cases had, by ``name_of``; None where training dropped some.

    With sequence dropout every set occurs in training. Where every case lacks something, all sequences together were
    never seen.
    """
    if ensemble.plans.plans["brainmets"]["settings"].get("sequence_dropout", 0.0) > 0:
        return None
    return {name_of(read_of(ensemble, case)) for case in trained}


def trained_cases(files: StudyPaths, stage: Stage, arm: str, folds: Iterable[int]) -> list[Case]:
    """The cases that one or more of an arm's folds trained on in ``stage``, by their records; sorted by name."""
    manifest = read_manifest(files.manifest(STAGE_COHORTS[stage]))
    return [manifest[name] for name in sorted(trained_on(files, stage, arm, folds))]


def trained_on(files: StudyPaths, stage: str, arm: str, folds: Iterable[int]) -> set[str]:
    """The names of these cases."""
    return {case for fold in folds for case in _cases_of(files.training(stage, arm, fold))}


@shaped
def _cases_of(record: Path) -> list[str]:
    cases: list[str] = read_json(record)["cases"]
    return cases


def read_of(ensemble: Ensemble, case: Case) -> tuple[str, ...]:
    """The sequences of a case that the networks read, in channel order."""
    return tuple(sequence for sequence in ensemble.sequences if sequence in case.images)


def proper_subsets(sequences: Sequence[str]) -> list[tuple[str, ...]]:
    """Every non-empty set of some but not all of ``sequences``, the largest first.

    >>> proper_subsets(["t1c", "t2f"])
    [('t1c',), ('t2f',)]
    """
    return [some for n in range(len(sequences) - 1, 0, -1) for some in itertools.combinations(sequences, n)]


def predict_subsets(
    ensemble: Ensemble, cases: Sequence[Case], folder: Path, report: Callable[[str], None]
) -> dict[str, list[str]]:
    """Predict every case with each proper subset of the sequences it has, into ``folder/<set>/<case>.nii.gz``.

    ``folder`` is emptied first. Returns the names of the cases by set. ``report`` gets one line per prediction with
    the time left. A prediction lies on the grid of the whole case, whatever was left out.
    """
    shutil.rmtree(folder, ignore_errors=True)
    jobs = [(case, subset) for case in cases for subset in proper_subsets(read_of(ensemble, case))]
    found: dict[str, list[str]] = {}
    started = time.monotonic()
    for number, (case, subset) in enumerate(jobs, 1):
        part = replace(case, images={sequence: case.images[sequence] for sequence in subset})
        name = name_of(subset)
        try:
            labels = ensemble.labels(ensemble.probabilities(part))
        except FloatingPointError as error:
            raise FloatingPointError(f"{case.case} with {name} alone: {error}") from error
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_prediction(labels, case, folder / name)
        found.setdefault(name, []).append(case.case)
        elapsed = time.monotonic() - started
        left = elapsed / number * (len(jobs) - number)
        report(f"subset {number} of {len(jobs)}: {case.case} with {name}, {elapsed:.0f} s, {left:.0f} s left")
    return found
