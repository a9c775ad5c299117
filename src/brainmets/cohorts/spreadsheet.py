"""Private tables (CSV) that people open, edit and save in a spreadsheet.

Written for the user's eyes alone (mode 0600 from the first byte) and so that no cell is taken for a formula; read in
whatever form Excel or LibreOffice saved them: comma, semicolon or tab, with or without a byte order mark, CRLF,
Windows-1252 or UTF-16.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from brainmets.files import replacing
from brainmets.tables import decoded, guarded, unguarded


class Row(NamedTuple):
    """One row: its number as a spreadsheet counts (the header is row 1), and its cells by column."""

    number: int
    cells: dict[str, str]


def write(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> Path:
    """Write a table of texts, whole or not at all, mode 0600; cells that would be formulas get a leading quote."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)  # a lone CR ends a line as well
    writer.writerow(columns)
    writer.writerows([[guarded(row[column]) for column in columns] for row in rows])
    with replacing(path) as aside:
        aside.unlink(missing_ok=True)
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        # names of folders need not be UTF-8: their bytes are kept as they are
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text.getvalue())
    return path


def read(path: Path, columns: Sequence[str]) -> list[Row]:
    """The rows of a table that ``write`` wrote, perhaps saved anew by a spreadsheet; see ``rows_of``."""
    return rows_of(decoded(path.read_bytes()), columns, path.name)


def rows_of(text: str, columns: Sequence[str], name: str) -> list[Row]:
    """The rows of the table ``text``; empty rows are left out, further columns ignored.

    Raises ``ValueError`` naming the file, ``name``, where a column is missing or is there twice.
    """
    head = text.lstrip("\r\n").partition("\n")[0]
    separator = max(",;\t", key=head.count)
    if head.lower().startswith("sep="):  # Excel's own hint
        separator, text = head.strip()[4:5] or ",", text.lstrip("\r\n").partition("\n")[2]
    lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    names = [cell.strip().lower() for cell in lines[0]] if lines else []
    for column in columns:
        if names.count(column) != 1:
            found = "is missing" if column not in names else "is there more than once"
            raise ValueError(
                f"{name}: column {column} {found}; its first row must name the columns {', '.join(columns)}: "
                "take back the change, or delete the file and run again to have it written anew"
            )
    places = {column: names.index(column) for column in columns}
    return [
        Row(number, {column: unguarded(line[at]) if at < len(line) else "" for column, at in places.items()})
        for number, line in enumerate(lines[1:], start=2)
        if any(cell.strip() for cell in line)
    ]
