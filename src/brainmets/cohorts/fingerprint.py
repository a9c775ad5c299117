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

from brainmets import nifti
from brainmets.cohorts.background import air_level

Sketch = npt.NDArray[np.uint64]


class Fingerprint(NamedTuple):
    """``values``: SHA-256 of the stored values, of large images of every n-th; ``patterns``: the sketch, empty for an
    image too small for one.
    """

    values: str
    patterns: Sketch


MARGIN = 3
"""Voxels at the edge of the volume that are no pattern's centre: patterns reach so far."""
SLAB = 2**16
"""Voxels that are looked at together."""
HASHED = 1_000_000
"""Values of an image that are hashed."""
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
    stored = np.asfortranarray(voxels)
    if min(stored.shape) <= 2 * MARGIN:
        return np.empty(0, np.uint64)
    along = np.array(nifti.to_ras(stored, affine)[0].strides) // stored.itemsize  # memory between R, A, S neighbours
    values = stored.ravel("F")
    peaks = _peaks(stored, values)
    pattern = np.zeros(len(peaks), np.uint64)
    around = [values[peaks + int(reach * step @ along)] for reach in (1, 2, 3) for step in _RING]
    for first, second in zip(around, around[13:] + around[:13], strict=True):
        pattern = _mixed(pattern * np.uint64(2) + (first > second).astype(np.uint64))
    return np.unique(pattern)[:SIZE]


def _peaks(stored: npt.NDArray[Any], values: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Where in memory (``values``) the voxels lie that outshine all 26 around them, off the margin and above the air.

    Most voxels fall at the first comparisons, so that few are compared with all: a filter would look at every one.
    These go slab by slab along memory, since what has left the processor's cache costs more than to compare it.
    """
    along = np.array(stored.strides) // stored.itemsize
    level, row, plane = air_level(stored), int(along[1]), int(along[2])
    end = len(values) - MARGIN * plane
    found: list[npt.NDArray[np.intp]] = [np.empty(0, np.intp)]
    for begin in range(MARGIN * plane, end, SLAB):
        stop = min(begin + SLAB, end)
        here = values[begin:stop]
        high = here > level
        if not high.any():
            continue
        for away in (-1, 1, -row, row, -plane, plane):
            high &= here > values[begin + away : stop + away]
        found.append(np.flatnonzero(high) + begin)
    places = np.concatenate(found)
    for step in _RING:
        places = places[values[places] > values[places + int(step @ along)]]
    across, down = places % row, places % plane // row
    inner = (across >= MARGIN) & (across < row - MARGIN) & (down >= MARGIN) & (down < plane // row - MARGIN)
    return places[inner]


def fingerprint(voxels: npt.NDArray[Any], affine: nifti.Affine) -> Fingerprint:
    """The fingerprint of a volume (3D): a hash of its stored values, and the sketch of its patterns."""
    some = np.asfortranarray(voxels).ravel("F")[:: max(1, voxels.size // HASHED)]
    return Fingerprint(hashlib.sha256(np.ascontiguousarray(some).data).hexdigest(), sketch(voxels, affine))


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
