"""Prepared patients as the preparation leaves them, most of them right and ten with a planted failure each.

The patients are phantoms at 3 mm in the template's space. What a registration says of itself is drawn: the phantoms of
this file were never apart. Sequences lie up to half a millimetre from their place, as after a good registration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from nibabel.nifti1 import Nifti1Image
from nibabel.processing import resample_from_to
from nilearn import datasets
from scipy import ndimage

from brainmets.phantoms.sites import make_patient
from brainmets.preparation.quality import Template
from brainmets.vocabulary import SEQUENCES

SPACING_MM = 3.0
FIRST_FAILED = 101
"""Phantoms from this number on carry the failures."""


class Numbers(NamedTuple):
    """What a registration says of itself."""

    metric: float
    metric_before: float
    rotation_deg: float
    translation_mm: float
    spread_mm: float
    mirrored: float


@dataclass
class Prepared:
    """One prepared patient: arrays (x, y, z) along R, A, S on the grid of ``affine``."""

    case: str
    images: dict[str, np.ndarray]
    mask: np.ndarray
    label: np.ndarray
    affine: np.ndarray
    registrations: dict[str, Numbers] = field(default_factory=dict)

    @property
    def template(self) -> Template:
        """The template on this patient's grid."""
        target = (self.mask.shape, self.affine)
        image, mask = (resample_from_to(part, target, order=1).get_fdata() for part in _template())
        return Template(image, mask > 0.5)


@lru_cache(maxsize=1)
def _template() -> tuple[Nifti1Image, Nifti1Image]:
    return datasets.load_mni152_template(resolution=2), datasets.load_mni152_brain_mask(resolution=2)


def patient(number: int, seed: int = 11, spacing_mm: float = SPACING_MM, site: str = "source") -> Prepared:
    """A patient that was prepared well."""
    phantom = make_patient(site, number, spacing_mm, seed)
    rng = np.random.default_rng([seed, number, 77])
    images = {}
    for name in SEQUENCES:
        off = rng.uniform(-0.5, 0.5, 3) * (name != "t1c") / spacing_mm
        images[name] = ndimage.shift(phantom.images[name].astype(np.float32), off, order=1)
    numbers = {name: _numbers(rng, name) for name in SEQUENCES}
    return Prepared(f"P-{number:05d}-000", images, phantom.brain, phantom.labels > 0, phantom.affine, numbers)


def _numbers(rng: np.random.Generator, name: str) -> Numbers:
    """As a registration of a patient who moved by up to 15 degrees and 20 mm between sequences."""
    metric = {"t1n": 1.20, "t1c": 1.10, "t2w": 1.13, "t2f": 1.11}[name] + float(rng.normal(0, 0.012))
    return Numbers(
        metric, 1.04, float(rng.uniform(0, 15)), float(rng.uniform(0, 20)), float(rng.uniform(0.02, 0.4)),
        float("nan") if name == "t1c" else -float(rng.uniform(0.04, 0.07)),
    )  # fmt: skip


def _moved(image: np.ndarray, mm: tuple[float, float, float]) -> np.ndarray:
    return ndimage.shift(image, np.array(mm) / SPACING_MM, order=1)


def _displaced(made: Prepared) -> None:
    made.images["t2w"] = _moved(made.images["t2w"], (0, 8, 6))


def _turned(made: Prepared) -> None:
    made.images["t2f"] = ndimage.rotate(made.images["t2f"], 8, axes=(1, 2), reshape=False, order=1)


def _of_another_patient(made: Prepared) -> None:
    other = patient(FIRST_FAILED + 50)
    voxels = resample_from_to(Nifti1Image(other.images["t1n"], other.affine), (made.mask.shape, made.affine), order=1)
    made.images["t1n"] = voxels.get_fdata().astype(np.float32)


def _flipped(made: Prepared) -> None:
    """About the middle of the brain, where a registration would bring it."""
    image = made.images["t2f"][::-1]
    middle = [ndimage.center_of_mass(part > 0)[0] for part in (made.images["t2f"], image)]
    made.images["t2f"] = ndimage.shift(image, (middle[0] - middle[1], 0, 0), order=1)


def _half_a_head(made: Prepared) -> None:
    middle = round(ndimage.center_of_mass(made.mask)[0])
    for image in made.images.values():
        image[:middle] = 0


def _mask_too_small(made: Prepared) -> None:
    made.mask = ndimage.binary_erosion(made.mask, iterations=2)


def _mask_shifted(made: Prepared) -> None:
    made.mask = np.roll(made.mask, 4, 2)


def _cut_by_the_field_of_view(made: Prepared) -> None:
    made.images["t2w"][:, :, np.flatnonzero(made.mask.any((0, 1)))[-1] - 8 :] = 0


def _upside_down(made: Prepared) -> None:
    made.images["t2w"] = made.images["t2w"][:, :, ::-1]


def _label_displaced(made: Prepared) -> None:
    made.label = np.roll(made.label, (3, -3), (0, 1))


def _empty(made: Prepared) -> None:
    made.images["t2f"] = np.zeros_like(made.images["t2f"])


def _mask_too_large(made: Prepared) -> None:
    made.mask = ndimage.binary_dilation(made.mask, iterations=2)


def _on_its_side(made: Prepared) -> None:
    """All sequences alike: only the template can tell."""

    def turn(voxels: np.ndarray, order: int) -> np.ndarray:
        return ndimage.rotate(voxels, 25, axes=(1, 2), reshape=False, order=order)

    made.images = {name: turn(image, 1) for name, image in made.images.items()}
    made.mask = turn(made.mask.astype(np.uint8), 0) > 0
    made.label = turn(made.label.astype(np.uint8), 0) > 0


FAILURES: dict[str, tuple[Callable[[Prepared], None], tuple[str, ...]]] = {
    "displaced by 10 mm": (_displaced, ("t2w",)),
    "turned by 8 degrees": (_turned, ("t2f",)),
    "another patient's": (_of_another_patient, ("t1n",)),
    "left and right swapped": (_flipped, ("t2f",)),
    "half a head": (_half_a_head, ()),
    "mask too small": (_mask_too_small, ()),
    "mask shifted": (_mask_shifted, ()),
    "cut by the field of view": (_cut_by_the_field_of_view, ("t2w",)),
    "upside down": (_upside_down, ("t2w",)),
    "label displaced": (_label_displaced, ()),
}
"""Per failure what it does to a patient, and the sequences that are to be named."""
MORE_FAILURES: dict[str, tuple[Callable[[Prepared], None], tuple[str, ...]]] = {
    "empty": (_empty, ("t2f",)),
    "mask too large": (_mask_too_large, ()),
    "head turned by 25 degrees": (_on_its_side, ()),
}


def failed(failure: str, number: int, seed: int = 11) -> Prepared:
    """A patient with one failure."""
    made = patient(number, seed)
    {**FAILURES, **MORE_FAILURES}[failure][0](made)
    return made
