"""Which voxels a lesion has that a reader corrected or added: from another probability on, or as drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cc3d
import numpy as np
import numpy.typing as npt
from nibabel.affines import apply_affine

from brainmets import nifti, provenance
from brainmets.files import read_json
from brainmets.nifti import Affine, Grid, ImageError
from brainmets.paths import ScreeningPaths
from brainmets.scoring import probabilities
from brainmets.screening import slicer_files
from brainmets.vocabulary import REGIONS

REACH_MM = 5.0
"""How far a drawn lesion may lie from the place that the reader gave."""

Mask = npt.NDArray[np.bool_]


class ReadingError(ValueError):
    """A decision that cannot be taken, or a ``reading.json`` that cannot be read; the message says what to do."""


@dataclass(frozen=True)
class Outline:
    """One lesion as a reader drew it: BraTS labels (x, y, z; uint8; 0 outside the lesion) on the source t1c's grid."""

    labels: npt.NDArray[np.uint8]
    affine: Affine


def region_of(files: ScreeningPaths) -> str:
    """The operating point's region: what a candidate is a component of. ``ReadingError`` for a damaged record."""
    region = read_json(files.record).get("model", {}).get("region")
    if region not in REGIONS:
        raise ReadingError(f"{files.record}: region {region!r} is none of {', '.join(REGIONS)}: screen the scan again")
    return str(region)


def at(files: ScreeningPaths, lesion: int, threshold: float) -> Mask:
    """``grown`` of a result's files."""
    predicted, _ = probabilities.read(files.probabilities)
    return grown(predicted[region_of(files)], read_numbers(files)[0], lesion, threshold)


def grown(
    probability: npt.NDArray[np.float32], numbers: npt.NDArray[np.integer], lesion: int, threshold: float
) -> Mask:
    """The voxels (x, y, z) from ``threshold`` on that are connected (26) with the candidate ``lesion`` of ``numbers``.

    Another candidate's voxels are never taken, nor crossed. Raises ``ReadingError`` for a threshold that is no
    probability, lies below the lowest one that is kept in the file, or leaves the candidate no voxel.
    """
    kept = float(probability[probability > 0].min(initial=1.0))
    if not kept <= threshold <= 1 and not np.isclose(threshold, kept):
        raise ReadingError(
            f"threshold: {threshold:g} must be from {kept:.3g}, below which no probability is kept here, to 1"
        )
    own = numbers == lesion
    reached = (probability >= np.float32(threshold)) & (own | (numbers == 0))
    components = cc3d.connected_components(reached.view(np.uint8), connectivity=26)
    touched = np.unique(components[own & reached])
    if not touched.size:
        highest = float(probability[own].max(initial=0.0))
        raise ReadingError(
            f"threshold: no voxel of lesion {lesion} has {threshold:g} or more, its highest probability is "
            f"{highest:.2f}; choose a lower one, or reject it"
        )
    return np.asarray(np.isin(components, touched))


def drawn(files: ScreeningPaths, path: Path, lesion: int) -> Outline:
    """The parts of a reader's label map that have a voxel in common with the candidate, in the point's region.

    The map may hold this lesion alone, or all of the scan's. Raises ``ImageError`` as ``slicer_files.read`` does,
    ``ReadingError`` where nothing that is drawn touches the candidate.
    """
    numbers, grid = read_numbers(files)
    labels, parts = _parts(files, path, grid)
    touched = np.setdiff1d(np.unique(parts[numbers == lesion]), [0])
    if not touched.size:
        raise ReadingError(
            f"mask: nothing that {path.name} draws in {region_of(files)} has a voxel in common with lesion {lesion}; "
            "reject the candidate and add the lesion, or save the right file"
        )
    return Outline(np.where(np.isin(parts, touched), labels, np.uint8(0)), grid.affine)


def drawn_at(files: ScreeningPaths, path: Path, place_mm: tuple[float, float, float]) -> Outline:
    """The part of a reader's label map nearest to a place, in the point's region, no further than ``REACH_MM``."""
    grid = nifti.read_scan_grid(files.t1c)
    labels, parts = _parts(files, path, grid)
    where = np.argwhere(parts > 0)
    apart = np.linalg.norm(apply_affine(grid.affine, where) - place_mm, axis=1)
    if not len(apart) or apart.min() > max(REACH_MM, max(grid.spacing)):
        near = f"the nearest is {apart.min():.1f} mm away" if len(apart) else "it draws nothing there at all"
        shown = ", ".join(f"{part:g}" for part in place_mm)
        raise ReadingError(f"mask: {path.name} draws nothing in {region_of(files)} at ({shown}) mm: {near}")
    part = parts[tuple(where[apart.argmin()])]
    return Outline(np.where(parts == part, labels, np.uint8(0)), grid.affine)


def kept(files: ScreeningPaths, mask: tuple[str, str]) -> npt.NDArray[np.uint8]:
    """An outline that was taken over before, by name and SHA-256. ``ReadingError`` where it is another file now."""
    path = files.reading_masks / mask[0]
    if not path.is_file():
        raise ReadingError(f"{path} is missing: restore it from a backup, or decide the lesion again")
    if provenance.sha256(path) != mask[1]:
        raise ReadingError(f"{path} is not the outline that was saved: restore it, or decide the lesion again")
    return nifti.as_labels(nifti.read_scan(path)[0], path)


def read_numbers(files: ScreeningPaths) -> tuple[npt.NDArray[np.uint16], Grid]:
    """The result's numbered lesions and their grid."""
    voxels, grid = nifti.read_scan(files.numbers)
    if voxels.dtype.kind not in "iu":
        raise ImageError(files.numbers, f"voxels of type {voxels.dtype} are no numbers; screen the scan again")
    return voxels.astype(np.uint16), grid


def inside(place_mm: tuple[float, float, float], grid: Grid) -> bool:
    """Whether a place in mm (RAS+) lies in a voxel of the grid."""
    x, y, z = np.rint(apply_affine(np.linalg.inv(grid.affine), place_mm))
    return bool(all(0 <= index < size for index, size in zip((x, y, z), grid.shape, strict=True)))


def _parts(files: ScreeningPaths, path: Path, grid: Grid) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.integer]]:
    """A reader's label map within the point's region, and the numbers of its components (26)."""
    labels = slicer_files.read(path, replace(grid, path=files.t1c))
    labels = np.where(np.isin(labels, REGIONS[region_of(files)]), labels, np.uint8(0))
    return labels, np.asarray(cc3d.connected_components((labels > 0).view(np.uint8), connectivity=26))
