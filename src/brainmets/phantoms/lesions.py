"""Metastases for a phantom: where they sit, how large they are, and which voxels each part of one takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brainmets.phantoms.anatomy import Anatomy, Floats, Grid, smooth_field

Mask = npt.NDArray[np.bool_]
Sizes = Literal["mixed", "small"]

OEDEMA, NON_ENHANCING, ENHANCING, NECROSIS = 1, 2, 3, 4
"""Parts of a lesion, in the numbering of the target site's label files."""

LARGEST_RADIUS_MM = 15.0
"""Metastases of more than 30 mm are usually operated on, and are rare in cohorts for segmentation."""
WIDEST_OEDEMA_MM = 20.0
"""How far oedema reaches at most beyond the rim."""
SMALL_SHARE = 0.85
"""Of the lesions of a phantom with small ones; the others are drawn as in any phantom."""
SMALL_RADIUS_MM = (1.2, 2.5)
"""So that most are painted below 5 mm in equivalent diameter: of 74 to 90 lesions a site, 72 to 79% at 2 and at 3 mm
(median 3.7 to 4.7 mm), which is one to four voxels of 3 mm and one to eight of 2 mm."""
CONTOUR_REACH = 2.5
"""The random contour of a lesion is defined up to this many radii from its centre."""


@dataclass(frozen=True)
class Lesion:
    """One metastasis, described without a grid so that a follow-up scan can show it larger or smaller."""

    centre_mm: tuple[float, float, float]
    radius_mm: float
    stretch: tuple[float, float, float]  # the ellipsoid's half axes over the radius
    oedema_mm: float  # how far oedema reaches beyond the rim; 0 for none
    enhancement: float  # brightness of the rim after contrast, 1 on average
    contour_seed: int
    rim: float = 0.22  # the enhancing rim's thickness over the radius; treatment leaves a thin one

    def grown(self, factor: float) -> Lesion:
        """The same lesion at ``factor`` times the radius."""
        return replace(self, radius_mm=self.radius_mm * factor, oedema_mm=self.oedema_mm * factor)


def place_lesions(
    rng: np.random.Generator, grid: Grid, anatomy: Anatomy, count: int, *, growth: float = 1.0, sizes: Sizes = "mixed"
) -> list[Lesion]:
    """``count`` lesions at the grey-white junction, far enough apart not to touch when ``growth`` times as large.

    Radii of ``sizes`` "mixed" are log-normal with median 3.5 mm plus the mean voxel edge (so that a coarse grid still
    shows most of them), cut at 0.6 voxel edges or 1.5 mm below and ``LARGEST_RADIUS_MM`` above. With "small" each
    lesion is, with probability ``SMALL_SHARE``, log-normal with median 1.9 mm whatever the voxels, cut at
    ``SMALL_RADIUS_MM``, and sits anywhere within its voxel. Fewer are returned when the brain has no room left, never
    none.
    """
    edge = grid.mean_spacing_mm
    radii = np.sort(_radii(rng, edge, count) if sizes == "mixed" else _small_radii(rng, edge, count))[::-1]
    inner = ndimage.binary_erosion(anatomy.brain, iterations=2)
    places = np.argwhere(inner & (anatomy.grey > 0.3) & (anatomy.white > 0.3))
    if not len(places):
        raise ValueError(f"a {grid.shape} grid of {grid.spacing_mm} mm shows no grey-white junction; use finer voxels")
    centres = np.asarray(grid.origin_mm) + places * np.asarray(grid.spacing_mm)
    lesions: list[Lesion] = []
    for radius in radii:
        for other in lesions:
            gap = np.linalg.norm(centres - other.centre_mm, axis=1)
            centres = centres[gap > 1.35 * growth * (radius + other.radius_mm) + 3 * edge]
        if not len(centres):
            break
        centre = centres[rng.integers(len(centres))]
        if sizes == "small" and radius <= SMALL_RADIUS_MM[1]:
            centre = centre + rng.uniform(-0.5, 0.5, 3) * grid.spacing_mm
        lesions.append(draw(rng, centre, float(radius)))
    return lesions


def _radii(rng: np.random.Generator, edge: float, count: int) -> Floats:
    radii = (3.5 + edge) * np.exp(rng.normal(0, 0.55, count))
    return np.clip(radii, max(1.5, 0.6 * edge), LARGEST_RADIUS_MM)


def _small_radii(rng: np.random.Generator, edge: float, count: int) -> Floats:
    small = np.clip(1.9 * np.exp(rng.normal(0, 0.3, count)), *SMALL_RADIUS_MM)
    return np.where(rng.random(count) < SMALL_SHARE, small, _radii(rng, edge, count))


def paint(grid: Grid, anatomy: Anatomy, lesions: list[Lesion]) -> tuple[npt.NDArray[np.uint8], Floats]:
    """The parts of every lesion on the grid, and each voxel's enhancement factor (1 outside lesions).

    A lesion is one connected piece inside the brain: an enhancing rim, closed on all six sides, around a necrotic
    centre with a non-enhancing shell where it is large enough to hold one; oedema follows the white matter.
    """
    parts = np.zeros(grid.shape, np.uint8)
    enhancement = np.ones(grid.shape, np.float32)
    for lesion in lesions:
        reach = 1.6 * lesion.radius_mm + 1.5 * lesion.oedema_mm + 2 * max(grid.spacing_mm)
        box = grid.box(lesion.centre_mm, reach)
        tumour, centre, shell, oedema = _parts(lesion, grid.crop(box), anatomy.brain[box], anatomy.white[box])
        here, bright = parts[box], enhancement[box]
        here[oedema & (here == 0)] = OEDEMA
        here[tumour] = ENHANCING
        here[shell] = NON_ENHANCING
        here[centre] = NECROSIS
        bright[tumour] = lesion.enhancement
    return parts, enhancement


def draw(rng: np.random.Generator, centre: npt.NDArray[np.float64], radius: float) -> Lesion:
    """One lesion of this place and radius (mm), of random shape, oedema and brightness."""
    stretch = np.exp(rng.normal(0, 0.12, 3))
    stretch /= np.prod(stretch) ** (1 / 3)
    oedema = min(radius * rng.uniform(0.4, 1.8), WIDEST_OEDEMA_MM) if radius > 4 and rng.random() < 0.85 else 0.0
    x, y, z, a, b, c = map(float, (*centre, *stretch))
    return Lesion(
        centre_mm=(x, y, z),
        radius_mm=radius,
        stretch=(a, b, c),
        oedema_mm=float(oedema),
        enhancement=float(rng.uniform(0.8, 1.2)),
        contour_seed=int(rng.integers(2**31)),
    )


def _parts(lesion: Lesion, grid: Grid, brain: Mask, white: Floats) -> tuple[Mask, Mask, Mask, Mask]:
    """Masks of the tumour (rim and all within), its necrosis, its non-enhancing shell, and its oedema."""
    axes = [grid.axis(i) - np.float32(lesion.centre_mm[i]) for i in range(3)]
    scaled = [axis / np.float32(lesion.radius_mm) for axis in axes]
    rough = smooth_field(np.random.default_rng(lesion.contour_seed), scaled, CONTOUR_REACH, 0.9)
    x, y, z = ((axis / np.float32(s)) ** 2 for axis, s in zip(scaled, lesion.stretch, strict=True))
    depth = np.sqrt(x[:, None, None] + y[None, :, None] + z[None, None, :]) * (1 + 0.14 * np.clip(rough, -1.5, 1.5))
    seed = tuple(int(np.abs(axis).argmin()) for axis in axes)

    tumour = (depth < 1) & brain
    tumour[seed] = True
    tumour = _piece(tumour, seed)
    rim_mm = max(lesion.rim * lesion.radius_mm, 0.8 * grid.mean_spacing_mm, 1.2)
    hollow = 1 - rim_mm / lesion.radius_mm
    core = (depth < hollow) & ndimage.binary_erosion(tumour)
    centre = core & (depth < 0.75 * hollow)

    beyond_mm = (depth - 1) * np.float32(lesion.radius_mm)
    spread = beyond_mm < lesion.oedema_mm * (1 + 0.35 * np.clip(rough, -1.5, 1.5))
    oedema = _piece((spread & (white > 0.5) & brain) | tumour, seed) & ~tumour
    return tumour, centre, core & ~centre, oedema if lesion.oedema_mm else np.zeros_like(tumour)


def _piece(mask: Mask, seed: tuple[int, ...]) -> Mask:
    """The connected piece (26 neighbours) of ``mask`` that holds the voxel ``seed``."""
    pieces, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    piece: Mask = pieces == pieces[seed]
    return piece
