"""Patches placed on lesions: a patch that must hold foreground is centred on a lesion drawn first, then on its voxel.

nnU-Net draws a case, then a region, then a voxel of that region, so that a lesion of a thousand voxels is drawn a
thousand times as often as one of a single voxel. Under the setting ``lesion_sampling`` ("lesions" or "small_lesions",
``brainmets.vocabulary.PatchRule``) a lesion of the case is drawn before the region, and nnU-Net sees that lesion's
voxels alone. Three rules:

- a lesion is a 26-connected component of the tumour core (TC), or one of the whole tumour (WT) that holds no core.
  Metastases that share an oedema are one component of WT; their cores are what is counted and scored;
- lesions are those of the preprocessed label map, as the network sees them; one that resampling took is not there to
  be drawn, and a case without any is cut anywhere, as nnU-Net does;
- the case is drawn first and each alike, as before. Drawn by its number of lesions, a case without lesions would
  never be seen, and a few patients with many would fill the batches. So a lesion among thirty is drawn less often
  than an only one; ``brainmets.training.patch_shares`` shows what follows.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from brainmets.nifti import around
from brainmets.scoring.lesions import components, equivalent_mm
from brainmets.vocabulary import PatchRule, region_mask

KEPT_VOXELS = 1000
"""Voxels of a lesion that a patch may be centred on, drawn once from a larger one (nnU-Net: 10,000 of a region)."""
SEED_OF_KEPT = 1234
"""nnU-Net's own, for the same purpose: every process, and every run, keeps the same voxels."""

Region = int | tuple[int, ...]
"""A region by its labels, as nnU-Net's "class_locations" are keyed; a label alone is a region of one."""


class Cases(Protocol):
    """What nnU-Net's loader asks of its cases."""

    identifiers: list[str]

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Images, label map, labels of an earlier stage, and properties of a case."""


@dataclass(frozen=True)
class CaseLesions:
    """The lesions of one case, each at its place in every list.

    ``voxels``: how many it has. ``diameters``: of the balls of their volumes, mm. ``places`` (kept voxel, 4): indices
    into the label map, the first axis the channel's. ``labels`` (kept voxel): what stands there.
    """

    voxels: npt.NDArray[np.int64]
    diameters: npt.NDArray[np.float64]
    places: list[npt.NDArray[np.int16]]
    labels: list[npt.NDArray[np.int8]]

    def locations(self, lesion: int, regions: Iterable[Region]) -> dict[Region, npt.NDArray[np.int32]]:
        """nnU-Net's "class_locations" of one lesion: the voxels of each region; none where it has none of it."""
        places = self.places[lesion].astype(np.int32)
        return {region: places[np.isin(self.labels[lesion], region)] for region in regions}


class LesionSampling:
    """Training cases whose places of labels are, each time a case is loaded, those of one lesion of it.

    The lesion is drawn from NumPy's global state, which is the loader's stream (``brainmets.training.seeds``).
    ``known`` remembers the lesions of a case from its first use on.
    """

    def __init__(
        self, cases: Cases, rule: PatchRule, voxel_mm3: float, known: MutableMapping[str, CaseLesions]
    ) -> None:
        self.identifiers = cases.identifiers
        self._cases = cases
        self._rule = rule
        self._voxel_mm3 = voxel_mm3
        self._known = known

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """The case with the "class_locations" of one lesion; a case without lesions as it is."""
        images, labels, earlier, properties = self._cases.load_case(identifier)
        lesions = self.lesions_of(identifier, labels)
        if len(lesions.diameters):
            shares = lesion_shares(lesions.diameters, self._rule)
            drawn = np.random.choice(len(shares), p=shares)  # noqa: NPY002 - from the loader's stream
            regions = properties["class_locations"]
            properties = {**properties, "class_locations": lesions.locations(drawn, regions)}
        return images, labels, earlier, properties

    def lesions_of(self, identifier: str, labels: Any) -> CaseLesions:
        """The lesions of a case, looked for in its label map (1, ...) where it is asked for the first time."""
        if identifier not in self._known:
            self._known[identifier] = find_lesions(np.asarray(labels[:]), self._voxel_mm3)
        return self._known[identifier]


def lesion_shares(diameters: npt.NDArray[np.floating], rule: PatchRule) -> npt.NDArray[np.float64]:
    """How likely each lesion of a case is drawn, by its equivalent diameter in mm; their sum is 1.

    Each alike under "lesions", in proportion to one over the diameter under "small_lesions". Raises ``ValueError``
    under "voxels", where no lesion is drawn.
    """
    if rule == "voxels":
        raise ValueError('lesion_sampling: "voxels" draws voxels of a region, not lesions')
    weights = np.ones(len(diameters)) if rule == "lesions" else 1 / np.asarray(diameters, np.float64)
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    return shares


def find_lesions(labels: npt.NDArray[np.integer], voxel_mm3: float) -> CaseLesions:
    """The lesions of a preprocessed label map (1, ...), of voxels of ``voxel_mm3``; none where there is no tumour."""
    numbers = lesion_numbers(labels[0]).ravel()
    there = np.flatnonzero(numbers)
    voxels = np.bincount(numbers[there], minlength=1)[1:]
    each = np.split(there[np.argsort(numbers[there], kind="stable")], np.cumsum(voxels))[:-1]
    generator = np.random.default_rng(SEED_OF_KEPT)
    kept = [
        np.sort(generator.choice(one, KEPT_VOXELS, replace=False)) if len(one) > KEPT_VOXELS else one for one in each
    ]
    return CaseLesions(
        voxels,
        equivalent_mm(voxels * voxel_mm3),
        [np.stack(np.unravel_index(one, labels.shape), axis=1).astype(np.int16) for one in kept],
        [labels.ravel()[one].astype(np.int8) for one in kept],
    )


def lesion_numbers(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    """A label map's lesions by number from 1: components of the core, then those of the whole tumour without one.

    Oedema beside a core is 0, as all else is.
    """
    numbers = np.zeros(labels.shape, np.int32)
    box = around(np.nonzero(labels > 0))  # components are looked for there alone
    numbers[box] = _numbers_within(labels[box])
    return numbers


def _numbers_within(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    core = region_mask(labels, "TC")
    numbers = components(core).astype(np.int32)
    tumours = components(region_mask(labels, "WT"))
    without = ~np.isin(tumours, [0, *np.unique(tumours[core])])
    _, order = np.unique(tumours[without], return_inverse=True)
    numbers[without] = numbers.max(initial=0) + 1 + order
    return numbers
