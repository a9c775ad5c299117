"""Score tables: the long layout of this project and the wide layout of the paper's released files, read and checked.

Long: ``arm, strategy, case, region, metric, value, unit``, one value a row. Wide: a file
``scores_<arm>_<strategy>.csv`` (the second release adds a date, ``..._2026-09-29.csv``) with one row per case and
columns such as ``DICE_et`` or ``Predicted_volume_wt``. Rows may be in any order; cases are paired by name, never by
row.

A table that no comparison could trust is refused (``ScoreTableError``, with the file's name): text where a number
belongs, a case twice, a case that one model has and another has not, a Dice of 1.2. What it may hold: a value that is
empty or NaN, which is *undefined*, and an infinite distance, which is the worst one. Both stay in the table,
``undefined`` lists them and no mean holds them. A paired comparison leaves a pair with an undefined value out and says
so; it ranks an infinite one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from brainmets import provenance
from brainmets.paths import StudyPaths
from brainmets.schemas import LESIONS, SCORES, Schema, refuse_long
from brainmets.schemas import read as read_by
from brainmets.tables import TableError, cut, lines, unguarded
from brainmets.vocabulary import (
    ARMS,
    COMPARED_STRATEGIES,
    LESION_COLUMNS,
    REGION_ORDER,
    REGIONS,
    SCORE_COLUMNS,
    STRATEGIES,
    Model,
    better,
    ordered,
    plain_metric,
)

COLUMNS = list(SCORE_COLUMNS)
KEY = ["arm", "strategy", "case", "region", "metric"]
SUFFIX = ".nii.gz"
WIDE_NAME = re.compile(
    rf"scores_(?P<arm>.+)_(?P<strategy>{'|'.join(STRATEGIES)})(_(?P<date>\d{{4}}-\d{{2}}-\d{{2}}))?\.csv"
)

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
NEED_REFERENCE = ("dice", "hd95", "hd", "sensitivity", "precision", "nsd", "nsd_1mm", "f1")
"""Metrics, whole-region and lesion-wise, that compare a prediction with a reference."""
VOLUMES = ("reference_volume", "predicted_volume")
PRESENCE = ("both", "reference_only", "prediction_only", "neither")
"""Which masks of a case hold a region."""
LESION_COUNTS = ("lesion_iou_tp", "lesion_iou_fn", "lesion_iou_fp")
"""Metrics that count rows of the lesion table: reference lesions found and missed, predicted ones unpaired."""
SLACK = 1e-9
"""How far beyond a limit a value may lie for the rounding of its last digits."""
SAME_VOLUME = 1e-6
"""Relative difference up to which two reference volumes are one: what is left of single precision."""


class ScoreTableError(ValueError):
    """A score table that cannot be used; the message names the file, the value and what to do."""


# --- files of a folder -------------------------------------------------------------------------------------------


def find_score_files(folder: Path) -> list[Path]:
    """Every ``scores.csv`` (long) and ``scores_<arm>_<strategy>.csv`` (wide) in ``folder`` or below it, sorted.

    Raises ``ScoreTableError`` where the folder is absent or holds none, and for another name that starts with
    ``scores`` and ends in ``.csv``: a table that is passed over would change every comparison.
    """
    if not folder.is_dir():
        raise ScoreTableError(f"{folder}: there is no such folder; give scores_dir a folder with score tables")
    files = sorted({*folder.rglob("scores.csv"), *folder.rglob("scores_*_*.csv")})
    tables = (file for file in folder.rglob("*") if file.suffix.lower() == ".csv")
    others = sorted(file for file in tables if file.name.lower().startswith("scores") and file not in files)
    if others:
        raise ScoreTableError(
            f"{', '.join(map(str, others))}: a score table is named scores.csv (long) or scores_<arm>_<strategy>.csv "
            f"(wide) with strategy {' or '.join(STRATEGIES)}; rename the file or take it away"
        )
    if not files:
        raise ScoreTableError(
            f"{folder} and its subfolders hold no scores.csv and no scores_<arm>_<strategy>.csv; "
            "run notebook 06, or give scores_dir the folder of the tables"
        )
    return files


def read_scores(folder: Path) -> pd.DataFrame:
    """Read, check and join every score table in ``folder`` or below it; see ``read_score_files``."""
    return read_score_files(find_score_files(folder))


def read_score_files(files: Sequence[Path]) -> pd.DataFrame:
    """Read, check and join these score tables, at least one.

    Returns the long table with columns ``COLUMNS``, sorted by arm, strategy, region, metric and case, so that the
    order of files and rows leaves no trace. ``case`` is without ``.nii.gz``; an undefined value is NaN or infinite.
    Raises ``ScoreTableError`` as the module's first lines say; an empty table is refused as well.
    """
    tables = [read_wide(file) if is_wide(file) else read_long(file) for file in files]
    scores = pd.concat(tables, ignore_index=True)
    check(scores)
    return in_order(scores[COLUMNS])


# --- one file ---------------------------------------------------------------------------------------------------


def is_wide(file: Path) -> bool:
    """Whether ``file`` has the paper's layout, told by its first column's name."""
    return _read_text(file).columns[0] == "sample"


def read_long(file: Path) -> pd.DataFrame:
    """One table in the long layout; the columns of ``COLUMNS``, ``file`` and ``column`` for messages."""
    table = _held_to(SCORES, file)
    table["arm"] = table["arm"].map(arm_name)
    table["case"] = table["case"].str.removesuffix(SUFFIX)
    return table[COLUMNS].assign(file=str(file), column="value")


def read_wide(file: Path) -> pd.DataFrame:
    """One released table; arm and strategy come from its name, ``scores_<arm>_<strategy>.csv``.

    A date may follow in the name. ``Hausdorff_*`` is read as hd95 in mm, ``True_volume_*`` and ``Predicted_volume_*``
    as volumes in mL.
    """
    named = WIDE_NAME.fullmatch(file.name)
    if named is None:
        raise ScoreTableError(
            f"{file}: a wide table is named scores_<arm>_<strategy>.csv with strategy {' or '.join(STRATEGIES)}"
        )
    table = _read_text(file)
    unknown = [name for name in table.columns if name != "sample" and name not in WIDE_COLUMNS]
    absent = [name for name in WIDE_COLUMNS if name not in table.columns]
    if unknown or absent:
        problems = [f"unknown column {name}" for name in unknown] + [f"no column {name}" for name in absent]
        raise ScoreTableError(f"{file}: {', '.join(problems)}; a wide table has sample, {', '.join(WIDE_COLUMNS)}")
    _refuse_empty(file, table)
    case = table["sample"].str.removesuffix(SUFFIX)
    _refuse_blank(file, table, "sample")
    try:
        refuse_long(file, "sample", table["sample"])
    except TableError as error:
        raise ScoreTableError(str(error)) from error
    numbers = {column: _numbers(file, case + " " + column, table[column]) for column in WIDE_COLUMNS}
    long = pd.DataFrame({"case": case, **numbers}).melt("case", var_name="column")
    long[["region", "metric", "unit"]] = [WIDE_COLUMNS[column] for column in long["column"]]
    return long.assign(arm=arm_name(named["arm"]), strategy=named["strategy"], file=str(file))


def read_lesions(folder: Path, scores: pd.DataFrame | None = None) -> pd.DataFrame:
    """Every ``lesions.csv`` in ``folder`` or below it, joined; columns ``LESION_COLUMNS``.

    A table without rows where there is no lesion (score tables alone hold none). ``detected`` and
    ``detected_iou`` are boolean, ``volume_mm3`` and ``dice`` are numbers (dice is empty where nothing matches),
    ``matched`` stays text. Raises ``ScoreTableError`` for what ``schemas.LESIONS`` does not allow, a lesion that
    occurs twice or whose forerunner is not there, a folder with score tables and no lesion table while another has
    one, and where ``scores`` (those of the folder) are given, for lesions of a case that they lack and for counts of
    lesions that are not theirs.
    """
    found = sorted(folder.rglob("lesions.csv"))
    if not found:
        return pd.DataFrame(columns=list(LESION_COLUMNS))
    _refuse_tables_without_lesions(folder, found)
    lesions = pd.concat([_lesions_of(file) for file in found], ignore_index=True)
    _refuse_lost_lesions(lesions)
    if scores is not None:
        _refuse_unscored_cases(lesions, scores)
        _refuse_other_counts(lesions, scores, found)
    return lesions[list(LESION_COLUMNS)]


def _lesions_of(file: Path) -> pd.DataFrame:
    table = _held_to(LESIONS, file)
    table["arm"] = table["arm"].map(arm_name)
    table["case"] = table["case"].str.removesuffix(SUFFIX)
    return table[list(LESION_COLUMNS)].assign(file=str(file))


def _held_to(schema: Schema, file: Path) -> pd.DataFrame:
    try:
        return read_by(file, schema)
    except TableError as error:
        raise ScoreTableError(str(error)) from error


def require_whole(files: StudyPaths) -> None:
    """Refuse a study's own tables of scores, lesions and cases that are not what notebooks 01 and 06 wrote.

    Raises ``ValueError`` as ``provenance.require_whole`` does, a table without the record of its step included.
    """
    scored = find_score_files(files.evaluations)
    for result in dict.fromkeys([files.audit, *(file.with_name("evaluation.json") for file in scored)]):
        provenance.require_whole(result, files.study, files.work)


def _refuse_tables_without_lesions(folder: Path, found: Sequence[Path]) -> None:
    scored = {*folder.rglob("scores.csv"), *folder.rglob("scores_*_*.csv")}
    bare = sorted({file.parent for file in scored} - {file.parent for file in found})
    if bare:
        raise ScoreTableError(
            f"{', '.join(map(str, bare))} has score tables and no lesions.csv, which {found[0]} is: lesions would be "
            "counted of some models only; score these cases anew (notebook 06, brainmets score --lesions), or take "
            "every lesions.csv away"
        )


def _refuse_lost_lesions(lesions: pd.DataFrame) -> None:
    """The lesions of a case are numbered from 1, each once: a row that is gone, or stands twice, shows."""
    group = ["arm", "strategy", "case", "region", "kind"]
    again = lesions[lesions.duplicated([*group, "lesion"])]
    if len(again):
        row = again.iloc[0]
        same = lesions[(lesions[[*group, "lesion"]] == row[[*group, "lesion"]]).all(axis=1)]
        raise ScoreTableError(
            f"{' and '.join(sorted(set(same['file'])))}: {_named(row)} lesion {row['lesion']:g} occurs twice; take "
            "one of them away"
        )
    sizes = lesions.groupby(group)["lesion"].transform("size")
    beyond = lesions[lesions["lesion"] > sizes]
    if len(beyond):
        row = beyond.iloc[0]
        raise ScoreTableError(
            f"{row['file']}: {_named(row)} has a lesion {row['lesion']:g}, yet {sizes[beyond.index[0]]} row(s): "
            f"some are lost; {LESIONS.again}"
        )


def _refuse_unscored_cases(lesions: pd.DataFrame, scores: pd.DataFrame) -> None:
    stray = lesions[~lesions["case"].isin(scores["case"])]
    if len(stray):
        files, unscored = (sorted(set(stray[name])) for name in ("file", "case"))
        raise ScoreTableError(
            f"{' and '.join(files)} holds lesions of {', '.join(unscored)}, which "
            "no score table has; score these cases too (notebook 06 writes both tables), or take their lesions out"
        )


def _refuse_other_counts(lesions: pd.DataFrame, scores: pd.DataFrame, found: Sequence[Path]) -> None:
    """A score table that counts lesions counts the rows of the lesion table: what is cut off its end is missed."""
    place = ["arm", "strategy", "case", "region"]
    counted = scores[scores["metric"].isin(LESION_COUNTS)].pivot(index=place, columns="metric", values="value")
    counted = counted.reindex(columns=list(LESION_COUNTS)).dropna()
    kind, hit = lesions["kind"], lesions["detected_iou"].astype(bool)
    chosen = (kind == "reference") & hit, (kind == "reference") & ~hit, (kind == "predicted") & ~hit
    rows = pd.DataFrame(
        {
            name: lesions[of_name].groupby(place).size().reindex(counted.index, fill_value=0)
            for name, of_name in zip(LESION_COUNTS, chosen, strict=True)
        }
    )
    wrong = (counted != rows).any(axis=1)
    if wrong.any():
        of = counted.index[wrong][0]
        metric = next(name for name in LESION_COUNTS if counted.loc[of, name] != rows.loc[of, name])
        own = sorted({str(file) for file in lesions.loc[(lesions[place[:2]] == list(of[:2])).all(axis=1), "file"]})
        raise ScoreTableError(
            f"{' and '.join(own or map(str, found))}: {' '.join(of)} has {rows.loc[of, metric]:g} lesion(s) where the "
            f"scores' {metric} is {counted.loc[of, metric]:g}: rows are lost, or the tables are of two runs; "
            f"{LESIONS.again}"
        )


def _named(row: pd.Series) -> str:
    return " ".join(str(row[name]) for name in ("arm", "strategy", "case", "region", "kind"))


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


def models(scores: pd.DataFrame) -> list[Model]:
    """The (arm, strategy) pairs of the table, arms first."""
    present = set(zip(scores["arm"], scores["strategy"], strict=True))
    every = [(arm, strategy) for arm in ordered(scores["arm"], ARMS) for strategy in STRATEGIES]
    return [model for model in every if model in present]


def of_trained(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of models that were trained on the target (``COMPARED_STRATEGIES``); all rows where there is none.

    For figures of six models, in which three more would hide the question, and for what is said of hard cases.
    """
    trained = table["strategy"].isin(COMPARED_STRATEGIES)
    return table[trained] if trained.any() else table


def undefined(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows whose value is not a finite number: what every summary leaves out, by name."""
    return scores[~np.isfinite(scores["value"])].reset_index(drop=True)


def needs_reference(metric: str) -> bool:
    """Whether the metric compares with a reference, so that it says nothing of a case whose reference is empty.

    >>> needs_reference("lesion_dice"), needs_reference("specificity"), needs_reference("lesion_fp")
    (True, False, False)
    """
    return plain_metric(metric) in NEED_REFERENCE


def lacks_reference(scores: pd.DataFrame) -> pd.Series:
    """For each row, whether it scores against an empty reference: docs/metrics.md, "Cases without a region".

    That is a metric of ``needs_reference`` in a region whose ``reference_volume`` in that case is 0. Such a value
    comes from the rule for empty masks alone: 1 where nothing was predicted, 0 for a single false voxel. Without
    volumes it cannot be told, and no row lacks one.
    """
    empty = scores[(scores["metric"] == "reference_volume") & (scores["value"] == 0)]
    places = pd.MultiIndex.from_frame(empty[["case", "region"]])
    of_row = pd.MultiIndex.from_frame(scores[["case", "region"]])
    return scores["metric"].map(needs_reference) & pd.Series(of_row.isin(places), index=scores.index)


def with_reference(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows that means and tests run over: all but those of ``lacks_reference``. An empty table stays empty."""
    return scores[~lacks_reference(scores).astype(bool)]


def presence(scores: pd.DataFrame) -> pd.DataFrame:
    """Which of reference and prediction hold each region, from the volumes: arm, strategy, case, region, presence.

    ``presence`` is one of ``PRESENCE``. Where a volume is not there or undefined there is no row.
    """
    volumes = scores[scores["metric"].isin(VOLUMES) & scores["value"].notna()]
    wide = volumes.pivot(index=[name for name in KEY if name != "metric"], columns="metric", values="value")
    wide = wide.reindex(columns=list(VOLUMES)).dropna() > 0
    reference, prediction = (wide[name] for name in VOLUMES)
    named = np.select([reference & prediction, reference, prediction], PRESENCE[:3], PRESENCE[3])
    return wide.index.to_frame(index=False).assign(presence=named)


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


# --- checks of the joined scores ---------------------------------------------------------------------------------


def check(scores: pd.DataFrame) -> None:
    """Refuse scores that no comparison could trust.

    ``scores`` has the columns arm, strategy, case, region, metric, value and unit, and for the messages ``file`` and
    ``column``, the value's column in that file.
    """
    _refuse_duplicates(scores)
    _refuse_mixed_units(scores)
    _refuse_impossible(scores)
    _refuse_missing_cases(scores)
    _refuse_other_references(scores)


def _refuse_duplicates(scores: pd.DataFrame) -> None:
    again = scores[scores.duplicated(KEY, keep=False)]
    if len(again):
        row = again.iloc[0]
        same = again[(again[KEY] == row[KEY]).all(axis=1)]
        raise ScoreTableError(
            f"{row['arm']} {row['strategy']}: case {row['case']} has {len(same)} values of {row['metric']} "
            f"{row['region']} in {' and '.join(sorted(set(same['file'])))}; keep one"
        )


def _refuse_mixed_units(scores: pd.DataFrame) -> None:
    units = scores.groupby("metric")["unit"].unique()
    for metric, found in units.items():
        if len(found) > 1:
            files = [scores.loc[(scores["metric"] == metric) & (scores["unit"] == unit), "file"] for unit in found]
            where = ", ".join(f"{unit!r} in {own.iloc[0]}" for unit, own in sorted(zip(found, files, strict=True)))
            raise ScoreTableError(
                f"{metric} comes in {' and in '.join(sorted(found))} ({where}); give every table one unit"
            )


def _refuse_impossible(scores: pd.DataFrame) -> None:
    """Shares lie between 0 and 1; distances, volumes and counts are not negative. NaN is no value and passes."""
    share = scores["metric"].map(better) == "greater"
    low, high = scores["value"] < -SLACK, share & (scores["value"] > 1 + SLACK)
    wrong = scores[low | high]
    if len(wrong):
        row = wrong.iloc[0]
        limits = "between 0 and 1" if share[wrong.index[0]] else "at 0 or above"
        others = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise ScoreTableError(
            f"{row['file']}: case {row['case']}, {row['column']}: {row['metric']} {row['region']} is "
            f"{row['value']:g} and must lie {limits}{others}; score the case again, or correct the column"
        )


def _refuse_missing_cases(scores: pd.DataFrame) -> None:
    """Every model needs the same cases, regions and metrics; RC is needed nowhere, since few cases have a cavity."""
    asked = scores[scores["region"] != "RC"]
    wanted = set(zip(asked["case"], asked["region"], asked["metric"], strict=True))
    problems = []
    for (arm, strategy), own in asked.groupby(["arm", "strategy"], sort=False):
        lacking = wanted - set(zip(own["case"], own["region"], own["metric"], strict=True))
        cases = sorted({case for case, _, _ in lacking} - set(own["case"]))
        where = f" ({' and '.join(sorted(set(own['file'])))})"
        if cases:
            problems.append(f"{arm} {strategy} has no case {', '.join(cases)}{where}")
        elif lacking:
            case, region, metric = sorted(lacking)[0]
            more = f" (and {len(lacking) - 1} more)"
            problems.append(f"{arm} {strategy} has no {metric} {region} of case {case}{more}{where}")
    if problems:
        raise ScoreTableError(
            "; ".join(problems)
            + ". Every model must be scored on the same cases: score what is missing (brainmets score --missing worst "
            "counts an absent prediction as empty) or take the case out of every table"
        )


def _refuse_other_references(scores: pd.DataFrame) -> None:
    """A case has one reference: its volume must be the same in every model's table."""
    volumes = scores[(scores["metric"] == "reference_volume") & scores["value"].notna()]
    for (case, region), group in volumes.groupby(["case", "region"]):
        group = group.sort_values("value")
        small, large = group.iloc[0], group.iloc[-1]
        if large["value"] - small["value"] > SAME_VOLUME * large["value"]:
            raise ScoreTableError(
                f"case {case}, {region}: the reference volume is {small['value']:.6g} {small['unit']} in "
                f"{small['file']} and {large['value']:.6g} in {large['file']}: one was scored against another "
                "reference; score both against the same one"
            )


# --- checks of one file ------------------------------------------------------------------------------------------


def _read_text(file: Path) -> pd.DataFrame:
    """The table as stripped text, its index the number of each row's line in ``file``; empty lines are passed over.

    Raises ``ScoreTableError`` for what ``brainmets.tables.lines`` refuses.
    """
    try:
        (_, names), *rows = lines(file)
    except TableError as error:
        raise ScoreTableError(str(error)) from error
    cells = [[unguarded(cell) for cell in row] for _, row in rows]
    return pd.DataFrame(cells, columns=names, index=[line for line, _ in rows], dtype=str)


def _refuse_empty(file: Path, table: pd.DataFrame) -> None:
    """Refuse a table without rows."""
    if table.empty:
        raise ScoreTableError(f"{file} holds no rows; run the step that writes it again")


def _refuse_blank(file: Path, table: pd.DataFrame, column: str) -> None:
    """Refuse a column with an empty field."""
    blank = table.index[table[column] == ""]
    if len(blank):
        raise ScoreTableError(f"{file}, line {blank[0]}: {column} is empty")


def _numbers(file: Path, names: pd.Series, written: pd.Series) -> pd.Series:
    """Text to numbers; empty and "nan" are NaN, other text is refused with its place."""
    found = pd.to_numeric(written.where(written != "", "nan"), errors="coerce").astype(float)
    wrong = found.index[found.isna() & ~written.str.lower().isin(["", "nan", "na"])]
    if len(wrong):
        line = wrong[0]
        raise ScoreTableError(
            f"{file}, line {line}, {names[line]}: {cut(written[line])!r} is not a number; "
            "write it with a decimal point and without a unit, or leave the field empty where there is no value"
        )
    return found
