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
from brainmets.scoring.boxes import Index

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.integer]
"""Lesion numbers of voxels, 0 outside lesions."""

NEAR_OFFSETS = 160
"""Lattice offsets that are tried before a k-d tree is asked: most surfaces lie a voxel or two apart."""
NEAR_BLOCK = 6
"""Offsets that are tried together before the points that were found leave the search."""
REACH = 4
"""Lattice steps along an axis that the near offsets may reach."""


@dataclass(frozen=True)
class Surface:
    """A mask's surface of n points.

    ``points`` (3, n): lattice indices in the image; ``weights`` (n): mm^2, or 1 for border voxels; ``lesions`` (n):
    the number of the lesion that the point belongs to, from 1.
    """

    points: Ints
    weights: Floats
    lesions: Ints

    def __len__(self) -> int:
        return len(self.weights)

    def of(self, chosen: Ints) -> Surface:
        """The points with the chosen indices."""
        return Surface(self.points[:, chosen], self.weights[chosen], self.lesions[chosen])


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances in mm from each point of a surface to the nearest of another, and the lesion which that belongs to."""

    distances: Floats
    lesions: Ints


@dataclass(frozen=True)
class SurfacePair:
    """Two surfaces, and from each the nearest points of the other."""

    reference: Surface
    prediction: Surface
    to_prediction: SurfaceDistances
    to_reference: SurfaceDistances

    @classmethod
    def measure(cls, reference: Surface, prediction: Surface, spacing: Spacing) -> SurfacePair:
        """Find the nearest points both ways; ``spacing`` in mm per axis."""
        there, back = nearest_points(reference, prediction, spacing), nearest_points(prediction, reference, spacing)
        return cls(reference, prediction, there, back)


@lru_cache(maxsize=16)
def _areas(spacing: Spacing) -> Floats:
    """Area in mm^2 of each of the 256 neighbourhood codes."""
    return np.asarray(lookup_tables.create_table_neighbour_code_to_surface_area(spacing), dtype=np.float64)


def surface_elements(lesions: Numbers, origin: Index, spacing: Spacing, first_lesion: int = 1) -> Surface:
    """Surface elements of the mask ``lesions > 0`` (3D).

    ``lesions`` numbers the mask's components from 1; the surface counts them on from ``first_lesion``. ``origin`` is
    the image index of the first voxel. An empty mask gives an empty surface. Point (i, j, k) is the corner before
    voxel (i, j, k); its code is a byte with one bit per neighbouring voxel.
    """
    numbers = np.pad(lesions, 1)
    padded = (numbers > 0).view(np.uint8)
    codes = (padded[:, :, :-1] << 1) | padded[:, :, 1:]
    codes = (codes[:, :-1] << 2) | codes[:, 1:]
    codes = ((codes[:-1] << 4) | codes[1:]).reshape(-1)
    # codes 0 (all outside) and 255 (all inside) are no surface; subtracting 1 wraps 0 to 255
    chosen = np.flatnonzero((codes - np.uint8(1)) < 254)
    points = np.stack(np.unravel_index(chosen, [side - 1 for side in numbers.shape]))
    # the lesion among the eight voxels around each corner: there is only one, since components do not touch
    flat, row, plane = numbers.reshape(-1), numbers.shape[2], numbers.shape[1] * numbers.shape[2]
    corner = points[0] * plane + points[1] * row + points[2]
    owner = flat[corner]
    for step in (1, row, row + 1, plane, plane + 1, plane + row, plane + row + 1):
        np.maximum(owner, flat.take(corner + step), out=owner)
    return Surface(
        points + np.array([origin]).T, _areas(spacing)[codes[chosen]], owner.astype(np.int64) + (first_lesion - 1)
    )


def border_voxels(lesions: Numbers, origin: Index, first_lesion: int = 1) -> Surface:
    """Voxels of ``lesions > 0`` with a face neighbour outside it, where outside the image counts as outside.

    Arguments as in ``surface_elements``.
    """
    mask = lesions > 0
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1, 1:-1] & padded[2:, 1:-1, 1:-1]
    inner &= padded[1:-1, :-2, 1:-1] & padded[1:-1, 2:, 1:-1]
    inner &= padded[1:-1, 1:-1, :-2] & padded[1:-1, 1:-1, 2:]
    points = np.stack(np.nonzero(mask & ~inner))
    numbers = lesions[tuple(points)].astype(np.int64) + (first_lesion - 1)
    return Surface(points + np.array([origin]).T, np.ones(len(numbers)), numbers)


def join(surfaces: list[Surface]) -> Surface:
    """All points of several surfaces as one; no surface gives an empty one."""
    surfaces = [Surface(np.zeros((3, 0), np.int64), np.zeros(0), np.zeros(0, np.int64)), *surfaces]
    return Surface(
        np.concatenate([surface.points for surface in surfaces], axis=1),
        np.concatenate([surface.weights for surface in surfaces]),
        np.concatenate([surface.lesions for surface in surfaces]),
    )


@lru_cache(maxsize=16)
def _near_offsets(spacing: Spacing) -> tuple[Ints, list[float]]:
    """The lattice offsets (3, n) nearest to zero, zero left out, sorted by their length in mm, and the lengths.

    Only offsets within a sphere that the searched cube holds whole are kept, so that none nearer is left out.
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
    distances, lesions = _near_points(surface.points, other.points, other.lesions, spacing)
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

    ``found`` holds the distances to all of ``other``: one is kept where its point belongs to an allowed lesion, and
    only the rest is searched again. ``allowed`` must hold whole lesions.
    """
    distances = found.distances[chosen]
    elsewhere = np.ones(int(other.lesions.max(initial=0)) + 1, dtype=bool)
    elsewhere[other.lesions[allowed]] = False
    again = elsewhere[found.lesions[chosen]]
    if again.any():
        distances[again] = nearest_points(surface.of(chosen[again]), other.of(allowed), spacing).distances
    return distances


def weighted_percentile(distances: Floats, weights: Floats, percent: float) -> float:
    """The smallest distance within which ``percent`` % of the surface's area lies; infinite for an empty surface.

    DeepMind's rule: elements sorted by distance, then area; the first whose cumulated share reaches the percentage.

    >>> weighted_percentile(np.array([3.0, 1.0, 2.0]), np.array([1.0, 6.0, 3.0]), 61)
    2.0
    """
    if not len(distances):
        return float("inf")
    order = np.lexsort((weights, distances))
    cumulated = np.cumsum(weights[order]) / weights.sum()
    position = int(np.searchsorted(cumulated, percent / 100))
    return float(distances[order[min(position, len(order) - 1)]])
