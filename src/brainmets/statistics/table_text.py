"""Tables of comma-separated values as text: read field by field, refused with the file's name and the line."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pandas as pd


class ScoreTableError(ValueError):
    """A score table that cannot be used; the message names the file, the value and what to do."""


def read_text(file: Path) -> pd.DataFrame:
    """The table as stripped text, its index the number of each row's line in ``file``; empty lines are passed over.

    Raises ``ScoreTableError`` for a row with more or fewer fields than there are column names, a column without a
    name, a name that stands twice, and a file that holds no text of this kind.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle, strict=True)
            lines = [(reader.line_num, [field.strip() for field in row]) for row in reader if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ScoreTableError(f"{file} is not a table of comma-separated values: {error}") from error
    if not lines:
        raise ScoreTableError(f"{file} is empty; run the step that writes it again")
    names = lines[0][1]
    _refuse_names(file, names)
    for line, row in lines[1:]:
        if len(row) != len(names):
            raise ScoreTableError(
                f"{file}, line {line}: {len(row)} fields under {len(names)} names; {_hint(len(row) - len(names))}"
            )
    rows = [row for _, row in lines[1:]]
    return pd.DataFrame(rows, columns=names, index=[line for line, _ in lines[1:]], dtype=str)


def refuse_empty(file: Path, table: pd.DataFrame) -> None:
    """Refuse a table without rows."""
    if table.empty:
        raise ScoreTableError(f"{file} holds no rows; run the step that writes it again")


def refuse_blank(file: Path, table: pd.DataFrame, column: str) -> None:
    """Refuse a column with an empty field."""
    blank = table.index[table[column] == ""]
    if len(blank):
        raise ScoreTableError(f"{file}, line {blank[0]}: {column} is empty")


def refuse_unknown(file: Path, table: pd.DataFrame, column: str, known: Sequence[str]) -> None:
    """Refuse a column with a word that is not among ``known``."""
    wrong = table.index[~table[column].isin(known)]
    if len(wrong):
        raise ScoreTableError(
            f"{file}, line {wrong[0]}: {column} {table.loc[wrong[0], column]!r} is none of {', '.join(known)}"
        )


def numbers(file: Path, names: pd.Series, written: pd.Series) -> pd.Series:
    """Text to numbers; empty and "nan" are NaN, other text is refused with its place."""
    found = pd.to_numeric(written.where(written != "", "nan"), errors="coerce").astype(float)
    wrong = found.index[found.isna() & ~written.str.lower().isin(["", "nan", "na"])]
    if len(wrong):
        line = wrong[0]
        raise ScoreTableError(
            f"{file}, line {line}, {names[line]}: {written[line]!r} is not a number; "
            "write it with a decimal point and without a unit, or leave the field empty where there is no value"
        )
    return found


def _refuse_names(file: Path, names: list[str]) -> None:
    if len(names) == 1 and ";" in names[0]:
        raise ScoreTableError(f"{file}: the names are separated by semicolons; save the table with commas")
    if "" in names:
        raise ScoreTableError(f"{file}, line 1: column {names.index('') + 1} has no name; is there a comma too many?")
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ScoreTableError(f"{file}, line 1: the column {', '.join(twice)} stands twice; keep one")


def _hint(surplus: int) -> str:
    if surplus > 0:
        return "a decimal comma, or a comma too many? Write numbers with a point and end the line after the last field"
    return "is the line cut off? Leave a field empty, but keep its comma, where there is no value"
