"""Whether two prepared cases show one head, or one head and its mirror image: found by content.

In the template's space, two scans of one head lie on each other, so that they correlate once the smooth part of the
image, which all heads share, is taken away. A mirrored copy is one whose left and right were swapped on the way: its
header cannot tell, and a single symmetric head neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage

from brainmets import nifti
from brainmets.preparation.flags import FLAG_COLUMNS
from brainmets.vocabulary import SEQUENCES

Pattern = npt.NDArray[np.float32]

STEP_MM = 4.0
CENTRE_MM = (0.0, -18.0, 8.0)
REACH_MM = (100.0, 120.0, 100.0)
"""The box that is compared, in mm of the template along R, A and S: its middle, and half its sides."""
SMOOTH_MM = 12.0
"""Structures coarser than this are taken away."""
ONE_HEAD = 0.72
"""Mean correlation over the sequences from which on two cases show one head. Different phantoms, bent from one
template and hence more alike than people, have 0.69 at the most, mirror images included; two scans of one head,
registered anew with errors of about 1 mm and 1 degree, 0.74 or more. Of four sequences; with fewer it is less sure."""
SURELY_ONE = 0.85
"""From here on that is an error; below, for a person to judge: no two scans of one real head were at hand."""


def pattern(images: Mapping[str, npt.NDArray[Any]], mask: npt.NDArray[Any], affine: nifti.Affine) -> Pattern:
    """What is compared of a case in the template's space: (sequence, x, y, z) along R, A, S, each of length 1.

    ``images``: the prepared sequences, ``mask``: the brain, 3D on the grid of ``affine``. The box lies symmetric to
    the template's midplane (R 0). A sequence that shows nothing, or is not there, is 0.
    """
    counts = tuple(2 * int(reach / STEP_MM) + 1 for reach in REACH_MM)
    corner = np.array(CENTRE_MM) - STEP_MM * (np.array(counts) - 1) / 2
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    matrix = np.linalg.inv(affine)
    to_voxel = matrix[:3, :3] * STEP_MM
    offset = matrix[:3, :3] @ corner + matrix[:3, 3]

    def coarse(voxels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        size = [max(1, round(STEP_MM / side)) for side in sides]
        smooth: Pattern = ndimage.uniform_filter(voxels.astype(np.float32), size)
        return np.asarray(ndimage.affine_transform(smooth, to_voxel, offset, output_shape=counts, order=1))

    brain = coarse(np.asarray(mask) > 0)
    core = ndimage.binary_erosion(brain > 0.9)
    around = np.maximum(ndimage.gaussian_filter(brain, SMOOTH_MM / STEP_MM), 1e-3)
    fine = np.zeros((len(SEQUENCES), *counts), np.float32)
    for place, sequence in enumerate(SEQUENCES):
        if sequence not in images:
            continue
        image = coarse(np.where(np.asarray(mask) > 0, images[sequence], 0))
        detail = np.where(core, image - brain * ndimage.gaussian_filter(image, SMOOTH_MM / STEP_MM) / around, 0)
        fine[place] = detail / (np.linalg.norm(detail) or 1)
    return fine


def copies(patterns: Mapping[str, Pattern], patients: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Flags (``FLAG_COLUMNS``) for every two cases that show one head, or one head and its mirror image.

    ``patterns``: of each case in the template's space; ``patients``: whose scan each case is: scans of one patient
    should show one head, and are flagged only where they are mirrored. A case without others has no flags.
    """
    rows = []
    for first, second in combinations(patterns, 2):
        same = _likeness(patterns[first], patterns[second])
        mirrored = _likeness(patterns[first], patterns[second][:, ::-1])
        if max(same, mirrored) < ONE_HEAD:
            continue
        of_one = patients is not None and patients.get(first, first) == patients.get(second, second)
        if mirrored > same:
            text = "Shows the mirror image of case {other}: left and right of one of them are swapped (r {r:.2f})"
        elif not of_one:
            text = "Shows the same head as case {other} (r {r:.2f}): scans of one patient under two names?"
        else:
            continue
        measure = "mirrored_copy" if mirrored > same else "copy"
        severity = "error" if max(same, mirrored) >= SURELY_ONE else "warning"
        for case, other in ((first, second), (second, first)):
            r = max(same, mirrored)
            rows.append((severity, case, measure, r, "", text.format(other=other, r=r)))
    table = pd.DataFrame(rows, columns=["severity", "case", "measure", "value", "usual", "text"])
    return table[list(FLAG_COLUMNS)]


def _likeness(one: Pattern, other: Pattern) -> float:
    """Mean correlation over the sequences that both have."""
    each = np.sum(one * other, axis=(1, 2, 3))
    both = np.any(one, axis=(1, 2, 3)) & np.any(other, axis=(1, 2, 3))
    return float(each[both].mean()) if both.any() else 0.0
