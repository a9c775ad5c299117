"""``brainmets review``: hand the held-out cases to experts, and read what they filled in."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from brainmets.files import write_csv
from brainmets.params import CaseReview, ParameterError, Statistics
from brainmets.params.study import Study
from brainmets.paths import NOTEBOOKS, StudyPaths
from brainmets.review.case import pseudonyms_of
from brainmets.review.expert_folder import best_models, write_expert_folder
from brainmets.review.expert_ratings import agreement, read_ratings, summarise
from brainmets.statistics.tables import read_scores


def hand_out(study: Study) -> None:
    """Write the study's held-out cases for experts, its two best models blinded, and the key beside the folder."""
    files, scores = _scored(study)
    settings = study.notebook("08_case_review")
    assert isinstance(settings, CaseReview)
    cases = sorted(scores["case"].unique())
    names = pseudonyms_of(cases) if settings.pseudonyms else {case: case for case in cases}
    folder = files.review / "expert"
    key = write_expert_folder(files, names, best_models(scores), folder, study.content["seed"])
    print(f"{len(cases)} cases, {len(key)} rows to rate: hand out {folder.name}/ in {files.review.name}/")
    print(f"the key stays here: {folder.name}_key.csv")


def read_back(study: Study, sheets: Path) -> None:
    """Read a folder of filled-in rating sheets, or one sheet, unblind them, and write and print what they say."""
    files, scores = _scored(study)
    key_file = files.review / "expert_key.csv"
    if not key_file.is_file():
        raise FileNotFoundError(f"{key_file.name} is not there: run brainmets review without --ratings first")
    found = _find_sheets(sheets)
    settings = study.notebook("07_statistics")
    assert isinstance(settings, Statistics)
    ratings = read_ratings(found, pd.read_csv(key_file, dtype=str))
    summary = summarise(ratings, scores)
    kappas = agreement(ratings, settings.n_bootstrap, settings.seed)
    for name, table in (("ratings", ratings), ("summary", summary), ("agreement", kappas)):
        write_csv(files.review / f"expert_{name}.csv", table)
    print(f"{len(ratings)} ratings by {ratings['rater'].nunique()} raters from {len(found)} sheets")
    print(summary.round(3).to_string(index=False))
    print(kappas.round(3).to_string(index=False))


def _scored(study: Study) -> tuple[StudyPaths, pd.DataFrame]:
    files = StudyPaths(study.content["work_dir"], study.content["study"])
    if not any(files.evaluations.rglob("scores.csv")):
        raise ParameterError(f"study {files.study} has no scores yet: run notebook {NOTEBOOKS[5]} first")
    return files, read_scores(files.evaluations)


def _find_sheets(sheets: Path) -> list[Path]:
    """The rating sheets in a folder, or the one that is named."""
    if sheets.is_file():
        return [sheets]
    if not sheets.is_dir():
        raise ParameterError(f"--ratings: there is no {sheets}; name the folder of the filled-in sheets, or one sheet")
    found = sorted(path for path in sheets.iterdir() if path.suffix.lower() == ".csv" and path.name[0] != ".")
    if not found:
        raise ParameterError(f"--ratings: {sheets} holds no .csv file")
    return found
