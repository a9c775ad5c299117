"""A result for other programs: what each of them can read of it, and refusals where one would misplace it in silence.

DICOM's side of it is ``dicom_seg``; NIfTI is written by ``nifti.write``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainmets import nifti
from brainmets.review import slicer


class ExchangeError(ValueError):
    """A result that another program could not show in its place; the message says which and what to use instead."""


def write_nrrd(path: Path, labels: npt.NDArray[np.uint8], affine: nifti.Affine) -> Path:
    """Write the label map for 3D Slicer as ``slicer.write_segmentation`` does, on the grid of the source t1c.

    Raises ``ExchangeError`` where its axes lean by more than ``nifti.SHEAR_DEG`` (gantry tilt): Slicer reckons
    with axes at right angles, and the labels could lie beside the image.
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    lean = float(np.degrees(np.arcsin(np.clip(np.abs(axes.T @ axes - np.eye(3)).max(), 0, 1))))
    if not lean <= nifti.SHEAR_DEG:
        raise ExchangeError(
            f"{path.name}: the slices lean by {lean:.1f} degrees (gantry tilt), and 3D Slicer reckons with "
            "right angles: use labels.nii.gz or labels.dcm"
        )
    return slicer.write_segmentation(path, labels, affine)
