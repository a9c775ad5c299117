"""A screened scan's page: one file that opens anywhere, asks nothing of a network, and prints to two sheets.

Everything on it comes from the files of the scan's folder, so that it can be made again. It is for the reader who may
see the scan: pictures show the head as the source t1c does; only the 3D view is cut to the brain. It names the case as
the folder does, and no person, path or machine.
"""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Hashable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import nibabel as nib
import numpy as np
import pandas as pd
from scipy import ndimage

from brainmets import nifti
from brainmets.files import write_text
from brainmets.paths import ScreeningPaths
from brainmets.report.redaction import Redactor, leaks
from brainmets.report.scripts import ScriptError, script
from brainmets.review import viewers
from brainmets.review.case import ReviewCase
from brainmets.screening import lesions, pictures, reading, result, words
from brainmets.screening.result import Result
from brainmets.vocabulary import SEQUENCE_TITLES, SEQUENCES

CANDIDATES_SHOWN = 12
"""Candidates below the operating point that have pictures; all of them are in the overview and in the table."""
MOST_VOXELS = 1_500_000
"""Of the 3D view: coarser than the report's, to keep a page that is mailed within a hospital small."""
BRAIN_MARGIN_MM = 3.0
KINDS = {"accepted": (1, "#F0E442"), "candidate": (2, "#56B4E9")}
"""Value and colour (Okabe and Ito's) in the 3D view and in the pictures."""
PAGES = jinja2.Environment(
    loader=jinja2.ChoiceLoader([jinja2.PackageLoader(f"brainmets.{room}") for room in ("screening", "report")]),
    autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
)  # fmt: skip
NOT_JUDGED = "refuse"
STRIP = (24.0, 196.0)
"""Where the numbers of a guard's strip of 220 pixels lie."""


class PageError(ValueError):
    """A page that cannot be made or must not be handed on; the message names the scan and says what to do."""


def write(files: ScreeningPaths) -> Path:
    """Write ``index.html`` of a screened scan and return its path; a refused scan has a page without pictures.

    Raises ``result.ResultError`` where the folder is not what was written, ``PageError`` for a record that lacks what
    a page shows, and where the page would reveal a path or a name of the machine.
    """
    found = result.read(files.folder)
    try:
        html = _render(found)
    except (LookupError, TypeError, AttributeError) as error:
        raise PageError(
            f"{files.record} does not hold what a page shows ({type(error).__name__}: {error}); {result.AGAIN}"
        ) from error
    if revealed := leaks(html):
        raise PageError(
            f"the page of {files.case} would reveal {', '.join(revealed[:5])}: a page holds no absolute path and no "
            f"name of a user or machine; take it out of {files.record.name} and make the page again"
        )
    return write_text(files.page, html)


def told(text: str) -> str:
    """A text of the record as a page may show it: no name of a user or machine, and of a path not even its end.

    >>> told("cannot read /data/incoming/Doe_John: it is empty")
    'cannot read (a path): it is empty'
    """
    return re.sub(r"(?:\.\.\.|\(temporary\)|\(environment\))/[^\s:;,\"'<>]*", "(a path)", Redactor({})(text))


def _render(found: Result) -> str:
    files, record, table = found.files, found.record, found.table
    refused = record["guard"]["decision"] == NOT_JUDGED
    scan = None if refused else pictures.read_scan(files)
    if scan is not None and (absent := sorted(set(table["lesion"]) - set(scan.boxes))):
        raise PageError(
            f"{files.table}: {', '.join(map(str, absent))} have no voxel in {files.numbers.name}; {result.AGAIN}"
        )
    performance, model = record["performance"], record["model"]
    read = _reading(files)
    rows = table.to_dict("records")
    own, shared = words.reasons([str(row["why"]) for row in rows if row["accepted"]])
    accepted, below = [row for row in rows if row["accepted"]], [row for row in rows if not row["accepted"]]
    return PAGES.get_template("page.html.j2").render(
        case=files.case,
        date=record["date"],
        refused=refused,
        headline=words.headline(len(accepted), refused),
        sizes=words.sizes(table),
        diameters=words.diameters_of(str(model["region"])),
        nothing="" if refused or accepted else words.nothing(performance),
        measured=words.measured(performance),
        false_positives=words.false_positives(performance),
        performance=words.performance_rows(performance, {int(r["lesion"]): float(r["volume_mm3"]) for r in accepted}),
        coverage=f"{100 * performance['coverage']:.3g}%",
        point=words.operating_point(model),
        region=words.REGION_TITLES.get(str(model["region"]), str(model["region"])),
        guard={"decision": record["guard"]["decision"], "cases": record["guard"]["cases"],
               "remarks": [_remark(one) for one in record["guard"]["remarks"]],
               "passed_over": record["guard"].get("passed_over", [])},
        sequences=_sequences(record),
        lesions=[
            {**_lesion(row, scan, "accepted", read), "why": why} for row, why in zip(accepted, own, strict=True)
        ] if scan else [],
        of_all=shared,
        candidates=[
            _lesion(row, scan, "candidate", read, pictures.SMALL, drawn=place < CANDIDATES_SHOWN)
            for place, row in enumerate(below)
        ] if scan else [],
        reading=read,
        overview=pictures.overview(scan, [int(row["lesion"]) for row in accepted]) if scan else [],
        lean=scan.lean_deg if scan and scan.lean_deg > pictures.UPRIGHT_DEG else None,
        spacing=[words.short(side) for side in scan.spacing] if scan else [],
        on_source=record["input"].get("grid") == "t1c",
        volumes=_volumes(files, scan, table) if scan else None,
        facts=_facts(record),
    )  # fmt: skip


def _sequences(record: dict[str, Any]) -> str:
    """The scan's sequences as a page speaks of them."""
    there = [SEQUENCE_TITLES[name] for name in SEQUENCES if name in record["input"].get("sequences", SEQUENCES)]
    if len(there) == len(SEQUENCES):
        return "the four sequences"
    return f"the sequences ({', '.join(there)})" if len(there) > 1 else f"the one sequence ({there[0]})"


# --- the reader ------------------------------------------------------------------------------------------------------


class Read(NamedTuple):
    """What a reader decided: in a sentence, the verdict by lesion, and the places of lesions that were added."""

    sentence: str
    verdicts: dict[int, str]
    added: dict[int, str]


def _reading(files: ScreeningPaths) -> Read | None:
    """What stands in ``reading.json``; None without one. A damaged one is said, and hides nothing of the result."""
    if not files.reading.is_file():
        return None
    try:
        found = reading.read(files)
    except reading.ReadingError:
        return Read(f"{files.reading.name} is there and cannot be read: no decision is shown.", {}, {})
    places = {
        number: "" if one.place_mm is None else words.place(*one.place_mm) for number, one in found.added.items()
    }
    return Read(found.sentence, {number: one.verdict for number, one in found.decisions.items()}, places)


# --- the guard -------------------------------------------------------------------------------------------------------


def _remark(remark: Mapping[str, Any]) -> dict[str, Any]:
    """A remark with its number on the training cohort's range, which may be open at one end, as a strip."""
    value, low, high = (words.finite(remark[name]) for name in ("value", "low", "high"))
    strip = None
    if value is not None and not (low is None and high is None):
        known = [number for number in (value, low, high) if number is not None]
        first, spread = min(known), (max(known) - min(known)) or abs(known[0]) or 1.0
        left, right = STRIP
        inner = (left if low is not None else left + 24, right if high is not None else right - 24)

        def at(number: float) -> float:
            return round(inner[0] + (inner[1] - inner[0]) * (number - first) / spread, 1)

        start = 8.0 if low is None else at(low)
        strip = {"value": at(value), "low": start, "high": max(212.0 if high is None else at(high), start + 1)}
    shown = {
        name: "" if number is None else words.short(number)
        for name, number in (("value", value), ("low", low), ("high", high))
    }
    sequence = str(remark["sequence"] or "")
    return {
        **shown,
        "severity": remark["severity"],
        "sequence": SEQUENCE_TITLES.get(sequence, "" if sequence == "all" else told(sequence)),
        "rule": told(str(remark["rule"]).replace("_", " ")),
        "text": told(str(remark["text"])),
        "range": words.span(shown["low"], shown["high"]),
        "strip": strip,
    }


# --- lesions ---------------------------------------------------------------------------------------------------------


def _lesion(
    row: Mapping[Hashable, Any], scan: pictures.Scan, kind: str, read: Read | None,
    pixels: int = pictures.LARGE, drawn: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """What the page shows of a row of the table; an accepted lesion with its diameters."""
    number = int(row["lesion"])
    shown = []
    if drawn and kind == "accepted":
        low = [part.start for part in scan.boxes[number]]
        measured = lesions.diameters(scan.mask(number), scan.affine @ nib.affines.from_matvec(np.eye(3), low))
        ends = {"longest": measured.ends[:2].tolist(), "perpendicular": measured.ends[2:].tolist()}
        shown = pictures.lesion(scan, number, kind, pixels, measured.slice + int(low[2]), ends)
    elif drawn:
        shown = pictures.lesion(scan, number, kind, pixels)
    return {
        "number": number,
        "side": row["side"] if row["side"] != "unknown" else "side unknown",
        "place": words.place(row["x_mm"], row["y_mm"], row["z_mm"]),
        "slice": int(row["slice"]),
        "volume": words.volume(row["volume_mm3"]),
        "size": f"{row['longest_mm']:.1f} x {row['perpendicular_mm']:.1f}",
        "measurable": bool(row["measurable"]),
        "score": words.probability(row["score"]),
        "uncertainty": f"{row['uncertainty']:.2f}",
        "parts": [words.short(round(float(row[name]))) for name in ("et_mm3", "netc_mm3", "snfh_mm3")],
        "verdict": "" if read is None else read.verdicts.get(number, "not decided"),
        "pictures": shown,
    }


# --- 3D --------------------------------------------------------------------------------------------------------------


def _volumes(files: ScreeningPaths, scan: pictures.Scan, table: pd.DataFrame) -> dict[str, Any] | None:
    """What the 3D view needs, packed; None where NiiVue is not there. The head outside the brain is left out."""
    try:
        program = _packed_niivue()
    except ScriptError:
        return None
    labels, grid = nifti.read_volume(files.labels)
    value = np.zeros(int(scan.numbers.max(initial=0)) + 1, np.uint8)
    for number, accepted in zip(table["lesion"], table["accepted"], strict=True):
        value[number] = KINDS["accepted" if accepted else "candidate"][0]
    areas = nifti.to_ras(labels, grid.affine)[0].astype(np.uint8)
    inside = scan.inside if scan.inside is not None else scan.image != 0
    first, stop = pictures.span(inside | (scan.numbers > 0))
    margin = np.ceil(BRAIN_MARGIN_MM / scan.spacing)
    low, high = np.maximum(first - margin, 0).astype(int), np.minimum(stop + margin, inside.shape).astype(int)
    box = tuple(slice(start, end) for start, end in zip(low.tolist(), high.tolist(), strict=True))
    maps = {("found", ""): value[scan.numbers[box]], ("inside", ""): inside[box].astype(np.uint8)}
    affine = scan.affine @ nib.affines.from_matvec(np.eye(3), low)
    case = ReviewCase(files.case, {"t1c": scan.image[box]}, areas[box], maps, affine)
    small = viewers.coarser(case, MOST_VOXELS)
    found = small.predictions["found", ""]
    image = np.where(_widened(small) | (found > 0), small.images["t1c"], np.float32(0))
    first = scan.centre(int(table["lesion"].iloc[0])) if len(table) else (first + stop - 1) / 2
    places = {
        int(number): nib.affines.apply_affine(np.linalg.inv(small.affine) @ scan.affine, scan.centre(int(number)))
        for number in table["lesion"]
    }
    focus = nib.affines.apply_affine(np.linalg.inv(small.affine) @ scan.affine, first)
    shape = np.array(small.reference.shape)
    columns = {"R": [0], "G": [0], "B": [0], "A": [0], "I": [0]}
    for number, colour in KINDS.values():
        for name, part in zip("RGBAI", (*bytes.fromhex(colour[1:]), 255, number), strict=True):
            columns[name].append(part)
    return {
        "program": program,
        "image": _packed(viewers.display_volume(image), small.affine),
        "found": _packed(found, small.affine),
        "areas": _packed(small.reference, small.affine),
        "found_colours": {**columns, "labels": ["background", *KINDS]},
        "areas_colours": viewers.colormap(),
        "spacing": [words.short(side) for side in small.spacing_mm],
        "focus": _fraction(focus, shape),
        "places": {number: _fraction(place, shape) for number, place in places.items()},
    }


def _fraction(voxel: np.ndarray, shape: np.ndarray) -> list[float]:
    return [round(float(part), 4) for part in np.clip((voxel + 0.5) / shape, 0, 1)]


def _widened(case: ReviewCase) -> np.ndarray:
    """The brain ("inside") and a small margin: more of the head would show a face."""
    away = ndimage.distance_transform_edt(case.predictions["inside", ""] == 0, sampling=case.spacing_mm)
    return np.asarray(away <= BRAIN_MARGIN_MM)


def _packed(voxels: np.ndarray, affine: np.ndarray) -> str:
    return _base64(nib.Nifti1Image(voxels, affine).to_bytes())


@cache
def _packed_niivue() -> str:
    return _base64(script("Niivue").encode())


def _base64(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode("ascii")


# --- where it comes from ---------------------------------------------------------------------------------------------


def _facts(record: Mapping[str, Any]) -> dict[str, str]:
    """Model, release, dates and times, by their names."""
    model = record["model"]
    versions = record["provenance"].get("versions", {})
    seconds = sum(float(value) for value in record["seconds"].values())
    kinds = {"dicom": "DICOM series", "raw": "raw NIfTI files", "prepared": "a case that was prepared before"}
    kind = str(record["input"]["kind"])
    facts = {
        "Scanned on": str(record["date"] or "not known"),
        "Screened": words.moment(str(record["created"])),
        "Read from": kinds.get(kind, kind),
        "Model": f"{model['name']}: {model['arm']}, {model['strategy']}, {words.folds(model['folds'])} of study "
        f"{model['study']}, made {words.moment(str(model['created']))}",
        "Model file (SHA-256)": str(model["sha256"]),
        "Licence of the training data": str(model["licence"] or "not declared"),
        "Release": f"BrainMets {versions['brainmets']}" if "brainmets" in versions else "not recorded",
        "Time taken": f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min",
    }
    return {name: told(value) for name, value in facts.items()}
