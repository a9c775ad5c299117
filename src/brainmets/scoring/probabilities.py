"""A case's probabilities beside its labels: one small file, from which candidates and calibration are worked out.

The file is a 4D NIfTI (x, y, z, region) on the case's grid, its regions in the order of ``vocabulary.REGIONS``.
Probabilities are kept in steps of 1/65535, which the header's slope says, and are 0 below a floor: nearly all of an
image, so that it compresses well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from brainmets import nifti
from brainmets.nifti import Affine, Grid, ImageError
from brainmets.vocabulary import REGIONS

Probability = npt.NDArray[np.float32]
"""One region's (x, y, z), from 0 to 1."""

STEPS = 65535
ROUNDING = 1e-5
"""How far a mean of float32 may lie above 1."""
AGAIN = "predict the case again (notebook 06)"


def write(path: Path, probabilities: Mapping[str, Probability], affine: Affine, floor: float) -> Path:
    """Write the regions' probabilities (each (x, y, z), in the axes of the case's image), whole or not at all.

    What is below ``floor`` is written as 0, all else as the nearest step of 1/65535; 0.5, between two of them, as
    the lower one, so that what is above 0.5 in the file is what was painted as a label. Raises ``ValueError`` for
    other regions than ET, TC and WT, regions of different shapes, a floor beyond 0 to 1, and values that are no
    probabilities; then nothing is written.
    """
    if set(probabilities) != set(REGIONS):
        raise ValueError(f"{path.name}: probabilities of {', '.join(probabilities)}, not of {', '.join(REGIONS)}")
    if not 0 <= floor <= 1:
        raise ValueError(f"floor: {floor} must be from 0 to 1")
    for region, values in probabilities.items():
        low, high = float(values.min(initial=0)), float(values.max(initial=0))
        if not (low >= 0 and high <= 1 + ROUNDING):  # NaN is neither
            raise ValueError(f"{path.name}: values of {region} from {low:g} to {high:g} are no probabilities")

    def stored() -> Iterator[npt.NDArray[np.uint16]]:
        for region in REGIONS:
            values = probabilities[region]
            steps = np.zeros(values.shape, np.uint16, order="F")
            where = nifti.labelled((values >= np.float32(floor)).view(np.uint8))
            most = np.where(values[where] > np.float32(0.5), STEPS, STEPS // 2)
            steps[where] = np.minimum(np.rint(values[where] * np.float32(STEPS)), most)
            yield steps

    return nifti.write_channels(path, stored(), len(REGIONS), affine, 1 / STEPS)


def read(path: Path) -> tuple[dict[str, Probability], Grid]:
    """Region to probability (x, y, z; float32), in the file's axes, and the grid.

    The file is one that ``write`` wrote, or other people's: 4D with the regions ET, TC, WT, as numbers from 0 to 1.
    Raises ``ImageError`` for another shape, another type or slope, values beyond 0 to 1 or not finite, and as
    ``nifti.read_volume`` does.
    """
    stored, slope, inter, grid = nifti.read_channels(path)
    if stored.shape[3] != len(REGIONS):
        raise ImageError(
            path, f"must hold {len(REGIONS)} regions ({', '.join(REGIONS)}) along its last axis, not {stored.shape[3]}"
        )
    if stored.dtype == np.uint16 and np.isclose(slope, 1 / STEPS, rtol=1e-6, atol=0) and inter == 0:
        return {
            region: stored[..., place].astype(np.float32) / np.float32(STEPS) for place, region in enumerate(REGIONS)
        }, grid
    if stored.dtype.kind != "f" or (slope, inter) != (1, 0):
        raise ImageError(
            path,
            f"holds {stored.dtype} with a slope of {slope:g} and an intercept of {inter:g}, not probabilities as "
            f"uint16 with a slope of 1/{STEPS}, or as numbers from 0 to 1 (float32) without scaling; {AGAIN}, or "
            "convert the file",
        )
    return {region: _checked(stored[..., place], path, region) for place, region in enumerate(REGIONS)}, grid


def read_region(path: Path, region: str) -> tuple[Probability, Grid]:
    """One region's probability from a 3D file of numbers from 0 to 1, as other programs write them, and its grid.

    Raises ``ImageError`` for whole numbers without scaling (a mask has no scores), values beyond 0 to 1 or not finite,
    and as ``nifti.read_volume`` does.
    """
    values, grid = nifti.read_volume(path)
    if values.dtype.kind in "biu":
        raise ImageError(
            path,
            f"holds whole numbers ({values.dtype}) without scaling: a mask, or probabilities that were rounded; give "
            "numbers from 0 to 1 (float32)",
        )
    return _checked(values, path, region), grid


def entropy_bits(probability: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Entropy of a yes-or-no outcome, -p log2 p - (1-p) log2 (1-p), element by element; 0 at 0 and 1.

    >>> entropy_bits([0, 0.5, 1])
    array([0., 1., 0.])
    """
    p = np.clip(np.asarray(probability, np.float64), 0, 1)
    return np.asarray((entr(p) + entr(1 - p)) / np.log(2))


def _checked(values: npt.NDArray[np.generic], path: Path, region: str) -> Probability:
    probability = np.asarray(values, np.float32)
    low, high = float(probability.min()), float(probability.max())
    if not (low >= 0 and high <= 1 + ROUNDING):
        raise ImageError(path, f"values of {region} from {low:g} to {high:g} are no probabilities (0 to 1)")
    return np.minimum(probability, np.float32(1))
