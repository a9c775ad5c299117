"""A small fingerprint of an image's content, to find a scan that occurs twice, disguised or not.

The fingerprint is a bottom-k sketch (Broder, Compression and Complexity of Sequences (1997) 21-29) of the image's
local patterns: at every local maximum inside the head, which of its neighbours are brighter than which. That survives
another data type, a linear or monotone change of intensity, axes stored in another order, cropping, a changed voxel.
Two different scans share next to none of these patterns. A scan that was resampled to another grid, or rounded to a
few grey levels, has other patterns and is not recognised.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brainmets import nifti
from brainmets.cohorts.background import air_level

Sketch = npt.NDArray[np.uint64]


class Fingerprint(NamedTuple):
    """``values``: SHA-256 of the stored values; ``patterns``: the sketch, empty for an image too small for one."""

    values: str
    patterns: Sketch


SIZE = 512
"""Hashes that a sketch keeps: the standard error of a similarity s is sqrt(s (1 - s) / 512), 0.02 at the most."""
SAME = 0.05
"""Similarity from which two sketches are of one scan: far above any two different scans seen (0.004 at the most
among real scans and phantoms), below the disguises that the first lines name (0.4 and more)."""

FEWEST = 8
"""Patterns that two sketches must share."""

_RING = [np.array(step) for step in product((-1, 0, 1), repeat=3) if any(step)]


def sketch(voxels: npt.NDArray[Any], affine: nifti.Affine) -> Sketch:
    """The fingerprint of a volume (3D): at most ``SIZE`` hashes in rising order, fewer for a small image.

    An image without a local maximum (constant, or thinner than seven voxels) gives an empty sketch.
    """
    image, _ = nifti.to_ras(np.asarray(voxels), affine)
    margin = 3
    if min(image.shape) <= 2 * margin:
        return np.empty(0, np.uint64)
    core = tuple(slice(margin, -margin) for _ in range(3))
    peaks = (image == ndimage.maximum_filter(image, 3)) & (image > air_level(image))
    places = np.argwhere(peaks[core]) + margin
    values = image[tuple(places.T)]
    pattern = np.zeros(len(places), np.uint64)
    around = [image[tuple((places + reach * step).T)] for reach in (1, 2, 3) for step in _RING]
    for first, second in zip(around, around[13:] + around[:13], strict=True):
        pattern = _mixed(pattern * np.uint64(2) + (first > second).astype(np.uint64))
    strict = np.max(around[:26], axis=0) < values if len(places) else np.zeros(0, bool)
    return np.unique(pattern[strict])[:SIZE]


def fingerprint(voxels: npt.NDArray[Any], affine: nifti.Affine) -> Fingerprint:
    """The fingerprint of a volume (3D): a hash of its stored values, and the sketch of its patterns."""
    return Fingerprint(hashlib.sha256(np.ascontiguousarray(voxels).tobytes()).hexdigest(), sketch(voxels, affine))


def pairs_of_one_scan(prints: Sequence[Fingerprint]) -> list[tuple[int, int]]:
    """Places (first, second) in ``prints`` of every two fingerprints that are of one scan, in rising order.

    Two are where their values are equal, or where their sketches are similar and share enough patterns for that not
    to be chance in a small image.
    """
    holders: dict[int | str, list[int]] = {}
    for place, one in enumerate(prints):
        for name in (one.values, *one.patterns.tolist()):
            holders.setdefault(name, []).append(place)
    shared: Counter[tuple[int, int]] = Counter()
    for places in holders.values():
        shared.update(combinations(places, 2))
    return sorted(
        (first, second)
        for (first, second), count in shared.items()
        if prints[first].values == prints[second].values
        or (count >= FEWEST and similarity(prints[first].patterns, prints[second].patterns) >= SAME)
    )


def similarity(first: Sketch, second: Sketch) -> float:
    """Estimated share of patterns that both images have (Jaccard), 0 to 1; 0 where one sketch is empty."""
    union = np.union1d(first, second)[: min(len(first), len(second))]
    if not len(union):
        return 0.0
    return float(np.isin(union, np.intersect1d(first, second)).mean())


def _mixed(values: Sketch) -> Sketch:
    """splitmix64's finaliser: every bit of a pattern spreads over the whole hash."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
