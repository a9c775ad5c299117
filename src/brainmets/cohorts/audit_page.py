"""The audit's page: one file that opens anywhere, a picture of every case with its numbers and findings.

Nothing is fetched and no script runs: pictures are part of the page. It shows heads, so that only its owner may read
it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import cc3d
import jinja2
import nibabel as nib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

from brainmets import nifti
from brainmets.files import replacing
from brainmets.vocabulary import SEQUENCE_TITLES, SEQUENCES

Voxels = npt.NDArray[Any]

HEIGHT, WIDTH = 176, 152
"""Of one sequence's picture in pixels; the cohort's stand side by side."""
FIELD_MM = 1.05
"""Millimetres per pixel at the least: 185 mm from front to back, 160 from side to side. Larger slices are shrunk."""
JPEG_QUALITY = 82
OUTLINE = (255, 214, 0)
"""Yellow, which every eye tells from grey, with a black line around it, which every printer does."""
PAGES = jinja2.Environment(
    loader=jinja2.PackageLoader("brainmets.cohorts"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)  # fmt: skip


class Finding(NamedTuple):
    """What the audit says of a case; ``severity`` is "error", "warning" or "info", ``file`` may be empty."""

    severity: str
    file: str
    text: str


class Row(NamedTuple):
    """One case of the page. ``picture``: of ``thumbnail``, None where the images could not be read; ``numbers``: in
    words, by title, in the order in which they are shown; ``titles``: of the sequences in the picture.
    """

    cohort: str
    case: str
    picture: bytes | None
    numbers: Mapping[str, str]
    findings: Sequence[Finding]
    titles: Sequence[str] = tuple(SEQUENCE_TITLES.values())

    @property
    def worst(self) -> str:
        """The severity of the gravest finding; empty where there is none, or nothing but what is as declared."""
        return next((name for name in ("error", "warning") if any(name == one.severity for one in self.findings)), "")


IN_WORDS = {
    "shape": ("voxels", "{}"), "spacing_mm": ("sides (mm)", "{}"), "orientation": ("axes", "{}"),
    "WT_mL": ("tumour", "{:.3g} mL"), "ET_mL": ("enhancing", "{:.3g} mL"), "lesions": ("lesions", "{:.0f}"),
    "smallest_lesion_mm3": ("smallest", "{:.3g} mm³"), "head_mL": ("head", "{:.0f} mL"),
    "load_pct": ("tumour of head", "{:.2g}%"),
}  # fmt: skip
"""Per column of the audit's tables that a row of the page shows: its title, and how the value is written."""


def in_words(numbers: Mapping[str, Any]) -> dict[str, str]:
    """``Row.numbers`` of a case's columns (those of ``IN_WORDS``, in its order); what is absent or NaN is left out."""
    shown = {name: numbers[name] for name in IN_WORDS if numbers.get(name) is not None}
    return {
        IN_WORDS[name][0]: IN_WORDS[name][1].format(value)
        for name, value in shown.items()
        if value == value  # NaN is not
    }


def write_page(path: Path, rows: Sequence[Row], of_all: Sequence[tuple[str, Finding]] = ()) -> Path:
    """Write the page to ``path``, readable by its owner alone, and return it.

    Cases with errors come first, then those with warnings, each group in the order of ``rows``; within a case errors
    come first too. ``of_all``: (cohort, finding) about whole cohorts, above the cases. Without rows the page says so.
    """
    order = ("error", "warning", "")
    ranked = sorted(rows, key=lambda row: order.index(row.worst))
    html = PAGES.get_template("audit.html.j2").render(
        rows=[_shown(row) for row in ranked],
        of_all=[(cohort, finding._asdict()) for cohort, finding in of_all],
        counts={name: sum(row.worst == name for row in rows) for name in order},
        width=WIDTH,
    )
    with replacing(path) as aside:
        aside.touch(mode=0o600)
        aside.write_text(html, encoding="utf-8")
    return path


def _shown(row: Row) -> dict[str, Any]:
    order = ("error", "warning", "info")
    return {
        "cohort": row.cohort,
        "case": row.case,
        "picture": None if row.picture is None else base64.b64encode(row.picture).decode("ascii"),
        "numbers": dict(row.numbers),
        "findings": [one._asdict() for one in sorted(row.findings, key=lambda one: order.index(one.severity))],
        "worst": row.worst,
        "titles": list(row.titles),
    }


def thumbnail(
    images: Mapping[str, Voxels],
    labels: npt.NDArray[np.uint8] | None,
    grid: nifti.Grid,
    sequences: Sequence[str] = SEQUENCES,
) -> bytes:
    """The ``sequences`` side by side on one axial slice, with the label's outline, as a JPEG of some 20 kB.

    ``images``: by sequence (3D, file axes), ``labels``: in BraTS labels, all on ``grid``; a sequence that is absent is
    an empty field that says so, and what is not finite in 32 bits is shown as 0. The slice goes through the middle of
    the largest lesion, or of the volume where there is none. The patient's right is on the left, the front above.
    """
    drawn = np.zeros(grid.shape, np.uint8) if labels is None else labels
    lesions, along = nifti.to_ras(drawn, grid.affine)
    sides = np.linalg.norm(along[:3, :3], axis=0)
    height = lesions.shape[2] // 2 if labels is None else _slice(labels, grid)
    outline = lesions[:, :, height] > 0
    upright = {name: nifti.to_ras(image, grid.affine)[0][:, :, height] for name, image in images.items()}
    centre, scale = _window(list(upright.values()), sides)
    tiles = [
        _tile(upright[name], outline, sides, centre, scale) if name in upright else _empty(SEQUENCE_TITLES[name])
        for name in sequences
    ]  # fmt: skip
    written = BytesIO()
    Image.fromarray(np.concatenate(tiles, axis=1)).save(written, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return written.getvalue()


def _empty(title: str) -> npt.NDArray[np.uint8]:
    """The field of a sequence that is not there, as RGB (``HEIGHT``, ``WIDTH``, 3): dark, with its name."""
    field = Image.new("RGB", (WIDTH, HEIGHT), "black")
    middle = (WIDTH // 2, HEIGHT // 2)
    ImageDraw.Draw(field).text(middle, f"no {title}", fill=(190, 190, 190), anchor="mm")
    return np.asarray(field)


def _slice(labels: npt.NDArray[np.uint8], grid: nifti.Grid) -> int:
    """The axial slice (along S) through the middle of the largest lesion, else of the volume."""
    places = nifti.labelled(labels)
    if not len(places[0]):
        return grid.to_ras().shape[2] // 2
    box = nifti.around(places)
    corner = nib.affines.from_matvec(np.eye(3), [part.start for part in box])
    part, along = nifti.to_ras(labels[box] > 0, grid.affine @ corner)
    pieces = cc3d.connected_components(np.ascontiguousarray(part), connectivity=26)
    largest = int(np.argmax(np.bincount(pieces.ravel())[1:])) + 1
    areas = np.count_nonzero(pieces == largest, axis=(0, 1))
    lowest = round(float((np.linalg.inv(grid.to_ras().affine) @ along)[2, 3]))
    return int(lowest + np.searchsorted(np.cumsum(areas), areas.sum() / 2))


def _window(slices: Sequence[Voxels], sides: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """The voxel in the picture's middle, and millimetres per pixel: all that the slices show fits."""
    shown = np.any([part != part[0, 0] for part in slices], axis=0) if slices else np.ones((1, 1), bool)
    places = np.argwhere(shown) if shown.any() else np.array([[0, 0], np.array(shown.shape) - 1])
    low, high = places.min(axis=0), places.max(axis=0)
    needed = (high - low + 1) * sides[:2] / (WIDTH, HEIGHT)
    return (low + high) / 2, max(FIELD_MM, float(needed.max()) * 1.04)


def _tile(
    image: Voxels, outline: npt.NDArray[np.bool_], sides: npt.NDArray[np.float64],
    centre: npt.NDArray[np.float64], scale: float,
) -> npt.NDArray[np.uint8]:  # fmt: skip
    """One sequence's slice as RGB (``HEIGHT``, ``WIDTH``, 3)."""
    steps = scale / sides[:2]
    across = centre[0] - (np.arange(WIDTH) - (WIDTH - 1) / 2) * steps[0]  # the patient's right on the left
    down = centre[1] - (np.arange(HEIGHT) - (HEIGHT - 1) / 2) * steps[1]
    places = np.meshgrid(across, down)
    with np.errstate(over="ignore"):
        values = np.nan_to_num(image.astype(np.float32), nan=0, posinf=0, neginf=0)
    sampled = ndimage.map_coordinates(values, places, order=1, cval=float(values[0, 0]))
    marked = ndimage.map_coordinates(outline.astype(np.float32), places, order=1) > 0.5
    shown = values[values != values[0, 0]]
    low, high = np.percentile(shown, (1, 99.5)) if shown.size else (0.0, 1.0)
    low = min(low, float(values[0, 0])) if low > values[0, 0] else low
    grey = np.clip((sampled - low) / ((high - low) or 1.0), 0, 1)
    tile = np.repeat((235 * grey).astype(np.uint8)[..., None], 3, axis=2)
    line = ndimage.binary_dilation(marked) & ~marked
    tile[ndimage.binary_dilation(line) & ~line & ~marked] = 0
    tile[line] = OUTLINE
    return tile
