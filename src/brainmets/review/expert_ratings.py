"""Filled-in rating sheets: read, checked, unblinded, summarised, and how far the raters agree.

Weighted kappa: Cohen, Psychol. Bull. 70 (1968) 213-220, with quadratic weights; its interval is the percentile
bootstrap over rated items.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from brainmets.review.expert_folder import SHEET_COLUMNS

SCALES = {"overall": (1, 5), "boundary": (1, 5)}
COUNTS = ("missed_lesions", "false_lesions")
RATED = (*SCALES, *COUNTS, "acceptable")


class RatingError(ValueError):
    """A rating sheet that cannot be used; the message names the file, the row and the column."""


def read_ratings(sheets: list[Path], key: pd.DataFrame) -> pd.DataFrame:
    """Every rating of the sheets, unblinded with the key of ``write_expert_folder``.

    Returns rater, case, arm, strategy, overall, boundary, missed_lesions, false_lesions (integers), acceptable
    (boolean), comment. A row without any rating is left out. Raises ``RatingError`` for an absent column, a value
    that its column does not allow, a row half filled in, an unknown case or model, an item that one rater rated
    twice, and sheets without a single rating.
    """
    handed_out = {(line["shown"], line["model"]): line for line in key.to_dict("records")}
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
            found = handed_out[cells["case"], cells["model"]]
            who = {"rater": cells["rater"], "case": found["case"], "arm": found["arm"], "strategy": found["strategy"]}
            rows.append({**who, **check_ratings(cells, where), "comment": cells["comment"]})
    if not rows:
        raise RatingError(f"{', '.join(sheet.name for sheet in sheets) or 'no sheet'}: no rating was filled in")
    ratings = pd.DataFrame(rows)
    twice = ratings[ratings.duplicated(["rater", "case", "arm", "strategy"])]
    if len(twice):
        first = twice.iloc[0]
        raise RatingError(f"{first['rater']} rated case {first['case']} twice with the same model; keep one row")
    return ratings


def _lines(sheet: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Number and cells of every line below the header that is not blank.

    Cells are separated by commas, or as spreadsheets write them where the comma is the decimal sign: by semicolons.
    """
    try:
        text = sheet.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise RatingError(f"{sheet.name} is not in UTF-8; save it as 'CSV UTF-8'") from None
    first = text.partition("\n")[0]
    separator = max((",", ";", "\t"), key=first.count)
    header, *rows = list(csv.reader(io.StringIO(text), delimiter=separator)) or [[]]
    names = [name.strip() for name in header]
    absent = [name for name in SHEET_COLUMNS if name not in names]
    if absent:
        raise RatingError(f"{sheet.name} has no column {', '.join(absent)}; use a copy of ratings.csv")
    for number, row in enumerate(rows, start=2):
        if any(cell.strip() for cell in row[len(names) :]):
            raise RatingError(
                f"{sheet.name}, row {number}: {len(row)} cells under {len(names)} columns; put a comment that holds "
                f"{separator!r} in quotes"
            )
        if any(cell.strip() for cell in row):
            yield number, {**dict.fromkeys(names, ""), **dict(zip(names, map(str.strip, row), strict=False))}


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


def agreement(ratings: pd.DataFrame, n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Weighted kappa of every two raters on what both rated.

    Columns: rater_1, rater_2, item (overall, boundary, acceptable), n, kappa, low, high (95%), note. Kappa is empty,
    with a note, where both raters gave one and the same value throughout; resamples where that happens are left out
    of the interval and counted in the note.
    """
    rows = []
    wide = ratings.set_index(["case", "arm", "strategy", "rater"])
    for first, second in combinations(sorted(ratings["rater"].unique()), 2):
        for item in (*SCALES, "acceptable"):
            both = wide[item].unstack("rater")[[first, second]].dropna().astype(int)
            values = both.to_numpy()
            kappa = weighted_kappa(values[:, 0], values[:, 1])
            random = np.random.default_rng(seed)
            draws = (
                [values[random.integers(0, len(values), len(values))] for _ in range(n_bootstrap)]
                if len(values)
                else []
            )
            resampled = np.array([weighted_kappa(draw[:, 0], draw[:, 1]) for draw in draws])
            kept = resampled[np.isfinite(resampled)]
            low, high = np.quantile(kept, [0.025, 0.975]) if np.isfinite(kappa) and len(kept) else (np.nan, np.nan)
            note = "no variation: kappa has no meaning" if np.isnan(kappa) else ""
            if not note and len(kept) < len(resampled):
                note = f"{len(resampled) - len(kept)} of {len(resampled)} resamples without variation left out"
            rows.append((first, second, item, len(values), kappa, low, high, note))
    return pd.DataFrame(rows, columns=["rater_1", "rater_2", "item", "n", "kappa", "low", "high", "note"])


def weighted_kappa(first: npt.NDArray[np.integer], second: npt.NDArray[np.integer]) -> float:
    """Cohen's kappa with quadratic weights of two raters' values of the same items.

    1 - (mean squared difference) / (mean squared difference of every value of one with every value of the other).
    NaN without items, and where both gave one and the same value throughout.
    """
    if not len(first):
        return float("nan")
    expected = float(np.mean((first[:, None] - second[None, :]) ** 2))
    if expected == 0:
        return float("nan")
    return 1 - float(np.mean((first - second) ** 2)) / expected


def check_ratings(cells: dict[str, str], where: str) -> dict[str, int | bool]:
    """The values of one row's rated cells (``RATED``); ``RatingError`` names ``where`` and the column of a bad one."""
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
