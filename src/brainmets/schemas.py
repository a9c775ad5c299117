"""The tables that a later step reads again: their columns, and the one function that holds a file to them.

That a table is whole (its rows, its bytes) is told by the record of the step that wrote it, see
``brainmets.provenance``; a table of other people has no record and is held to its schema alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from brainmets.tables import LONGEST_NAME, TableError, cut, lines, unguarded
from brainmets.vocabulary import HIT_RULES, REGION_ORDER, REGIONS, STRATEGIES, ZONES

TRUTH = ("True", "False")
NOTHING = ("", "nan", "na")
"""What stands in a field without a value, in small letters."""
HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
"""Signs that no name holds and a damaged file may; a tab may stand in a case's name."""
MOST = 2**53
"""The highest whole number: above it floats skip some."""


@dataclass(frozen=True)
class Column:
    """What a column may hold: text, one of the words ``known``, numbers (``whole`` ones) within limits, or truth.

    Infinity lies within an infinite limit only where ``infinite`` says so; a field may be empty where ``empty`` does.
    """

    kind: Literal["text", "number", "whole", "truth"] = "text"
    known: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    empty: bool = False
    infinite: bool = False


@dataclass(frozen=True)
class Schema:
    """Columns by name; ``key``: those that no two rows share; ``again``: what to do about a table that is wrong.

    A table may hold further columns, which ``read`` leaves out. ``rows``: whether it may be without any.
    """

    columns: Mapping[str, Column]
    key: tuple[str, ...]
    again: str
    rows: bool = True


def read(path: Path, schema: Schema) -> pd.DataFrame:
    """The columns of ``schema`` in its order, with their types; the index is the number of each row's line.

    Raises ``TableError`` as ``tables.lines`` does, and with file, line and column for a column that is not there, an
    empty field where none may be, a name that is too long, an unknown word, text in place of a number, a number beyond
    its limits, and a row whose ``key`` an earlier one has.
    """
    (_, names), *rows = lines(path)
    if absent := [name for name in schema.columns if name not in names]:
        raise TableError(f"{path} lacks the column {', '.join(absent)}; {schema.again}; see docs/statistics.md")
    if not rows and not schema.rows:
        raise TableError(f"{path} holds no rows; {schema.again}")
    index = pd.Index([line for line, _ in rows], dtype=int)
    columns = {}
    for name, column in schema.columns.items():
        place = names.index(name)
        written = pd.Series([unguarded(row[place]) for _, row in rows], index=index, dtype=str)
        columns[name] = _typed(path, name, column, written, schema.again)
    table = pd.DataFrame(columns, index=index)
    if schema.key and table.duplicated(list(schema.key)).any():
        line = table.index[table.duplicated(list(schema.key))][0]
        row = table.loc[line, list(schema.key)]
        first = table.index[(table[list(schema.key)] == row).all(axis=1)][0]
        shown = " ".join(map(str, row))
        raise TableError(f"{path}, line {line}: {shown} occurs twice (before in line {first}); {schema.again}")
    return table


def read_each(paths: Iterable[Path], schema: Schema) -> pd.DataFrame:
    """The tables of these files one after the other, as ``read`` gives them; without any, the columns alone."""
    found = [read(path, schema) for path in paths]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(schema.columns))


def _typed(path: Path, name: str, column: Column, written: pd.Series, again: str) -> pd.Series:
    nothing = written.str.lower().isin(NOTHING if column.kind in ("number", "whole") else NOTHING[:1])
    if not column.empty and nothing.any():
        raise TableError(f"{path}, line {written.index[nothing][0]}: {name} is empty; {again}")
    if (hidden := written[written.str.contains(HIDDEN)]).size:
        raise TableError(
            f"{path}, line {hidden.index[0]}: {name} {cut(hidden.iloc[0])!r} holds a character that cannot be seen; "
            f"{again}"
        )
    if column.kind == "text" and not column.empty:
        refuse_long(path, name, written)
    known = TRUTH if column.kind == "truth" else column.known
    if known:
        wrong = written[~written.isin(known) & ~nothing]
        if len(wrong):
            words = ", ".join(known)
            raise TableError(
                f"{path}, line {wrong.index[0]}: {name} {cut(wrong.iloc[0])!r} is none of {words}; {again}"
            )
    if column.kind == "truth":
        return written == "True"
    return written if column.kind == "text" else _numbers(path, name, column, written, nothing, again)


def refuse_long(path: Path, name: str, written: pd.Series) -> None:
    """Raise ``TableError`` where a name in the column ``name`` is too long; the index has the numbers of lines."""
    lengths = written.str.len()
    if (lengths > LONGEST_NAME).any():
        line = lengths.index[lengths > LONGEST_NAME][0]
        much = f"{lengths[line]} characters, {LONGEST_NAME} are the most"
        raise TableError(f"{path}, line {line}: {name} has {much}; is the file whole?")


def _numbers(path: Path, name: str, column: Column, written: pd.Series, nothing: pd.Series, again: str) -> pd.Series:
    found = pd.to_numeric(written.where(~nothing, "nan"), errors="coerce").astype(float)
    wrong = found[found.isna() & ~nothing]
    if len(wrong):
        line = wrong.index[0]
        raise TableError(
            f"{path}, line {line}: {name} {cut(written[line])!r} is not a number; write it with a decimal point and "
            f"without a unit{', or leave the field empty where there is no value' if column.empty else ''}"
        )
    beyond = (found < column.low) | (found > column.high)
    if not column.infinite:
        beyond |= np.isinf(found)
    if column.kind == "whole":
        beyond |= ~nothing & ((found != found.round()) | (found.abs() > MOST))
    if beyond.any():
        line = found.index[beyond][0]
        what = "a whole number" if column.kind == "whole" else "a number"
        limits = "" if math.isinf(column.low) else f" of {column.low:g} or more"
        limits = f" from {column.low:g} to {column.high:g}" if math.isfinite(column.high) else limits
        raise TableError(f"{path}, line {line}: {name} is {cut(written[line])} and must be {what}{limits}; {again}")
    return found.astype(int) if column.kind == "whole" and not column.empty else found


# --- the tables ----------------------------------------------------------------------------------------------------

_TEXT, _NUMBER, _TRUTH = Column(), Column("number"), Column("truth")
_NOTE, _ANY = Column(empty=True), Column("number", empty=True)
_COUNT = Column("whole", low=0, empty=True)
_MODEL = {"arm": _TEXT, "strategy": Column(known=STRATEGIES)}
_REGION = Column(known=REGION_ORDER)

SCORES = Schema(
    {
        **_MODEL, "case": _TEXT, "region": _REGION, "metric": _TEXT,
        "value": Column("number", empty=True, infinite=True), "unit": _TEXT,
    },
    key=(),  # looked for among all tables of a folder
    again="score the cases anew (notebook 06, brainmets score)",
    rows=False,
)  # fmt: skip
LESIONS = Schema(
    {
        **_MODEL, "case": _TEXT, "region": _REGION, "kind": Column(known=("reference", "predicted")),
        "lesion": Column("whole", low=1), "volume_mm3": Column("number", low=0),
        "x_mm": _NUMBER, "y_mm": _NUMBER, "z_mm": _NUMBER, "matched": _NOTE,
        "dice": Column("number", low=0, high=1, empty=True), "detected": _TRUTH, "detected_iou": _TRUTH,
    },
    key=(),
    again="score the cases anew (notebook 06, brainmets score)",
)  # fmt: skip
_FOUND = {**_MODEL, "case": _TEXT, "region": Column(known=tuple(REGIONS))}
_PLACE = {"volume_mm3": Column("number", low=0), **dict.fromkeys(("x_mm", "y_mm", "z_mm"), _NUMBER)}
_ONE, _SHARE = Column("whole", low=1), Column("number", low=0, high=1)
_DETECT_AGAIN = "find the candidates anew (notebook 06, brainmets score --probabilities)"
CANDIDATES = Schema(
    {
        **_FOUND, "candidate": _ONE, "score": _SHARE, "mean": _SHARE, **_PLACE, "uncertainty": _SHARE,
        **{f"hit_{rule}": _TRUTH for rule in HIT_RULES},
    },
    key=("arm", "strategy", "case", "region", "candidate"),
    again=_DETECT_AGAIN,
)  # fmt: skip
TARGETS = Schema(
    {**_FOUND, "lesion": _ONE, "volume_mm3": _PLACE["volume_mm3"], "diameter_mm": Column("number", low=0), **_PLACE},
    key=("arm", "strategy", "case", "region", "lesion"),
    again=_DETECT_AGAIN,
)
OVERLAPS = Schema(
    {
        **_FOUND, "candidate": _ONE, "lesion": _ONE, "shared_mm3": Column("number", low=0), "iou": _SHARE,
        "centroid_inside": _TRUTH,
    },
    key=("arm", "strategy", "case", "region", "candidate", "lesion"),
    again=_DETECT_AGAIN,
)  # fmt: skip
SCREENED = Schema(
    {
        "lesion": _ONE, "accepted": _TRUTH, "score": _SHARE, "uncertainty": _SHARE,
        **_PLACE, "side": Column(known=("left", "right", "middle", "unknown")),
        **dict.fromkeys(("longest_mm", "perpendicular_mm"), Column("number", low=0)),
        "slices": Column("whole", low=0), "slice": Column("whole", low=0), "measurable": _TRUTH, "why": _NOTE,
        **dict.fromkeys(("et_mm3", "netc_mm3", "snfh_mm3"), Column("number", low=0)),
    },
    key=("lesion",),
    again="screen the patient again (brainmets screen)",
)  # fmt: skip
_MEASURED = ("longest_mm", "perpendicular_mm", "volume_mm3", "et_mm3", "netc_mm3", "snfh_mm3")
READ = Schema(
    {
        "lesion": _ONE, "verdict": Column(known=("accepted", "corrected", "added", "not decided")),
        **{name: SCREENED.columns[name] for name in SCREENED.columns if name not in ("lesion", "accepted")},
        **dict.fromkeys(("score", "uncertainty"), Column("number", low=0, high=1, empty=True)),
        **dict.fromkeys(_MEASURED, Column("number", low=0, empty=True)),
        **dict.fromkeys(("slices", "slice"), _COUNT),
        "measurable": Column(known=TRUTH, empty=True), "outlined": _TRUTH,
    },
    key=("lesion",),
    again="measure what the reader left again (notebook 09)",
    rows=True,
)  # fmt: skip
WORKLIST = Schema(
    {
        "case": _TEXT, "page": _NOTE, "decision": Column(known=("pass", "warn", "refuse", "failed")),
        "remarks": _COUNT, "lesions": _COUNT, "largest_mm": Column("number", low=0, empty=True),
        "volume_mm3": Column("number", low=0, empty=True), "candidates": _COUNT,
        "suspicion": Column("number", low=0, high=1, empty=True), "reading": _NOTE, "decided": _COUNT, "note": _NOTE,
    },
    key=("case",),
    again="screen the patients again (brainmets screen)",
)  # fmt: skip
_SIZE = Column("number", low=0, empty=True)
FOLLOWED = Schema(
    {
        "lesion": _ONE, "date": _TEXT, "case": _TEXT,
        "state": Column(known=("measured", "below", "absent", "merged", "not evaluable")),
        "number": Column("whole", low=1, empty=True), "target": _TRUTH,
        "volume_mm3": _SIZE, "longest_mm": _SIZE, "perpendicular_mm": _SIZE, "nadir": _TRUTH,
        **dict.fromkeys(
            ("from_baseline_percent", "from_baseline_mm3", "from_baseline_mm", "from_nadir_percent", "from_nadir_mm3",
             "from_nadir_mm"), _ANY,
        ),
        **dict.fromkeys(("against_baseline", "against_nadir"), Column(
            known=("larger", "smaller", "within the measurement error"), empty=True)),
    },
    key=("lesion", "date"),
    again="make the follow-up again (brainmets follow)",
)  # fmt: skip
RELIABILITY = Schema(
    {
        **_FOUND, "zone": Column(known=ZONES), "bin": Column("whole", low=0), "n": Column("whole", low=0),
        **dict.fromkeys(("sum_p", "sum_p2", "sum_p_positive"), Column("number", low=0)),
        "positive": Column("whole", low=0),
    },
    key=("arm", "strategy", "case", "region", "zone", "bin"),
    again="add up the kept probabilities anew (notebook 06)",
    rows=False,
)  # fmt: skip
DESCRIPTIVE = Schema(
    {
        **_MODEL, "region": _REGION, "metric": _TEXT, "n": Column("whole", low=0),
        **{f"n_{name}": _COUNT for name in ("both", "reference_only", "prediction_only", "neither")},
        **dict.fromkeys(("mean", "sd", "ci_low", "ci_high", "median", "q1", "q3"), _ANY), "note": _NOTE,
    },
    key=("arm", "strategy", "region", "metric"),
    again="run notebook 07 again",
    rows=False,
)  # fmt: skip
_ANY_SHARE = Column("number", low=0, high=1, empty=True)
DETECTION = Schema(
    {
        **_MODEL, "region": _REGION, "hit": Column(known=HIT_RULES),
        "threshold": Column("number", low=0, infinite=True), "smallest_mm3": Column("number", low=0), "size": _TEXT,
        "cases": _ONE, "lesions": _COUNT, "found": _COUNT, "sensitivity": _ANY_SHARE, "low": _ANY_SHARE,
        "high": _ANY_SHARE, "false": _COUNT,
        **dict.fromkeys(("false_positives", "false_positives_low", "false_positives_high"),
                        Column("number", low=0, empty=True, infinite=True)),
        "note": _NOTE,
    },
    key=("arm", "strategy", "size"),
    again="run notebook 07 again",
    rows=False,
)  # fmt: skip
PATIENT_LEVEL = Schema(
    {
        **_MODEL, "region": _REGION, "measure": _TEXT, "patients": _COUNT, "count": _COUNT,
        **dict.fromkeys(("value", "low", "high"), _ANY_SHARE), "note": _NOTE,
    },
    key=("arm", "strategy", "measure"),
    again="run notebook 07 again",
    rows=False,
)  # fmt: skip
_MEASURE = Column(known=("dice", "lesion_dice", "lesion_f1", "lesions_found", "false_positives"))
_UNBOUNDED = Column("number", empty=True, infinite=True)
POST_PROCESSED = Schema(
    {
        **_MODEL, "rules": _TEXT, "region": _REGION, "measure": _MEASURE, "cases": Column("whole", low=0),
        "patients": Column("whole", low=0),
        **{f"{side}{end}": _UNBOUNDED for side in ("without", "with", "difference") for end in ("", "_low", "_high")},
        "small": Column("whole", low=0), "small_lost": Column("whole", low=0),
    },
    key=("arm", "strategy", "region", "measure"),
    again="run notebook 06 again",
    rows=True,
)  # fmt: skip
SUBSETS = Schema(
    {
        **_MODEL, "subset": _TEXT, "how": Column(known=("occurring", "made")), "region": _REGION, "measure": _MEASURE,
        "cases": Column("whole", low=0), "patients": Column("whole", low=0),
        **{f"{side}{end}": _UNBOUNDED for side in ("value", "difference") for end in ("", "_low", "_high")},
        "note": _NOTE,
    },
    key=("arm", "strategy", "subset", "how", "region", "measure"),
    again="run notebook 06 again",
    rows=True,
)  # fmt: skip
RATING_KEY = Schema(
    {"case": _TEXT, "model": Column(known=("A", "B")), **_MODEL},
    key=("case", "model"),
    again="restore it from a backup: a new one need not fit the sheets that come back",
    rows=False,
)
