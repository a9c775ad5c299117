"""Are the probabilities right? A case's voxels by their probability, as sums that every calibration figure needs.

Voxels are put into ``BINS`` equal bins of their kept probability, and into one of their own where that is exactly 0
(below the floor that ``brainmets.scoring.probabilities`` keeps: nearly all of a head). Of each bin the number of
voxels, the sums of p, of p^2 and of p over the voxels that the reference labels, and the number of these are kept:
whole cases can then be added up, and drawn again by patient, without a voxel being read twice.

Two zones: ``head``, every voxel of the head, and ``near``, those of them within ``NEAR_MM`` of a reference lesion or
of a voxel whose probability reaches the candidates' threshold. Most of a head is far from anything and rightly called
0: over the whole head that hides what happens where lesions are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage

from brainmets.nifti import Spacing, read_grid, read_labels
from brainmets.parallel import results
from brainmets.scoring import probabilities as kept
from brainmets.scoring.boxes import Labels, Mask, foreground_boxes
from brainmets.scoring.metrics import check_spacing
from brainmets.vocabulary import ZONES, Model, region_mask

BINS = 10
NEAR_MM = 10.0
SLACK_MM = 1e-4
"""Headers hold voxel sides in single precision: ten voxels of 1 mm may lie 10.0000012 mm apart."""
SUMS = ("n", "sum_p", "sum_p2", "sum_p_positive", "positive")
COLUMNS = ("arm", "strategy", "case", "region", "zone", "bin", *SUMS)
"""Of ``reliability.csv``, see ``schemas.RELIABILITY``."""

Kind = TypeVar("Kind", bound=np.generic)
Floats = npt.NDArray[np.float64]
Probability = npt.NDArray[np.float32]


class _Job(NamedTuple):
    case: str
    probabilities: Path
    reference: Path
    image: Path
    head: Callable[[Path], Mask]
    threshold: float


def reliability_of_cases(
    model: Model,
    images: Mapping[str, Path],
    probabilities: Path,
    references: Path,
    *,
    head: Callable[[Path], Mask],
    threshold: float,
    workers: int = 1,
) -> pd.DataFrame:
    """``reliability`` of every case of ``images`` (case to the image that shows its head), cases by alphabet.

    ``probabilities`` and ``references`` are folders of ``<case>.nii.gz``: what ``scoring.probabilities.write`` kept,
    and label maps in BraTS labels. ``head`` gives the mask of an image's head; with several ``workers`` (processes
    that hold one case each) it is a function of a module. Columns ``COLUMNS``; no case gives no rows. Raises
    ``ImageError`` for a file that cannot be used or lies on another grid than the case's reference, ``OSError`` for
    one that is not there.
    """
    jobs = [
        _Job(case, probabilities / f"{case}.nii.gz", references / f"{case}.nii.gz", image, head, threshold)
        for case, image in sorted(images.items())
    ]
    found = {job.case: table for job, table in results(_reliability, jobs, workers)}
    parts = [found[job.case].assign(arm=model[0], strategy=model[1], case=job.case) for job in jobs]
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)] if parts else pd.DataFrame(columns=list(COLUMNS))


def _reliability(job: _Job) -> pd.DataFrame:
    of_region, grid = kept.read(job.probabilities)
    reference = read_grid(job.reference)
    reference.require_same(grid, "the probabilities are of another grid: predict the case anew")
    read_grid(job.image).require_same(reference, "the image is not on the reference's grid: run notebook 01 again")
    return reliability(of_region, read_labels(job.reference), job.head(job.image), grid.spacing, job.threshold)


def reliability(
    probabilities: Mapping[str, Probability], reference: Labels, head: Mask, spacing: Spacing, threshold: float
) -> pd.DataFrame:
    """The sums of one case by region, zone and bin.

    ``probabilities``: region to probability (3D, 0 to 1); ``reference``: BraTS labels; ``head``: boolean; all of one
    shape, with voxel sides ``spacing`` in mm. A voxel outside ``head`` that the reference labels or whose probability
    is not 0 counts as head: nothing that either of them names is lost.

    One row per region, zone of ``ZONES`` and bin, those without a voxel included. Columns: region, zone, bin, n,
    sum_p, sum_p2, sum_p_positive (sum of p over the voxels that the reference labels), positive (their number). Bin 0
    holds p = 0, bin b of 1 to ``BINS`` what is above (b - 1) / ``BINS`` and at most b / ``BINS``. Distances run
    between voxel centres. Without lesions and without a probability of ``threshold`` the zone ``near`` is empty.

    Raises ``ValueError`` for shapes that differ, and for a probability that is not between 0 and 1.
    """
    spacing = check_spacing(spacing)
    _check(probabilities, reference, head)
    # files decode with the first axis fastest: turned round, what follows runs through memory in order
    labels, inside, sides = _turned(reference), _turned(head), spacing[::-1]
    parts = []
    for region, volume in probabilities.items():
        p, truth = _turned(volume), region_mask(labels, region)
        zones = {"head": inside | truth | (p > 0)}
        zones["near"] = zones["head"] & near(truth | (p >= threshold), sides)
        places = np.flatnonzero(p)
        parts += [_sums(p, truth, zones[zone], places).assign(region=region, zone=zone) for zone in ZONES]
    return pd.concat(parts, ignore_index=True)[["region", "zone", "bin", *SUMS]]


def near(seeds: Mask, spacing: Spacing, reach_mm: float = NEAR_MM) -> Mask:
    """The voxels whose centre lies within ``reach_mm`` of a seed's (3D, C-contiguous); none where there is no seed.

    ``spacing``: voxel sides in mm, in the order of the axes. Distances are exact; only boxes around the seeds are
    looked at.
    """
    found = np.zeros(seeds.shape, bool)
    reach_mm += SLACK_MM
    margin = [int(reach_mm / side) for side in spacing]
    marked = seeds.view(np.uint8)
    for box in foreground_boxes(marked, marked):
        window = tuple(
            slice(max(0, low - more), low + size + more)
            for low, size, more in zip(box.origin, box.reference.shape, margin, strict=True)
        )
        found[window] |= ndimage.distance_transform_edt(~seeds[window], sampling=spacing) <= reach_mm
    return found


def bins_of(p: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """The bin of each probability; see ``reliability``.

    >>> bins_of(np.array([0.0, 0.05, 0.1, 0.11, 1.0]))
    array([ 0,  1,  1,  2, 10])
    """
    # 0.2 as a float32 is a little more than 0.2, and belongs into the bin that ends there
    return np.ceil(np.round(p.astype(np.float64) * BINS, 5)).astype(np.int64)


def _sums(p: Probability, truth: Mask, zone: Mask, places: npt.NDArray[np.intp]) -> pd.DataFrame:
    """The sums of a zone; ``places``: where (in memory order) ``p`` is not 0."""
    chosen = places[zone.reshape(-1)[places]]
    value, positive = p.reshape(-1)[chosen].astype(np.float64), truth.reshape(-1)[chosen]
    # rounding must not put the smallest probability among those that are exactly 0
    which = np.maximum(bins_of(value), 1)

    def summed(weights: Floats | Mask | None) -> Floats:
        return np.bincount(which, weights, BINS + 1).astype(np.float64)

    n, of_positive = summed(None), summed(positive)
    n[0] = np.count_nonzero(zone) - len(chosen)
    of_positive[0] = np.count_nonzero(truth & zone) - np.count_nonzero(positive)
    table = {"bin": np.arange(BINS + 1), "n": n.astype(np.int64), "sum_p": summed(value), "sum_p2": summed(value**2)}
    table |= {"sum_p_positive": summed(value * positive), "positive": of_positive.astype(np.int64)}
    return pd.DataFrame(table)


def _turned(volume: npt.NDArray[Kind]) -> npt.NDArray[Kind]:
    return np.asfortranarray(volume).T


def _check(probabilities: Mapping[str, Probability], reference: Labels, head: Mask) -> None:
    for name, volume in {"head": head, **probabilities}.items():
        if volume.shape != reference.shape or reference.ndim != 3:
            raise ValueError(f"{name}: of shape {volume.shape}, the reference of {reference.shape}; give one 3D grid")
    for region, volume in probabilities.items():
        low, high = float(volume.min(initial=0.0)), float(volume.max(initial=0.0))
        if not (low >= 0 and high <= 1):  # NaN is neither
            raise ValueError(f"{region}: probabilities from {low:g} to {high:g} must lie between 0 and 1")
