"""Where a metastasis can sit in a preprocessed head: at the junction of grey and white matter, where that is known.

Metastases arrive with the blood and stay where arteries narrow: of 210 up to 2 cm in size 64% were at the junction
(Hwang et al., Cancer 1996;77:1551-5). On a T1 image fluid is dark, grey matter in between and white matter bright: the
smoothed values inside the head, away from its edge and from lesions, are split into three
classes, and the junction is where the upper two touch. Where a case has neither T1, any place inside will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

EDGE_MM = 3.0
"""No place is nearer to the edge of the head, or to a lesion: about the cortex' thickness."""
SMOOTHED_MM = 0.8
"""Standard deviation of the smoothing before the split."""
VENTRICLE_MM = 3.0
"""No place is nearer to fluid this thick: half fluid and half white matter looks like grey matter."""
VESSELS_ABOVE = 99.0
"""Percentile of the t1c inside the head, above which there are vessels, choroid plexus or what nobody labelled."""
MOST_PLACES = 20_000
"""Places that are kept of a case, evenly over all that there are: 160 kB."""
T1 = ("t1n", "t1c")
"""The sequences that tell grey from white matter, the better one first."""
NEIGHBOURS = np.ones((3, 3, 3), bool)


class Tissue(NamedTuple):
    """The values that brain tissue has on one sequence: no fluid below ``lowest``, no vessel above ``highest``."""

    channel: int
    lowest: float
    highest: float


class Places(NamedTuple):
    """Where lesions may go: voxels (place, axis) int16, and how far each is from edge and lesions, in mm.

    ``rule``: "grey-white junction on t1n" or "on t1c", or "anywhere inside". ``tissue``: what else must hold there.
    """

    voxels: npt.NDArray[np.int16]
    clearance_mm: npt.NDArray[np.float16]
    rule: str
    tissue: tuple[Tissue, ...]


def find_places(
    images: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    sequences: Sequence[str],
    spacing_mm: Sequence[float],
) -> Places:
    """The places of a case: ``images`` (sequence, ...) and ``labels`` (...), -1 outside the head, as preprocessed.

    ``sequences`` names the channels; one that is zero throughout is absent. ``spacing_mm`` is in the arrays' order of
    axes. A head that is all edge and lesion gives no place.
    """
    free = labels == 0
    clearance = ndimage.distance_transform_edt(np.pad(free, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    inside = clearance > EDGE_MM
    present = {name: index for index, name in enumerate(sequences) if images[index].any()}
    tissue, mask, rule = [], inside, "anywhere inside"
    if inside.any() and (guide := next((name for name in T1 if name in present), None)):
        junction, fluid_below = grey_white_junction(images[present[guide]], inside, spacing_mm)
        tissue.append(Tissue(present[guide], fluid_below, np.inf))
        if junction.any():
            mask, rule = junction, f"grey-white junction on {guide}"
    if inside.any() and "t1c" in present:
        highest = float(np.percentile(images[present["t1c"]][inside], VESSELS_ABOVE))
        tissue.append(Tissue(present["t1c"], -np.inf, highest))
    voxels = np.argwhere(mask)
    if len(voxels) > MOST_PLACES:
        voxels = voxels[np.linspace(0, len(voxels) - 1, MOST_PLACES).astype(int)]
    z, y, x = voxels.T
    return Places(voxels.astype(np.int16), clearance[z, y, x].astype(np.float16), rule, tuple(tissue))


def grey_white_junction(
    image: npt.NDArray[np.floating], inside: npt.NDArray[np.bool_], spacing_mm: Sequence[float]
) -> tuple[npt.NDArray[np.bool_], float]:
    """Where grey and white matter of a T1 image touch, and the value below which there is fluid.

    Marked are voxels of ``inside``, which may not be empty, with both kinds within a voxel and no thick fluid near.
    """
    smooth = ndimage.gaussian_filter(image.astype(np.float32, copy=False), [SMOOTHED_MM / mm for mm in spacing_mm])
    fluid_below, white_above = three_classes(smooth[inside])
    fluid, white = inside & (smooth < fluid_below), inside & (smooth >= white_above)
    grey = inside & ~fluid & ~white
    thick = ndimage.binary_opening(fluid, NEIGHBOURS)
    junction = ndimage.binary_dilation(white, NEIGHBOURS) & ndimage.binary_dilation(grey, NEIGHBOURS) & (grey | white)
    if thick.any():
        junction &= ndimage.distance_transform_edt(~thick, sampling=spacing_mm) > VENTRICLE_MM
    return junction, fluid_below


def three_classes(values: npt.NDArray[np.floating]) -> tuple[float, float]:
    """The two bounds that split ``values`` into three classes, each value nearest to its own class's mean.

    Lloyd's algorithm (k-means in one dimension), begun at the 10th, 40th and 80th percentiles; values are cut at
    their 1st and 99th, so that vessels make no class of their own.

    >>> three_classes(np.array([0.0, 0.2, 1.0, 1.2, 2.0, 2.2]))
    (0.6025, 1.5975)
    """
    low, *means, high = np.percentile(values, [1, 10, 40, 80, 99])
    cut = np.sort(np.clip(values, low, high).astype(np.float64))
    sums = np.concatenate([[0.0], np.cumsum(cut)])
    bounds = (means[0] + means[1]) / 2, (means[1] + means[2]) / 2
    for _ in range(100):
        ends = [0, *np.searchsorted(cut, bounds), len(cut)]
        means = [
            (sums[last] - sums[first]) / (last - first) if last > first else mean
            for first, last, mean in zip(ends, ends[1:], means, strict=False)
        ]
        before, bounds = bounds, ((means[0] + means[1]) / 2, (means[1] + means[2]) / 2)
        if np.allclose(before, bounds, rtol=0, atol=1e-6):
            break
    return round(float(bounds[0]), 6), round(float(bounds[1]), 6)
