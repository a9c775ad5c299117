"""Which reference lesions were found, one predicted component for each: the rule of every sentence for clinicians.

The challenges' definitions answer another question. Under ``brats_2023`` one voxel beside a lesion finds it, and one
slab over four lesions finds all four. Here a 26-connected component of the reference and one of the prediction may
form a pair where their intersection over union (IoU) is ``LEAST_IOU`` or more, and each component is in one pair at
most. Of all ways to pair them that with the most pairs is taken, of equally many that with the largest sum of IoU.

Components are those of the masks as they are: nothing is dilated, and no component is too small. IoU of 0.1
is lesion detection's convention (nnDetection: Baumgartner et al., MICCAI 2021, arXiv:2106.00817): enough to point at
the lesion, and no demand on a border that no two readers draw alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from brainmets.scoring.surface import Floats, Ints

LEAST_IOU = 0.1
IN_WORDS = (
    f"A lesion counts as found where a predicted lesion overlaps it with an intersection over union of {LEAST_IOU:g} "
    "or more, and a predicted lesion can find one lesion only."
)
"""The rule, for readers of figures and tables."""


@dataclass(frozen=True)
class Components:
    """A region's 26-connected components, reference first in each tuple; index 0 of their arrays is unused.

    ``voxels``: size by component number. ``lesion``: by reference component the reference lesion of the definition
    that it is part of; a predicted component is a lesion of the same number. ``pairs`` (n, 2): the numbers of
    components (reference, predicted) that overlap, and ``shared`` (n) their common voxels.
    """

    voxels: tuple[Ints, Ints]
    lesion: Ints
    pairs: Ints
    shared: Ints


@dataclass(frozen=True)
class OneToOne:
    """``found`` by reference lesion number, ``paired`` by predicted lesion number; index 0 unused and False."""

    found: npt.NDArray[np.bool_]
    paired: npt.NDArray[np.bool_]

    def counts(self) -> dict[str, float]:
        """Reference lesions found and missed, and predicted components that are in no pair."""
        n_reference, n_predicted = len(self.found) - 1, len(self.paired) - 1
        found = int(self.found.sum())
        return {
            "lesion_iou_tp": found,
            "lesion_iou_fp": n_predicted - int(self.paired.sum()),
            "lesion_iou_fn": n_reference - found,
        }


def one_to_one(components: Components, ranks: tuple[Ints, Ints]) -> OneToOne:
    """Pair the components, and say which reference lesions were found.

    A lesion that the definition unites from several components is found where at least one of them is in a pair and
    its components' partners, taken together, reach ``LEAST_IOU`` with the whole lesion: a hit on a speck beside a
    missed lesion does not find it. ``ranks`` (reference, predicted): a place for each lesion number, by which equally
    good pairings are told apart.
    """
    first, second = _pairing(components, ranks).T
    partner_of = np.zeros(len(components.voxels[1]), np.int64)
    partner_of[second] = components.lesion[first]
    lesion, predicted = components.lesion[components.pairs[:, 0]], components.pairs[:, 1]
    own = partner_of[predicted] == lesion
    n_lesions = int(components.lesion.max()) + 1
    whole = np.bincount(components.lesion, components.voxels[0], n_lesions)
    partners = np.bincount(partner_of, components.voxels[1], n_lesions)
    both = np.bincount(lesion[own], components.shared[own], n_lesions)
    found = _iou(both, whole, partners) >= LEAST_IOU
    found[0] = False
    return OneToOne(found, partner_of > 0)


def _pairing(components: Components, ranks: tuple[Ints, Ints]) -> Ints:
    """The pairs (n, 2) of component numbers."""
    first, second = components.pairs.T
    iou = _iou(components.shared, components.voxels[0][first], components.voxels[1][second])
    enough = iou >= LEAST_IOU
    first, second, iou = first[enough], second[enough], iou[enough]
    rows, columns = np.unique(first), np.unique(second)
    rows = rows[np.lexsort((-components.voxels[0][rows], ranks[0][components.lesion[rows]]))]
    columns = columns[np.argsort(ranks[1][columns])]
    place = [np.zeros(len(sizes), np.int64) for sizes in components.voxels]
    place[0][rows], place[1][columns] = np.arange(len(rows)), np.arange(len(columns))
    # one pair more outweighs any sum of IoU, of which each is 1 at most
    worth = np.zeros((len(rows), len(columns)))
    worth[place[0][first], place[1][second]] = min(worth.shape) + 1 + iou
    row, column = linear_sum_assignment(worth, maximize=True)
    chosen = worth[row, column] > 0
    return np.column_stack([rows[row[chosen]], columns[column[chosen]]])


def _iou(both: Ints | Floats, one: Ints | Floats, other: Ints | Floats) -> Floats:
    """Of whole numbers of voxels, so that a share of exactly ``LEAST_IOU`` is not lost to rounding."""
    return both / np.maximum(one + other - both, 1)
