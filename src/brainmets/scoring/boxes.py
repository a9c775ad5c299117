"""Where a pair of label maps holds anything: a few small boxes instead of the whole grid.

A metastasis case is nearly all background. Every score is computed on boxes that no lesion crosses and that lie
far enough apart for lesions of different boxes never to touch, not even after a dilation by one voxel.
"""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brainmets.nifti import Spacing

Labels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Index = tuple[int, int, int]

CELL = (8, 8, 4)
"""Coarse cell in voxels, in memory order from the fastest axis; two cells that do not touch part voxels by at
least five, so that lesions in them stay apart when both are dilated by one voxel."""


@dataclass(frozen=True)
class Box:
    """One part of both label maps: ``origin`` is the index of its first voxel; both arrays are C-contiguous."""

    origin: Index
    reference: Labels
    prediction: Labels


def in_memory_order(reference: Labels, prediction: Labels, spacing: Spacing) -> tuple[Labels, Labels, Spacing, Index]:
    """Both arrays with their fastest axis last, the spacing to fit, and the original axis of each axis.

    NIfTI files decode with the fastest axis first; turning the axes round costs nothing, turning the voxels does.
    """
    if reference.flags.c_contiguous:
        return reference, prediction, spacing, (0, 1, 2)
    return reference.T, prediction.T, (spacing[2], spacing[1], spacing[0]), (2, 1, 0)


def foreground_boxes(reference: Labels, prediction: Labels) -> list[Box]:
    """Cut both label maps (3D, ``uint8``, equal shapes) into boxes; every non-zero voxel is in exactly one.

    A box is the bounding box of one group of touching cells; what other groups hold inside it is left out. Two empty
    label maps give an empty list.
    """
    groups = cc3d.connected_components(
        (_occupied_cells(reference) | _occupied_cells(prediction)).view(np.uint8), connectivity=26
    )
    boxes = []
    for number, cells in enumerate(ndimage.find_objects(groups), start=1):
        low = tuple(span.start * size for span, size in zip(cells, CELL[::-1], strict=True))
        window = tuple(
            slice(start, span.stop * size) for start, span, size in zip(low, cells, CELL[::-1], strict=True)
        )
        own = groups[cells] == number
        parts = [np.ascontiguousarray(labels[window]) for labels in (reference, prediction)]
        if not own.all():
            voxels = own
            for axis, size in enumerate(CELL[::-1]):
                voxels = np.repeat(voxels, size, axis=axis)
            # the last cells may reach beyond the image
            inside = voxels[tuple(slice(n) for n in parts[0].shape)]
            parts = [part * inside for part in parts]
        boxes.append(Box((low[0], low[1], low[2]), parts[0], parts[1]))
    return boxes


def crop(reference: Mask, prediction: Mask, origin: Index) -> tuple[Index, Mask, Mask] | None:
    """Two masks of a box, cut to their union's bounding box; None where both are empty.

    ``origin`` is the image index of the box's first voxel; the one that is returned is the crop's.
    """
    union = reference | prediction
    if not union.any():
        return None
    plane = np.any(union, axis=0)
    occupied = (np.any(union, axis=(1, 2)), np.any(plane, axis=1), np.any(plane, axis=0))
    low = [int(np.argmax(line)) for line in occupied]
    window = tuple(slice(a, line.size - int(np.argmax(line[::-1]))) for a, line in zip(low, occupied, strict=True))
    x, y, z = (a + b for a, b in zip(origin, low, strict=True))
    return (x, y, z), np.ascontiguousarray(reference[window]), np.ascontiguousarray(prediction[window])


def _occupied_cells(labels: Labels) -> Mask:
    """Coarse grid (last axis fastest) of the cells that may hold a non-zero voxel.

    Reads eight voxels at a time; a word that runs over a row's end marks the cells of both its ends, which can only
    add a cell.
    """
    flat = np.ascontiguousarray(labels).reshape(-1)
    n_words = flat.size // 8
    words = np.flatnonzero(flat[: n_words * 8].view(np.uint64) != 0) * 8
    tail = np.flatnonzero(flat[n_words * 8 :]) + n_words * 8
    indices = np.concatenate([words, words + 7, tail])
    rows, x = np.divmod(indices, labels.shape[2])
    z, y = np.divmod(rows, labels.shape[1])
    cells = np.zeros([-(-n // cell) for n, cell in zip(labels.shape, CELL[::-1], strict=True)], dtype=bool)
    cells[z // CELL[2], y // CELL[1], x // CELL[0]] = True
    return cells
