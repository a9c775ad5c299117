"""Experts rate the two best models blinded: hand the cases out, read the rating sheets back, summarise them.

Handed out is a folder with, per case, what 3D Slicer loads and a row of the rating sheet for model A and model B. It
names no model: the key, which letter is which model in which case, lies beside it and stays behind.

Weighted kappa: Cohen, Psychol. Bull. 70 (1968) 213-220, with quadratic weights; its interval is the jackknife's over
patients (``brainmets.scoring.intervals``) on Fisher's z.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from brainmets import nifti, tables
from brainmets.cohorts.cohort import Case, read_manifest, sequences_of
from brainmets.files import numbered, write_text
from brainmets.params import ParameterError
from brainmets.params.study import Study
from brainmets.paths import StudyPaths
from brainmets.review import slicer
from brainmets.schemas import RATING_KEY
from brainmets.schemas import read as read_by
from brainmets.scoring.intervals import NO_INTERVAL, jackknife_error, patients_of
from brainmets.statistics.choice import read_best_models
from brainmets.statistics.tables import read_scores, require_whole
from brainmets.vocabulary import SEQUENCES, Model

LETTERS = ("A", "B")
SCALES = {"overall": (1, 5), "boundary": (1, 5)}
COUNTS = ("missed_lesions", "false_lesions")
RATED = (*SCALES, *COUNTS, "acceptable")
SHEET_COLUMNS = ["rater", "case", "model", *RATED, "comment"]

INSTRUCTIONS = """\
Expert review

Each folder is one case. Load it in 3D Slicer: drag the folder into the window and confirm. It holds
{images},
the reference, and the segmentations of two models, A and B. A in one case need not be A in another.

Make a copy of ratings.csv with your name in it and fill in one row per case and model, on your own:
  rater            your name or initials, the same in every row
  overall          1 (useless) to 5 (as good as the reference)
  boundary         1 (wrong throughout) to 5 (exact)
  missed_lesions   lesions that the model missed: 0, 1, 2, ...
  false_lesions    lesions that the model invented: 0, 1, 2, ...
  acceptable       yes or no: would you use it after no more than small corrections?
  comment          anything else
Leave a row's ratings empty where you did not rate. Not a medical device: no decision about a patient may rest on this.
"""


class RatingError(ValueError):
    """A rating sheet that cannot be used; the message names the file, the row and the column."""


# --- the command brainmets review ----------------------------------------------------------------------------------


def hand_out(study: Study) -> None:
    """Write the study's held-out cases for experts, its two best models blinded, and the key beside the folder.

    Which models these are notebook 07 has chosen by cross-validated scores; ``ParameterError`` without two of them.
    """
    files, scores = _scored(study)
    best = read_best_models(files.best_model)[: len(LETTERS)]
    if len(best) < len(LETTERS):
        raise ParameterError(
            f"study {files.study} has {len(best)} model(s) to choose from by cross-validation, and an expert review "
            "needs two: run notebook 06 for more models, then notebook 07"
        )
    cases = sorted(scores["case"].unique())
    folder = files.review / "expert"
    key = write_expert_folder(files, cases, best, folder, study.content["seed"])
    print(f"{len(cases)} cases, {len(key)} rows to rate: hand out {folder.name}/ in {files.review.name}/")
    print(f"the key stays here: {folder.name}_key.csv")


def read_back(study: Study, sheets: Path) -> None:
    """Read a folder of filled-in rating sheets, or one sheet, unblind them, and write and print what they say."""
    files, scores = _scored(study)
    key_file = files.review / "expert_key.csv"
    if not key_file.is_file():
        raise FileNotFoundError(f"{key_file.name} is not there: run brainmets review without --ratings first")
    if not sheets.exists():
        raise ParameterError(f"--ratings: there is no {sheets}; name the folder of the filled-in sheets, or one sheet")
    found = [sheets]
    if sheets.is_dir():
        found = sorted(path for path in sheets.iterdir() if path.suffix.lower() == ".csv" and path.name[0] != ".")
    if not found:
        raise ParameterError(f"--ratings: {sheets} holds no .csv file")
    ratings = read_ratings(found, read_by(key_file, RATING_KEY))
    summary = summarise(ratings, scores)
    patients = {name: case.patient for name, case in read_manifest(files.manifest("target")).items()}
    kappas = agreement(ratings, patients)
    for name, table in (("ratings", ratings), ("summary", summary), ("agreement", kappas)):
        tables.write(files.review / f"expert_{name}.csv", table)
    print(f"{len(ratings)} ratings by {ratings['rater'].nunique()} raters from {len(found)} sheets")
    print(summary.round(3).to_string(index=False))
    print(kappas.round(3).to_string(index=False))


def _scored(study: Study) -> tuple[StudyPaths, pd.DataFrame]:
    files = StudyPaths(study.content["work_dir"], study.content["study"])
    if not any(files.evaluations.rglob("scores.csv")):
        raise ParameterError(f"study {files.study} has no scores yet: run notebook 06_evaluation first")
    require_whole(files)
    return files, read_scores(files.evaluations)


# --- the folder that is handed out ---------------------------------------------------------------------------------


def write_expert_folder(
    files: StudyPaths, cases: Sequence[str], models: list[Model], folder: Path, seed: int
) -> pd.DataFrame:
    """Write ``folder`` (replacing what an earlier call wrote) and ``<folder>_key.csv`` beside it; gives the key.

    The key of an earlier call with other cases or models is kept as ``<folder>_key-1.csv``, or the next free number.

    Which of the two ``models`` is A is drawn per case. Images are written anew from voxels and affine, so that no
    other header field of the originals goes along. The key's columns: case, model (A or B), arm, strategy. Raises
    ``FileExistsError`` where the folder holds anything else, or a rating sheet that somebody has filled in.
    """
    if len(models) != len(LETTERS):
        raise ValueError(f"{len(models)} models were given; the blinded comparison takes two")
    _refuse_other_files(folder)
    manifest = read_manifest(files.manifest("target"))
    random = np.random.default_rng(seed)
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    rows = []
    for case in cases:
        for sequence, path in manifest[case].images.items():
            voxels, grid = nifti.read_volume(path)
            stored = voxels.astype(np.float32) if voxels.dtype == np.float64 else voxels
            nifti.write(aside / case / f"{sequence}.nii.gz", stored, grid.affine)
        _write_segmentation(files.references / f"{case}.nii.gz", aside / case / "reference.seg.nrrd")
        for letter, place in zip(LETTERS, random.permutation(len(models)), strict=True):
            prediction = files.predictions(*models[place]) / f"{case}.nii.gz"
            _write_segmentation(prediction, aside / case / f"{letter}.seg.nrrd")
            rows.append((case, letter, *models[place]))
    key = pd.DataFrame(rows, columns=["case", "model", "arm", "strategy"])
    sheet = key.reindex(columns=SHEET_COLUMNS)
    tables.write(aside / "ratings.csv", sheet)
    write_text(aside / "README.txt", INSTRUCTIONS.format(images=_handed_out([manifest[case] for case in cases])))
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    key_file = folder.with_name(f"{folder.name}_key.csv")
    if key_file.is_file() and not tables.read(key_file, dtype=str, keep_default_na=False).equals(key):
        key_file.replace(numbered(key_file))  # somebody may still rate by the folder that it belongs to
    tables.write(key_file, key)
    return key


def _handed_out(cases: Sequence[Case]) -> str:
    """Which images the folders hold, in words."""
    names = sequences_of(cases)
    held = f"the sequence{'s' if len(names) > 1 else ''} {', '.join(names)}"
    some_lack = any(len(case.images) < len(names) for case in cases)
    return held + (" (some cases lack some of them)" if some_lack else "")


def _refuse_other_files(folder: Path) -> None:
    names = {"ratings.csv", "README.txt", "reference.seg.nrrd"}
    names |= {f"{sequence}.nii.gz" for sequence in SEQUENCES} | {f"{letter}.seg.nrrd" for letter in LETTERS}
    found = [path.name for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in names]
    sheet = folder / "ratings.csv"
    if sheet.is_file() and tables.read(sheet, dtype=str)["rater"].notna().any():
        found.append("ratings.csv, filled in")
    if found:
        raise FileExistsError(
            f"{folder.name} holds other files than an expert review hands out ({'; '.join(found[:5])}): move them "
            "away, or set case_review.expert_folder to false"
        )


def _write_segmentation(labels: Path, path: Path) -> None:
    slicer.write_segmentation(path, nifti.read_labels(labels), nifti.read_grid(labels).affine)


# --- the sheets that come back -------------------------------------------------------------------------------------


def read_ratings(sheets: list[Path], key: pd.DataFrame) -> pd.DataFrame:
    """Every rating of the sheets, unblinded with the key of ``write_expert_folder``.

    Returns rater, case, arm, strategy, overall, boundary, missed_lesions, false_lesions (integers), acceptable
    (boolean), comment. A row without any rating is left out. Raises ``RatingError`` for an absent column, a value
    that its column does not allow, a row half filled in, an unknown case or model, an item that one rater rated
    twice, and sheets without a single rating.
    """
    handed_out = {(line["case"], line["model"]): line for line in key.to_dict("records")}
    rows = []
    for sheet in sheets:
        for row, cells in _lines(sheet):
            if not any(cells[name] for name in RATED):
                continue
            where = f"{sheet.name}, row {row}"
            if (cells["case"], cells["model"]) not in handed_out:
                raise RatingError(f"{where}: {cells['case']!r} model {cells['model']!r} was not handed out")
            if not cells["rater"]:
                raise RatingError(f"{where}, column rater: is empty")
            item = handed_out[cells["case"], cells["model"]]
            who = {"rater": cells["rater"], "case": item["case"], "arm": item["arm"], "strategy": item["strategy"]}
            rows.append({**who, **check_ratings(cells, where), "comment": cells["comment"]})
    if not rows:
        raise RatingError(f"{', '.join(sheet.name for sheet in sheets) or 'no sheet'}: no rating was filled in")
    ratings = pd.DataFrame(rows)
    twice = ratings[ratings.duplicated(["rater", "case", "arm", "strategy"])]
    if len(twice):
        first = twice.iloc[0]
        where = ", ".join(sheet.name for sheet in sheets)
        raise RatingError(
            f"{first['rater']} rated case {first['case']} twice with the same model ({where}); keep one row"
        )
    return ratings


def _lines(sheet: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Number and cells of every line below the header that is not blank.

    Cells are separated by commas, tabs, or as spreadsheets do where the comma is the decimal sign, by semicolons.
    """
    try:
        text = sheet.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise RatingError(f"{sheet.name} is not in UTF-8; save it as 'CSV UTF-8'") from None
    separator = max((",", ";", "\t"), key=text.partition("\n")[0].count)
    header, *rows = list(csv.reader(io.StringIO(text), delimiter=separator)) or [[]]
    names = [name.strip() for name in header]
    absent = [name for name in SHEET_COLUMNS if name not in names]
    if absent:
        raise RatingError(f"{sheet.name} has no column {', '.join(absent)}; use a copy of ratings.csv")
    for number, row in enumerate(rows, start=2):
        cells = [tables.unguarded(cell.strip()) for cell in row]
        if any(cells[len(names) :]):
            raise RatingError(
                f"{sheet.name}, row {number}: {len(cells)} cells under {len(names)} columns; put a comment that holds "
                f"{separator!r} in quotes"
            )
        if any(cells):
            yield number, {**dict.fromkeys(names, ""), **dict(zip(names, cells, strict=False))}


def check_ratings(cells: dict[str, str], where: str) -> dict[str, int | bool]:
    """The values of one row's rated cells (``RATED``); ``RatingError`` names ``where`` and the column of a bad one.

    >>> row = {"overall": "4", "boundary": "3", "missed_lesions": "0", "false_lesions": "2", "acceptable": "Yes"}
    >>> check_ratings(row, "one.csv, row 2")
    {'overall': 4, 'boundary': 3, 'missed_lesions': 0, 'false_lesions': 2, 'acceptable': True}
    """
    values: dict[str, int | bool] = {}
    for name in (*SCALES, *COUNTS):
        low, high = SCALES.get(name, (0, 999))
        text = cells[name]
        if not text.isdecimal() or not low <= int(text) <= high:
            allowed = f"a whole number from {low} to {high}" if name in SCALES else "a count: 0, 1, 2, ..."
            raise RatingError(f"{where}, column {name}: {text!r} is not {allowed}")
        values[name] = int(text)
    if cells["acceptable"].lower() not in ("yes", "no"):
        raise RatingError(f"{where}, column acceptable: {cells['acceptable']!r} is not yes or no")
    return {**values, "acceptable": cells["acceptable"].lower() == "yes"}


# --- what the ratings say ------------------------------------------------------------------------------------------


def summarise(ratings: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Per model: raters, ratings n, median overall and boundary, missed and false lesions a rating, share acceptable.

    Beside them the mean whole-tumour Dice and HD95 of the rated cases (``mean_dice_wt``, ``mean_hd95_wt``).
    """
    rows = []
    for (arm, strategy), group in ratings.groupby(["arm", "strategy"]):
        rated = scores[
            (scores["arm"] == arm) & (scores["strategy"] == strategy) & (scores["region"] == "WT")
            & scores["case"].isin(group["case"])
        ]  # fmt: skip
        rows.append(
            {
                "arm": arm,
                "strategy": strategy,
                "raters": group["rater"].nunique(),
                "n": len(group),
                **{f"median_{name}": group[name].median() for name in SCALES},
                **{f"{name}_per_rating": group[name].mean() for name in COUNTS},
                "acceptable": group["acceptable"].mean(),
                **{f"mean_{name}_wt": rated.loc[rated["metric"] == name, "value"].mean() for name in ("dice", "hd95")},
            }
        )
    return pd.DataFrame(rows)


def agreement(ratings: pd.DataFrame, patients: Mapping[str, str]) -> pd.DataFrame:
    """Weighted kappa of every two raters on what both rated.

    Columns: rater_1, rater_2, item (overall, boundary, acceptable), n, patients, kappa, low, high (95%), note. The
    interval counts patients (``patients``: case to patient; empty: every case its own), not ratings: the two models'
    ratings of one case are alike. It is empty, with a note, where both raters gave one and the same value throughout
    (no kappa either), where they never differed, and where leaving one patient out takes all variation.
    """
    rows = []
    wide = ratings.set_index(["case", "arm", "strategy", "rater"])
    for first, second in combinations(sorted(ratings["rater"].unique()), 2):
        for item in (*SCALES, "acceptable"):
            both = wide[item].unstack("rater")[[first, second]].dropna().astype(int)
            whose = patients_of(both.index.get_level_values("case"), patients)
            rows.append((first, second, item, len(both), len(set(whose)), *_kappa(both.to_numpy(), whose)))
    columns = ["rater_1", "rater_2", "item", "n", "patients", "kappa", "low", "high", "note"]
    return pd.DataFrame(rows, columns=columns)


def _kappa(values: npt.NDArray[np.integer], patients: Sequence[str]) -> tuple[float, float, float, str]:
    """Kappa, its 95% interval and a note, of two raters' ``values`` (shape (items, 2))."""
    kappa = float(weighted_kappa(values[:, 0], values[:, 1]))
    if not len(values):
        return kappa, *NO_INTERVAL, "no item rated by both"
    if np.isnan(kappa):
        return kappa, *NO_INTERVAL, "no variation: kappa has no meaning"
    if kappa == 1:
        return kappa, *NO_INTERVAL, "the raters never differ: nothing to estimate an interval from"
    whose = np.asarray(patients)
    left_out = np.array([weighted_kappa(*values[whose != name].T) for name in np.unique(whose)])
    if np.isnan(left_out).any():
        return kappa, *NO_INTERVAL, "no interval: without one patient nothing varies"
    return kappa, *kappa_interval(kappa, left_out), ""


def kappa_interval(kappa: float, left_out: npt.NDArray[np.float64]) -> tuple[float, float]:
    """95% interval of a ``kappa`` below 1, from its values with each patient left out in turn.

    The jackknife's standard error with t quantiles on the scale of Fisher's z, which keeps both ends within -1 and 1.
    """
    half = float(stats.t.ppf(0.975, len(left_out) - 1)) * jackknife_error(left_out) / (1 - kappa**2)
    return float(np.tanh(np.arctanh(kappa) - half)), float(np.tanh(np.arctanh(kappa) + half))


def weighted_kappa(first: npt.NDArray[np.integer], second: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Cohen's kappa with quadratic weights of two raters' values of the same items, along the last axis.

    1 - (mean squared difference) / (mean squared difference of every value of one with every value of the other),
    both times the number of items squared: whole numbers, so that nothing is rounded before the division. NaN without
    items, and where both gave one and the same value throughout.

    >>> float(weighted_kappa(np.array([1, 2, 3]), np.array([1, 2, 2])))  # mean squared differences 1/3 and 1
    0.6666666666666667
    """
    n = first.shape[-1]
    observed = n * ((first - second) ** 2).sum(-1)
    expected = n * (first**2 + second**2).sum(-1) - 2 * first.sum(-1) * second.sum(-1)
    return 1 - np.divide(observed, expected, out=np.full(np.shape(expected), np.nan), where=expected > 0)
