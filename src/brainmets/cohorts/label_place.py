"""Whether a label map lies where the images show something, against all the places that it could lie in.

A label map that was shifted by a cropping, or stored mirrored, is a valid file. What gives it away is that its lesions
would stand out from what surrounds them far better in another place: enhancing tumour on the t1c less the t1n, the
whole lesion on the t2f. Fourier transforms give all shifts at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

REACH_MM = 24.0
"""How far a label map is moved along each axis to see whether it would fit better there."""
RIM_MM = 8.0
"""Thickness of the shell around a lesion that it must stand out from."""
CLIPPED = (-1.0, 4.0)
"""Standard deviations from the head's median that a voxel counts at the most: fluid and vessels decide nothing."""
TURNS = {
    "moved": (),
    "left and right exchanged": (0,),
    "front and back exchanged": (1,),
    "top and bottom exchanged": (2,),
    "turned by half a circle": (0, 1),
}
"""Axes (of R, A, S) that are reversed; the last is what LPS read as RAS does."""


class Place(NamedTuple):
    """How the lesions stand out from their surroundings, in standard deviations of the head's grey values.

    ``here``: where the file has them. ``best``: the most in any other place, ``turn`` (of ``TURNS``) and ``away_mm``
    say which: within ``REACH_MM`` along each axis of where they lie, once reversed about the middle of the head.
    ``clear``: how far ``best`` lies above ``here``, in standard deviations over all these places.
    """

    here: float
    best: float
    turn: str
    away_mm: float
    clear: float


def standardised(image: npt.NDArray[Any], head: Mask) -> Floats:
    """The image in standard deviations from the head's median, ``CLIPPED``; 0 outside the head, which holds voxels."""
    inside = image[head].astype(np.float32)
    low, middle, high = np.percentile(inside, (25, 50, 75))
    spread = (high - low) / 1.349 or float(inside.std()) or 1.0
    found = np.zeros(image.shape, np.float32)
    found[head] = np.clip((inside - middle) / spread, *CLIPPED)
    return found


def place(
    shown: Mapping[str, Floats], parts: Mapping[str, Floats], head: Mask, spacing: tuple[float, ...]
) -> Place | None:
    """Where the lesions stand out.

    Arrays are 3D of one shape, their axes along R, A and S, ``spacing`` in mm. ``shown``: what a part of the lesions
    stands out on (``standardised``), by the name of the part; ``parts``: that part's share of every voxel. ``None``
    where no part holds anything within the box of the head, or nothing surrounds it.
    """
    if not head.any():
        return None
    box = ndimage.find_objects(head.astype(np.int8))[0]
    inside = {name: part[box] for name, part in parts.items() if part[box].any()}
    if not inside:
        return None
    around = ndimage.distance_transform_edt(~np.any(list(inside.values()), axis=0), sampling=spacing)
    shell = ((around > 0) & (around <= RIM_MM) & head[box]).astype(np.float32)
    if not shell.any():
        return None
    sizes = shell.shape
    reach = [min(int(REACH_MM / side), size - 1) for side, size in zip(spacing, sizes, strict=True)]
    shape = [fft.next_fast_len(size + far, real=True) for size, far in zip(sizes, reach, strict=True)]
    shifts = np.ix_(*(np.arange(-far, far + 1) for far in reach))  # a negative index is a negative shift
    spectra = {name: fft.rfftn(shown[name][box], shape) for name in inside}
    kernels = {name: part / part.sum() - shell / shell.sum() for name, part in inside.items()}
    scores = {}
    for turn, axes in TURNS.items():
        parted = [np.conj(fft.rfftn(np.flip(kernel, axes), shape)) * spectra[name] for name, kernel in kernels.items()]
        whole = np.sum(parted, axis=0)
        scores[turn] = fft.irfftn(whole, shape)[shifts] / len(kernels)
    here = float(scores["moved"][tuple(reach)])
    turn = max(scores, key=lambda name: scores[name].max())
    at = np.unravel_index(scores[turn].argmax(), scores[turn].shape)
    away = np.linalg.norm([(to - far) * side for to, far, side in zip(at, reach, spacing, strict=True)])
    best, noise = float(scores[turn].max()), float(np.std(list(scores.values()))) or 1.0
    return Place(here, best, turn, float(away), (best - here) / noise)
