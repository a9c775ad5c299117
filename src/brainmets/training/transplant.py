"""Lesion transplant: small lesions of training cases, cut out and blended into other training heads.

The setting ``lesion_transplant`` of any arm is the share of training patches that get one. ``Transplants`` wraps the
training dataset. Its donors are that dataset's own cases, so no validation or held-out case gives or gets a lesion.
The loader tells it which patch it is about to cut; only the voxels that a lesion changes differ from the case's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from ctypes import c_longlong
from itertools import permutations
from multiprocessing import Array
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from scipy import ndimage

from brainmets.scoring.lesions import equivalent_mm
from brainmets.training.preprocessed import open_array
from brainmets.training.transplant_places import NEIGHBOURS, Places, Tissue, find_places
from brainmets.vocabulary import LABELS, REGIONS

SMALLEST_MM, LARGEST_MM = 2.0, 15.0
"""Equivalent diameters of donors, with all that belongs to the lesion. A lesion moves with its oedema or not at all;
larger ones would need the mass effect that a transplant lacks."""
MARGIN_MM = 2.0
"""Between a transplanted lesion and the edge of the head or another lesion; one voxel at the least."""
SEAM_VOXELS = 2.0
"""Outside the lesion the donor's share falls linearly to zero at this distance."""
RING_MM = 6.0
"""How far a lesion's surroundings reach, whose level and spread are compared."""
LEAST_RING = 10
"""Voxels of a ring, below which it says nothing."""
GAINS = (2 / 3, 3 / 2)
"""Bounds of the factor that turns a donor's contrast into the recipient's: a ring is a small sample."""
MIDDLE = 0.7
"""The share of a patch's side within which a lesion's centre lies, so that augmentation seldom turns it out."""
NO_TISSUE = 0.1
"""The share of a lesion that may come on fluid, or on a vessel."""
DONORS_TRIED, PLACES_TRIED = 5, 10
"""How many donors, and places of each, are tried before a patch counts as one without room."""
COUNTED = ("patches", "patches_drawn_for", "patches_with_lesion")
"""Patches that were cut, those of them that were to have a lesion, and those that had room for one."""

Voxel = npt.NDArray[np.integer]


class Donor(NamedTuple):
    """A lesion that may be moved, and where it is cut from.

    ``lower``: the first voxel of its box in the case; it may be negative, as the box reaches ``RING_MM`` farther than
    the lesion. ``mask``: the lesion in that box, whose sides are odd, so that its centre stays when it is turned.
    ``reach_mm``: radius of the largest ball about its centre that the lesion and its margin fill. ``present``: which
    sequences its case has.
    """

    case: str
    lower: tuple[int, int, int]
    mask: npt.NDArray[np.bool_]
    diameter_mm: float
    reach_mm: float
    present: tuple[bool, ...]


class Graft(NamedTuple):
    """What a transplant changes of a case: values (sequence, voxel) at voxels (voxel, axis), and their labels.

    ``lesion`` says which of the voxels are the lesion's; the others are its seam and keep their label.
    """

    voxels: npt.NDArray[np.intp]
    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int16]
    lesion: npt.NDArray[np.bool_]
    donor: Donor


class Piece(NamedTuple):
    """A donor's box, turned: images (sequence, ...), labels, the lesion's mask, and that with its margin."""

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int16]
    mask: npt.NDArray[np.bool_]
    touched: npt.NDArray[np.bool_]


# --- donors ----------------------------------------------------------------------------------------------------------


def find_donors(
    case: str, labels: npt.NDArray[np.integer], present: tuple[bool, ...], spacing_mm: Sequence[float]
) -> Iterator[Donor]:
    """The lesions of a case that may be moved: ``labels`` (...) as preprocessed, -1 outside the head.

    A lesion is a component of all labels together (26 neighbours): tumour and oedema that touch are one. It is a donor
    where its equivalent diameter lies within ``SMALLEST_MM`` and ``LARGEST_MM``, it has tumour core, no resection
    cavity, and ends before the image does.
    """
    found, _ = ndimage.label(labels > 0, NEIGHBOURS)
    pad = [max(int(SEAM_VOXELS), int(np.ceil(RING_MM / mm))) for mm in spacing_mm]
    for number, box in enumerate(ndimage.find_objects(found), 1):
        mask = found[box] == number
        inside = labels[box][mask]
        diameter = float(equivalent_mm(len(inside) * np.prod(spacing_mm)))
        whole = all(side.start > 0 and side.stop < size for side, size in zip(box, labels.shape, strict=True))
        core = np.isin(inside, REGIONS["TC"]).any()
        if not (SMALLEST_MM <= diameter <= LARGEST_MM and whole and core) or (inside == LABELS["rc"]).any():
            continue
        mask = np.pad(mask, [(wide, wide + (side + 1) % 2) for wide, side in zip(pad, mask.shape, strict=True)])
        centre = tuple(side // 2 for side in mask.shape)
        reach = np.asarray(ndimage.distance_transform_edt(with_margin(mask, spacing_mm), sampling=spacing_mm))[centre]
        lower = tuple(side.start - wide for side, wide in zip(box, pad, strict=True))
        yield Donor(case, lower, mask, diameter, float(reach), present)


def with_margin(mask: npt.NDArray[np.bool_], spacing_mm: Sequence[float]) -> npt.NDArray[np.bool_]:
    """A lesion with what must be free around it: ``MARGIN_MM``, and every neighbour of its voxels."""
    near = ndimage.distance_transform_edt(~mask, sampling=spacing_mm) <= MARGIN_MM
    return near | ndimage.binary_dilation(mask, NEIGHBOURS)


def turns(spacing_mm: Sequence[float]) -> list[tuple[int, ...]]:
    """The orders of axes that a box may be turned to: only axes with the same spacing (within 1%) change places.

    >>> turns([5.0, 1.0, 1.0])
    [(0, 1, 2), (0, 2, 1)]
    """
    return [
        order for order in permutations(range(len(spacing_mm)))
        if all(np.isclose(spacing_mm[old], spacing_mm[new], rtol=0.01) for new, old in enumerate(order))
    ]  # fmt: skip


def turned(volume: npt.NDArray[Any], order: Sequence[int], mirrored: Sequence[int]) -> npt.NDArray[Any]:
    """``volume`` (..., z, y, x) with its last three axes in another ``order`` and then some of them ``mirrored``."""
    first = volume.ndim - 3
    moved = volume.transpose((*range(first), *(first + axis for axis in order)))
    return np.flip(moved, tuple(first + axis for axis in mirrored))


# --- blending --------------------------------------------------------------------------------------------------------


def donor_share(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """How much of a blended voxel is the donor's: 1 in the lesion, less in its seam, 0 beyond."""
    away = ndimage.distance_transform_edt(~mask)
    return np.clip(1 - away / SEAM_VOXELS, 0, 1).astype(np.float32)


def level_and_spread(
    images: npt.NDArray[np.floating], ring: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Median and interquartile range of each sequence (sequence, ...) in a lesion's surroundings."""
    low, median, high = np.percentile(images[:, ring], (25, 50, 75), axis=1)
    return median.astype(np.float32), (high - low).astype(np.float32)


def blend(
    donor: Piece, images: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]] | None:
    """The recipient's box with the donor's lesion in it; ``None`` where either has too little around it to compare.

    ``images`` (sequence, ...) and ``labels`` (...) are the recipient's, of the donor's box's shape. A sequence's value
    becomes ``(1 - w) r + w (R + g (d - D))``: ``r`` and ``d`` are recipient's and donor's values, ``R`` and ``D``
    the medians of the healthy voxels in the ring around the lesion, ``g`` the ratio of these rings' interquartile
    ranges within ``GAINS``, ``w`` the donor's share, 0 where the donor's head has ended. A sequence that is zero
    throughout the donor's box stays so.
    """
    share = np.where(donor.labels < 0, np.float32(0), donor_share(donor.mask))
    ring = share == 0
    rings = ring & (donor.labels == 0), ring & (labels == 0)
    if min(int(one.sum()) for one in rings) < LEAST_RING:
        return None
    (level_d, spread_d), (level_r, spread_r) = (
        level_and_spread(values, one) for values, one in zip((donor.images, images), rings, strict=True)
    )
    ratio = np.divide(spread_r, spread_d, out=np.ones_like(spread_r), where=spread_d > 0)
    gain = np.clip(ratio, *GAINS)
    column = (slice(None), None, None, None)
    moved = level_r[column] + gain[column] * (donor.images - level_d[column])
    present = np.asarray(donor.images.any(axis=(1, 2, 3)))[column]
    blended = np.where(present & (share > 0), images + share * (moved - images), images)
    return blended.astype(np.float32), np.where(donor.mask, donor.labels, labels).astype(np.int16)


# --- the training dataset ----------------------------------------------------------------------------------------


class Grafted:
    """An array of a case that is read as it lies on disk, but for a graft; it is cut as nnU-Net's loader cuts."""

    def __init__(self, array: Any, dataset: Transplants, name: str) -> None:
        self.array, self.dataset, self.name = array, dataset, name
        self.shape, self.ndim, self.dtype = array.shape, len(array.shape), array.dtype

    def __getitem__(self, box: tuple[slice, ...]) -> npt.NDArray[Any]:
        cut = np.asarray(self.array[box])
        if not self.dataset.begun:
            raise RuntimeError("the patch is cut before the dataset was told where it lies: begin_patch comes first")
        graft = self.dataset.graft
        if graft is None:
            return cut
        starts = [side.start or 0 for side in box[1:]]
        local = graft.voxels - starts
        within = ((local >= 0) & (local < cut.shape[1:])).all(1)
        values = graft.images if self.name == "images" else graft.labels[None]
        cut = cut.copy()
        z, y, x = local[within].T
        cut[:, z, y, x] = values[:, within]
        return cut


class Transplants:
    """The training dataset, in a share of whose patches a lesion of another of its cases is blended.

    Reading every case once, it keeps where its small lesions lie and where lesions may go. All draws come from NumPy's
    global state, which is the loader's stream while it makes a batch.

    Args:
        dataset: what the loader reads of, with ``identifiers``, ``source_folder`` and ``load_case``; for its cases.
        folder: the folder of preprocessed arrays.
        share: share of the patches that get a lesion, of 0 to 1.
        sequences: names of the channels.
        spacing_mm: the arrays' spacing, in their order of axes.
        final_patch: a patch's shape after augmentation.

    """

    def __init__(
        self,
        dataset: Any,
        folder: Path,
        share: float,
        sequences: Sequence[str],
        spacing_mm: Sequence[float],
        final_patch: Sequence[int],
    ) -> None:
        self.dataset, self.folder, self.share = dataset, folder, share
        self.identifiers: list[str] = dataset.identifiers
        self.spacing_mm, self.final_patch = tuple(spacing_mm), np.asarray(final_patch)
        self.turns = turns(spacing_mm)
        self.donors: list[Donor] = []
        self.places: dict[str, Places] = {}
        self.present: dict[str, tuple[bool, ...]] = {}
        for case in sorted(self.identifiers):
            images, labels = (np.asarray(self._array(case, end)[:]) for end in ("", "_seg"))
            self.present[case] = tuple(bool(image.any()) for image in images)
            self.places[case] = find_places(images, labels[0], sequences, spacing_mm)
            self.donors += find_donors(case, labels[0], self.present[case], spacing_mm)
        self._weights = np.array([1 / donor.diameter_mm for donor in self.donors])
        self.case = ""
        self.begun = False
        self.graft: Graft | None = None
        self._counts = Array(c_longlong, 3)  # one for all the processes that augment

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """A case as the wrapped dataset gives it, whose arrays show the graft of the next patch."""
        images, labels, earlier, properties = self.dataset.load_case(identifier)
        self.case, self.begun = identifier, False
        return Grafted(images, self, "images"), Grafted(labels, self, "labels"), earlier, properties

    def begin_patch(self, lower: Sequence[int], upper: Sequence[int]) -> None:
        """Draw whether the patch [``lower``, ``upper``) of the case loaded last gets a lesion; which, and where."""
        asked = bool(np.random.random_sample() < self.share)  # noqa: NPY002 - the loader's stream
        self.graft = self.draw(self.case, np.asarray(lower), np.asarray(upper)) if asked else None
        self.begun = True
        with self._counts.get_lock():
            for number, counts in enumerate((True, asked, self.graft is not None)):
                self._counts[number] += counts

    def count_from(self, report: Mapping[str, Any]) -> None:
        """Count on from an earlier ``report``, or from zero where it is empty; later draws trained nothing."""
        with self._counts.get_lock():
            self._counts[:] = [report.get(name, 0) for name in COUNTED]

    def report(self) -> dict[str, Any]:
        """Share asked for and achieved; counts of ``COUNTED``, of donors, and of cases by the rule of their places.

        Processes that augment draw a few patches more than are trained on.
        """
        counts = dict(zip(COUNTED, self._counts[:], strict=True))
        return {
            "share_asked_for": self.share,
            "share_achieved": round(counts["patches_with_lesion"] / max(counts["patches"], 1), 4),
            **counts,
            "donors": len(self.donors),
            "cases_by_place": dict(sorted(Counter(places.rule for places in self.places.values()).items())),
        }

    def draw(self, case: str, lower: Voxel, upper: Voxel) -> Graft | None:
        """A lesion for the patch [``lower``, ``upper``) of ``case``, or ``None`` where none that was tried has room.

        A donor comes from another case with the same sequences, in proportion to one over its equivalent diameter. Its
        centre is put on a place in the middle of the patch, so that it is in the final patch whole.
        """
        may = [donor.case != case and donor.present == self.present[case] for donor in self.donors]
        weights = self._weights * may
        if not weights.any():
            return None
        middle = (lower + upper) / 2
        places = self.places[case]
        central = (np.abs(places.voxels + 0.5 - middle) <= MIDDLE * self.final_patch / 2).all(1)
        if not central.any():
            return None
        ends = np.cumsum(weights)
        recipient = self._array(case, ""), self._array(case, "_seg")
        for _ in range(DONORS_TRIED):
            drawn = np.random.random_sample() * ends[-1]  # noqa: NPY002
            donor = self.donors[int(np.searchsorted(ends, drawn, side="right"))]
            near = places.voxels[central & (places.clearance_mm >= donor.reach_mm)]
            if not len(near):
                continue
            piece = self._turned(donor)
            for _ in range(PLACES_TRIED):
                place = near[np.random.randint(len(near))].astype(np.intp)  # noqa: NPY002
                if graft := self.placed(recipient, places.tissue, donor, piece, place, middle):
                    return graft
        return None

    def placed(
        self,
        recipient: tuple[Any, Any],
        tissue: Sequence[Tissue],
        donor: Donor,
        piece: Piece,
        place: Voxel,
        middle: npt.NDArray[np.floating],
    ) -> Graft | None:
        """The graft of ``piece`` with its centre on ``place`` of the ``recipient``'s images and labels, or ``None``.

        It has room where the lesion and its margin hold label 0 alone (within the head and no other lesion's) and lie
        in the final patch around ``middle``, and where the lesion comes on ``tissue``, but for ``NO_TISSUE`` of it.
        """
        shape = np.asarray(piece.mask.shape)
        lower = place - shape // 2
        box = [[int(start), int(start + side)] for start, side in zip(lower, shape, strict=True)]
        voxels = np.argwhere(piece.touched) + lower
        if (np.abs(voxels + 0.5 - middle) > self.final_patch / 2 - 1).any():
            return None
        labels = crop_and_pad_nd(recipient[1], box, -1)[0]
        if (labels[piece.touched] != 0).any():
            return None
        images = crop_and_pad_nd(recipient[0], box, 0)
        for channel, lowest, highest in tissue:
            values = images[channel][piece.mask]
            if np.mean((values < lowest) | (values > highest)) > NO_TISSUE:
                return None
        if (blended := blend(piece, images, labels)) is None:
            return None
        changed = np.argwhere(donor_share(piece.mask) > 0)
        z, y, x = changed.T
        return Graft(changed + lower, blended[0][:, z, y, x], blended[1][z, y, x], piece.mask[z, y, x], donor)

    def _turned(self, donor: Donor) -> Piece:
        """A donor's box, mirrored along axes and turned by right angles in planes of equal spacing, by chance."""
        box = [[start, start + side] for start, side in zip(donor.lower, donor.mask.shape, strict=True)]
        images = crop_and_pad_nd(self._array(donor.case, ""), box, 0)
        labels = crop_and_pad_nd(self._array(donor.case, "_seg"), box, -1)[0]
        order = self.turns[np.random.randint(len(self.turns))]  # noqa: NPY002
        mirrored = tuple(axis for axis in range(3) if np.random.randint(2))  # noqa: NPY002
        mask = turned(donor.mask, order, mirrored)
        return Piece(
            turned(images, order, mirrored), turned(labels, order, mirrored), mask, with_margin(mask, self.spacing_mm)
        )

    def _array(self, case: str, end: str) -> Any:
        return open_array(self.folder / f"{case}{end}.b2nd")
