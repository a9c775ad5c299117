"""A screened scan read back: its record, its table, and whether every file is what was written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from brainmets.files import read_json
from brainmets.paths import ScreeningPaths
from brainmets.provenance import sha256
from brainmets.screening import lesions
from brainmets.tables import TableError

SCHEMA = 1
"""Of ``screening.json``."""
AGAIN = "screen the scan again (brainmets screen)"


class ResultError(ValueError):
    """A folder that holds no screened scan, or one that is not whole; the message names the files."""


@dataclass(frozen=True)
class Result:
    """One screened scan: ``record`` is ``screening.json``, ``table`` has the columns of ``schemas.SCREENED``.

    A scan that was refused has a table without rows.
    """

    files: ScreeningPaths
    record: dict[str, Any]
    table: pd.DataFrame


def read(folder: Path) -> Result:
    """The result in ``folder``, every file of it checked against the record.

    Raises ``ResultError`` where there is no record, one of another release's schema, and for files that are missing or
    are not what was written, all of them named.
    """
    files = ScreeningPaths(folder)
    if not files.record.is_file():
        if within := sorted(path.parent for path in folder.glob(f"*/{files.record.name}")):
            raise ResultError(f"{folder} holds screened scans: name the folder of one, such as {within[0]}")
        raise ResultError(f"{folder} holds no screened scan ({files.record.name} is missing): {AGAIN}")
    try:
        record = read_json(files.record)
    except ValueError:
        raise ResultError(f"{files.record} is damaged: {AGAIN}") from None
    if record.get("schema") != SCHEMA:
        raise ResultError(
            f"{files.record} has schema {record.get('schema')!r}, where this release reads {SCHEMA}: {AGAIN}, or use "
            "the release that wrote it"
        )
    listed = record.get("files")
    if not isinstance(listed, dict) or files.table.name not in listed:
        raise ResultError(f"{files.record} is damaged: it lists no files; {AGAIN}")
    if wrong := [f"{name} {fault}" for name, hashed in listed.items() if (fault := _fault(folder, name, hashed))]:
        raise ResultError(f"{folder}: {', '.join(wrong)}: {AGAIN}")
    try:
        table = lesions.read(files)
    except TableError as error:
        raise ResultError(str(error)) from error
    return Result(files, record, table)


def _fault(folder: Path, name: str, hashed: Any) -> str:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        return "lies outside the folder"
    if not path.is_file():
        return "is missing"
    return "" if sha256(path) == hashed else "is not what was written"
