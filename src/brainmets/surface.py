"""Surfaces of masks, and distances between them in mm.

Two surfaces are in use in this field, and they give different numbers:

* surface elements ("surfels", DeepMind's surface-distance, Nikolov et al. 2021, arXiv:1809.04430): points on the
  corners between voxels, each weighing the area in mm^2 that marching cubes gives its 2x2x2 neighbourhood;
* border voxels: voxels of the mask with a face neighbour outside it, all weighing the same.

Both are local: an element belongs to one 26-connected component, so that a lesion's surface is a selection of its
region's surface. Points are lattice indices, axes as the mask's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from surface_distance import lookup_tables

from brainmets.foreground import Mask

Spacing = tuple[float, float, float]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NEAR_OFFSETS = 96
"""Lattice offsets that are tried one by one before a k-d tree is asked: most surfaces lie a voxel or two apart."""


@dataclass(frozen=True)
class Surface:
    """Points (n, 3) on the lattice, each one's weight (mm^2, or 1 for border voxels), and the lesion it belongs to."""

    points: Ints
    weights: Floats
    lesions: Ints

    def __len__(self) -> int:
        return len(self.points)

    def of(self, chosen: Ints) -> Surface:
        """The points with the chosen indices."""
        return Surface(self.points[chosen], self.weights[chosen], self.lesions[chosen])


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances in mm from each point of a surface to the nearest point of another, and which point that is."""

    distances: Floats
    nearest: Ints


@lru_cache(maxsize=16)
def _areas(spacing: Spacing) -> Floats:
    """Area in mm^2 of each of the 256 neighbourhood codes."""
    return np.asarray(lookup_tables.create_table_neighbour_code_to_surface_area(spacing), dtype=np.float64)


def surface_elements(
    mask: Mask, lesions: npt.NDArray[np.integer], origin: tuple[int, ...], spacing: Spacing
) -> Surface:
    """Surface elements of a 3D mask whose voxel [0, 0, 0] is voxel ``origin`` of the image.

    ``lesions`` numbers the mask's components (same shape, 0 outside). An empty mask gives an empty surface. Point
    (i, j, k) is the corner before voxel (i, j, k); its code is a byte with one bit per neighbouring voxel.
    """
    padded = np.zeros([n + 2 for n in mask.shape], dtype=np.uint8)
    padded[1:-1, 1:-1, 1:-1] = mask
    codes = (padded[:, :, :-1] << 1) | padded[:, :, 1:]
    codes = (codes[:, :-1] << 2) | codes[:, 1:]
    codes = (codes[:-1] << 4) | codes[1:]
    flat = codes.reshape(-1)
    # codes 0 (all outside) and 255 (all inside) are no surface; subtracting 1 wraps 0 to 255
    chosen = np.flatnonzero((flat - np.uint8(1)) < 254)
    points = np.stack(np.unravel_index(chosen, codes.shape), axis=1)
    weights = _areas(spacing)[flat[chosen]]
    numbers = np.zeros(padded.shape, dtype=lesions.dtype)
    numbers[1:-1, 1:-1, 1:-1] = lesions
    corner = np.ravel_multi_index(tuple(points.T), padded.shape)
    _, rows, columns = padded.shape
    owner = np.zeros(len(corner), dtype=lesions.dtype)
    for step in (0, 1, columns, columns + 1):
        for plane in (0, rows * columns):
            np.maximum(owner, numbers.reshape(-1)[corner + step + plane], out=owner)
    return Surface(points + np.asarray(origin), weights, owner.astype(np.int64))


def border_voxels(mask: Mask, lesions: npt.NDArray[np.integer], origin: tuple[int, ...]) -> Surface:
    """Voxels of a 3D mask with at least one face neighbour outside it (outside the image counts as outside)."""
    padded = np.zeros([n + 2 for n in mask.shape], dtype=bool)
    padded[1:-1, 1:-1, 1:-1] = mask
    inner = padded[:-2, 1:-1, 1:-1] & padded[2:, 1:-1, 1:-1]
    inner &= padded[1:-1, :-2, 1:-1] & padded[1:-1, 2:, 1:-1]
    inner &= padded[1:-1, 1:-1, :-2] & padded[1:-1, 1:-1, 2:]
    chosen = np.flatnonzero(mask & ~inner)
    points = np.stack(np.unravel_index(chosen, mask.shape), axis=1) + np.asarray(origin)
    return Surface(points, np.ones(len(points)), lesions.reshape(-1)[chosen].astype(np.int64))


def join(surfaces: list[Surface]) -> Surface:
    """All points of several surfaces as one; no surface gives an empty one."""
    if not surfaces:
        return Surface(np.zeros((0, 3), dtype=np.int64), np.zeros(0), np.zeros(0, dtype=np.int64))
    return Surface(
        np.concatenate([surface.points for surface in surfaces]),
        np.concatenate([surface.weights for surface in surfaces]),
        np.concatenate([surface.lesions for surface in surfaces]),
    )


@lru_cache(maxsize=16)
def _near_offsets(spacing: Spacing) -> Ints:
    """The lattice offsets nearest to zero, zero included, sorted by their length in mm.

    Only offsets within a sphere that the searched cube holds whole are kept, so that none nearer is left out.
    """
    reach = 6
    axis = np.arange(-reach, reach + 1)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    lengths = np.sqrt(((grid * np.asarray(spacing)) ** 2).sum(axis=1))
    order = np.argsort(lengths, kind="stable")
    within = order[lengths[order] <= reach * min(spacing)]
    return grid[within[:NEAR_OFFSETS]]


def nearest_points(surface: Surface, other: Surface, spacing: Spacing) -> SurfaceDistances:
    """For each point of ``surface`` the nearest point of ``other``; exact, for anisotropic spacing too.

    An empty ``other`` gives infinite distances and -1. Cost: a look-up per near offset for points that have a
    neighbour within it, a k-d tree query for the others.
    """
    nearest = np.full(len(surface), -1, dtype=np.int64)
    if not len(surface) or not len(other):
        return SurfaceDistances(np.full(len(surface), np.inf), nearest)
    offsets = _near_offsets(spacing)
    margin = np.abs(offsets).max(axis=0)
    low = np.minimum(surface.points.min(axis=0), other.points.min(axis=0)) - margin
    shape = np.maximum(surface.points.max(axis=0), other.points.max(axis=0)) + margin + 1 - low
    strides = np.array([shape[1] * shape[2], shape[2], 1], dtype=np.int64)
    # untouched pages of this array are never materialised
    index = np.zeros(int(shape.prod()), dtype=np.int32)
    index[(other.points - low) @ strides] = np.arange(1, len(other) + 1, dtype=np.int32)
    keys = (surface.points - low) @ strides
    left = np.arange(len(surface))
    for step in (offsets @ strides).tolist():
        found = index[keys + step]
        hit = found > 0
        if hit.any():
            nearest[left[hit]] = found[hit] - 1
            missed = ~hit
            left, keys = left[missed], keys[missed]
        if not len(left):
            break
    if len(left):
        scale = np.asarray(spacing)
        tree = cKDTree(other.points * scale, balanced_tree=False, compact_nodes=False)
        nearest[left] = tree.query(surface.points[left] * scale)[1]
    steps = (surface.points - other.points[nearest]) * np.asarray(spacing)
    return SurfaceDistances(np.sqrt((steps * steps).sum(axis=1)), nearest)


def restricted(
    surface: Surface, chosen: Ints, other: Surface, allowed: Ints, found: SurfaceDistances, spacing: Spacing
) -> Floats:
    """Distances in mm from the ``chosen`` points of ``surface`` to the ``allowed`` points (indices) of ``other``.

    ``found`` are the nearest points among all of ``other``: a distance stands where its point belongs to an allowed
    lesion, and only the rest is searched again. ``allowed`` must hold whole lesions.
    """
    distances = found.distances[chosen]
    wanted = np.unique(other.lesions[allowed])
    again = ~np.isin(other.lesions[found.nearest[chosen]], wanted)
    if again.any():
        distances[again] = nearest_points(surface.of(chosen[again]), other.of(allowed), spacing).distances
    return distances


def weighted_percentile(distances: Floats, weights: Floats, percent: float) -> float:
    """The smallest distance within which ``percent`` % of the surface's area lies; infinite for an empty surface.

    DeepMind's rule: elements sorted by distance, then area; the first whose cumulated share reaches the percentage.
    """
    if not len(distances):
        return float("inf")
    order = np.lexsort((weights, distances))
    cumulated = np.cumsum(weights[order]) / weights.sum()
    position = int(np.searchsorted(cumulated, percent / 100.0))
    return float(distances[order[min(position, len(order) - 1)]])
