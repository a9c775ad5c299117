"""What surrounds the head: a constant that need not be zero.

nnU-Net takes every voxel that is not zero for the head: it crops to it and, where the plan says so, normalises within
it. An export that was z-scored as a whole has a background of -3 or -6: nothing is cropped, and the background enters
mean and standard deviation. Subtracting the background gives back the form that nnU-Net expects and changes nothing
else, since z-scores do not depend on an offset.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainmets import nifti


def background(voxels: npt.NDArray[Any]) -> float | None:
    """The value around the head: the one that at least half of the voxels on the volume's six faces hold.

    ``None`` where no value does: the air of a scan that keeps its skull is noise. ``voxels`` is 3D; one without voxels
    has no background.
    """
    faces = (
        np.concatenate([voxels.take([0, -1], axis).ravel() for axis in range(3)]) if voxels.size else voxels.ravel()
    )
    values, counts = np.unique(faces, return_counts=True)
    if not len(values) or 2 * counts.max() < len(faces):
        return None
    return float(values[counts.argmax()])


def write_on_zero_background(source: Path, target: Path) -> Path:
    """Write ``source`` as float32 with its background at 0 to ``target``.

    Raises ``ValueError`` where there is no constant background, and ``nifti.ImageError`` as ``read_volume`` does.
    """
    voxels, grid = nifti.read_volume(source)
    level = background(voxels)
    if level is None:
        raise ValueError(f"{source}: no value surrounds the head, so that there is none to subtract")
    return nifti.write(target, (voxels.astype(np.float64) - level).astype(np.float32), grid.affine)
