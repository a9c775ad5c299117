"""A healthy head for a phantom: the MNI152 tissue maps, bent into one patient's shape on one scanner's grid.

The maps (T1, grey matter, white matter, brain mask; ICBM 152 non-linear symmetric 2009a, 1 mm) are the copies that
nilearn ships, so nothing is downloaded. Arrays are in (x, y, z) order, their axes along R, A and S.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from nilearn import datasets
from scipy import ndimage

Floats = npt.NDArray[np.float32]

BRAIN_CENTRE_MM = np.array([0.0, -17.0, 5.0])
"""Middle of the template's brain, MNI mm."""
HEAD_REACH_MM = np.array([84.0, 104.0, 86.0])
"""Half the box that holds any bent brain."""


@dataclass(frozen=True)
class Grid:
    """A regular grid whose axes run along R, A and S. ``origin_mm`` is the centre of voxel (0, 0, 0)."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """4x4 voxel-to-mm matrix."""
        affine = np.diag([*self.spacing_mm, 1.0])
        affine[:3, 3] = self.origin_mm
        return affine

    @property
    def mean_spacing_mm(self) -> float:
        """Cube root of the voxel volume."""
        return float(np.prod(self.spacing_mm) ** (1 / 3))

    def axis(self, i: int) -> Floats:
        """Voxel centres along axis ``i`` in mm."""
        return (self.origin_mm[i] + self.spacing_mm[i] * np.arange(self.shape[i])).astype(np.float32)

    def box(self, centre_mm: npt.ArrayLike, reach_mm: npt.ArrayLike) -> tuple[slice, slice, slice]:
        """The voxels within ``reach_mm`` of ``centre_mm`` along each axis, cut at the grid's edges."""
        centre, reach = np.asarray(centre_mm, dtype=np.float64), np.asarray(reach_mm, dtype=np.float64)
        low = (centre - reach - self.origin_mm) / self.spacing_mm
        high = (centre + reach - self.origin_mm) / self.spacing_mm
        first = np.clip(np.ceil(low), 0, np.array(self.shape) - 1).astype(int)
        last = np.clip(np.floor(high), first, np.array(self.shape) - 1).astype(int)
        x, y, z = (slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True))
        return x, y, z

    def crop(self, box: tuple[slice, slice, slice]) -> Grid:
        """The part of the grid in ``box``."""
        x, y, z = (s.stop - s.start for s in box)
        a, b, c = (o + d * s.start for o, d, s in zip(self.origin_mm, self.spacing_mm, box, strict=True))
        return Grid((x, y, z), self.spacing_mm, (a, b, c))


@dataclass(frozen=True)
class Anatomy:
    """Fractions 0..1 of the three tissues per voxel, the brain mask, and the template's T1 detail beyond them."""

    csf: Floats
    grey: Floats
    white: Floats
    detail: Floats
    brain: npt.NDArray[np.bool_]


def bend_template(rng: np.random.Generator, grid: Grid, centre_mm: npt.ArrayLike) -> Anatomy:
    """A random head whose brain sits at ``centre_mm`` of ``grid``.

    Scaled by 0.92 to 1.02 along each axis, turned by a few degrees, and displaced by two random B-spline fields
    (60 mm and 25 mm nodes; standard deviations 3 mm and 1.2 mm, which keeps the map one to one). The same ``rng``
    state gives the same head at any spacing.
    """
    matrix = _rotation(rng.normal(0, 3, 3)) / rng.uniform(0.92, 1.02, 3)
    axes = [grid.axis(i) - np.float32(np.asarray(centre_mm)[i]) for i in range(3)]
    places = []
    for row in range(3):
        bend = 3.0 * smooth_field(rng, axes, HEAD_REACH_MM, 60) + 1.2 * smooth_field(rng, axes, HEAD_REACH_MM, 25)
        x, y, z = (np.float32(matrix[row, i]) * axes[i] for i in range(3))
        straight = x[:, None, None] + y[None, :, None] + z[None, None, :]
        places.append(bend + straight + np.float32(BRAIN_CENTRE_MM[row] - _TEMPLATE_ORIGIN_MM[row]))
    grey, white, mask, detail = (
        ndimage.map_coordinates(tissue, places, order=1, output=np.float32) for tissue in _template(grid.spacing_mm)
    )
    return Anatomy(np.clip(mask - grey - white, 0, 1), grey, white, detail, brain=mask > 0.5)


def smooth_field(rng: np.random.Generator, axes: list[Floats], reach_mm: npt.ArrayLike, node_mm: float) -> Floats:
    """A smooth random field of mean 0 and standard deviation near 1, shape (len(x), len(y), len(z)).

    ``axes`` are positions in mm from the middle; the cubic B-spline's nodes are ``node_mm`` apart over
    ``-reach_mm..reach_mm``, so that the draws do not depend on the spacing. Beyond the nodes the edge value holds.
    """
    counts = [int(np.ceil(2 * reach / node_mm)) + 4 for reach in np.broadcast_to(reach_mm, 3)]
    field: Floats = rng.standard_normal(counts, dtype=np.float32)
    for positions, reach in zip(axes, np.broadcast_to(reach_mm, 3), strict=True):
        weights = _bspline_weights((positions + reach) / node_mm, field.shape[0])
        field = np.tensordot(field, weights, axes=(0, 1))  # contracts the first axis, appends the new one
    # Mean square of a sum of weighted draws: the integral of the squared cubic B-spline, 151/315, once per axis.
    return field * np.float32((315 / 151) ** 1.5)


def _bspline_weights(positions: Floats, nodes: int) -> Floats:
    """Cubic B-spline weights, shape (len(positions), nodes), for positions in units of the node distance."""
    inside = np.clip(positions, 0, nodes - 4)
    distance = np.abs(inside[:, None] + 1 - np.arange(nodes, dtype=np.float32)[None, :])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance) ** 3 / 6
    return np.where(distance < 1, near, np.where(distance < 2, far, 0)).astype(np.float32)


_TEMPLATE_ORIGIN_MM = np.array([-98.0, -134.0, -72.0])


@lru_cache(maxsize=2)
def _template(spacing_mm: tuple[float, float, float]) -> tuple[Floats, ...]:
    """Grey matter, white matter, brain mask and T1 detail at 1 mm, blurred for sampling at ``spacing_mm``."""
    loaders = (
        datasets.load_mni152_gm_template,
        datasets.load_mni152_wm_template,
        datasets.load_mni152_brain_mask,
        datasets.load_mni152_template,
    )
    images = [load(resolution=1) for load in loaders]
    for image in images:
        if not np.array_equal(image.affine[:3, 3], _TEMPLATE_ORIGIN_MM):
            raise RuntimeError(f"nilearn's MNI152 template begins at {image.affine[:3, 3]} mm, not where expected")
    grey, white, mask, t1 = (np.asarray(image.dataobj, dtype=np.float32) for image in images)
    inside = mask > 0
    tissues = np.stack([mask[inside] - grey[inside] - white[inside], grey[inside], white[inside]], axis=1)
    levels = np.linalg.lstsq(tissues, t1[inside], rcond=None)[0]
    detail = np.zeros_like(t1)
    detail[inside] = np.clip(t1[inside] - tissues @ levels, -0.2, 0.2)
    sigma = [0.42 * max(step - 1.0, 0.0) for step in spacing_mm]  # the template itself has 1 mm voxels
    return tuple(ndimage.gaussian_filter(tissue, sigma) for tissue in (grey, white, mask, detail))


def _rotation(degrees: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    matrix = np.eye(3)
    for angle, (i, j) in zip(np.deg2rad(degrees), ((1, 2), (0, 2), (0, 1)), strict=True):
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix
