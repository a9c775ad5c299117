"""The quality page of a cohort: one file that opens anywhere, flagged patients first, each with the reason in words.

Nothing is fetched and no script runs: pictures are part of the page. It holds case names and pictures, nothing else of
a patient; the pictures of native scans show heads, so that the page belongs where the raw scans may be.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd
from PIL import Image

from brainmets.files import write_text
from brainmets.preparation.flags import in_short, rule_of, suspects
from brainmets.preparation.quality_figures import STRIP_ORDER, column_of
from brainmets.vocabulary import SEQUENCE_TITLES, SEQUENCES

PAGE = "quality.html"
LARGE, SMALL = 1000, 420
"""Widths of a patient's picture and of its strip, in pixels; 40 patients make some 6 MB."""
JPEG_QUALITY = 80
PAGES = jinja2.Environment(
    loader=jinja2.PackageLoader("brainmets.preparation"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)  # fmt: skip


class Pictures(NamedTuple):
    """Files of one patient's ``quality_figures``: the whole figure and the strip."""

    figure: Path
    strip: Path


def write_page(
    folder: Path,
    table: pd.DataFrame,
    flags: pd.DataFrame,
    figures: Mapping[str, Pictures],
    cohort: Path | None = None,
    not_prepared: Mapping[str, str] | None = None,
    there: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Write ``quality.html`` into ``folder`` and return its path.

    ``table``: ``quality.csv``, ``flags``: of ``flags.flag`` and ``copies.copies``, ``figures``: of every case of the
    table, ``cohort``: the picture of ``cohort_strips``, ``not_prepared``: cases without a result and why, in words,
    ``there``: the sequences of each case that is not of all four.
    Flagged patients come first, those with errors and most flags on top. Raises ``ValueError`` naming cases of the
    table that have no pictures.
    """
    if absent := [case for case in table["case"] if case not in figures]:
        raise ValueError(f"figures: none for case(s) {', '.join(absent)}")
    of_case = there or {}
    patients = [
        _patient(case, flags[flags.case == case], figures[case], of_case.get(case, SEQUENCES))
        for case in table["case"]
    ]
    flagged = sorted((one for one in patients if one["flags"]), key=lambda one: (-one["errors"], -len(one["flags"])))
    html = PAGES.get_template("quality.html.j2").render(
        flagged=flagged,
        patients=patients,
        not_prepared=dict(not_prepared or {}),
        cohort=None if cohort is None else _data_uri(cohort, 1300),
    )
    return write_text(folder / PAGE, html)


def _patient(case: str, flags: pd.DataFrame, pictures: Pictures, there: Sequence[str]) -> dict[str, Any]:
    """What the template shows of one patient."""
    rows = [_in_words(row) for row in flags.to_dict("records")]
    named = [name for name in suspects(flags, case) if name in there]
    strip = [name for name in STRIP_ORDER if name in there]
    part = column_of(0)[1] / column_of(0, len(there))[1]
    shown = "the four sequences" if len(there) == len(SEQUENCES) else " and ".join(SEQUENCE_TITLES[n] for n in there)
    compared = ", and checkerboards with the T1 after contrast" if len(there) > 1 else ""
    count = ("", ", and a checkerboard", ", and two checkerboards", ", and three checkerboards")[len(strip) - 1]
    return {
        "case": case,
        "flags": rows,
        "errors": sum(row["severity"] == "error" for row in rows),
        "suspects": [SEQUENCE_TITLES[name] for name in named],
        "frames": [_frame(list(there).index(name), len(there)) for name in named],
        "strip_frames": [_frame(strip.index(name), len(strip)) for name in named],
        "figure": _data_uri(pictures.figure, round(part * LARGE)),
        "strip": _data_uri(pictures.strip, round(part * SMALL)),
        "part": None if len(there) == len(SEQUENCES) else f"max-width:{100 * part:.1f}%",
        "strip_alt": f"{case}: the T1 after contrast with outlines{count}",
        "alt": f"{case}: {shown} before and after the preparation, the brain mask's outline{compared}"
        + (f"; framed as suspect: {', '.join(SEQUENCE_TITLES[name] for name in named)}" if named else ""),
    }


def _frame(place: int, count: int) -> str:
    """The CSS of a frame around a column of a picture of ``count``."""
    left, width = column_of(place, count)
    return f"left:{100 * left:.2f}%;width:{100 * width:.2f}%"


def _in_words(row: Mapping[Any, Any]) -> dict[str, str]:
    found = rule_of(row["measure"])
    value = row["value"]
    title, unit = (found[0].title, found[0].unit) if found is not None else (str(row["measure"]).replace("_", " "), "")
    about = f"{' and '.join(SEQUENCE_TITLES[name] for name in found[1])}: " if found is not None and found[1] else ""
    shown = "none" if pd.isna(value) else in_short(value)
    return {
        "severity": row["severity"], "text": row["text"], "measure": about + title, "value": shown, "unit": unit,
        "usual": row["usual"],
    }  # fmt: skip


def _data_uri(picture: Path, width: int) -> str:
    """The picture as a JPEG of at most ``width`` pixels across, within the page."""
    with Image.open(picture) as image:
        plain = image.convert("RGB")
        if plain.width > width:
            plain = plain.resize((width, round(plain.height * width / plain.width)), Image.Resampling.LANCZOS)
        written = BytesIO()
        plain.save(written, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode('ascii')}"
