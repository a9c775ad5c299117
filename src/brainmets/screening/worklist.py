"""The list of many screened scans: what could not be judged, then the others by falling suspicion.

``worklist.html`` is one file that opens anywhere, its columns sorted by a click; ``worklist.csv`` holds the same as
``schemas.WORKLIST`` says. A scan's suspicion is the highest score of any of its candidates, accepted or not.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from brainmets import schemas, tables
from brainmets.files import read_json, write_text
from brainmets.paths import ScreeningPaths
from brainmets.report.redaction import leaks
from brainmets.report.scripts import ScriptError, script
from brainmets.schemas import WORKLIST
from brainmets.screening import lesions, reading, result, words
from brainmets.screening.page import NOT_JUDGED, PAGES, PageError, told

PAGE, TABLE = "worklist.html", "worklist.csv"
FAILED = "failed"
"""The decision about a scan without a result."""
EARLIER = "; the page is of an earlier screening"
"""Ends the note on a scan whose screening failed, where the page of one that did not is there."""


def write(out: Path, folders: Sequence[ScreeningPaths], failed: Mapping[str, str] | None = None) -> Path:
    """Write ``worklist.html`` and ``worklist.csv`` into ``out``; gives the page's path.

    ``failed``: why the screening of a case failed, by its name; it need not have a folder. Scans without a result, and
    those whose files cannot be read, are listed with the reason among those that were not judged; none is left out.
    Raises ``ValueError`` where two folders are of one case.
    """
    names = [files.case for files in folders]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"folders: {', '.join(twice)} twice in one worklist; write one for each output folder")
    why = dict(failed or {})
    listed = [*folders, *(ScreeningPaths(out / name) for name in why if name not in names)]
    rows = [_row(out, files, why.get(files.case)) for files in listed]
    table = pd.DataFrame(rows, columns=list(WORKLIST.columns))
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


def renew(out: Path, failed: Mapping[str, str] | None = None, settled: Collection[str] = ()) -> Path:
    """Write the list of all scans below ``out`` anew, as after a run or a reading.

    ``failed`` is that of ``write``. A scan that the list calls failed stays so, unless it is among ``settled``.
    """
    before = {}
    if (out / TABLE).is_file():
        listed = schemas.read(out / TABLE, WORKLIST)
        lost = listed[(listed["decision"] == FAILED) & ~listed["case"].isin(list(settled))]
        before = {case: note.removesuffix(EARLIER) for case, note in zip(lost["case"], lost["note"], strict=True)}
    folders = [ScreeningPaths(path.parent) for path in sorted(out.glob("*/screening.json"))]
    return write(out, folders, {**before, **(failed or {})})


def _row(out: Path, files: ScreeningPaths, failed: str | None) -> dict[str, Any]:
    """One scan's row of the list. Hashes are not checked: of a hundred scans that takes minutes; the pages' are."""
    page = Path(os.path.relpath(files.page, out)).as_posix()
    row: dict[str, Any] = dict.fromkeys(WORKLIST.columns)
    row |= {"case": files.case, "page": page if files.page.is_file() else "", "note": ""}
    if failed is not None:
        return row | {"decision": FAILED, "note": told(failed) + (EARLIER if row["page"] else "")}
    try:
        record = read_json(files.record)
        decision = str(record["guard"]["decision"])
        remarks = [str(one["text"]) for one in record["guard"]["remarks"]]
        row |= {"decision": decision, "remarks": len(remarks), "note": told("; ".join(remarks))}
        if decision == NOT_JUDGED:
            return row
        found = lesions.read(files)
        accepted = found[found["accepted"]]
        return row | {
            "lesions": len(accepted),
            "largest_mm": float(accepted["longest_mm"].max()) if len(accepted) else None,
            "volume_mm3": float(accepted["volume_mm3"].sum()),
            "candidates": len(found) - len(accepted),
            "suspicion": float(record["suspicion"]),
            **_read(files),
        }
    except FileNotFoundError as error:
        return row | {"decision": FAILED, "note": f"{Path(error.filename).name} is not there: {result.AGAIN}"}
    except (LookupError, TypeError, ValueError, OSError) as error:
        why = told(str(error).replace(str(files.folder), files.case))
        return row | {"decision": FAILED, "note": f"it cannot be read: {why}"}


def _read(files: ScreeningPaths) -> dict[str, Any]:
    """How far a reader has come."""
    if not files.reading.is_file():
        return {"reading": "", "decided": 0}
    try:
        found = reading.read(files)
    except reading.ReadingError:
        return {"reading": f"{files.reading.name} cannot be read", "decided": 0}
    decided = len(found.candidates) - len(found.undecided)
    done = "read" if found.complete else f"{decided} of {len(found.candidates)} decided"
    left = f"{len(found.left)} lesion{'s' * (len(found.left) != 1)} left"
    return {"reading": f"{done}, {left}", "decided": decided}


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
        "score": "" if suspicion is None else words.probability(suspicion),
        "share": 0 if suspicion is None else round(100 * suspicion, 1),
    }
