"""``brainmets review``: hand the held-out cases to experts, and read what they filled in."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from brainmets.atomic import write_csv
from brainmets.params import CaseReview, ParameterError, Statistics
from brainmets.params.study import Study
from brainmets.paths import NOTEBOOKS, StudyPaths
from brainmets.review.expert_folder import best_models, write_expert_folder
from brainmets.review.expert_ratings import agreement, read_ratings, summarise
from brainmets.review.images import pseudonyms
from brainmets.statistics.score_tables import read_scores


def add_review_command(commands: Any) -> None:
    """Declare ``brainmets review PARAMS [--ratings FOLDER]``."""
    parser = commands.add_parser(
        "review",
        help="write a blinded folder for experts, or read their rating sheets",
        description="Without --ratings: write every held-out case for 3D Slicer, two models blinded as A and B, with "
        "a rating sheet. With --ratings: read the sheets, unblind and summarise them.",
    )
    parser.add_argument("params", type=Path, help="the study's YAML, such as params/demo.yaml")
    parser.add_argument(
        "--ratings", type=Path, metavar="FOLDER", help="folder of filled-in rating sheets (*.csv), or one sheet"
    )


def run_review(args: argparse.Namespace) -> int:
    """Carry out ``brainmets review``; gives the exit status: 0 done, 2 what was given cannot be used."""
    study = Study.read(args.params)
    files = StudyPaths(study.content["work_dir"], study.content["study"])
    folder = files.review / "expert"
    try:
        if not any(files.evaluations.rglob("scores.csv")):
            raise ParameterError(f"study {files.study} has no scores yet: run notebook {NOTEBOOKS[5]} first")
        scores = read_scores(files.evaluations)
        if args.ratings is None:
            _hand_out(study, files, scores, folder)
        else:
            _read_back(study, files, scores, folder, args.ratings)
    except (ValueError, FileExistsError) as error:
        print(f"brainmets review: {error}", file=sys.stderr)
        return 2
    return 0


def _hand_out(study: Study, files: StudyPaths, scores: pd.DataFrame, folder: Path) -> None:
    settings = study.notebook("08_case_review")
    assert isinstance(settings, CaseReview)
    cases = sorted(scores["case"].unique())
    names = pseudonyms(cases) if settings.pseudonyms else {case: case for case in cases}
    key = write_expert_folder(files, names, best_models(scores), folder, study.content["seed"])
    print(f"{len(cases)} cases, {len(key)} rows to rate: hand out {folder.name}/ in {files.review.name}/")
    print(f"the key stays here: {folder.name}_key.csv")


def _read_back(study: Study, files: StudyPaths, scores: pd.DataFrame, folder: Path, sheets: Path) -> None:
    key_file = folder.with_name(f"{folder.name}_key.csv")
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
