"""Score tables: the long layout of this project and the wide layout of the paper's released files, read and checked.

Long: ``arm, strategy, case, region, metric, value, unit``, one value a row. Wide: a file
``scores_<arm>_<strategy>.csv`` with one row per case and columns such as ``DICE_et`` or ``Predicted_volume_wt``.
Rows may stand in any order; cases are paired by name, never by row.

What a table may not hold is refused with the file's name (``table_text``, ``score_checks``): text where a number
belongs, a case twice, a case that one model has and another has not, a Dice of 1.2. What it may hold: a value that is
empty or NaN, which is *undefined*, and an infinite distance, which is the worst one. Both stay in the table,
``undefined`` lists them and no mean holds them. A paired comparison leaves a pair with an undefined value out and says
so; it ranks an infinite one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from brainmets.statistics import score_checks
from brainmets.statistics.table_text import (
    ScoreTableError,
    numbers,
    read_text,
    refuse_blank,
    refuse_empty,
    refuse_unknown,
)
from brainmets.vocabulary import ARMS, LESION_COLUMNS, REGION_ORDER, REGIONS, SCORE_COLUMNS, STRATEGIES, ordered

COLUMNS = list(SCORE_COLUMNS)
SUFFIX = ".nii.gz"

WIDE_METRICS = {
    "DICE": ("dice", "1"),
    "Hausdorff": ("hd95", "mm"),  # the released "Hausdorff" is the 95th percentile
    "Sensitivity": ("sensitivity", "1"),
    "Specificity": ("specificity", "1"),
    "True_volume": ("reference_volume", "mL"),
    "Predicted_volume": ("predicted_volume", "mL"),
}
WIDE_COLUMNS = {
    f"{name}_{region.lower()}": (region, metric, unit)
    for name, (metric, unit) in WIDE_METRICS.items()
    for region in REGIONS
}


def find_score_files(folder: Path) -> list[Path]:
    """Every ``scores.csv`` (long) and ``scores_<arm>_<strategy>.csv`` (wide) in ``folder`` or below it, sorted.

    Raises ``ScoreTableError`` where the folder is absent or holds none, and for another name that starts with
    ``scores`` and ends in ``.csv``: a table that is passed over would change every comparison.
    """
    if not folder.is_dir():
        raise ScoreTableError(f"{folder}: there is no such folder; give scores_dir a folder with score tables")
    files = sorted({*folder.rglob("scores.csv"), *folder.rglob("scores_*_*.csv")})
    _refuse_other_names(folder, files)
    if not files:
        raise ScoreTableError(
            f"{folder} and its subfolders hold no scores.csv and no scores_<arm>_<strategy>.csv; "
            "run notebook 06, or give scores_dir the folder of the tables"
        )
    return files


def _refuse_other_names(folder: Path, files: Sequence[Path]) -> None:
    tables = (file for file in folder.rglob("*") if file.suffix.lower() == ".csv")
    others = sorted(file for file in tables if file.name.lower().startswith("scores") and file not in files)
    if others:
        raise ScoreTableError(
            f"{', '.join(map(str, others))}: a score table is named scores.csv (long) or scores_<arm>_<strategy>.csv "
            f"(wide) with strategy {' or '.join(STRATEGIES)}; rename the file or take it away"
        )


def read_scores(folder: Path) -> pd.DataFrame:
    """Read, check and join every score table in ``folder`` or below it.

    Returns the long table with columns ``COLUMNS``, sorted by arm, strategy, region, metric and case, so that the
    order of files and rows leaves no trace. ``case`` is without ``.nii.gz``; an undefined value is NaN or infinite.
    Raises ``ScoreTableError`` as the module's first lines say; an empty table is refused as well.
    """
    tables = [read_wide(file) if is_wide(file) else read_long(file) for file in find_score_files(folder)]
    scores = pd.concat(tables, ignore_index=True)
    score_checks.check(scores)
    return in_order(scores[COLUMNS])


def is_wide(file: Path) -> bool:
    """Whether ``file`` has the paper's layout, told by its first column's name."""
    with file.open(encoding="utf-8-sig") as handle:
        return handle.readline().split(",")[0].strip().strip('"') == "sample"


def read_long(file: Path) -> pd.DataFrame:
    """One table in the long layout; the columns of ``COLUMNS``, ``file`` and ``column`` for messages."""
    table = read_text(file)
    absent = [name for name in COLUMNS if name not in table.columns]
    if absent:
        raise ScoreTableError(
            f"{file} lacks the column {', '.join(absent)}; a long table has {', '.join(COLUMNS)}, "
            "a wide one starts with the column sample"
        )
    refuse_empty(file, table)
    for name in (*score_checks.KEY, "unit"):
        refuse_blank(file, table, name)
    table["arm"] = table["arm"].map(arm_name)
    table["case"] = table["case"].str.removesuffix(SUFFIX)
    refuse_unknown(file, table, "strategy", STRATEGIES)
    refuse_unknown(file, table, "region", REGION_ORDER)
    table["value"] = numbers(file, table["case"] + " " + table["region"] + " " + table["metric"], table["value"])
    return table[COLUMNS].assign(file=str(file), column="value")


def read_wide(file: Path) -> pd.DataFrame:
    """One released table; arm and strategy come from its name, ``scores_<arm>_<strategy>.csv``.

    ``Hausdorff_*`` is read as hd95 in mm, ``True_volume_*`` and ``Predicted_volume_*`` as volumes in mL.
    """
    arm, _, strategy = file.stem.removeprefix("scores_").rpartition("_")
    if not arm or strategy not in STRATEGIES:
        raise ScoreTableError(
            f"{file}: a wide table is named scores_<arm>_<strategy>.csv with strategy {' or '.join(STRATEGIES)}"
        )
    table = read_text(file)
    unknown = [name for name in table.columns if name != "sample" and name not in WIDE_COLUMNS]
    absent = [name for name in WIDE_COLUMNS if name not in table.columns]
    if unknown or absent:
        problems = [f"unknown column {name}" for name in unknown] + [f"no column {name}" for name in absent]
        raise ScoreTableError(f"{file}: {', '.join(problems)}; a wide table has sample, {', '.join(WIDE_COLUMNS)}")
    refuse_empty(file, table)
    case = table["sample"].str.removesuffix(SUFFIX)
    refuse_blank(file, table, "sample")
    parts = [
        pd.DataFrame(
            {
                "case": case,
                "region": region,
                "metric": metric,
                "value": numbers(file, case + " " + column, table[column]),
                "unit": unit,
                "column": column,
            }
        )
        for column, (region, metric, unit) in WIDE_COLUMNS.items()
    ]
    return pd.concat(parts, ignore_index=True).assign(arm=arm_name(arm), strategy=strategy, file=str(file))


def read_lesions(folder: Path, cases: Sequence[str] | None = None) -> pd.DataFrame:
    """Every ``lesions.csv`` in ``folder`` or below it, joined; columns ``LESION_COLUMNS``.

    A table without rows where there is no lesion (score tables alone hold none). ``detected`` is boolean,
    ``volume_mm3`` and ``dice`` are numbers (dice is empty where nothing matches), ``matched`` stays text. Raises
    ``ScoreTableError`` for an absent column, text in a number column, a lesion that stands twice, or lesions of a
    case that is not among ``cases``, where these are given.
    """
    tables = [_lesions_of(file) for file in sorted(folder.rglob("lesions.csv"))]
    if not tables:
        return pd.DataFrame(columns=list(LESION_COLUMNS))
    lesions = pd.concat(tables, ignore_index=True)
    key = ["arm", "strategy", "case", "region", "kind", "lesion"]
    again = lesions[lesions.duplicated(key)]
    if len(again):
        row = again.iloc[0]
        same = lesions[(lesions[key] == row[key]).all(axis=1)]
        raise ScoreTableError(
            f"{' and '.join(sorted(set(same['file'])))}: {row['arm']} {row['strategy']} {row['case']} {row['region']} "
            f"{row['kind']} lesion {row['lesion']:g} stands twice; take one of them away"
        )
    stray = lesions[~lesions["case"].isin(lesions["case"] if cases is None else cases)]
    if len(stray):
        files, unscored = (sorted(set(stray[name])) for name in ("file", "case"))
        raise ScoreTableError(
            f"{' and '.join(files)} holds lesions of {', '.join(unscored)}, which "
            "no score table has; score these cases too (notebook 06 writes both tables), or take their lesions out"
        )
    return lesions[list(LESION_COLUMNS)]


def _lesions_of(file: Path) -> pd.DataFrame:
    table = read_text(file)
    absent = [name for name in LESION_COLUMNS if name not in table.columns]
    if absent:
        raise ScoreTableError(f"{file} lacks the column {', '.join(absent)}; see docs/statistics.md")
    table["arm"] = table["arm"].map(arm_name)
    table["case"] = table["case"].str.removesuffix(SUFFIX)
    name = table["case"] + " " + table["region"] + " " + table["kind"] + " lesion " + table["lesion"]
    for column in ("lesion", "volume_mm3", "x_mm", "y_mm", "z_mm", "dice"):
        table[column] = numbers(file, name + " " + column, table[column])
    refuse_unknown(file, table, "detected", ("True", "False"))
    table["detected"] = table["detected"] == "True"
    return table[list(LESION_COLUMNS)].assign(file=str(file))


def arm_name(written: str) -> str:
    """The arm's name here for any spelling of it: case, spaces, hyphens and underscores do not count.

    A name that is none of this project's arms is kept as it is written.
    """
    plain = written.lower().replace("_", "").replace("-", "").replace(" ", "")
    return {arm.replace("_", ""): arm for arm in ARMS}.get(plain, written)


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Sort by arm, strategy, region, metric and case as far as the table has them; a new index."""
    known = {"arm": ARMS, "strategy": STRATEGIES, "region": REGION_ORDER}
    by = [name for name in ("arm", "strategy", "region", "metric", "case") if name in table.columns]

    def rank(column: pd.Series) -> pd.Series:
        names = ordered(column, known[str(column.name)]) if column.name in known else sorted(set(column))
        return column.map({name: place for place, name in enumerate(names)})

    return table.sort_values(by, key=rank, kind="stable", ignore_index=True)


def models(scores: pd.DataFrame) -> list[tuple[str, str]]:
    """The (arm, strategy) pairs of the table, arms first."""
    present = set(zip(scores["arm"], scores["strategy"], strict=True))
    every = [(arm, strategy) for arm in ordered(scores["arm"], ARMS) for strategy in STRATEGIES]
    return [model for model in every if model in present]


def undefined(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows whose value is not a finite number: what every summary leaves out, by name."""
    return scores[~np.isfinite(scores["value"])].reset_index(drop=True)


def values(scores: pd.DataFrame, metric: str, region: str, *, infinite: bool = False) -> pd.DataFrame:
    """One metric in one region: index = case, columns = (arm, strategy), values in the metric's unit.

    Undefined values are NaN, and so are infinite ones unless they are asked for (ranks can hold them, means cannot).
    A table without rows for the metric and region gives an empty one.
    """
    chosen = scores[(scores["metric"] == metric) & (scores["region"] == region)]
    wide = chosen.pivot(index="case", columns=["arm", "strategy"], values="value").sort_index()
    wide = wide.reindex(columns=pd.MultiIndex.from_tuples(models(scores), names=["arm", "strategy"]))
    return wide if infinite else wide.where(np.isfinite)


def unit_of(scores: pd.DataFrame, metric: str) -> str:
    """The metric's unit, "1" for a ratio."""
    return str(scores.loc[scores["metric"] == metric, "unit"].iloc[0])
