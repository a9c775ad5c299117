"""Tables (CSV): written whole, every digit kept and no cell a formula; read in whatever form a spreadsheet saved them.

A spreadsheet runs a cell that starts with ``=``, ``+``, ``-`` or ``@`` as a formula, and names of cases and raters are
other people's words. Such a text is written with a leading quote, which ``read`` takes off again.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from pathlib import Path
from typing import Any

import pandas as pd

from brainmets.files import write_text

FORMULA_STARTS = tuple("=+-@\t\r\n")
"""What makes a spreadsheet take a cell for a formula, after spaces: https://owasp.org/www-community/attacks/CSV_Injection"""
LONGEST_NAME = 255
"""Characters of the name of a column or a case, as of a file's; a longer one comes of a damaged file or a wrong
encoding, and no message could show it."""
TOO_MANY_FIELDS = (
    "a decimal comma, or a comma too many? Write numbers with a point and end the line after the last field"
)
TOO_FEW_FIELDS = "is the line cut off? Leave a field empty, but keep its comma, where there is no value"


class TableError(ValueError):
    """A table that cannot be used; the message names the file, the line and what to do."""


def write(path: Path, table: pd.DataFrame) -> Path:
    """Write a table without its index, whole or not at all; a missing value is an empty field."""
    return write_text(path, text(table))


def text(table: pd.DataFrame) -> str:
    """What ``write`` writes."""
    cells = table.rename(columns=_guarded)
    for place, dtype in enumerate(table.dtypes):
        if not pd.api.types.is_numeric_dtype(dtype):
            cells.isetitem(place, table.iloc[:, place].map(_guarded).array)
    return cells.to_csv(index=False)


def read(path: Path, **options: Any) -> pd.DataFrame:
    """What ``write`` wrote, perhaps saved anew by a spreadsheet; ``options`` are those of ``pandas.read_csv``.

    Raises ``TableError`` as ``lines`` does, and for cells that do not fit ``options``.
    """
    written = decoded(path.read_bytes())
    _lines_of(written, path, str(options.get("comment", "")))
    try:
        table = pd.read_csv(io.StringIO(written), **options)
    except (ValueError, OverflowError) as error:  # pandas' own errors are ValueErrors
        raise TableError(f"{path}: {error}; run the step that writes it again") from error
    for name in table.columns:
        if not pd.api.types.is_numeric_dtype(table[name]):
            table[name] = table[name].map(_unguarded)
    return table.rename(columns=_unguarded)


def lines(path: Path, comment: str = "") -> list[tuple[int, list[str]]]:
    """Number and stripped fields of every line that is not empty, the column names first.

    Lines that start with ``comment`` are passed over. Raises ``TableError`` for a file without text, a row with more
    or fewer fields than there are names, a column without a name, a name that occurs twice and one that is too long.
    """
    return _lines_of(decoded(path.read_bytes()), path, comment)


def _lines_of(written: str, path: Path, comment: str) -> list[tuple[int, list[str]]]:
    try:
        reader = csv.reader(io.StringIO(written, newline=""), strict=True)
        found = [(reader.line_num, [field.strip() for field in row]) for row in reader if row]
    except csv.Error as error:
        raise TableError(f"{path} is not a table of comma-separated values: {error}") from error
    if comment:
        found = [(line, row) for line, row in found if not row[0].startswith(comment)]
    if not found:
        raise TableError(f"{path} is empty; run the step that writes it again")
    names = found[0][1]
    if len(names) == 1 and ";" in names[0]:
        raise TableError(f"{path}: the names are separated by semicolons; save the table with commas")
    if "" in names:
        raise TableError(f"{path}, line 1: column {names.index('') + 1} has no name; is there a comma too many?")
    if long := [len(name) for name in names if len(name) > LONGEST_NAME]:
        much = f"{long[0]} characters, {LONGEST_NAME} are the most"
        raise TableError(f"{path}, line 1: a column's name has {much}; is the file whole?")
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise TableError(f"{path}, line 1: the column {', '.join(twice)} occurs twice; keep one")
    for line, row in found[1:]:
        if len(row) != len(names):
            hint = TOO_MANY_FIELDS if len(row) > len(names) else TOO_FEW_FIELDS
            raise TableError(f"{path}, line {line}: {len(row)} fields under {len(names)} names; {hint}")
    return found


def decoded(content: bytes) -> str:
    """The text of a file that Excel or LibreOffice saved: UTF-8 with or without a mark, UTF-16, Windows-1252."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    return content.decode("utf-8", errors="replace")


def cut(text: str) -> str:
    """The text as far as a message shows it: 80 characters at most."""
    return text if len(text) <= 80 else text[:77] + "..."


def guarded(text: str) -> str:
    """A cell that no spreadsheet takes for a formula; ``unguarded`` gives the text back.

    >>> guarded("=1+1"), guarded("t1 + c"), unguarded(guarded("=1+1"))
    ("'=1+1", 't1 + c', '=1+1')
    """
    return "'" + text if _starts_a_formula(text) else text


def unguarded(text: str) -> str:
    """The text of a cell as it was before ``guarded``."""
    return text[1:] if text.startswith("'") and _starts_a_formula(text) else text


def _starts_a_formula(text: str) -> bool:
    bare = text.lstrip("'")
    # full-width signs count as well
    first = {unicodedata.normalize("NFKC", part[:1]) for part in (bare, bare.lstrip())}
    return bool(first & set(FORMULA_STARTS))


def _guarded(cell: Any) -> Any:
    return guarded(cell) if isinstance(cell, str) else cell


def _unguarded(cell: Any) -> Any:
    return unguarded(cell) if isinstance(cell, str) else cell
