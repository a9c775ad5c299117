"""The list of many screened scans: what could not be judged, then the others by falling suspicion.

``worklist.html`` is one file that opens anywhere, its columns sorted by a click; ``worklist.csv`` holds the same as
``schemas.WORKLIST`` says. A scan's suspicion is the highest score of any of its candidates, accepted or not.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from brainmets import tables
from brainmets.files import write_text
from brainmets.nifti import ImageError
from brainmets.paths import ScreeningPaths
from brainmets.report.redaction import Redactor, leaks
from brainmets.report.scripts import ScriptError, script
from brainmets.schemas import WORKLIST
from brainmets.screening.page import NOT_JUDGED, PAGES, PageError, read_record, read_table
from brainmets.tables import TableError

PAGE, TABLE = "worklist.html", "worklist.csv"
FAILED = "failed"
"""The decision about a scan without a result."""


def write(out: Path, folders: Sequence[ScreeningPaths]) -> Path:
    """Write ``worklist.html`` and ``worklist.csv`` into ``out``; gives the page's path.

    Scans without a result, and those whose files cannot be read, are listed with the reason among those that were not
    judged; none is left out. Raises ``ValueError`` where two folders are of one case.
    """
    names = [files.case for files in folders]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"folders: {', '.join(twice)} twice in one worklist; write one for each output folder")
    plain = Redactor({})
    table = pd.DataFrame([_row(out, files, plain) for files in folders], columns=list(WORKLIST.columns))
    table = table.astype({"lesions": "Int64", "candidates": "Int64", "decided": "Int64", "remarks": "Int64"})
    order = {FAILED: 0, NOT_JUDGED: 1}
    table = table.assign(judged=table["decision"].map(order).fillna(2)).sort_values(
        ["judged", "suspicion", "lesions", "largest_mm", "case"], ascending=[True, False, False, False, True],
        kind="stable",
    ).drop(columns="judged")  # fmt: skip
    tables.write(out / TABLE, table)
    sorting = _sorting()
    html = _render(table, sorting)
    if found := leaks(html.replace(sorting, "")):
        raise PageError(
            f"{PAGE} would reveal {', '.join(found[:5])}: it holds no absolute path and no name of a user or machine"
        )
    return write_text(out / PAGE, html)


def _row(out: Path, files: ScreeningPaths, plain: Redactor) -> dict[str, Any]:
    """One scan's row of the list."""
    page = Path(os.path.relpath(files.page, out)).as_posix()
    row: dict[str, Any] = dict.fromkeys(WORKLIST.columns)
    row |= {"case": files.case, "page": page if files.page.is_file() else "", "note": ""}
    try:
        record = read_record(files)
        decision = str(record["guard"]["decision"])
        remarks = [str(one["text"]) for one in record["guard"]["remarks"]]
        row |= {"decision": decision, "remarks": len(remarks), "note": plain("; ".join(remarks))}
        if decision == NOT_JUDGED:
            return row
        found = read_table(files)
        accepted = found[found["accepted"]]
        return row | {
            "lesions": len(accepted),
            "largest_mm": float(accepted["longest_mm"].max()) if len(accepted) else None,
            "volume_mm3": float(accepted["volume_mm3"].sum()),
            "candidates": len(found) - len(accepted),
            "suspicion": float(record["suspicion"]),
        }
    except (PageError, TableError, ImageError, LookupError, TypeError, ValueError) as error:
        why = plain(str(error).replace(str(files.folder), files.case))
        return row | {"decision": FAILED, "note": why}


def _sorting() -> str:
    """The script that sorts the list; empty where DataTables is not installed."""
    try:
        return script("DataTable") + PAGES.get_template("tables.js").render()
    except ScriptError:
        return ""


def _render(table: pd.DataFrame, sorting: str) -> str:
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    judged = [_shown(row) for row in rows if row["decision"] not in (FAILED, NOT_JUDGED)]
    return PAGES.get_template("worklist.html.j2").render(
        not_judged=[_shown(row) for row in rows if row["decision"] in (FAILED, NOT_JUDGED)],
        judged=judged,
        with_lesions=sum(bool(row["lesions"]) for row in judged),
        with_candidates=sum(not row["lesions"] and bool(row["candidates"]) for row in judged),
        sorting=sorting,
    )


def _shown(row: Mapping[Hashable, Any]) -> dict[str, Any]:
    suspicion, largest = row["suspicion"], row["largest_mm"]
    return {
        **{str(name): value for name, value in row.items()},
        "link": quote(str(row["page"])) if row["page"] else "",
        "largest": "" if largest is None else f"{largest:.1f}",
        "score": "" if suspicion is None else f"{suspicion:.2f}" if suspicion < 0.995 else f"{suspicion:.3f}",
        "share": 0 if suspicion is None else round(100 * suspicion, 1),
    }
