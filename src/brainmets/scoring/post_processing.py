"""Post-processing by rule: what may be taken out of a predicted label map, or filled in, without asking the network.

Four rules, always in the order of ``ORDER``, each of which may be left out:

1. ``holes``: background that a lesion encloses is filled. Lesions are 26-connected, so background is 6-connected; what
   reaches the image's edge is not enclosed. Where the tumour core alone encloses it, it becomes NETC (a core without
   enhancement is what BraTS calls the inside of a ring); where only the oedema closes the wall, SNFH.
2. ``tc_without_et``: a component of the tumour core without a single enhancing voxel becomes SNFH. NETC is the core of
   an enhancing metastasis; alone it is most often oedema that was taken for a core. The voxels stay in the whole
   tumour, so that nothing that was found is lost by it.
3. ``wt_without_tc``: a component of the whole tumour without tumour core is dropped: oedema surrounds a metastasis.
4. ``smallest_volume``: a component of the whole tumour of less than a volume is dropped. It is the whole tumour's
   volume, not each region's: dropping a speck of ET from a large lesion would leave a hole or an invented label, and
   the regions would no longer be nested.

Filling comes first, so that a ring is weighed with its inside; then what the second rule made SNFH alone is dropped by
the third. In this order a second pass changes nothing. The resection cavity is never touched, and a hole that holds
one is no hole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cc3d
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brainmets import nifti
from brainmets.scoring.boxes import Labels, Mask
from brainmets.scoring.lesions import components
from brainmets.vocabulary import LABELS, PostRule, region_mask

ORDER: tuple[PostRule, ...] = ("holes", "tc_without_et", "wt_without_tc", "smallest_volume")
TITLES: dict[str, str] = {
    "holes": "holes filled",
    "tc_without_et": "tumour core without enhancement made oedema",
    "wt_without_tc": "whole tumour without core dropped",
    "smallest_volume": "whole tumour below {volume:g} mm³ dropped",
}
"""What each rule does, for readers."""


@dataclass(frozen=True)
class Combination:
    """Some of the rules, in the order of ``ORDER``; ``smallest_mm3`` is 0 without the rule of that name.

    Raises ``ValueError`` for rules in another order, a negative volume, and a volume without its rule.
    """

    rules: tuple[PostRule, ...] = ()
    smallest_mm3: float = 0.0

    def __post_init__(self) -> None:
        if self.rules != tuple(rule for rule in ORDER if rule in self.rules):
            raise ValueError(f"rules: {', '.join(self.rules)} must each be one of {', '.join(ORDER)}, in this order")
        if self.smallest_mm3 < 0 or (self.smallest_mm3 > 0 and "smallest_volume" not in self.rules):
            raise ValueError(
                f"smallest_mm3: {self.smallest_mm3:g} with the rules {', '.join(self.rules) or 'none'}: a volume of 0 "
                "or more, and only with smallest_volume"
            )

    @property
    def words(self) -> str:
        """For a reader: what is done, in its order; "no rule" for none."""
        return "; ".join(TITLES[rule].format(volume=self.smallest_mm3) for rule in self.rules) or "no rule"


def process(labels: Labels, voxel_mm3: float, combination: Combination) -> Labels:
    """A new label map (x, y, z) after the combination's rules; ``labels`` hold BraTS labels and stay as they are.

    ``voxel_mm3``: the volume of a voxel. An empty label map stays empty.
    """
    result = labels.copy()
    box = ndimage.find_objects((labels > 0).astype(np.uint8))
    if box:
        inside = result[box[0]]
        for rule in combination.rules:
            inside = applied(inside, rule, voxel_mm3, combination.smallest_mm3)
        result[box[0]] = inside
    return result


def applied(labels: Labels, rule: PostRule, voxel_mm3: float, smallest_mm3: float) -> Labels:
    """``labels`` after a single rule: a new array, or the same one where it finds nothing to do."""
    if rule == "smallest_volume":
        return _without_small(labels, voxel_mm3, smallest_mm3)
    rules: dict[str, Callable[[Labels], Labels]] = {
        "holes": _filled, "tc_without_et": _without_bare_core, "wt_without_tc": _without_bare_oedema,
    }  # fmt: skip
    return rules[rule](labels)


def process_folder(predictions: Path, cases: Iterable[str], combination: Combination, folder: Path) -> list[Path]:
    """Write each case's processed label map, ``<case>.nii.gz``, to ``folder``, with the prediction's own affine."""
    written = []
    for case in cases:
        path = predictions / f"{case}.nii.gz"
        grid = nifti.read_grid(path)
        voxel_mm3 = float(np.prod(grid.spacing))
        labels = process(nifti.read_labels(path), voxel_mm3, combination)
        written.append(nifti.write(folder / path.name, labels, grid.affine))
    return written


def _filled(labels: Labels) -> Labels:
    spaces = _background(region_mask(labels, "WT"))
    with_cavity = np.unique(spaces[labels == LABELS["rc"]])
    holes = (spaces > 0) & ~np.isin(spaces, with_cavity)
    if not holes.any():
        return labels
    in_core = _background(region_mask(labels, "TC"))[holes] > 0
    result = labels.copy()
    result[holes] = np.where(in_core, LABELS["netc"], LABELS["snfh"])
    return result


def _background(region: Mask) -> npt.NDArray[np.integer]:
    """A number above 0 for each 6-connected space that the region encloses; 0 in the region and outside it."""
    padded = np.pad(region, 1)  # so that what reaches the edge belongs to the outside
    spaces = cc3d.connected_components((~padded).astype(np.uint8), connectivity=6)
    spaces[spaces == spaces[0, 0, 0]] = 0
    return np.asarray(spaces[1:-1, 1:-1, 1:-1])


def _without_bare_core(labels: Labels) -> Labels:
    numbers, bare = _components_without(region_mask(labels, "TC"), labels == LABELS["et"])
    return _painted(labels, numbers, bare, LABELS["snfh"])


def _without_bare_oedema(labels: Labels) -> Labels:
    numbers, bare = _components_without(region_mask(labels, "WT"), region_mask(labels, "TC"))
    return _painted(labels, numbers, bare, LABELS["background"])


def _without_small(labels: Labels, voxel_mm3: float, smallest_mm3: float) -> Labels:
    numbers = components(region_mask(labels, "WT"))
    volumes = np.round(np.bincount(numbers.ravel()) * voxel_mm3, 6)  # spacings of headers are off in the last digit
    small = volumes < smallest_mm3
    small[0] = False
    return _painted(labels, numbers, small, LABELS["background"])


def _components_without(region: Mask, needed: Mask) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.bool_]]:
    """The region's components, and by number which of them hold no voxel of ``needed``."""
    numbers = components(region)
    without = np.ones(int(numbers.max()) + 1, bool)
    without[np.unique(numbers[needed])] = False
    without[0] = False
    return numbers, without


def _painted(labels: Labels, numbers: npt.NDArray[np.integer], chosen: npt.NDArray[np.bool_], label: int) -> Labels:
    if not chosen.any():
        return labels
    result = labels.copy()
    result[chosen[numbers]] = label
    return result
