"""The steps of a study: their names, the file that says one is done, and the values that decide its result.

The Snakefile, the notebook runner and the command line share these words.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from brainmets.cohorts.cohort import CohortError, files_of, find_cases
from brainmets.files import read_json
from brainmets.params import Cohort, own_plans
from brainmets.params.study import Study, without_main
from brainmets.paths import COHORTS, NOTEBOOKS, StudyPaths, project_root, resolve
from brainmets.provenance import damaged
from brainmets.vocabulary import CONTROL, STAGE_NOTEBOOKS, STRATEGIES

STAGES = {notebook: stage for stage, notebook in STAGE_NOTEBOOKS.items() if stage != CONTROL}
"""The stage that each training notebook trains, where its job names no other."""
SPEED_ONLY = ("workers", "augmentation_workers")
"""Parameters that change how fast a step runs, not what it finds."""


SHOWS_HEADS = ("00_preparation", "09_screening")
"""Notebooks whose executed copies hold whole heads and words of headers: the user's own to read, in no report."""


def read_study(params: Path) -> Study:
    """The study in ``params``; it is named from the checkout in messages and commands from then on."""
    study = Study.read(params)
    study.origin = shown(params.resolve())
    return study


def jobs(study: Study) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every notebook with every job of it, in the order of the notebooks."""
    return ((notebook, job) for notebook in NOTEBOOKS for job in study.jobs(notebook))


def step_name(notebook: str, job: dict[str, Any]) -> str:
    """The name of a step's files: the notebook, then its cohort and case, arm, strategy, fold and branch if any.

    >>> step_name("03_pretraining", {"arm": "default", "fold": 2})
    '03_pretraining_default_fold_2'
    >>> step_name("06_evaluation", {"arm": "default", "strategy": "scratch", "training_cases": 5})
    '06_evaluation_default_scratch_cases_5'
    """
    parts = [notebook, *(str(job[key]) for key in ("cohort", "case", "arm", "strategy") if key in job)]
    numbered = (("fold", "fold"), ("repeat", "repeat"), ("cases", "training_cases"))
    return "_".join([*parts, *(f"{word}_{job[key]}" for word, key in numbered if key in job)])


def job_of_wildcards(notebook: str, wildcards: Mapping[str, str]) -> dict[str, Any]:
    """The job that the Snakefile's wildcards name; that of the branch ends with a slash, or is empty.

    >>> job_of_wildcards("04_fine_tuning", {"branch": "cases_5/", "arm": "default", "fold": "0"})
    {'arm': 'default', 'fold': 0, 'training_cases': 5}
    """
    job = {name: int(value) if name == "fold" else value for name, value in wildcards.items() if name != "branch"}
    word, _, number = wildcards.get("branch", "").strip("/").partition("_")
    if word:
        job["repeat" if word == "repeat" else "training_cases"] = int(number)
    return without_main(notebook, job)


def branch(files: StudyPaths, job: dict[str, Any]) -> StudyPaths:
    """The paths of the branch of the study that a job is of."""
    return files.branch(job.get("repeat", 1), job.get("training_cases"))


def result(files: StudyPaths, notebook: str, job: dict[str, Any]) -> Path:
    """The file that ``notebook`` writes last, with its provenance: once it is there, the step is done."""
    files = branch(files, job)
    if notebook in STAGES:
        stage = job.get("strategy", STAGES[notebook]) if notebook == STAGE_NOTEBOOKS[CONTROL] else STAGES[notebook]
        return files.training(stage, job["arm"], job["fold"])
    if notebook == "00_preparation":
        return files.preparation(job["cohort"]).prepared(job["case"])
    if notebook == "06_evaluation":
        return files.evaluation(job["arm"], job["strategy"])
    return {
        "01_data_audit": files.audit,
        "02_plan_alignment": files.alignment,
        "07_statistics": files.statistics / "statistics.json",
        "08_case_review": files.review / "review.json",
        "09_screening": files.screening / "screening.json",
    }[notebook]


def decisive(values: dict[str, Any]) -> dict[str, Any]:
    """The values that decide a step's result: without those of other arms and those that only set its speed.

    Nor does what the audit only looks at: whether the split has as many training cases as a learning curve needs.
    """
    kept = {name: value for name, value in values.items() if name not in SPEED_ONLY}
    if "n_folds" in kept:
        kept.pop("learning_curve", None)
    if "arm" in kept and "arms" in kept:
        kept["arms"] = {kept["arm"]: kept["arms"][kept["arm"]]}
    if "gpu_memory_gb" in kept and "arms" in kept:  # planning asks of the arms only which plans they need
        kept["arms"] = own_plans(kept["arms"])
    if "case" in kept:  # of the cohorts, where the case is written; which raw files make it is the sorting's word
        kept["folder"], kept["layout"] = (kept[kept["cohort"]][name] for name in ("folder", "layout"))
        del kept["source"], kept["target"]
    return kept


def outdated(study: Study, files: StudyPaths) -> list[Path]:
    """Results on disk that were made with other parameters than the study's now, by their own provenance record.

    Snakemake notices changed parameters of what it ran itself; this also notices a notebook that was run by hand
    with a parameter changed, and results whose Snakemake records are gone. A result without a record counts as made
    otherwise too, and so does a prepared case that lacks a file in the cohort's folder, or whose raw files or roles
    have changed.
    """
    found = []
    for notebook, job in jobs(study):
        path = result(files, notebook, job)
        if not path.is_file():
            continue
        made = _made_with(path, study.notebook(notebook, **job).model_dump(mode="json"))
        if not made or ("case" in job and not _is_current(study, files, path, **job)):
            found.append(path)
    return found


def from_work(files: StudyPaths, path: Path) -> str:
    """A file of the study as Snakemake, which works in the study's folder, names it: the same wherever that lies."""
    if path.is_relative_to(files.work):
        return str(path.relative_to(files.work))
    return os.path.relpath(path.resolve(), files.work.resolve())  # ".." leads up from where a link leads to


def damages(study: Study, files: StudyPaths) -> dict[str, tuple[Path, dict[str, str]]]:
    """Steps that are done but whose files are not whole any more: each one's result, and what is wrong with its files.

    A step counts as done only as long as all that it wrote is there as it wrote it: its record lists that.
    """
    found = {}
    for notebook, job in jobs(study):
        path = result(files, notebook, job)
        root = resolve(study.content[job["cohort"]]["folder"]) if "case" in job else files.work
        if path.is_file() and (wrong := damaged(path, root)):
            found[step_name(notebook, job)] = path, wrong
    return found


def set_aside_others(study: Study, files: StudyPaths) -> list[str]:
    """Move scores that the study no longer has out of what notebooks 07 and 08 read; says of each what it is no more.

    They are of an arm, a strategy or a branch (a repeat, a number of training cases). The trainings
    stay where they are: who takes an arm back trains nothing anew.
    """
    said: dict[str, None] = {}
    branches = [files.branch(*one) for one in study.branches()]
    named = [path.name for path in files.work.glob("*/") if re.fullmatch(r"(repeat|cases)_\d+", path.name)]
    for name in sorted(set(named) - {one.beside for one in branches}, key=lambda name: (name[0], len(name), name)):
        for folder in _scored(replace(files, beside=name)):
            _set_aside(files, folder)
            said[f"{name.replace('_', ' ')} is no branch of this study any more"] = None
    for one in branches:
        for folder in [below for scored in _scored(one) for below in sorted(scored.glob("*/"))]:
            if folder.name not in study.arms:
                _set_aside(files, folder)
                said[f"{folder.name} is no arm of this study any more"] = None
                continue
            for name in STRATEGIES:
                if name not in study.strategies and (folder / name).is_dir():
                    _set_aside(files, folder / name)
                    said[f"{name} is no strategy of this study any more"] = None
    return list(said)


def _scored(files: StudyPaths) -> list[Path]:
    places = (files.evaluations, files.cross_validations, files.forgettings)
    return [folder for folder in places if folder.is_dir()]


def _set_aside(files: StudyPaths, folder: Path) -> None:
    target = files.left_out(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.replace(target)


def cohort_listing(study: Study) -> dict[str, list[tuple[str, int, int]]]:
    """Name, size and time of change of every case's files: a case or a file that changes calls for a new audit.

    Cohorts that notebook 01 makes itself are left out, and cases that notebook 00 makes: their own records tell.
    """
    listing = {}
    for name in COHORTS:
        declaration = Cohort(**study.content[name])
        if declaration.phantoms:
            continue
        folder = resolve(declaration.folder)
        try:
            cases = find_cases(declaration, study.sequences_of(name))
        except CohortError:
            if declaration.raw is None:
                raise
            cases = []  # none is prepared yet
        made = set(study.raw_cases(name))
        found = [path for case in cases if case.case not in made for path in case.paths]
        stated = [(path.relative_to(folder).as_posix(), path.stat()) for path in found]
        if declaration.lesion_free_list:
            stated.append(("lesion_free", resolve(declaration.lesion_free_list).stat()))
        listing[name] = [(file, state.st_size, state.st_mtime_ns) for file, state in stated]
    return listing


def shown(path: Path) -> str:
    """A path as it reads from the checkout."""
    root = project_root()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def command(*words: str) -> str:
    """A ``brainmets`` command as one types it in the checkout."""
    return shlex.join([shown(Path(sys.executable).with_name("brainmets")), *words])


def _is_current(study: Study, files: StudyPaths, path: Path, cohort: str, case: str) -> bool:
    """Whether a prepared case has all its files, and was made from the raw files that the sorting has for it now."""
    plan = files.preparation(cohort).plan
    planned = read_json(plan)["cases"].get(case, {}) if plan.is_file() else {}
    declaration = Cohort(**study.content[cohort])
    needed = {*study.sequences_of(cohort)} - {*declaration.may_lack} | {*planned.get("images", ())}
    if planned.get("label"):  # none: lesion-free
        needed.add("label")
    whole = all(path.is_file() for name, path in files_of(declaration, case).items() if name in needed)
    return whole and read_json(path).get("files") == planned.get("digest")


def _made_with(path: Path, expected: dict[str, Any]) -> bool:
    try:
        return decisive(read_json(path)["provenance"]["parameters"]) == decisive(expected)
    except (ValueError, LookupError, TypeError, AttributeError):
        return False
