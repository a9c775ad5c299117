"""The lesion table of one screened scan: where each lesion lies, how large it is, and whether RANO-BM measures it.

RANO-BM (Lin et al., Lancet Oncol 16 (2015) e270, doi:10.1016/S1470-2045(15)70057-4) measures a contrast-enhancing
lesion on axial slices: its longest diameter, and the longest one perpendicular to it in the same slice. A measurable
lesion is at least ``LEAST_LONGEST_MM`` long (``LEAST_ON_THIN_MM`` where slices are thin), at least
``LEAST_PERPENDICULAR_MM`` across, and on ``LEAST_SLICES`` axial slices or more. On thick slices it is at least twice
as long as they are apart, as in RECIST 1.1 (Eisenhauer et al., Eur J Cancer 45 (2009) 228), which RANO-BM modifies.

Conventions, where the papers leave the choice:

* Axial slices are the planes across the voxel axis that is nearest to S: those of an axial series as they are, also of
  an oblique one; of a sagittal or coronal series they are reformatted, and no finer than its voxels.
* A section is the convex hull of the middles of its pixels' edges, all pieces and holes of the lesion in that slice
  included: a calliper laid over the whole. So one pixel measures its two sides, a row of n pixels n sides, and a
  broken ring its outer size; two pieces in one slice measure from end to end, which is too long where they are joined
  in another slice only. A disc is measured with an error of less than the longer side of a pixel, mostly too long.
* The perpendicular diameter is a line, the longest chord of that hull at right angles to the longest diameter.
* The slice with the longest diameter is measured; of equals that with the larger perpendicular, then that lower in the
  head, in whatever order the file has them.
  Of equally long diameters in one slice that with the larger perpendicular counts. Equal is within a nanometre.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cc3d
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
import SimpleITK as sitk
from scipy.ndimage import distance_transform_edt, find_objects
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from brainmets import schemas, tables
from brainmets.files import write_text
from brainmets.nifti import Affine, around, labelled
from brainmets.paths import ScreeningPaths
from brainmets.schemas import SCREENED
from brainmets.vocabulary import LABELS, region_mask

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Side = Literal["left", "right", "middle", "unknown"]

LEAST_LONGEST_MM = 10.0
LEAST_PERPENDICULAR_MM = 5.0
LEAST_SLICES = 2
THIN_MM = 1.5
"""Slices that are no further apart are thin."""
LEAST_ON_THIN_MM = 5.0
THICK_MM = 5.0
"""Of slices further apart the least length is twice their distance, where that is more."""
MIDDLE_MM = 3.0
"""A centroid that is no further from the mid-sagittal plane lies on neither side: a rigid registration, and a brain
that a lesion has shifted, place the plane no better."""

JSON_SCHEMA = 1
_PART = "of the label map in the lesion, or connected with it and nearest to it"
MEANINGS: dict[str, tuple[str, str]] = {
    "lesion": ("", "number of the lesion in lesions.nii.gz: accepted ones first, each group by falling score"),
    "accepted": (
        "",
        "true: at or above the operating point, by score and volume; false: a candidate below it, to be looked at too",
    ),
    "score": ("", "highest probability of the lesion on the grid that the model saw, 0 to 1"),
    "uncertainty": ("bit", "mean binary entropy of the lesion's voxels, 0 (sure) to 1"),
    "volume_mm3": ("mm^3", "voxels times their volume"),
    "x_mm": ("mm", "centroid (mean voxel), to the patient's right (RAS+)"),
    "y_mm": ("mm", "centroid, to the front"),
    "z_mm": ("mm", "centroid, to the top"),
    "side": ("", f"of the mid-sagittal plane; middle within {MIDDLE_MM:g} mm of it; unknown without a plane"),
    "longest_mm": ("mm", "longest diameter in an axial slice"),
    "perpendicular_mm": ("mm", "longest diameter at right angles to it in the same slice"),
    "slices": ("", "axial slices that hold the lesion"),
    "slice": ("", "index, from 0, of the measured slice along the file's axis nearest to S"),
    "measurable": ("", "whether RANO-BM calls a lesion of this size measurable"),
    "why": ("", "the rule that says so, or every condition that fails; what limits the measurement"),
    "et_mm3": ("mm^3", f"enhancing tumour {_PART}"),
    "netc_mm3": ("mm^3", f"non-enhancing core {_PART}"),
    "snfh_mm3": ("mm^3", f"oedema {_PART}"),
}
"""Unit and meaning of each column."""


@dataclass(frozen=True)
class Diameters:
    """RANO-BM's two diameters of a lesion.

    ``slice``: index (from 0) of the measured slice along ``axis``, the voxel axis nearest to S; ``slices``: how many
    of these hold the lesion. ``ends`` (4, 3; RAS mm): both ends of the longest diameter, then of the perpendicular.
    """

    longest_mm: float
    perpendicular_mm: float
    slice: int
    slices: int
    axis: int
    ends: Floats


@dataclass(frozen=True)
class MidPlane:
    """A mid-sagittal plane: ``point`` on it and ``normal`` to the patient's right, of any length (RAS mm)."""

    point: tuple[float, float, float]
    normal: tuple[float, float, float]

    @classmethod
    def of_template(cls, to_scan: sitk.Transform) -> MidPlane:
        """The template's (x = 0), carried by a rigid transform that takes its points to the scan's (ITK's LPS mm)."""
        middle, right = (
            np.multiply(to_scan.TransformPoint(point), (-1, -1, 1)) for point in ((0.0, 0.0, 0.0), (-1.0, 0.0, 0.0))
        )
        (x, y, z), (a, b, c) = middle.tolist(), (right - middle).tolist()
        return cls((x, y, z), (a, b, c))

    def side(self, place: Floats) -> Side:
        """The side of a place (3; RAS mm): "middle" within ``MIDDLE_MM`` of the plane."""
        normal = np.asarray(self.normal) / np.linalg.norm(self.normal)
        right = float((place - self.point) @ normal)
        if abs(right) <= MIDDLE_MM:
            return "middle"
        return "right" if right > 0 else "left"


# --- diameters -----------------------------------------------------------------------------------------------------


def axial_axis(affine: Affine) -> int:
    """The voxel axis nearest to S, across which the axial slices lie."""
    return int(np.flatnonzero(nib.io_orientation(affine)[:, 0] == 2)[0])


def diameters(mask: npt.NDArray[Any], affine: Affine) -> Diameters:
    """Longest axial diameter and its perpendicular, by this module's conventions.

    ``mask`` (x, y, z): the lesion where it is not 0; ``affine``: voxel index to RAS mm. Raises ``ValueError`` for a
    mask that is not 3D or is empty.
    """
    if mask.ndim != 3 or not mask.any():
        raise ValueError(f"mask of shape {mask.shape} must be 3D and hold a voxel of the lesion")
    lesion = np.asarray(mask, bool)
    box = around(labelled(lesion.view(np.uint8)))
    origin = np.array([side.start for side in box], float)
    lesion = lesion[box]
    axis = axial_axis(affine)
    upwards = nib.io_orientation(affine)[axis, 1]
    across = [other for other in range(3) if other != axis]
    # lengths in the plane are those of its two axes' triangular factor, however it is turned
    to_mm = np.linalg.qr(affine[:3, across])[1]
    held = np.flatnonzero(lesion.any(axis=tuple(across)))
    found = [(*_section(lesion.take(index, axis), to_mm), int(index)) for index in held]
    longest, perpendicular, ends, index = max(
        found, key=lambda one: (round(one[0], 6), round(one[1], 6), -upwards * one[3])
    )
    places = np.full((4, 3), float(index))
    places[:, across] = ends
    in_mm = nib.affines.apply_affine(affine, places + origin)
    return Diameters(longest, perpendicular, index + int(origin[axis]), len(held), axis, in_mm)


def _section(section: Mask, to_mm: Floats) -> tuple[float, float, Floats]:
    """Longest diameter, perpendicular (mm) and their four ends (4, 2; pixels) of a slice that holds the lesion."""
    rows = np.flatnonzero(section.any(axis=1))
    first = section[rows].argmax(axis=1)
    last = section.shape[1] - 1 - section[rows, ::-1].argmax(axis=1)
    # the pixels between a row's first and last add nothing to the hull
    outline = [
        np.column_stack([rows + step, column + sideways])
        for column, outwards in ((first, -0.5), (last, 0.5))
        for step, sideways in ((-0.5, 0.0), (0.5, 0.0), (0.0, outwards))
    ]
    points = np.concatenate(outline)
    hull = points[ConvexHull(points).vertices]
    places = hull @ to_mm.T
    apart = pdist(places)
    one, other = np.triu_indices(len(places), 1)
    equal = np.flatnonzero(apart >= apart.max() - 1e-6)
    chords = [_chord(places, places[one[pair]], places[other[pair]]) for pair in equal]
    best = max(range(len(equal)), key=lambda place: (round(chords[place][0], 6), -place))
    perpendicular, across = chords[best]
    pair = equal[best]
    ends = np.concatenate([hull[[one[pair], other[pair]]], np.linalg.solve(to_mm, across.T).T])
    return float(apart[pair]), perpendicular, ends


def _chord(hull: Floats, start: Floats, end: Floats) -> tuple[float, Floats]:
    """Length and ends (2, 2) of a hull's longest chord at right angles to its longest diameter; of equals the middle.

    The length of the chords is concave along the diameter and bends at the hull's corners only: the longest is at one.
    """
    along = (end - start) / np.linalg.norm(end - start)
    turned = np.array([-along[1], along[0]])
    u, v = (hull - start) @ along, (hull - start) @ turned
    order = np.argsort(u)
    u, v = u[order], v[order]
    # its ends lie on the diameter, at v = 0, and belong to both borders
    inner = np.abs(v) > 1e-9
    inner[[0, -1]] = False
    borders = [(u[part], v[part]) for part in ((v > 0) & inner, (v < 0) & inner)]
    upper, lower = (
        (np.concatenate([u[:1], across, u[-1:]]), np.concatenate([[0.0], height, [0.0]])) for across, height in borders
    )
    lengths = np.interp(u, *upper) - np.interp(u, *lower)
    longest = u[lengths >= lengths.max() - 1e-6]
    at = float(np.clip(u[-1] / 2, longest.min(), longest.max()))
    heights = np.array([np.interp(at, *upper), np.interp(at, *lower)])
    return float(heights[0] - heights[1]), start + at * along + heights[:, None] * turned


# --- measurable ----------------------------------------------------------------------------------------------------


def measurable(found: Diameters, affine: Affine) -> tuple[bool, str]:
    """Whether RANO-BM calls a lesion measurable, and why, or every condition that fails.

    How far slices are apart, and whether they are thin or thick, is told by the longest side of a voxel: a sagittal
    series of 5 mm is no thinner for being cut into axial planes. What limits the measurement is added.
    """
    sides = nib.affines.voxel_sizes(affine)
    apart = round(float(sides.max()), 6)
    least, by = LEAST_LONGEST_MM, ""
    if apart <= THIN_MM:
        least, by = LEAST_ON_THIN_MM, f" on slices {apart:.3g} mm apart"
    elif apart > THICK_MM and 2 * apart > least:
        least, by = 2 * apart, f", twice the {apart:.3g} mm between slices"
    longest, perpendicular = round(found.longest_mm, 6), round(found.perpendicular_mm, 6)
    fails = []
    if longest < least:
        fails.append(f"longest diameter {_below(longest)} mm, must be {least:g} or more{by}")
    if perpendicular < LEAST_PERPENDICULAR_MM:
        fails.append(f"perpendicular {_below(perpendicular)} mm, must be {LEAST_PERPENDICULAR_MM:g} or more")
    if found.slices < LEAST_SLICES:
        fails.append(f"on {found.slices} axial slice, must be on {LEAST_SLICES} or more")
    if fails:
        said = fails
    elif longest < LEAST_LONGEST_MM:
        said = [f"by the provision for thin slices ({apart:.3g} mm apart): {least:g} mm or more"]
    else:
        said = [f"{least if apart > THIN_MM else LEAST_LONGEST_MM:g} mm or more"]
    if found.axis != 2:
        said.append("axial slices reformatted")
    if (pixel := float(np.delete(sides, found.axis).max())) > THIN_MM:
        said.append(f"coarse: pixels of {pixel:.3g} mm in the axial plane")
    return not fails, "; ".join(said)


def _below(length: float) -> str:
    """A length as it stands in a text, cut, so that 9.999 is not shown as 10."""
    return f"{math.floor(length * 100) / 100:.2f}"


# --- the table -----------------------------------------------------------------------------------------------------


def measure(
    numbers: npt.NDArray[np.uint16],
    labels: npt.NDArray[np.uint8],
    uncertainty: npt.NDArray[np.float32],
    affine: Affine,
    scores: Mapping[int, float],
    accepted: Collection[int],
    middle: MidPlane | None,
) -> pd.DataFrame:
    """The lesion table (``schemas.SCREENED``), one row per number of ``scores``, by number; no lesion: no row.

    ``numbers`` (x, y, z): each voxel the number of its lesion, 0 elsewhere; ``labels``: a BraTS label map;
    ``uncertainty``: binary entropy in bits of the operating point's region; ``affine``: voxel index to RAS mm.
    ``scores``: each lesion's highest probability on the grid that the model saw; ``accepted``: the numbers at or above
    the operating point. ``middle``: the mid-sagittal plane, or None where it is not known; then every side is
    "unknown".

    Enhancing tumour, core and oedema: each such voxel of the label map goes to the lesion nearest to it, its own where
    it lies in one, among those that its component of the whole tumour (26-connected) holds voxels of, at equal
    distance to one of them; a component without a lesion goes to none. So a lesion of the region ET has the core that
    it surrounds, and its parts together may be more than its volume. A lesion that nothing is painted of, as
    a candidate of a probability below 0.5, has zeros.

    Raises ``ValueError`` for arrays that are not of one 3D shape, an uncertainty that is not from 0 to 1, a voxel's
    number without a score, a score without a voxel, a score that is not from 0 to 1, and an accepted number without a
    score.
    """
    boxes = find_objects(numbers)
    _check(numbers, labels, uncertainty)
    _check_numbers({number for number, box in enumerate(boxes, start=1) if box}, scores, accepted)
    voxel_mm3 = round(abs(float(np.linalg.det(affine[:3, :3]))), 9)
    parts = _parts(numbers, labels, affine, scores) * voxel_mm3
    rows = []
    for number in sorted(scores):
        box = boxes[number - 1]
        lesion = numbers[box] == number
        origin = np.array([side.start for side in box])
        place = nib.affines.apply_affine(affine, np.argwhere(lesion).mean(axis=0) + origin)
        found = diameters(lesion, affine @ nib.affines.from_matvec(np.eye(3), origin))
        is_measurable, why = measurable(found, affine)
        rows.append(
            {
                "lesion": number,
                "accepted": number in accepted,
                "score": float(scores[number]),
                "uncertainty": min(float(uncertainty[box][lesion].mean(dtype=np.float64)), 1.0),
                "volume_mm3": int(lesion.sum()) * voxel_mm3,
                **dict(zip(("x_mm", "y_mm", "z_mm"), place.tolist(), strict=True)),
                "side": middle.side(place) if middle else "unknown",
                "longest_mm": found.longest_mm,
                "perpendicular_mm": found.perpendicular_mm,
                "slices": found.slices,
                "slice": found.slice + int(origin[found.axis]),
                "measurable": is_measurable,
                "why": why,
                **{f"{label}_mm3": float(parts[number, LABELS[label]]) for label in ("et", "netc", "snfh")},
            }
        )
    return _typed(pd.DataFrame(rows, columns=list(SCREENED.columns)))


def _check(numbers: npt.NDArray[Any], labels: npt.NDArray[Any], uncertainty: npt.NDArray[Any]) -> None:
    for name, array in (("labels", labels), ("uncertainty", uncertainty)):
        if numbers.ndim != 3 or array.shape != numbers.shape:
            raise ValueError(f"{name} has shape {array.shape}, numbers {numbers.shape}: both must be 3D on one grid")
    low, high = uncertainty.min(initial=0.0), uncertainty.max(initial=0.0)  # NaN where there is one
    if not (low >= 0 and high <= 1.0 + 1e-5):  # an entropy of float32 may be above 1 by its rounding
        raise ValueError(f"uncertainty runs from {low} to {high} and must be numbers from 0 to 1 everywhere")


def _check_numbers(present: set[int], scores: Mapping[int, float], accepted: Collection[int]) -> None:
    if unscored := sorted(present - set(scores)):
        raise ValueError(f"numbers: {_listed(unscored)} has no score; give one for every lesion")
    if lost := sorted(set(scores) - present):
        raise ValueError(
            f"scores: lesion {_listed(lost)} has no voxel in numbers; leave out what the grid cannot hold"
        )
    if wrong := [number for number in sorted(scores) if not 0 <= scores[number] <= 1]:
        raise ValueError(f"scores: that of lesion {wrong[0]} is {scores[wrong[0]]} and must be from 0 to 1")
    if stray := sorted(set(accepted) - set(scores)):
        raise ValueError(f"accepted: lesion {_listed(stray)} is not among the numbers")


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _parts(
    numbers: npt.NDArray[np.uint16], labels: npt.NDArray[np.uint8], affine: Affine, lesions: Collection[int]
) -> npt.NDArray[np.int64]:
    """Voxels (lesion number, label) of the whole tumour that each lesion is given."""
    given = np.zeros((max(lesions, default=0) + 1, max(LABELS.values()) + 1), np.int64)
    tumour = cc3d.connected_components(region_mask(labels, "WT").view(np.uint8), connectivity=26)
    sides = nib.affines.voxel_sizes(affine)
    for component, box in enumerate(find_objects(tumour), start=1):
        own = tumour[box] == component
        owner = np.where(own, numbers[box], 0)
        held = np.unique(owner[owner > 0])
        if len(held) == 1:
            owner[own] = held[0]
        elif len(held):
            nearest = distance_transform_edt(owner == 0, sides, return_distances=False, return_indices=True)
            owner = owner[tuple(nearest)]
        if len(held):
            np.add.at(given, (owner[own], labels[box][own]), 1)
    return given


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """The columns' types, which a table without rows has as well."""
    kinds = {"text": object, "number": float, "whole": int, "truth": bool}
    return table.astype({name: kinds[column.kind] for name, column in SCREENED.columns.items()})


# --- files ---------------------------------------------------------------------------------------------------------


def write(files: ScreeningPaths, table: pd.DataFrame) -> None:
    """``lesions.csv`` and ``lesions.json`` of a table as ``measure`` gives it.

    The JSON holds "schema" (its number), "columns": name to "kind" (text, number, whole, truth), "unit" ("" without
    one), "meaning" and, where only some words may stand, "words"; and "rows": an object per lesion. Raises
    ``ValueError`` for other columns than ``schemas.SCREENED`` has.
    """
    if list(table.columns) != list(SCREENED.columns):
        raise ValueError(f"table has the columns {', '.join(map(str, table.columns))}; give it as measure returns it")
    tables.write(files.table, table)
    columns = {}
    for name, column in SCREENED.columns.items():
        unit, meaning = MEANINGS[name]
        words = {"words": list(column.known)} if column.known else {}
        columns[name] = {"kind": column.kind, "unit": unit, "meaning": meaning, **words}
    content = {
        "schema": JSON_SCHEMA,
        "title": "Lesions of one scan; research use only",
        "columns": columns,
        "rows": _typed(table).to_dict("records"),
    }
    write_text(files.table_json, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read(files: ScreeningPaths) -> pd.DataFrame:
    """The table that ``write`` wrote, from the CSV; raises ``TableError`` as ``schemas.read`` does."""
    return _typed(schemas.read(files.table, SCREENED).reset_index(drop=True))
