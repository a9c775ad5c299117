"""The rest of a phantom's head: what lies between the brain and the air, with a face that tells left from right.

Fluid, skull with marrow, scalp and skin follow the bent brain at growing distance; the face, the neck and what is in
them are simple shapes. Arrays are in (x, y, z) order, their axes along R, A and S; positions are those of the template
(MNI mm), which the bent brain lies near.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brainmets.phantoms.anatomy import (
    BRAIN_CENTRE_MM,
    HEAD_REACH_MM,
    Anatomy,
    Floats,
    Grid,
    bend_template,
    smooth_field,
)

Tissue = Literal["air", "fluid", "bone", "marrow", "fat", "skin", "muscle", "vessel", "mucosa", "cord", "vitreous"]
TISSUES: tuple[Tissue, ...] = get_args(Tissue)
"""What lies outside the brain, in the numbering of ``Head.tissues``."""

Bools = npt.NDArray[np.bool_]
LOWEST_MM, HIGHEST_MM = (-100.0, -132.0, -152.0), (100.0, 126.0, 112.0)
"""The box that holds a head down to its neck."""
MIDDLE_MM = (0.0, -5.0, -20.0)
"""Middle of that box but for the part of the neck that the coil does not see."""
FADE_MM = (-108.0, -148.0)
"""From the first height to the second the receiving coil loses the neck."""
TABLE_MM = 1.8
"""Thickness of the skull's inner and outer table."""


@dataclass(frozen=True)
class Head:
    """One head on ``grid``. ``anatomy`` is its brain on the part ``box`` of the grid.

    ``tissues``: uint8, what is outside the brain as an index into ``TISSUES`` (fluid where the brain is). ``texture``:
    the factor around 1 of each voxel's signal outside the brain, which falls to 0 down the neck.
    """

    grid: Grid
    tissues: npt.NDArray[np.uint8]
    texture: Floats
    box: tuple[slice, slice, slice]
    anatomy: Anatomy


def make_head(rng: np.random.Generator, edge_mm: float) -> Head:
    """A random head on a grid of cubes of ``edge_mm``; some 14 million voxels at 1 mm."""
    shape = [round((high - low) / edge_mm) + 1 for low, high in zip(LOWEST_MM, HIGHEST_MM, strict=True)]
    grid = Grid((shape[0], shape[1], shape[2]), (edge_mm, edge_mm, edge_mm), LOWEST_MM)
    box = grid.box(BRAIN_CENTRE_MM, HEAD_REACH_MM)
    anatomy = bend_template(rng, grid.crop(box), BRAIN_CENTRE_MM)
    brain = np.zeros(grid.shape, bool)
    brain[box] = anatomy.brain

    step = 2 if edge_mm < 1.5 else 1  # the layers are smooth: their distances need no finer grid
    wide = edge_mm * step
    few = brain[::step, ::step, ::step]
    coarse = Grid((few.shape[0], few.shape[1], few.shape[2]), (wide, wide, wide), grid.origin_mm)
    from_cranium = _distance_to_cranium(few, wide)
    scalp = 12.5 + 1.2 * _field(rng, coarse, 50) + 5 * _temporal_muscle(coarse)
    depth = _finer(-_surface(rng, coarse, from_cranium - scalp), grid, step)
    from_cranium = _finer(from_cranium, grid, step)

    tissues = _layers(rng, grid, from_cranium, depth)
    _face(rng, grid, tissues, from_cranium, depth)
    _neck(grid, tissues, from_cranium, depth, _lowest(grid, brain))

    grain = ndimage.gaussian_filter(rng.standard_normal(coarse.shape, dtype=np.float32), 3.0 / wide)
    texture = 1 + _finer(grain * np.float32(0.12 / max(float(grain.std()), 1e-6)), grid, step)
    seen = np.clip((grid.axis(2) - FADE_MM[1]) / (FADE_MM[0] - FADE_MM[1]), 0, 1)
    texture *= (seen**2 * (3 - 2 * seen)).astype(np.float32)
    return Head(grid, tissues, texture, box, anatomy)


def _distance_to_cranium(brain: Bools, edge_mm: float) -> Floats:
    """Signed distance in mm to the brain closed by 8 mm, which bridges its folds; negative within."""
    from_brain = ndimage.distance_transform_edt(~brain) * edge_mm
    to_outside = ndimage.distance_transform_edt(from_brain <= 8) * edge_mm
    distance = np.where(from_brain <= 8, 8 - to_outside, from_brain).astype(np.float32)
    smooth: Floats = ndimage.gaussian_filter(distance, 2.0 / edge_mm)
    return smooth


def _surface(rng: np.random.Generator, grid: Grid, cranium: Floats) -> Floats:
    """Signed distance in mm to the skin: cranium, face, jaw, nose, ears and neck, flowing into each other."""
    left, right = rng.normal(0, 2.0, (2, 3))
    nose, chin = rng.normal(0, (2.5, 1.5, 1.5)), rng.normal(0, (3, 2, 2))
    head = cranium
    for centre, radii, blend in (
        ((0, 36, -58), (60, 50, 58), 14),
        (np.array((0, 40, -96)) + chin, (46, 44, 32), 14),
        (np.array((0, 76, -116)) + chin, (16, 12, 12), 10),
        (np.array((0, 84, -36)) + nose / 2, (9, 10, 20), 8),
        (np.array((0, 92, -54)) + nose, (13, 17, 13), 8),
    ):
        head = _union(head, _ellipsoid(grid, np.asarray(centre), radii), blend)
    x, y, z = (grid.axis(i) for i in range(3))
    radius = np.hypot(x[:, None, None] / 56, ((y[:, None] + 22 - 0.12 * (z + 90)) / 60)[None])
    neck = np.maximum((radius - 1) * 56, (z + 55)[None, None, :])
    head = _union(head, neck.astype(np.float32), 16)
    for side, shift in ((-1, left), (1, right)):
        ear = _ellipsoid(grid, np.array((side * 83, -26, -34)) + shift, (9, 15, 27))
        concha = _ellipsoid(grid, np.array((side * 92, -20, -34)) + shift, (7, 8, 12))
        head = _union(head, np.maximum(ear, -concha), 4)
    # Where two shapes meet within, only the outer skin counts; a coarse distance will do so deep.
    edge = 2 * grid.spacing_mm[0]
    inside = ndimage.distance_transform_edt(head[::2, ::2, ::2] < 0).astype(np.float32) * edge - edge
    deep = np.minimum(head, -_finer(inside, grid, 2))
    return np.where(head < 0, deep, head)


def _layers(rng: np.random.Generator, grid: Grid, from_cranium: Floats, depth: Floats) -> npt.NDArray[np.uint8]:
    """Air, skin, fat and muscle by depth below the skin; skull, and fluid within it, by distance to the cranium."""
    fluid = 2.2 + 0.8 * _field(rng, grid, 60)
    diploe = np.clip(3.0 + 1.2 * _field(rng, grid, 45), 0.5, None)
    fat = 6.0 + 1.5 * _field(rng, grid, 50)
    tissues = np.full(grid.shape, _number("muscle"), np.uint8)
    tissues[_field(rng, grid, 9) > 1.0] = _number("fat")  # between the muscles
    tissues[depth < 2 + fat] = _number("fat")
    tissues[depth < 2] = _number("skin")
    skull = from_cranium - np.clip(fluid, 1, None)
    tissues[(skull < diploe + 2 * TABLE_MM) & (depth > 3)] = _number("bone")
    tissues[(skull < diploe + TABLE_MM) & (skull > TABLE_MM) & (depth > 5)] = _number("marrow")
    tissues[skull < 0] = _number("fluid")
    tissues[depth < 0] = _number("air")
    x, y, z = (grid.axis(i) for i in range(3))
    midline = (np.abs(x) < 4.5)[:, None, None] & ((z > -15)[None, None, :] & (y < 55)[None, :, None])
    tissues[midline & (from_cranium > 0) & (from_cranium < 5)] = _number("vessel")  # the superior sagittal sinus
    return tissues


def _face(
    rng: np.random.Generator, grid: Grid, tissues: npt.NDArray[np.uint8], from_cranium: Floats, depth: Floats
) -> None:
    """Paint eyes, sinuses, nose, mouth, jaw and ear cells, none of which is its mirror image."""

    def paint(
        tissue: Tissue, centre: Sequence[float], radii: Sequence[float], spare_mm: float, skin_mm: float
    ) -> None:
        box = grid.box(centre, radii)
        inside = _ellipsoid(grid.crop(box), np.asarray(centre), radii) < 0
        inside &= (from_cranium[box] > spare_mm) & (depth[box] > skin_mm)
        tissues[box][inside] = _number(tissue)

    for side in (-1, 1):
        a, b, c = rng.normal(0, 1.5, 3)
        size = rng.uniform(0.75, 1.2)
        paint("fat", (side * 32 + a, 50 + b, -36 + c), (18, 30, 17), 6, 2)
        paint("muscle", (side * 25 + a, 42 + b, -36 + c), (3, 20, 5), 6, 4)
        paint("muscle", (side * 40 + a, 42 + b, -36 + c), (3, 20, 5), 6, 4)
        paint("cord", (side * 29 + a, 38 + b, -36 + c), (2.5, 20, 2.5), 6, 4)
        paint("vitreous", (side * 32 + a, 66 + b, -36 + c), (12, 12, 12), 5, 2.5)
        paint("muscle", (side * 32 + a, 74 + b, -36 + c), (5, 2, 5), 5, 2.5)
        paint("bone", (side * 28, 60 + b, -66 + c), (size * 15 + 2, size * 16 + 2, size * 17 + 2), 5, 4)
        paint("air", (side * 28, 60 + b, -66 + c), (size * 15, size * 16, size * 17), 5, 6)
        paint("bone", (side * 56, -34 + b, -46 + c), (14, 16, 18), 3, 4)
        for _ in range(25):
            cell = np.array((side * 56, -34, -48)) + rng.normal(0, (5, 6, 7))
            paint("air", cell.tolist(), (rng.uniform(1.5, 3.5),) * 3, 5, 5)
        paint("air", (side * 80, -28 + b, -38 + c), (22, 2.5, 2.5), 6, -9)
        paint("marrow", (side * 50, 8, -92), (5, 9, 26), 8, 6)
        paint("bone", (side * 50, 8, -92), (3, 6, 24), 8, 6)
    shift = float(rng.normal(0, 3))
    paint("mucosa", (0, 60, -60), (13, 30, 20), 6, 4)
    for side in (-1, 1):
        paint("air", (side * 6 + shift / 2, 64, -62), (2.5, 30, 15), 6, 3)
        paint("air", (side * 6 + shift / 2, 90, -62), (4, 12, 4), 6, 2)
    paint("air", (shift, 50, -36), (9, 17, 9), 5, 5)
    paint("air", (shift, 24, -42), (11 + shift, 10, 9), 5, 5)
    paint("air", (shift, 78, -8), (16, 5, 11), 5, 6)
    paint("air", (0, 12, -84), (9, 6, 22), 8, 5)
    x, y, z = (grid.axis(i) for i in range(3))
    arches: tuple[tuple[Tissue, float, float, float, float], ...] = (
        ("bone", 31, 3.5, -92, -78),  # the teeth
        ("bone", 40, 6, -122, -104),
        ("marrow", 40, 3, -118, -108),
    )
    for tissue, radius, wide, low, high in arches:
        ring = np.abs(np.hypot(x[:, None], (y[None, :] - 32) * 0.85) - radius) < wide
        arch = (ring & (y > 20)[None, :])[:, :, None] & ((z > low) & (z < high))[None, None, :]
        tissues[arch & (depth > 5)] = _number(tissue)


def _neck(
    grid: Grid,
    tissues: npt.NDArray[np.uint8],
    from_cranium: Floats,
    depth: Floats,
    stem: npt.NDArray[np.float64],
) -> None:
    """Paint vertebrae, vessels, and the spinal cord in its canal, which goes on from the brain's lowest point."""
    x, y, z = (grid.axis(i) for i in range(3))
    beyond = (from_cranium > 5) & (depth > 5)

    def tube(
        tissue: Tissue, centre: tuple[float, float], radii: tuple[float, float], high: float, free: Bools
    ) -> None:
        disc = np.hypot((x[:, None] - centre[0]) / radii[0], (y[None, :] - centre[1]) / radii[1]) < 1
        tissues[(disc[:, :, None] & (z < high)[None, None, :]) & free] = _number(tissue)

    tube("bone", (stem[0], stem[1] + 3), (17, 20), stem[2] - 4, beyond)
    tube("marrow", (stem[0], stem[1] + 16), (11, 9), stem[2] - 6, beyond)
    for disc in np.arange(stem[2] - 22, LOWEST_MM[2], -19):
        spacer = beyond & (tissues == _number("marrow")) & (np.abs(z - disc) < 2.5)[None, None, :]
        spacer &= (np.abs(y - stem[1] - 16) < 10)[None, :, None]
        tissues[spacer] = _number("muscle")
    for side in (-1, 1):
        tube("vessel", (side * 30, 2), (3.5, 3.5), -62, beyond)
        tube("vessel", (side * 36, -6), (5 + side, 4), -58, beyond)
    outside = from_cranium > 0
    tube("fluid", (stem[0], stem[1]), (10, 9), stem[2] + 6, outside)
    tube("cord", (stem[0], stem[1]), (6.5, 5.5), stem[2] + 2, np.ones(grid.shape, bool))


def _lowest(grid: Grid, brain: Bools) -> npt.NDArray[np.float64]:
    """Where the brain stem ends: the middle of the lowest 4 mm of brain before the cerebellum."""
    box = grid.box((0, -42, -55), (14, 12, 35))
    part = brain[box]
    lowest = int(np.flatnonzero(part.any((0, 1)))[0])
    places = np.argwhere(part[:, :, lowest : lowest + max(2, round(4 / grid.spacing_mm[2]))])
    middle: npt.NDArray[np.float64] = (
        grid.crop(box).origin_mm + (places.mean(0) + np.array((0, 0, lowest))) * grid.spacing_mm
    )
    return middle


def _temporal_muscle(grid: Grid) -> Floats:
    """Where the scalp is thicker, 0..1: the temples."""
    bumps = [_ellipsoid(grid, np.array((side * 68, 18, -22)), (20, 34, 32)) for side in (-1, 1)]
    bump: Floats = np.clip(-np.minimum(*bumps) / 15, 0, 1).astype(np.float32)
    return bump


def _ellipsoid(grid: Grid, centre: npt.NDArray[np.float64], radii: Sequence[float]) -> Floats:
    """Signed distance in mm to an ellipsoid, to first order; negative within."""
    scaled = [(grid.axis(i) - np.float32(centre[i])) / np.float32(radii[i]) for i in range(3)]
    near, far = (
        np.sqrt(a[:, None, None] ** 2 + b[None, :, None] ** 2 + c[None, None, :] ** 2)
        for a, b, c in (scaled, [s / np.float32(r) for s, r in zip(scaled, radii, strict=True)])
    )
    distance: Floats = near * (near - 1) / np.maximum(far, 1e-6)
    return distance


def _union(first: Floats, second: Floats, blend_mm: float) -> Floats:
    """Signed distance to two shapes, their meeting edge rounded over ``blend_mm`` (the polynomial smooth minimum)."""
    near = np.clip(blend_mm - np.abs(first - second), 0, None)
    joined: Floats = np.minimum(first, second) - near * near / np.float32(4 * blend_mm)
    return joined


def _field(rng: np.random.Generator, grid: Grid, node_mm: float) -> Floats:
    """A smooth random field over the whole head."""
    middle = (np.array(LOWEST_MM) + HIGHEST_MM) / 2
    axes = [grid.axis(i) - np.float32(middle[i]) for i in range(3)]
    return smooth_field(rng, axes, (np.array(HIGHEST_MM) - LOWEST_MM) / 2, node_mm)


def _finer(field: Floats, grid: Grid, step: int) -> Floats:
    """A field on every ``step``-th voxel of ``grid``, interpolated to all of them."""
    if step == 1:
        return field
    fine: Floats = ndimage.affine_transform(
        field, np.full(3, 1 / step), output_shape=grid.shape, order=1, mode="nearest", output=np.float32
    )
    return fine


def _number(tissue: Tissue) -> int:
    return TISSUES.index(tissue)
