"""Which of a scan's series is t1n, t1c, t2w and t2f: a guess with its reasons, and the table in which people decide.

``series.csv`` has one row per series of every case. The program guesses; what stands in the column ``role`` rules. It
holds names and times from headers, so that it is for the user's eyes alone (mode 0600).
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import fill, shorten
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pandas as pd
import SimpleITK

from brainmets.cohorts import spreadsheet
from brainmets.figures import Drawing
from brainmets.preparation.judging import CERTAIN, judge
from brainmets.preparation.scans import Finding, Series
from brainmets.schemas import MOST
from brainmets.vocabulary import SEQUENCE_TITLES, SEQUENCES

SERIES_COLUMNS = (
    "case", "series", "role", "guess", "confidence", "reason", "rank", "description", "acquisition", "plane", "slices",
    "spacing_mm", "thickness_mm", "repetition_ms", "echo_ms", "inversion_ms", "contrast_agent", "time", "problems",
    "key",
)  # fmt: skip
"""Columns of ``series.csv``; see ``guess``."""
MOST_FAULTS = 20
"""Faults that one message lists."""
WHOLE_NUMBERS = ("series", "rank", "slices")
NUMBERS = ("confidence", "thickness_mm", "repetition_ms", "echo_ms", "inversion_ms")

ALIASES = {
    "t1": ("t1n", "t1c"), "t1w": ("t1n", "t1c"), "t1pre": ("t1n",), "t1native": ("t1n",), "t1gd": ("t1c",),
    "t1ce": ("t1c",), "t1post": ("t1c",), "t1+c": ("t1c",), "t1km": ("t1c",), "t2": ("t2w",), "flair": ("t2f",),
    "t2flair": ("t2f",),
}  # fmt: skip
"""What people write for a sequence, and the names it may mean."""


class UncertainError(ValueError):
    """A case whose needed sequences are not all decided; the message says which, the candidates, what to write."""


# --- guessing ----------------------------------------------------------------------------------------------------


def guess(scan: Sequence[Series], sequences: Collection[str] = SEQUENCES) -> pd.DataFrame:
    """What each series of one scan (patient and date) is, one row a series, in the order of their numbers.

    ``guess`` is one of ``sequences``, or "" for a series that is none of them; ``confidence`` is how sure that is, and
    ``reason`` says from what:

    - 0.95 and more: names and physics (sequence, repetition, echo and inversion times) say the same, and contrast is
      told by a name, by the header, or by the order of recording together with another series' contrast;
    - ``CERTAIN`` (0.9): one of the two alone, unequivocal, nothing against it;
    - 0.6 to 0.8: what other series would show too: a T1 told from another by the order in time alone, physics that
      two kinds share, a series with problems, computed from another, or of too few slices for a brain;
    - 0.3: names and physics, or the signs of contrast, contradict each other;
    - 0: no guess (diffusion, perfusion, angiography, localisers, reformats and the like, or nothing is known).

    The levels are a scale of agreement, not measured frequencies. The candidates of a sequence have ``rank`` 1, 2, ...
    (0: no guess): certain before uncertain, without problems, original, 3D before 2D, thinner, larger, and among
    equals the later (t1n: the earlier). ``role`` is the guess of the first where it is certain, else "". ``case`` is
    empty: the caller knows it. ``spacing_mm`` is "column x row x slice"; ``contrast_agent`` yes, no or unknown.

    An empty scan gives an empty table.
    """
    if not scan:
        return empty()
    rows = []
    for one in sorted(judge(scan), key=lambda one: one.series.number):
        if one.guess and one.guess not in sequences:  # judged with the others: a t1n tells the t1c from itself
            why = f"looks like {one.guess}, which is not declared"
            one = replace(one, guess="", rank=0, reasons=(*one.reasons, why))
        rows.append(
            {
                "case": "", "series": one.series.number, "guess": one.guess, "rank": one.rank,
                "role": one.guess if one.rank == 1 and one.confidence >= CERTAIN else "",
                "confidence": round(one.confidence, 2) if one.guess else 0.0, "reason": "; ".join(one.reasons),
                **_shown(one.series), "contrast_agent": one.agent, "key": one.series.key,
            }
        )  # fmt: skip
    return _typed(pd.DataFrame(rows, columns=list(SERIES_COLUMNS)))


def empty() -> pd.DataFrame:
    """A table without rows."""
    return _typed(pd.DataFrame(columns=list(SERIES_COLUMNS)))


def _shown(series: Series) -> dict[str, Any]:
    """What a person needs to judge a series by."""
    header = series.header
    time = header.time.strip()
    return {
        "description": _one_line(header.description or header.protocol),
        "acquisition": header.acquisition,
        "plane": header.plane,
        "slices": header.slices,
        "spacing_mm": " x ".join("?" if math.isnan(side) else f"{side:.3g}" for side in header.spacing_mm),
        "thickness_mm": header.thickness_mm,
        "repetition_ms": header.repetition_ms,
        "echo_ms": header.echo_ms,
        "inversion_ms": header.inversion_ms,
        "time": f"{time[:2]}:{time[2:4]}:{time[4:6]}" if re.match(r"\d{6}", time) else "",
        "problems": " | ".join(series.problems),
    }


def _one_line(text: str) -> str:
    """Free text of a header without the signs that would end a cell, whichever separator a spreadsheet expects."""
    text = text.encode("utf-8", errors="replace").decode("utf-8")
    return " ".join(re.sub(r"[\x00-\x1f\x7f;,|\"]", " ", text).split())


# --- the table ---------------------------------------------------------------------------------------------------


def write(path: Path, table: pd.DataFrame) -> Path:
    """Write ``series.csv``: whole or not at all, mode 0600, no cell a formula; keys as percent-encoded text."""
    rows = []
    for record in table[list(SERIES_COLUMNS)].to_dict("records"):
        cells = {str(column): "" if pd.isna(value) else str(value) for column, value in record.items()}
        rows.append(cells | {"key": _encoded(str(record["key"]))})
    return spreadsheet.write(path, SERIES_COLUMNS, rows)


def read(path: Path) -> pd.DataFrame:
    """Read ``series.csv`` as a person left it, or as Excel or LibreOffice saved it.

    Gives a table as ``guess`` does, with cases. Raises ``ValueError`` that lists every fault with file, row (the
    header is row 1), value and what to do: an unknown role, a role given to two series of a case, a series or a key
    that is there twice, a key that a spreadsheet took for a number, a number that is none.
    """
    rows = spreadsheet.read(path, SERIES_COLUMNS)
    faults = []
    records = []
    for number, cells in rows:
        where = f"{path.name}, row {number}"
        cells = {column: cell.strip() for column, cell in cells.items()}
        record: dict[str, Any] = dict(cells)
        for column in ("role", "guess"):
            record[column] = cells[column].casefold()
            if record[column] not in ("", *SEQUENCES):
                faults.append(f"{where}: column {column}: {_role_advice(cells[column])}")
        for column in (*NUMBERS, *WHOLE_NUMBERS):
            try:
                record[column] = _number(cells[column], whole=column in WHOLE_NUMBERS)
            except ValueError:
                faults.append(f"{where}: column {column}: {cells[column]!r} is no number: write the number again")
        if not cells["case"]:
            faults.append(f"{where}: column case is empty: take back the change")
        faults += [f"{where}: {fault}" for fault in _key_faults(cells["key"])]
        record["key"] = unquote(cells["key"], errors="surrogateescape")
        records.append(record)
    faults += _repeated(path.name, [number for number, _ in rows], records)
    if len(faults) > MOST_FAULTS:
        faults[MOST_FAULTS:] = [f"{path.name}: and {len(faults) - MOST_FAULTS} faults more"]
    if faults:
        raise ValueError("\n".join(faults))
    return _typed(pd.DataFrame(records, columns=list(SERIES_COLUMNS)))


def merge(
    old: pd.DataFrame, new: pd.DataFrame, sequences: Collection[str] = SEQUENCES
) -> tuple[pd.DataFrame, list[Finding]]:
    """The table of all scans, ``new``, with the roles that stand in ``old``; and what a person should know.

    Series are known by case and key. A role in ``old`` stays, whatever is guessed now. A series without a role gets
    one only where the guess is certain, the case has no series for that sequence yet, and nobody took the role away:
    neither a person who emptied its cell, nor the loss of a series to which a person had given it. Series that are
    gone are dropped with a finding, an error where a person had chosen one of them. A role that the program gave, of
    none of ``sequences``, is taken back: it was given when more were declared.
    """
    table = new.copy()
    known = {(row["case"], row["key"]): row for row in old.to_dict("records")}
    for row in known.values():
        if row["role"] and row["role"] not in sequences and row["role"] == _own_role(row):
            row.update(role="", guess="", rank=0)
    findings = []
    taken = {(row["case"], row["role"]) for row in known.values() if row["role"]}
    there = set(zip(new["case"], new["key"], strict=True))
    cases = set(new["case"])
    for (case, key), row in known.items():
        if (case, key) in there:
            continue
        by_person = bool(row["role"]) and row["role"] != _own_role(row)
        if not by_person:
            taken.discard((case, row["role"]))
        findings.append(_gone(row, by_person, case in cases))
    roles = []
    for row in table.to_dict("records"):
        before = known.get((row["case"], row["key"]))
        role = row["role"] if before is None or (not before["role"] and not _own_role(before)) else ""
        if before is not None and before["role"]:
            role = before["role"]
            if role == before["guess"] and role != row["guess"]:
                findings.append(_changed(row, role))
        elif role and (row["case"], role) in taken:
            role = ""
        elif role:
            taken.add((row["case"], role))
        roles.append(role)
    table["role"] = pd.Series(roles, index=table.index, dtype="str")
    return table, findings


def choose(
    table: pd.DataFrame, case: str, sequences: Sequence[str] = SEQUENCES, may_lack: Collection[str] = ()
) -> dict[str, int]:
    """The series' number of each of the ``sequences`` of ``case``, as the column ``role`` says.

    One of ``may_lack`` that no series has the role of is left out. Raises ``UncertainError`` where another is
    undecided: the message lists the candidates with their reasons and says what to write. Raises ``ValueError`` for a
    case that the table does not have, or a role given twice.
    """
    rows = table[table["case"] == case]
    if rows.empty:
        near = difflib.get_close_matches(case, sorted(set(table["case"])), n=1)
        hint = f"; the nearest name is {near[0]}" if near else ""
        raise ValueError(f"series.csv has no case {case}{hint}: correct the name, or run again to list the scans anew")
    chosen = {}
    for sequence in sequences:
        numbers = [int(number) for number in rows.loc[rows["role"] == sequence, "series"]]
        if len(numbers) > 1:
            raise ValueError(
                f"case {case}: series {' and '.join(map(str, numbers))} both have the role {sequence} in series.csv: "
                "leave it to one and empty the other's cell"
            )
        if numbers:
            chosen[sequence] = numbers[0]
    missing = [sequence for sequence in sequences if sequence not in chosen and sequence not in may_lack]
    if missing:
        raise UncertainError(_advice(rows, case, missing, sequences, may_lack))
    return chosen


def lacking(table: pd.DataFrame, case: str, may_lack: Collection[str]) -> dict[str, list[int]]:
    """The sequences of ``may_lack`` that ``case`` is prepared without, each with the series that may be it after all.

    Where a sequence may be lacking, a candidate that is not certain is no reason to stop.
    """
    rows = table[table["case"] == case]
    return {
        name: rows[rows["guess"] == name].sort_values("rank")["series"].astype(int).tolist()
        for name in may_lack
        if not (rows["role"] == name).any()
    }


def lacking_in_words(sequence: str, candidates: Sequence[int]) -> str:
    """What to know of a case that was prepared without a sequence; see ``lacking``."""
    text = f"has no {sequence}, and is prepared without it, as may_lack allows"
    if candidates:
        numbers = " or ".join(map(str, candidates))
        text += f" (series {numbers} may be it: see series.csv, and write {sequence} into its role)"
    return text


def _own_role(row: Mapping[Any, Any]) -> str:
    """The role that the program gave a row by itself."""
    return str(row["guess"]) if row["rank"] == 1 and row["confidence"] >= CERTAIN else ""


def _gone(row: Mapping[Any, Any], by_person: bool, case_is_there: bool) -> Finding:
    case, number, role = row["case"], int(row["series"]), row["role"]
    what = f"case {case}: series {number}" + (f", which had the role {role}," if role else "")
    if not case_is_there:
        return Finding(
            "warning", case, number, f"{what} is in series.csv, but there is no such case: its row was dropped"
        )
    text = f"{what} is in series.csv, but not among the scans: its row was dropped"
    if by_person:
        return Finding("error", case, number, f"{text}; write {role} into column role of another series of this case")
    return Finding("warning", case, number, text)


def _changed(row: Mapping[Any, Any], role: str) -> Finding:
    now = (
        f"now guessed to be {row['guess']}"
        if row["guess"]
        else "no longer guessed to be any sequence that is declared"
    )
    case, number = row["case"], int(row["series"])
    text = f"case {case}: series {number} keeps the role {role} of series.csv, though it is {now}: look at its reason"
    return Finding("warning", case, number, text)


def _advice(
    rows: pd.DataFrame, case: str, missing: Sequence[str], sequences: Sequence[str], may_lack: Collection[str]
) -> str:
    lines = [f"case {case}: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} undecided"]
    for sequence in missing:
        candidates = rows[(rows["guess"] == sequence) & (rows["role"] == "")].sort_values("rank").to_dict("records")
        for row in candidates:
            why = f"confidence {row['confidence']:.2f}: {row['reason']}"
            lines.append(f"  {sequence}: perhaps series {int(row['series'])} ({why})")
        numbers = [str(int(row["series"])) for row in candidates]
        if numbers:
            others = f", or in that of series {' or '.join(numbers[1:])}" if numbers[1:] else ""
            lines.append(
                f"  write {sequence} into column role of series.csv in the row of series {numbers[0]}{others}, "
                "after a look at the image"
            )
        else:
            lines.append(
                f"  {sequence}: no series looks like it; if one is {sequence} all the same, write {sequence} into "
                "column role of series.csv in its row"
            )
    lines.append(f"  {_needed(sequences, may_lack)}")
    return "\n".join(lines)


def _needed(sequences: Sequence[str], may_lack: Collection[str]) -> str:
    """What a case must have, in words."""
    needed = [name for name in sequences if name not in may_lack]
    if len(needed) == len(SEQUENCES):
        return f"all four of {', '.join(SEQUENCES)} are needed: leave out a case that lacks one"
    free = ", ".join(may_lack) or "none"
    needs, one = ("is needed", "it") if len(needed) == 1 else ("are needed", "one")
    return (
        f"declared are {', '.join(sequences)}, of which may be lacking (may_lack): {free}; {', '.join(needed)} "
        f"{needs}: leave out a case that lacks {one}"
    )


def _role_advice(value: str) -> str:
    shown = value[:20]
    near = ALIASES.get(re.sub(r"[\s_-]", "", value.casefold())) or difflib.get_close_matches(
        value.casefold(), SEQUENCES, n=2, cutoff=0.3
    )
    meant = f"; perhaps {' or '.join(near)} is meant" if near else ""
    return f"{shown!r} is no role{meant}: write one of {', '.join(SEQUENCES)}, or leave the cell empty"


def _key_faults(key: str) -> list[str]:
    if not key:
        return ["column key is empty: rows cannot be added; write the role into the row of the series that is there"]
    number = r"[-+]?\d+([.,]\d+)?([eE][-+]?\d+)?"
    # parts of a DICOM identifier have no leading zeros, those of a date do
    date = r"0\d[./-]\d\d?[./-]\d+|\d\d?[./-]0\d[./-]\d+"
    if re.fullmatch(number, key) or re.fullmatch(date, key):
        return [
            f"column key: {key[:30]!r} has been made a number or a date by a spreadsheet: put the column's former "
            "text back (import it as text), or delete the file and run again to have it written anew"
        ]
    return []


def _repeated(name: str, numbers: Sequence[int], records: Sequence[Mapping[str, Any]]) -> list[str]:
    faults = []
    first: dict[tuple[Any, ...], int] = {}
    for number, record in zip(numbers, records, strict=True):
        case, role = record["case"], record["role"]
        checks = [
            ("key", "the same series as in row", "delete one of the rows"),
            ("series", f"series {record['series']} is already in row", "take back the change of its number"),
        ]
        if role in SEQUENCES:
            checks.append(("role", f"{role} is already given to row", "leave it to one of them"))
        for column, what, remedy in checks:
            earlier = first.setdefault((case, column, record[column]), number)
            if earlier != number:
                faults.append(f"{name}, row {number}: case {case}: {what} {earlier}: {remedy}")
                break
    return faults


def _number(text: str, *, whole: bool) -> float | int:
    if not text and not whole:
        return math.nan
    value = float(text.replace(",", "."))
    if whole and not (value.is_integer() and abs(value) < MOST):
        raise ValueError(text)
    return int(value) if whole else value


def _encoded(key: str) -> str:
    """A key as a cell that no spreadsheet changes: letters, digits, "." "/" "_" "-" "~" stay as they are."""
    text = quote(key, errors="surrogateescape")
    return "%2D" + text[1:] if text.startswith("-") else text


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    types = dict.fromkeys(SERIES_COLUMNS, "str") | dict.fromkeys(WHOLE_NUMBERS, "int64")
    # names of files need not be text
    return table.astype(types | dict.fromkeys(NUMBERS, "float64") | {"key": "object"})


# --- the picture -------------------------------------------------------------------------------------------------

BELOW_THE_TOP_MM = 65.0
"""An axial slice this far below the top of the head shows the brain above the eyes."""
WINDOW_MM = ((190.0, 240.0), (190.0, 180.0))
"""Width and height of the axial and the coronal window, so that all heads are shown at one scale."""
REASON_LENGTH = 150


def picture(
    images: Mapping[str, SimpleITK.Image], table: pd.DataFrame, case: str, sequences: Sequence[str] = SEQUENCES
) -> Drawing:
    """The choices of one case side by side: an axial slice through the brain above, a coronal one through its middle.

    ``images`` are the series as recorded, by sequence, turned to LPS; one of ``sequences`` without is left blank. The
    patient's right is on the left. No sagittal slice is shown: a profile would give the person away.
    """
    rows = table[table["case"] == case]
    figure = Drawing(figsize=(3.0 * len(sequences), 7.6), layout="constrained")
    axes = figure.subplots(2, len(sequences), squeeze=False, height_ratios=[height for _, height in WINDOW_MM])
    for column, sequence in enumerate(sequences):
        axes[0, column].set_title(_title(rows, sequence), fontsize=9)
        axes[1, column].set_xlabel(_reason(rows, sequence), fontsize=7)
        for axis in axes[:, column]:
            axis.set(xticks=[], yticks=[], facecolor="black")
        if sequence not in images:
            continue
        for axis, window, (pixels, sides) in zip(axes[:, column], WINDOW_MM, _slices(images[sequence]), strict=True):
            low, high = np.percentile(pixels, (1, 99.5))
            height, width = (count * side for count, side in zip(pixels.shape, sides, strict=True))
            axis.imshow(pixels, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), extent=(0, width, height, 0))
            axis.set_xlim((width - window[0]) / 2, (width + window[0]) / 2)
            axis.set_ylim((height + window[1]) / 2, (height - window[1]) / 2)
    axes[0, 0].text(0.02, 0.98, "R", transform=axes[0, 0].transAxes, color="white", va="top")
    figure.suptitle(f"Case {case}: which series is which")
    return figure


def _title(rows: pd.DataFrame, sequence: str) -> str:
    chosen = rows[rows["role"] == sequence]
    if chosen.empty:
        return f"{SEQUENCE_TITLES[sequence]} ({sequence})\nundecided"
    row = chosen.iloc[0]
    source = f"confidence {row['confidence']:.2f}"
    if row["guess"] != sequence:
        source = f"chosen by a person (guess: {row['guess'] or 'none'})"
    elif row["confidence"] < CERTAIN or row["rank"] != 1:
        source = f"chosen by a person (confidence {row['confidence']:.2f})"
    return f"{SEQUENCE_TITLES[sequence]} ({sequence})\nseries {int(row['series'])}, {source}"


def _reason(rows: pd.DataFrame, sequence: str) -> str:
    chosen = rows[rows["role"] == sequence]
    return "" if chosen.empty else fill(shorten(str(chosen.iloc[0]["reason"]), REASON_LENGTH, placeholder=" ..."), 44)


def _slices(image: SimpleITK.Image) -> list[tuple[np.ndarray, tuple[float, float]]]:
    """The axial and the coronal slice as shown, first row on top, each with its pixels' sides (height, width)."""
    voxels = SimpleITK.GetArrayViewFromImage(image)
    width, depth, height = image.GetSpacing()
    inside = voxels > np.percentile(voxels, 99) * 0.15
    by_slice = inside.mean(axis=(1, 2))
    filled = np.flatnonzero(by_slice > 0.2 * by_slice.max())
    top = int(filled[-1]) if filled.size else len(voxels) - 1
    axial = max(top - round(BELOW_THE_TOP_MM / height), len(voxels) // 4, 0)
    rows = np.flatnonzero(inside[axial].any(axis=1))
    coronal = int(rows[0] + rows[-1]) // 2 if rows.size else voxels.shape[1] // 2
    return [(voxels[axial], (depth, width)), (voxels[::-1, coronal], (height, width))]
