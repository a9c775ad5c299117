"""What surrounds the head: a constant that need not be zero.

nnU-Net takes every voxel that is not zero for the head: it crops to it and, where the plan says so, normalises within
it. An export that was z-scored as a whole has a background of -3 or -6: nothing is cropped, and the background enters
mean and standard deviation. Subtracting the background gives back the form that nnU-Net expects and changes nothing
else, since z-scores do not depend on an offset.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brainmets import nifti
from brainmets.cohorts.cohort import Case

SAMPLED = 250_000


def background(voxels: npt.NDArray[Any]) -> float | None:
    """The value around the head: the one that at least half of the voxels on the volume's six faces hold.

    ``None`` where no value does: the air of a scan that keeps its skull is noise. ``voxels`` is 3D; one without voxels
    has no background.
    """
    faces = _faces(voxels)
    if not len(faces):
        return None
    for value in _middle(faces):  # what half of the values are stands in the middle of their order
        if 2 * np.count_nonzero(faces == value) >= len(faces):
            return float(value)
    return None


def air_level(voxels: npt.NDArray[Any]) -> float:
    """A level between what surrounds the head and the head: a tenth of the way to the bright tissue. Finite values.

    Of large volumes some ``SAMPLED`` voxels are looked at.
    """
    some = voxels.ravel("K")[:: max(1, voxels.size // SAMPLED)]
    low, high = float(_middle(_faces(voxels)).mean()), float(np.percentile(some, 99))
    return low + 0.1 * (high - low)


def _middle(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The two values in the middle of their order, whose mean is the median; of an odd number, one value twice."""
    middle = [(len(values) - 1) // 2, len(values) // 2]
    return np.partition(values, middle)[middle]


def _faces(voxels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The values on a volume's six faces; none of a volume without voxels."""
    ends = (
        [voxels[(slice(None),) * axis + (end,)] for axis in range(3) for end in (0, -1)] if voxels.size else [voxels]
    )
    return np.concatenate([end.ravel("K") for end in ends])


def head(voxels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """The head in a volume (3D, finite values): what is above ``air_level``, without specks and with its cavities."""
    return ndimage.binary_fill_holes(ndimage.binary_opening(voxels > air_level(voxels)))


def head_of(image: Path) -> npt.NDArray[np.bool_]:
    """The voxels of a file (finite values) that belong to the head: all but the constant ``background``.

    A scan that keeps its skull has no such constant: there it is ``head``.
    """
    voxels, _ = nifti.read_volume(image)
    around = background(voxels)
    return head(voxels) if around is None else voxels != around


def with_zero_background(cases: Sequence[Case], on_level: Mapping[Path, float], folder: Path) -> list[Case]:
    """The cases, with a copy in place of every image that ``on_level`` names, from which that value is subtracted.

    The copies, float32 and named ``<case>_<sequence>.nii.gz``, go to ``folder``, which is emptied first and not made
    where no image needs a copy.
    """
    shutil.rmtree(folder, ignore_errors=True)
    prepared = []
    for case in cases:
        images = dict(case.images)
        for sequence, path in case.images.items():
            if path in on_level:
                voxels, grid = nifti.read_volume(path)
                shifted = (voxels.astype(np.float64) - on_level[path]).astype(np.float32)
                images[sequence] = nifti.write(folder / f"{case.case}_{sequence}.nii.gz", shifted, grid.affine)
        prepared.append(replace(case, images=images))
    return prepared
