"""Surfaces of masks, and distances between them in mm.

Two surfaces are in use in this field, and they give different numbers:

* surface elements ("surfels", DeepMind's surface-distance, Nikolov et al. 2021, arXiv:1809.04430): points on the
  corners between voxels, each weighing the area in mm^2 that marching cubes gives its 2x2x2 neighbourhood;
* border voxels: voxels of the mask with a face neighbour outside it, all weighing the same.

Both are local: an element belongs to one 26-connected component, so that a lesion's surface is a selection of its
region's surface. Points are lattice indices, one row per axis of the mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from surface_distance import lookup_tables

from brainmets.nifti import Spacing
from brainmets.scoring.boxes import Mask

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NEAR_OFFSETS = 160
"""Lattice offsets that are tried before a k-d tree is asked: most surfaces lie a voxel or two apart."""
NEAR_BLOCK = 6
"""Offsets that are tried together before the points that were found leave the search."""
REACH = 4
"""Points of different boxes are at least this many lattice steps apart on some axis (``foreground.CELL``)."""


@dataclass(frozen=True)
class Place:
    """Where a crop lies: ``origin``, the image index of its first voxel, and ``packed``, its place in a small space.

    In the packed space crops lie side by side, at least ``REACH`` steps apart, so that near points can be looked up
    in an array that is not much larger than the crops.
    """

    origin: tuple[int, int, int]
    packed: tuple[int, int, int]


SORTED_WHOLE = 4096
"""Up to this many points a percentile sorts them all."""


class Packing:
    """Gives the crops of one region their places in the packed space, one after the other on the first axis."""

    def __init__(self) -> None:
        self._next = 0

    def place(self, origin: tuple[int, int, int], length: int) -> Place:
        """The place of a crop with ``length`` voxels on the first axis."""
        packed = (self._next, 0, 0)
        self._next += length + 1 + REACH
        return Place(origin, packed)


@dataclass(frozen=True)
class Surface:
    """A mask's surface of n points.

    ``points`` (3, n): lattice indices in the image; ``packed`` (3, n): the same in the packed space; ``weights`` (n):
    mm^2, or 1 for border voxels; ``lesions`` (n): the number of the lesion that the point belongs to, from 1.
    """

    points: Ints
    packed: Ints
    weights: Floats
    lesions: Ints

    def __len__(self) -> int:
        return len(self.weights)

    def of(self, chosen: Ints) -> Surface:
        """The points with the chosen indices."""
        return Surface(self.points[:, chosen], self.packed[:, chosen], self.weights[chosen], self.lesions[chosen])


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances in mm from each point of a surface to the nearest of another, and the lesion which that belongs to."""

    distances: Floats
    lesions: Ints


@lru_cache(maxsize=16)
def _areas(spacing: Spacing) -> Floats:
    """Area in mm^2 of each of the 256 neighbourhood codes."""
    return np.asarray(lookup_tables.create_table_neighbour_code_to_surface_area(spacing), dtype=np.float64)


def surface_elements(
    mask: Mask, lesions: npt.NDArray[np.integer], first_lesion: int, place: Place, spacing: Spacing
) -> Surface:
    """Surface elements of a 3D mask.

    ``lesions`` numbers the mask's components from 1 (same shape, 0 outside); the surface counts them on from
    ``first_lesion``. An empty mask gives an empty surface. Point (i, j, k) is the corner before voxel (i, j, k); its
    code is a byte with one bit per neighbouring voxel.
    """
    padded = np.zeros([n + 2 for n in mask.shape], dtype=np.uint8)
    padded[1:-1, 1:-1, 1:-1] = mask
    codes = (padded[:, :, :-1] << 1) | padded[:, :, 1:]
    codes = (codes[:, :-1] << 2) | codes[:, 1:]
    codes = (codes[:-1] << 4) | codes[1:]
    flat = codes.reshape(-1)
    # codes 0 (all outside) and 255 (all inside) are no surface; subtracting 1 wraps 0 to 255
    chosen = np.flatnonzero((flat - np.uint8(1)) < 254)
    points = np.stack(np.unravel_index(chosen, codes.shape))
    return Surface(
        points + np.array([place.origin]).T,
        points + np.array([place.packed]).T,
        _areas(spacing)[flat[chosen]],
        _owners(lesions, points) + (first_lesion - 1),
    )


def _owners(lesions: npt.NDArray[np.integer], corners: Ints) -> Ints:
    """The lesion among the eight voxels around each corner; there is only one, since components do not touch."""
    numbers = np.zeros([n + 2 for n in lesions.shape], dtype=lesions.dtype)
    numbers[1:-1, 1:-1, 1:-1] = lesions
    flat = numbers.reshape(-1)
    row, plane = numbers.shape[2], numbers.shape[1] * numbers.shape[2]
    corner = corners[0] * plane + corners[1] * row + corners[2]
    owner = flat[corner]
    for step in (1, row, row + 1, plane, plane + 1, plane + row, plane + row + 1):
        np.maximum(owner, flat.take(corner + step), out=owner)
    return owner.astype(np.int64)


def border_voxels(mask: Mask, lesions: npt.NDArray[np.integer], first_lesion: int, place: Place) -> Surface:
    """Voxels of a 3D mask with at least one face neighbour outside it (outside the image counts as outside)."""
    padded = np.zeros([n + 2 for n in mask.shape], dtype=bool)
    padded[1:-1, 1:-1, 1:-1] = mask
    inner = padded[:-2, 1:-1, 1:-1] & padded[2:, 1:-1, 1:-1]
    inner &= padded[1:-1, :-2, 1:-1] & padded[1:-1, 2:, 1:-1]
    inner &= padded[1:-1, 1:-1, :-2] & padded[1:-1, 1:-1, 2:]
    chosen = np.flatnonzero(mask & ~inner)
    points = np.stack(np.unravel_index(chosen, mask.shape))
    return Surface(
        points + np.array([place.origin]).T,
        points + np.array([place.packed]).T,
        np.ones(len(chosen)),
        lesions.reshape(-1)[chosen].astype(np.int64) + (first_lesion - 1),
    )


def join(surfaces: list[Surface]) -> Surface:
    """All points of several surfaces as one; no surface gives an empty one."""
    nowhere = np.zeros((3, 0), dtype=np.int64)
    surfaces = [Surface(nowhere, nowhere, np.zeros(0), np.zeros(0, dtype=np.int64)), *surfaces]
    return Surface(
        np.concatenate([surface.points for surface in surfaces], axis=1),
        np.concatenate([surface.packed for surface in surfaces], axis=1),
        np.concatenate([surface.weights for surface in surfaces]),
        np.concatenate([surface.lesions for surface in surfaces]),
    )


@lru_cache(maxsize=16)
def _near_offsets(spacing: Spacing) -> tuple[Ints, list[float]]:
    """The lattice offsets (3, n) nearest to zero, zero left out, sorted by their length in mm, and the lengths.

    Only offsets within a sphere that the searched cube holds whole are kept, so that none nearer is left out; they
    reach no other box.
    """
    axis = np.arange(-REACH, REACH + 1)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij")).reshape(3, -1)
    lengths = _lengths(grid, spacing)
    order = np.argsort(lengths, kind="stable")
    within = order[lengths[order] < REACH * min(spacing)][1 : NEAR_OFFSETS + 1]
    return grid[:, within], lengths[within].tolist()


def _lengths(steps: npt.NDArray[np.integer], spacing: Spacing) -> Floats:
    """Lengths in mm of lattice steps (3, n)."""
    x, y, z = (step * side for step, side in zip(steps, spacing, strict=True))
    return np.asarray(np.sqrt(x * x + y * y + z * z))


def nearest_points(surface: Surface, other: Surface, spacing: Spacing) -> SurfaceDistances:
    """For each point of ``surface`` the distance to the nearest point of ``other``; exact for any spacing.

    An empty ``other`` gives infinite distances and lesion 0. Cost: a few look-ups for points that have a neighbour
    within the near offsets, a k-d tree query for the others.
    """
    if not len(surface) or not len(other):
        return SurfaceDistances(np.full(len(surface), np.inf), np.zeros(len(surface), dtype=np.int64))
    distances, lesions = _near_points(surface.packed, other.packed, other.lesions, spacing)
    far = np.flatnonzero(lesions == 0)
    if len(far):
        scale = np.array([spacing]).T
        tree = cKDTree((other.points * scale).T, leafsize=64, balanced_tree=False, compact_nodes=False)
        nearest = tree.query((surface.points[:, far] * scale).T)[1]
        lesions[far] = other.lesions[nearest]
        distances[far] = _lengths(surface.points[:, far] - other.points[:, nearest], spacing)
    return SurfaceDistances(distances, lesions)


def _near_points(points: Ints, others: Ints, numbers: Ints, spacing: Spacing) -> tuple[Floats, Ints]:
    """Distance to the nearest of ``others`` among the near offsets, and its number (from 1); number 0 where none is.

    Offsets are tried in blocks of growing distance; within a block from the furthest to the nearest, so that the
    nearest is written last.
    """
    offsets, lengths = _near_offsets(spacing)
    low = np.minimum(points.min(axis=1), others.min(axis=1)) - REACH
    shape = np.maximum(points.max(axis=1), others.max(axis=1)) + REACH + 1 - low
    strides = (int(shape[1] * shape[2]), int(shape[2]))

    def key(lattice: Ints) -> Ints:
        return lattice[0] * strides[0] + lattice[1] * strides[1] + lattice[2]

    start = int(key(low))
    # pages of this array that nothing touches are never materialised, and small numbers touch fewer
    owner = np.zeros(int(shape.prod()), dtype=np.min_scalar_type(numbers.max()))
    owner[key(others) - start] = numbers
    keys = key(points) - start
    found = owner.take(keys)
    distances = np.zeros(len(keys))
    left = np.flatnonzero(found == 0)
    keys = keys[left]
    steps = key(offsets).tolist()
    for first in range(0, len(steps), NEAR_BLOCK):
        if not len(left):
            break
        best, length = np.zeros(len(left), dtype=owner.dtype), np.zeros(len(left))
        for i in reversed(range(first, min(first + NEAR_BLOCK, len(steps)))):
            number = owner.take(keys + steps[i])
            hit = number > 0
            np.copyto(best, number, where=hit)
            np.copyto(length, lengths[i], where=hit)
        found[left], distances[left] = best, length
        missed = np.flatnonzero(best == 0)
        left, keys = left[missed], keys[missed]
    return distances, found.astype(np.int64)


def restricted(
    surface: Surface, chosen: Ints, other: Surface, allowed: Ints, found: SurfaceDistances, spacing: Spacing
) -> Floats:
    """Distances in mm from the ``chosen`` points of ``surface`` to the ``allowed`` points (indices) of ``other``.

    ``found`` are the distances to all of ``other``: one stands where its point belongs to an allowed lesion, and only
    the rest is searched again. ``allowed`` must hold whole lesions.
    """
    distances = found.distances[chosen]
    again = _unknown(chosen, other, allowed, found)
    if again.any():
        distances[again] = nearest_points(surface.of(chosen[again]), other.of(allowed), spacing).distances
    return distances


def restricted_percentile(
    surface: Surface,
    chosen: Ints,
    other: Surface,
    allowed: Ints,
    found: SurfaceDistances,
    spacing: Spacing,
    percent: float,
) -> float:
    """``weighted_percentile`` of the distances in mm that ``restricted`` gives.

    Only points that may lie at the percentile are searched for. A large predicted surface that matches many small
    lesions would otherwise be searched whole for each of them.
    """
    least = found.distances[chosen]
    weights = surface.weights[chosen]
    unknown = np.flatnonzero(_unknown(chosen, other, allowed, found))
    if len(unknown):
        # a point is no further from the allowed points than from any one of them, and nearer by their reach at most;
        # what stays below or above the percentile either way may stay at its least
        one = other.points[:, allowed[[len(allowed) // 2]]]
        reach = _lengths(other.points[:, allowed] - one, spacing).max()
        most = least.copy()
        most[unknown] = _lengths(surface.points[:, chosen[unknown]] - one, spacing)
        least[unknown] = np.maximum(least[unknown], most[unknown] - reach)
        low, high = weighted_percentile(least, weights, percent), weighted_percentile(most, weights, percent)
        deciding = unknown[(most[unknown] >= low) & (least[unknown] <= high)]
        least[deciding] = restricted(surface, chosen[deciding], other, allowed, found, spacing)
    return weighted_percentile(least, weights, percent)


def _unknown(chosen: Ints, other: Surface, allowed: Ints, found: SurfaceDistances) -> Mask:
    """Which of the ``chosen`` points were found to lie nearest to another lesion than those of ``allowed``."""
    unknown = np.ones(int(other.lesions.max(initial=0)) + 1, dtype=bool)
    unknown[other.lesions[allowed]] = False
    return unknown[found.lesions[chosen]]


def weighted_percentile(distances: Floats, weights: Floats, percent: float) -> float:
    """The smallest distance within which ``percent`` % of the surface's area lies; infinite for an empty surface.

    DeepMind's rule: elements sorted by distance, then area; the first whose cumulated share reaches the percentage.
    """
    if not len(distances):
        return float("inf")
    total, share = weights.sum(), percent / 100.0
    base = 0.0
    while len(distances) > SORTED_WHOLE:
        # cut at some distance, and go on with the side on which the percentage is reached
        place = int(0.8 * len(distances))
        limit = np.partition(distances, place)[place]
        nearer, further = distances < limit, distances > limit
        below = base + weights[nearer].sum()
        if below / total >= share:
            distances, weights = distances[nearer], weights[nearer]
            continue
        base = below + weights[distances == limit].sum()
        if base / total >= share or not further.any():
            return float(limit)
        distances, weights = distances[further], weights[further]
    order = np.lexsort((weights, distances))
    cumulated = (base + np.cumsum(weights[order])) / total
    position = int(np.searchsorted(cumulated, share))
    return float(distances[order[min(position, len(order) - 1)]])
