"""Which lesions a training's patches are placed on, and how many patches hold a small one at all: exact, not drawn.

nnU-Net draws a case, each alike; for a patch that must hold foreground it draws one of the regions that have places,
then one of these, and puts the patch's centre there. Every step has known chances, so the shares are sums over the
cases' places. They are those of patches as they are cut: augmentation turns and scales them afterwards, and moves no
centre. Lesions that are blended in (``lesion_transplant``) are not among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from brainmets.statistics.froc import ALL_SIZES, SIZES, SMALL_MM
from brainmets.training.lesion_sampling import Cases, Region, find_lesions, lesion_numbers, lesion_shares
from brainmets.vocabulary import PatchRule

BINS = tuple(size for size in SIZES if size != ALL_SIZES)
OEDEMA, ANYWHERE = "oedema beside a core", "anywhere: no lesion"
PLACES = (*(size.name for size in BINS), OEDEMA, ANYWHERE)
"""What a patch's centre lies on: a lesion of some size, or none."""

Places = npt.NDArray[np.integer]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cut:
    """How patches are cut, all in voxels along the label map's axes.

    ``outer``: what is read of the image; ``patch``: its middle, which the network gets. ``foreground``: the share of
    patches that must hold foreground.
    """

    outer: tuple[int, ...]
    patch: tuple[int, ...]
    foreground: float


@dataclass(frozen=True)
class Shares:
    """What ``expected`` gives.

    ``centres``: one row per ``PLACES``, the "number" of lesions there, and, by rule, the share of the patches that
    must hold foreground.
    ``small``: one row per rule, the share of patches that hold a voxel of a small lesion: of those that must hold
    foreground, of the others, of all.
    """

    centres: pd.DataFrame
    small: pd.DataFrame


def expected(cases: Cases, rules: tuple[PatchRule, ...], voxel_mm3: float, cut: Cut) -> Shares:
    """The shares under each of ``rules`` over ``cases``, as preprocessing left them; voxels are of ``voxel_mm3``.

    Raises ``ValueError`` without a case.
    """
    if not cases.identifiers:
        raise ValueError("cases: none; shares of patches need one at least")
    counted = np.zeros(len(PLACES), np.int64)
    centres = {rule: np.zeros(len(PLACES)) for rule in rules}
    small = {rule: np.zeros(2) for rule in rules}
    for identifier in cases.identifiers:
        _, stored, _, properties = cases.load_case(identifier)
        labels = np.asarray(stored[:])
        lesions, numbers = find_lesions(labels, voxel_mm3), lesion_numbers(labels[0])
        place = np.array([PLACES.index(OEDEMA), *(_bin(diameter) for diameter in lesions.diameters.tolist())])
        counted += np.bincount(place[1:], minlength=len(PLACES))
        holds = Holding(np.isin(numbers, 1 + np.flatnonzero(lesions.diameters < SMALL_MM)), cut)
        for rule in rules:
            found = list(_chances(properties["class_locations"], 1.0))
            if found and rule != "voxels":
                drawn = enumerate(lesion_shares(lesions.diameters, rule).tolist())
                regions = [*properties["class_locations"]]
                found = [one for lesion, share in drawn for one in _chances(lesions.locations(lesion, regions), share)]
            forced = 0.0
            for where, chance in found:
                lies_on = place[numbers[tuple(where.T)]]
                centres[rule] += np.bincount(lies_on, minlength=len(PLACES)) * chance
                forced += float(holds.around(where).sum()) * chance
            if not found:
                centres[rule][PLACES.index(ANYWHERE)] += 1
            small[rule] += [forced if found else holds.anywhere, holds.anywhere]
    number = len(cases.identifiers)
    table = pd.DataFrame({"number": counted}, PLACES)
    for rule, share in centres.items():
        table[rule] = share / number
    with_foreground, others = np.transpose([small[rule] / number for rule in rules])
    held = {
        "with foreground": with_foreground,
        "others": others,
        "all": cut.foreground * with_foreground + (1 - cut.foreground) * others,
    }
    return Shares(table, pd.DataFrame(held, pd.Index(rules, name="rule")))


class Holding:
    """Which patches of an image hold a voxel of ``mask``, by the corner that nnU-Net draws (its ``get_bbox``)."""

    def __init__(self, mask: npt.NDArray[np.bool_], cut: Cut) -> None:
        shape, outer, patch = (np.array(one) for one in (mask.shape, cut.outer, cut.patch))
        padding = np.maximum(outer - patch, outer - shape)
        self._half = outer // 2
        self._first = -padding // 2
        # around a voxel near the far side a patch may lie beyond the last corner that is drawn at random
        last = shape + padding // 2 + padding % 2 - outer
        furthest = np.maximum(last, shape - 1 - self._half)
        inset = outer // 2 - patch // 2  # as augmentation takes a patch's middle
        held: npt.NDArray[np.bool_] = mask
        for axis, size in enumerate(mask.shape):
            starts = np.arange(self._first[axis], furthest[axis] + 1) + inset[axis]
            before = np.insert(np.cumsum(held, axis=axis, dtype=np.int32), 0, 0, axis=axis)
            low, high = (np.clip(starts + more, 0, size) for more in (0, patch[axis]))
            held = np.take(before, high, axis=axis) > np.take(before, low, axis=axis)
        self._held = held
        drawn = tuple(slice(0, int(number)) for number in last - self._first + 1)
        self.anywhere = float(held[drawn].mean())
        """The share of the patches that are cut anywhere."""

    def around(self, voxels: Places) -> npt.NDArray[np.bool_]:
        """Whether the patch around each voxel (n, 3) does."""
        corners = np.maximum(self._first, voxels - self._half) - self._first
        return self._held[tuple(corners.T)]


def _chances(locations: Mapping[Region, Places], share: float) -> Iterator[tuple[Ints, float]]:
    """Voxels (n, 3) of each region that has some, and how likely each is, of a patch that is drawn with ``share``."""
    found = [np.asarray(places, np.int64)[:, 1:] for places in locations.values() if len(places)]
    yield from ((places, share / len(found) / len(places)) for places in found)


def _bin(diameter: float) -> int:
    return next(number for number, size in enumerate(BINS) if size.low <= diameter < size.high)
