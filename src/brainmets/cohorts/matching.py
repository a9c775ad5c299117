"""Whether two images of one grid show the same head in the same place.

A header can say what is not so: scans that were taken one after the other and resampled to one grid, but never
registered, lie apart where the patient moved or the slices were set anew. Compared are the directions of the edges
inside the head, which all sequences share whatever their contrast: Haber and Modersitzki's normalised gradient fields
(MICCAI 2006, 726-733), here as tensors, so that one Fourier transform gives the agreement at every shift. The outline
of the head is left out, since one brain mask may have been laid over all sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from brainmets import nifti
from brainmets.cohorts.background import head

Edges = npt.NDArray[np.float32]

RESOLUTION_MM = 4.0
SEARCHED = 15
"""Shifts that are tried along each axis, in voxels of ``RESOLUTION_MM``: up to 60 mm."""
EVEN = 0.02
"""How far a whole number of voxels may be from ``RESOLUTION_MM``, as a share, to be taken for it."""
RIM = 2
"""Voxels of ``RESOLUTION_MM`` that the head's outline takes up."""
FEWEST = 1000
"""Voxels of ``RESOLUTION_MM`` that the inside of a head must have (64 mL) to be compared."""

ELSEWHERE = 0.7
"""Agreement in place, as a share of the best, from which on two images lie in place. Ten pairs of sequences of real
scans that are registered and thirty of phantoms have 1; shifted by 12 mm the highest was 0.57."""
CLEAR = 12.0
"""Standard deviations, over all shifts, by which an agreement must stand out to be one: registered pairs of real
prepared scans have 45 to 210, of a raw one with its skull 23; turned by 24 degrees, 6 to 23."""


class Match(NamedTuple):
    """``away_mm``: how far from its place the second image matches the first best (R, A, S; 0 where it is in place).

    ``clear``: by how many standard deviations over all shifts that best agreement stands out.
    """

    away_mm: tuple[float, float, float]
    clear: float

    @property
    def distance_mm(self) -> float:
        """Length of ``away_mm``."""
        return float(np.linalg.norm(self.away_mm))


def edges(voxels: npt.NDArray[Any], affine: nifti.Affine) -> Edges | None:
    """The directions of edges inside the head: (6, x, y, z), at ``RESOLUTION_MM``, axes along R, A, S.

    ``None`` for an image that is too small, or shows too little, to be compared.
    """
    image = coarse(voxels, affine)
    return edges_within(image, ndimage.binary_erosion(head(image), iterations=RIM))


def edges_within(image: npt.NDArray[np.float32], inside: npt.NDArray[np.bool_]) -> Edges | None:
    """As ``edges``, of a volume along R, A, S in voxels of ``RESOLUTION_MM``, within a mask of one's own."""
    if min(image.shape) < 3 or np.count_nonzero(inside) < FEWEST:
        return None
    gradient = np.array([np.gradient(image, axis=axis) for axis in range(3)])
    squared = np.sum(gradient**2, axis=0)
    length = np.sqrt(squared + 0.5 * float(np.median(squared[inside])))
    if not length[inside].all():
        return None
    x, y, z = gradient / length
    trace = (x * x + y * y + z * z) / 3
    root = np.sqrt(2)
    tensor = np.stack([x * x - trace, y * y - trace, z * z - trace, root * x * y, root * x * z, root * y * z])
    return (tensor * inside).astype(np.float32)


def match(first: Edges, second: Edges) -> Match:
    """Where the second image's edges match the first's best; both of one shape."""
    return match_each(first, [second])[0]


def match_each(first: Edges, others: Sequence[Edges]) -> list[Match]:
    """As ``match`` of the first image with each of the others; all of one shape."""
    reach = [min(SEARCHED, size - 1) for size in first.shape[1:]]
    box = nifti.around(np.nonzero(np.any([np.any(one, axis=0) for one in (first, *others)], axis=0)))
    sizes = [part.stop - part.start for part in box]
    shape = [fft.next_fast_len(size + far, real=True) for size, far in zip(sizes, reach, strict=True)]
    axes = (1, 2, 3)
    reference = np.conj(fft.rfftn(first[:, *box], shape, axes))
    shifts = np.ix_(*(np.arange(-far, far + 1) for far in reach))  # a negative index is a negative shift
    found = []
    for other in others:
        spectrum = np.einsum("cxyz,cxyz->xyz", reference, fft.rfftn(other[:, *box], shape, axes))
        found.append(_best(fft.irfftn(spectrum, shape)[shifts], reach))
    return found


def _best(agreement: npt.NDArray[Any], reach: list[int]) -> Match:
    """The best of the agreements at all shifts up to ``reach`` voxels along each axis, either way."""
    near = tuple(slice(far - 1, far + 2) for far in reach)
    elsewhere = np.ones(agreement.shape, bool)
    elsewhere[tuple(slice(max(0, far - 3), far + 4) for far in reach)] = False
    noise = agreement[elsewhere] if elsewhere.any() else agreement.ravel()
    clear = float((agreement.max() - noise.mean()) / (noise.std() or 1))
    if agreement[near].max() >= ELSEWHERE * agreement.max():
        return Match((0.0, 0.0, 0.0), clear)
    x, y, z = (RESOLUTION_MM * (int(at) - far) for at, far in zip(_place(agreement), reach, strict=True))
    return Match((x, y, z), clear)


def _place(agreement: npt.NDArray[Any]) -> tuple[np.intp, ...]:
    return np.unravel_index(agreement.argmax(), agreement.shape)


def coarse(voxels: npt.NDArray[Any], affine: nifti.Affine) -> npt.NDArray[np.float32]:
    """The volume along R, A, S in voxels of about ``RESOLUTION_MM``, each the mean of what it covers."""
    turned, along = nifti.to_ras(voxels, affine)
    sides = np.linalg.norm(along[:3, :3], axis=0)
    counts = [max(1, round(RESOLUTION_MM / side)) for side in sides]
    if np.allclose(counts * sides, RESOLUTION_MM, rtol=EVEN) and min(turned.shape) >= max(counts):
        order = [int(axis) for axis in np.argsort(np.abs(turned.strides))[::-1]]
        apart, count = order[0], counts[order[0]]  # along what lies furthest apart in memory, a slab stays in cache
        slabs = []
        for start in range(0, turned.shape[apart] // count * count, count):
            slab = turned[(slice(None),) * apart + (slice(start, start + count),)]
            for axis in order:
                slab = _means(slab, axis, counts[axis])
            slabs.append(slab)
        return np.concatenate(slabs, axis=apart)
    smooth = ndimage.uniform_filter(turned.astype(np.float32), counts)
    wanted = [max(1, round(size * side / RESOLUTION_MM)) for size, side in zip(turned.shape, sides, strict=True)]
    return ndimage.zoom(smooth, [new / size for new, size in zip(wanted, turned.shape, strict=True)], order=1)


def _means(voxels: npt.NDArray[Any], axis: int, count: int) -> npt.NDArray[np.float32]:
    """The means of ``count`` neighbours along an axis, which becomes so much shorter; what is left over falls off."""
    end = voxels.shape[axis] // count * count
    before = (slice(None),) * axis
    total = voxels[(*before, slice(0, end, count))].astype(np.float32)
    for start in range(1, count):
        total += voxels[(*before, slice(start, end, count))]
    total /= np.float32(count)
    return total
