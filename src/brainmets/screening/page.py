"""A screened scan's page: one file that opens anywhere, asks nothing of a network, and prints to two sheets.

Everything on it comes from the files of the scan's folder, so that it can be made again. It is for the reader who may
see the scan: pictures show the head as the source t1c does; only the 3D view is cut to the brain. It names the case as
the folder does, and no person, path or machine.
"""

from __future__ import annotations

import base64
import gzip
import math
from collections.abc import Hashable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import nibabel as nib
import numpy as np
import pandas as pd

from brainmets import nifti, schemas
from brainmets.files import read_json, shaped, write_text
from brainmets.paths import ScreeningPaths
from brainmets.report.redaction import Redactor, leaks
from brainmets.report.scripts import ScriptError, script
from brainmets.review import viewers
from brainmets.review.case import ReviewCase
from brainmets.screening import pictures, words
from brainmets.tables import TableError
from brainmets.vocabulary import SEQUENCE_TITLES

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


class PageError(ValueError):
    """A page that cannot be made or must not be handed on; the message names the scan and says what to do."""


def write(files: ScreeningPaths, record: Mapping[str, Any] | None = None) -> Path:
    """Write ``index.html`` of a screened scan and return its path.

    ``record``: the content of ``screening.json`` where that file is not written yet; without it the file is read. A
    refused scan has a page without pictures. Raises ``PageError`` for a record that lacks what a page shows, and where
    the page would reveal a path or a name of the machine; ``TableError`` and ``ImageError`` for damaged files.
    """
    content = read_record(files) if record is None else record
    try:
        html = _render(files, content)
    except (LookupError, TypeError, AttributeError) as error:
        raise PageError(
            f"{files.record} does not hold what a page shows ({type(error).__name__}: {error}); screen the patient "
            "again (brainmets screen)"
        ) from error
    if found := leaks(html):
        raise PageError(
            f"the page of {files.case} would reveal {', '.join(found[:5])}: a page holds no absolute path and no name "
            "of a user or machine; take it out of the record (a series' description?) and make the page again"
        )
    return write_text(files.page, html)


@shaped
def _read_record(path: Path) -> dict[str, Any]:
    content = read_json(path)
    for name in ("case", "guard", "model", "performance", "suspicion"):
        content[name]
    return content


def read_record(files: ScreeningPaths) -> dict[str, Any]:
    """``screening.json``. Raises ``PageError`` where it is absent or is not of this case."""
    try:
        content = _read_record(files.record)
    except (OSError, ValueError) as error:
        why = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise PageError(f"{files.record} {why}: screen the patient again (brainmets screen)") from error
    return content


def _render(files: ScreeningPaths, record: Mapping[str, Any]) -> str:
    refused = record["guard"]["decision"] == NOT_JUDGED
    table = read_table(files) if not refused else pd.DataFrame(columns=list(schemas.SCREENED.columns))
    accepted, below = table[table["accepted"] == True], table[table["accepted"] == False]  # noqa: E712
    scan = None if refused else pictures.read_scan(files)
    if scan is not None and (absent := sorted(set(table["lesion"]) - set(scan.boxes))):
        raise PageError(
            f"{files.table}: {', '.join(map(str, absent))} have no voxel in {files.numbers.name}; screen the patient "
            "again (brainmets screen)"
        )
    plain = Redactor({})
    performance, model = record["performance"], record["model"]
    return PAGES.get_template("page.html.j2").render(
        case=files.case,
        refused=refused,
        headline=words.headline(len(accepted), refused),
        sizes=words.sizes(table),
        nothing="" if refused or len(accepted) else words.nothing(performance),
        measured=words.measured(performance),
        false_positives=words.false_positives(performance),
        performance=words.performance_rows(performance),
        point=words.operating_point(model),
        region=words.REGION_TITLES.get(str(model["region"]), str(model["region"])),
        guard={"decision": record["guard"]["decision"], "cases": record["guard"]["cases"],
               "remarks": [_remark(one, plain) for one in record["guard"]["remarks"]]},
        lesions=[_lesion(row, scan, performance, "accepted") for row in accepted.to_dict("records")] if scan else [],
        candidates=[
            _lesion(row, scan, performance, "candidate", pictures.SMALL, drawn=place < CANDIDATES_SHOWN)
            for place, row in enumerate(below.to_dict("records"))
        ] if scan else [],
        overview=pictures.overview(scan, accepted["lesion"]) if scan else [],
        lean=scan.lean_deg if scan and scan.lean_deg > pictures.UPRIGHT_DEG else None,
        spacing=[words.short(side) for side in scan.spacing] if scan else [],
        volumes=_volumes(files, scan, table) if scan else None,
        facts=_facts(record, plain),
        colours={kind: colour for kind, (_, colour) in KINDS.items()},
    )  # fmt: skip


def read_table(files: ScreeningPaths) -> pd.DataFrame:
    """``lesions.csv`` as ``schemas.SCREENED`` says. Raises ``TableError``."""
    try:
        return schemas.read(files.table, schemas.SCREENED)
    except FileNotFoundError as error:
        raise TableError(f"{files.table} is not there; screen the patient again (brainmets screen)") from error


# --- the guard -------------------------------------------------------------------------------------------------------


def _remark(remark: Mapping[str, Any], plain: Redactor) -> dict[str, Any]:
    """A remark with its number on the training cohort's range, as a strip of 220 pixels."""
    value, low, high = (
        math.nan if remark[name] is None else float(remark[name]) for name in ("value", "low", "high")
    )  # fmt: skip
    strip = None
    if all(map(math.isfinite, (value, low, high))) and high >= low:
        first, last = min(value, low), max(value, high)
        spread = (last - first) or abs(first) or 1.0

        def at(number: float) -> float:
            return round(24 + 172 * (number - first) / spread, 1)

        strip = {"value": at(value), "low": at(low), "high": max(at(high), at(low) + 1)}
    sequence = str(remark["sequence"] or "")
    return {
        "severity": remark["severity"],
        "sequence": SEQUENCE_TITLES.get(sequence, sequence),
        "rule": str(remark["rule"]).replace("_", " "),
        "text": plain(str(remark["text"])),
        "value": words.short(value) if math.isfinite(value) else "",
        "low": words.short(low) if math.isfinite(low) else "",
        "high": words.short(high) if math.isfinite(high) else "",
        "strip": strip,
    }


# --- lesions ---------------------------------------------------------------------------------------------------------


def _lesion(
    row: Mapping[Hashable, Any], scan: pictures.Scan, performance: Mapping[str, Any], kind: str,
    pixels: int = pictures.LARGE, drawn: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """What the page shows of a row of the table."""
    number = int(row["lesion"])
    size = f"{row['longest_mm']:.1f} x {row['perpendicular_mm']:.1f}"
    return {
        "number": number,
        "side": row["side"],
        "place": words.place(row["x_mm"], row["y_mm"], row["z_mm"]),
        "slice": int(row["slice"]),
        "slices": int(row["slices"]),
        "volume": words.volume(row["volume_mm3"]),
        "size": size,
        "measurable": bool(row["measurable"]),
        "why": row["why"] if isinstance(row["why"], str) else "",
        "score": f"{row['score']:.2f}" if row["score"] < 0.995 else f"{row['score']:.3f}",
        "uncertainty": f"{row['uncertainty']:.2f}",
        "parts": [words.short(round(float(row[name]))) for name in ("et_mm3", "netc_mm3", "snfh_mm3")],
        "found": words.of_its_size(performance, float(row["volume_mm3"])),
        "pictures": pictures.lesion(scan, number, kind, pixels) if drawn else [],
    }


# --- 3D --------------------------------------------------------------------------------------------------------------


def _volumes(files: ScreeningPaths, scan: pictures.Scan, table: pd.DataFrame) -> dict[str, Any] | None:
    """What the 3D view needs, packed; None where NiiVue is not there. The head outside the brain is left out."""
    try:
        program = _packed_niivue()
    except ScriptError:
        return None
    image = scan.image
    if scan.inside is not None:
        image = np.where(_widened(scan), image, np.float32(0))
    labels, grid = nifti.read_volume(files.labels)
    value = np.zeros(int(scan.numbers.max(initial=0)) + 1, np.uint8)
    for number, accepted in zip(table["lesion"], table["accepted"], strict=True):
        value[number] = KINDS["accepted" if accepted else "candidate"][0]
    areas = nifti.to_ras(labels, grid.affine)[0].astype(np.uint8)
    case = ReviewCase(files.case, {"t1c": image}, areas, {("found", "here"): value[scan.numbers]}, scan.affine)
    whole = viewers.brain_only(case)
    small = viewers.coarser(whole, MOST_VOXELS)
    first = scan.centre(int(table["lesion"].iloc[0])) if len(table) else (np.array(scan.numbers.shape) - 1) / 2
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
        "image": _packed(viewers.display_volume(small.images["t1c"]), small.affine),
        "found": _packed(small.predictions["found", "here"], small.affine),
        "areas": _packed(small.reference, small.affine),
        "found_colours": {**columns, "labels": ["background", *KINDS]},
        "areas_colours": viewers.colormap(),
        "spacing": [words.short(side) for side in small.spacing_mm],
        "focus": _fraction(focus, shape),
        "places": {number: _fraction(place, shape) for number, place in places.items()},
    }


def _fraction(voxel: np.ndarray, shape: np.ndarray) -> list[float]:
    return [round(float(part), 4) for part in np.clip((voxel + 0.5) / shape, 0, 1)]


def _widened(scan: pictures.Scan) -> np.ndarray:
    """The brain and a small margin, with every candidate."""
    assert scan.inside is not None
    from scipy import ndimage

    away = ndimage.distance_transform_edt(~scan.inside, sampling=scan.spacing)
    return np.asarray((away <= BRAIN_MARGIN_MM) | (scan.numbers > 0))


def _packed(voxels: np.ndarray, affine: np.ndarray) -> str:
    return _base64(nib.Nifti1Image(voxels, affine).to_bytes())


@cache
def _packed_niivue() -> str:
    return _base64(script("Niivue").encode())


def _base64(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode("ascii")


# --- where it comes from ---------------------------------------------------------------------------------------------


def _facts(record: Mapping[str, Any], plain: Redactor) -> dict[str, str]:
    """Model, release, dates and times, by their names."""
    model = record["model"]
    sequences = record["input"]["sequences"]
    if isinstance(sequences, Mapping):
        read = "; ".join(f"{SEQUENCE_TITLES.get(name, name)}: {value}" for name, value in sequences.items())
    else:
        read = ", ".join(SEQUENCE_TITLES.get(str(name), str(name)) for name in sequences)
    versions = record["provenance"].get("versions", {})
    seconds = sum(float(value) for value in record["seconds"].values())
    kinds = {"dicom": "DICOM series", "raw": "raw NIfTI files", "prepared": "a case that was prepared before"}
    kind = str(record["input"]["kind"])
    facts = {
        "Scanned on": str(record["date"] or "not known"),
        "Screened": words.moment(str(record["created"])),
        "Read from": f"{kinds.get(kind, kind)} ({read})",
        "Model": f"{model['name']}: {model['arm']}, {model['strategy']}, {model['folds']} folds of study "
        f"{model['study']}, made {words.moment(str(model['created']))}",
        "Model file (SHA-256)": str(model["sha256"]),
        "Licence of the training data": str(model["licence"] or "not declared"),
        "Release": f"BrainMets {versions['brainmets']}" if "brainmets" in versions else "not recorded",
        "Time taken": f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min",
    }
    return {name: plain(value) for name, value in facts.items()}
