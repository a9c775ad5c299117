"""The lesions of a region: connected components, numbered, with volumes, centroids and overlaps.

Numbering follows a lesion-wise definition, since one of them unites components; see ``brainmets.scoring.lesionwise``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cc3d
import numpy as np
import numpy.typing as npt

from brainmets.scoring.boxes import Mask
from brainmets.scoring.surface import Floats, Ints

Definition = Literal["brats_2023", "brats_2026"]
Numbered = npt.NDArray[np.integer]
"""Lesion numbers of a mask's voxels, 0 outside it."""


@dataclass(frozen=True)
class Part:
    """The lesions of one crop: their numbers from 1 on, and the pairs (reference, predicted) that touch."""

    reference: Numbered
    prediction: Numbered
    touching: Ints  # (n, 2)


@dataclass(frozen=True)
class LesionCounts:
    """Volumes in mm^3 per lesion number (index 0 unused) and voxels shared by (reference, predicted) pairs."""

    reference_mm3: Floats
    predicted_mm3: Floats
    voxel_mm3: float
    pairs: Ints  # (n, 2) overlapping lesions
    shared: Ints  # voxels of each pair
    touching: Ints  # (n, 2)

    def dice(self, reference: int, predicted: Ints) -> float:
        """Dice of a reference lesion with several predicted lesions united."""
        chosen = (self.pairs[:, 0] == reference) & np.isin(self.pairs[:, 1], predicted)
        both = float(self.shared[chosen].sum()) * self.voxel_mm3
        return 2 * both / float(self.reference_mm3[reference] + self.predicted_mm3[predicted].sum())


def number_lesions(definition: Definition) -> Callable[[Mask, Mask], Part]:
    """The definition's way to number the lesions of a (reference, prediction) crop."""
    return _merged_by_dilation if definition == "brats_2023" else _plain_components


def _components(mask: Mask) -> Numbered:
    # as uint8: cc3d 4.1.1 fails on boolean arrays that are one voxel wide on two axes
    return np.asarray(cc3d.connected_components(mask.view(np.uint8), connectivity=26))


def _plain_components(reference: Mask, prediction: Mask) -> Part:
    first, second = _components(reference), _components(prediction)
    return Part(first, second, _pairs(first, second, reference & prediction)[0])


def _merged_by_dilation(reference: Mask, prediction: Mask) -> Part:
    dilated = _dilated(np.pad(reference, 1))
    inside = (slice(1, -1),) * 3
    merged, second = _components(dilated)[inside], _components(prediction)
    return Part(merged * reference, second, _pairs(merged, second, dilated[inside] & prediction)[0])


def _dilated(mask: Mask) -> Mask:
    """One dilation by the 18-neighbourhood (faces and edges): the union of 3x3 squares in the three planes."""

    def along(array: Mask, axis: int) -> Mask:
        grown = array.copy()
        ahead: list[slice] = [slice(None)] * 3
        behind: list[slice] = [slice(None)] * 3
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        grown[tuple(ahead)] |= array[tuple(behind)]
        grown[tuple(behind)] |= array[tuple(ahead)]
        return grown

    first, second = along(mask, 0), along(mask, 1)
    return along(first, 1) | along(first, 2) | along(second, 2)


def _runs(mask: Mask) -> tuple[Ints, Ints]:
    """Runs of voxels along a mask's last axis: index (3, n) of each one's first voxel, and the lengths (n).

    Voxels of a run share their lesion, so that lesions are counted run by run, of which there are many fewer.
    """
    x, y, z = mask.shape
    # one outside voxel before every row and after the last, so that no run goes on into the next row
    flat = np.zeros(x * y * (z + 1) + 1, dtype=bool)
    flat[:-1].reshape(x, y, z + 1)[..., 1:] = mask
    starts, ends = np.flatnonzero(flat[1:] != flat[:-1]).reshape(-1, 2).T
    return np.stack(np.unravel_index(starts, (x, y, z + 1))), ends - starts


def _sums(numbers: Numbered, mask: Mask) -> tuple[Ints, Floats]:
    """Voxels (n) and centroids (n, 3) of lesions 1 to n, which ``numbers`` gives to the voxels of ``mask``."""
    (x, y, z), lengths = _runs(mask)
    lesion = numbers[x, y, z].astype(np.int64) - 1
    voxels = np.bincount(lesion, lengths)
    sums = [np.bincount(lesion, lengths * middle) for middle in (x, y, z + (lengths - 1) / 2)]
    return voxels.astype(np.int64), np.stack(sums, axis=1) / voxels[:, None]


def _pairs(first: Numbered, second: Numbered, both: Mask) -> tuple[Ints, Ints]:
    """Pairs of numbers that share voxels (n, 2), and how many each pair shares; ``both``: where both have a number."""
    (x, y, z), lengths = _runs(both)
    one, other = first[x, y, z].astype(np.int64), second[x, y, z].astype(np.int64)
    width = int(other.max(initial=0)) + 1
    keys, pair = np.unique(one * width + other, return_inverse=True)
    return np.stack(np.divmod(keys, width), axis=1), np.bincount(pair, lengths).astype(np.int64)


class LesionLedger:
    """Collects the lesions of a region crop by crop; numbers run on from one crop to the next."""

    def __init__(self, definition: Definition, voxel_mm3: float) -> None:
        self._number = number_lesions(definition)
        self._voxel_mm3 = voxel_mm3
        self._voxels: tuple[list[Ints], list[Ints]] = ([np.zeros(1, np.int64)], [np.zeros(1, np.int64)])
        self._centroids: tuple[list[Floats], list[Floats]] = ([np.zeros((1, 3))], [np.zeros((1, 3))])
        self._pairs: list[Ints] = [np.zeros((0, 2), np.int64)]
        self._shared: list[Ints] = [np.zeros(0, np.int64)]
        self._touching: list[Ints] = [np.zeros((0, 2), np.int64)]

    def add(self, reference: Mask, prediction: Mask, origin: tuple[int, ...]) -> tuple[Part, tuple[int, int]]:
        """Number one crop's lesions; gives them, and the running numbers of its first reference and predicted one."""
        part = self._number(reference, prediction)
        offsets = np.array([sum(map(len, kind)) - 1 for kind in self._voxels])
        pairs, shared = _pairs(part.reference, part.prediction, reference & prediction)
        self._pairs.append(pairs + offsets)
        self._shared.append(shared)
        self._touching.append(part.touching + offsets)
        for kind, (numbers, mask) in enumerate(((part.reference, reference), (part.prediction, prediction))):
            voxels, centroids = _sums(numbers, mask)
            self._voxels[kind].append(voxels)
            self._centroids[kind].append(centroids + np.asarray(origin))
        return part, (int(offsets[0]) + 1, int(offsets[1]) + 1)

    def counts(self) -> LesionCounts:
        """Volumes and overlaps of everything added."""
        return LesionCounts(
            np.concatenate(self._voxels[0]).astype(np.float64) * self._voxel_mm3,
            np.concatenate(self._voxels[1]).astype(np.float64) * self._voxel_mm3,
            self._voxel_mm3,
            np.concatenate(self._pairs),
            np.concatenate(self._shared),
            np.concatenate(self._touching),
        )

    def centroids(self) -> tuple[Floats, Floats]:
        """Mean voxel index (n + 1, 3) of reference and predicted lesions; row 0 unused."""
        return np.concatenate(self._centroids[0]), np.concatenate(self._centroids[1])
