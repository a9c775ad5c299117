"""Results of the prepared grid brought back onto the source t1c's, voxel for voxel as that was scanned.

Probabilities are resampled linearly, through the inverse of the one transform that prepared the t1c; labels are
painted anew where they exceed 0.5, the entropy is worked out anew, and candidates' numbers are taken from the nearest
voxel. On a coarser grid a candidate may fall between the voxels: it then keeps the one in which its most probable
voxel lies (the nearest free neighbour, where that is another candidate's). One that lies beyond the t1c has no place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage

from brainmets import nifti
from brainmets.preparation import raw, registration
from brainmets.preparation.grids import image_of
from brainmets.preparation.scans import Series
from brainmets.scoring.probabilities import entropy_bits
from brainmets.vocabulary import LABELS, NETWORK_REGIONS

Probability = npt.NDArray[np.float32]
PAINTED = 0.5
PAINTS = {"WT": LABELS["snfh"], "TC": LABELS["netc"], "ET": LABELS["et"]}
"""The label that each region paints, one region over the other in the network's order."""
UPRIGHT = 1e-4


@dataclass(frozen=True)
class Onto:
    """The grid of a t1c as it was scanned (LPS, in the axes of its file), and the way there.

    ``to_prepared`` takes a point of it (mm, LPS) to the prepared grid.
    """

    image: sitk.Image
    to_prepared: sitk.Euler3DTransform

    @property
    def affine(self) -> nifti.Affine:
        """Voxel indices to mm in RAS."""
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(self.image.GetDirection(), (3, 3)) * self.image.GetSpacing()
        affine[:3, 3] = self.image.GetOrigin()
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine

    @property
    def upright(self) -> bool:
        """Whether the axes are at right angles: those of a tilted gantry are not, and most programs misread them."""
        axes = np.reshape(self.image.GetDirection(), (3, 3))
        return bool(np.allclose(axes.T @ axes, np.eye(3), atol=UPRIGHT))

    @property
    def voxels(self) -> npt.NDArray[np.float32]:
        """The t1c (x, y, z)."""
        return np.asarray(sitk.GetArrayFromImage(self.image).T, np.float32)


@dataclass(frozen=True)
class Results:
    """What a scan's result is made of, every volume (x, y, z) on the grid of ``affine``.

    ``probabilities``: region to float32; ``labels``: uint8, BraTS labels; ``numbers``: uint16, each candidate's;
    ``uncertainty``: float32, the binary entropy in bits of ``region``; ``beyond``: numbers that have no voxel there.
    """

    t1c: npt.NDArray[np.float32]
    affine: nifti.Affine
    probabilities: dict[str, Probability]
    labels: npt.NDArray[np.uint8]
    numbers: npt.NDArray[np.uint16]
    uncertainty: npt.NDArray[np.float32]
    beyond: tuple[int, ...]


def source(series: Series, transforms: Path, space: str) -> Onto:
    """The source t1c and the way from it to the prepared grid, from the ``*.tfm`` in the folder ``transforms``.

    The axes are those of the file; of DICOM they point to L, P and S as nearly as they can. ``space``: that of the
    preparation; "t1c" means that the prepared grid is the t1c's. Raises ``ScanError`` where the series cannot be read.
    """
    image = raw.read(series)
    if series.kind == "volume":
        image = _as_in_the_file(image, series.files[0])
    back = sitk.Euler3DTransform()
    if space == "template":
        back = registration.inverse(registration.read_transforms(transforms)["template"])
    return Onto(image, back)


def unmoved(
    t1c: npt.NDArray[Any],
    affine: nifti.Affine,
    probabilities: Mapping[str, Probability],
    numbers: npt.NDArray[np.integer],
    region: str,
) -> Results:
    """The results on the grid on which they were found: that of a prepared case."""
    return Results(
        np.asarray(t1c, np.float32), affine, dict(probabilities), paint(probabilities),
        numbers.astype(np.uint16), entropy(probabilities[region]), (),
    )  # fmt: skip


def carry(
    onto: Onto,
    affine: nifti.Affine,
    probabilities: Mapping[str, Probability],
    numbers: npt.NDArray[np.integer],
    region: str,
) -> Results:
    """The results on the source grid.

    ``affine``: of the prepared grid, on which ``probabilities`` (by region, the operating point's ``region`` among
    them) and ``numbers`` (0 outside any candidate) are (x, y, z).
    """
    carried = {
        name: np.clip(_resampled(image_of(volume, affine), onto, sitk.sitkLinear), 0, 1).astype(np.float32)
        for name, volume in probabilities.items()
    }
    placed = _resampled(image_of(numbers.astype(np.uint16), affine), onto, sitk.sitkNearestNeighbor).astype(np.uint16)
    beyond = _keep(placed, numbers, probabilities[region], affine, onto)
    return Results(onto.voxels, onto.affine, carried, paint(carried), placed, entropy(carried[region]), beyond)


def paint(probabilities: Mapping[str, Probability]) -> npt.NDArray[np.uint8]:
    """BraTS labels of the regions' probabilities (each of one shape), as nnU-Net paints them."""
    labels = np.zeros(probabilities[NETWORK_REGIONS[0]].shape, np.uint8)
    for region in NETWORK_REGIONS:
        labels[probabilities[region] > np.float32(PAINTED)] = PAINTS[region]
    return labels


def entropy(probability: Probability) -> npt.NDArray[np.float32]:
    """Binary entropy in bits of any shape; 0 for a probability of 0 or 1."""
    result = np.zeros(probability.shape, np.float32)
    inside = (probability > 0) & (probability < 1)
    result[inside] = entropy_bits(probability[inside])
    return result


def _resampled(image: sitk.Image, onto: Onto, how: int) -> npt.NDArray[Any]:
    return np.asarray(sitk.GetArrayFromImage(sitk.Resample(image, onto.image, onto.to_prepared, how, 0.0)).T)


def _keep(
    placed: npt.NDArray[np.uint16],
    numbers: npt.NDArray[np.integer],
    probability: Probability,
    affine: nifti.Affine,
    onto: Onto,
) -> tuple[int, ...]:
    """Give each number without a voxel one, in place, the lowest number first; gives those without any place."""
    highest = int(numbers.max(initial=0))
    sizes = np.bincount(placed.ravel(), minlength=highest + 1)
    lost = [number for number in range(1, highest + 1) if not sizes[number]]
    peaks = ndimage.maximum_position(probability, numbers, lost) if lost else []
    back = registration.inverse(onto.to_prepared)
    around = np.array(list(product((-1, 0, 1), repeat=3)))
    beyond = []
    for number, peak in zip(lost, peaks, strict=True):
        x, y, z = affine[:3, :3] @ np.array(peak) + affine[:3, 3]
        there = np.array(onto.image.TransformPhysicalPointToContinuousIndex(back.TransformPoint((-x, -y, z))))
        size = np.array(placed.shape)
        if not ((there >= -0.5) & (there < size - 0.5)).all():
            beyond.append(number)
            continue
        near = np.clip(np.floor(there + 0.5).astype(int), 0, size - 1) + around
        near = near[((near >= 0) & (near < size)).all(1)]
        order = np.argsort(np.linalg.norm(near - there, axis=1), kind="stable")
        places = [tuple(int(axis) for axis in near[one]) for one in order]
        free = next((place for place in places if not placed[place]), None)
        free = free or next((place for place in places if sizes[placed[place]] > 1), None)
        if free is None:
            beyond.append(number)
            continue
        sizes[placed[free]] -= 1
        sizes[number] = 1
        placed[free] = number
    return tuple(beyond)


def _as_in_the_file(image: sitk.Image, path: Path) -> sitk.Image:
    """A volume whose axes were turned to LPS, turned back to those of its file."""
    if path.name.lower().endswith(nifti.SUFFIXES):
        return sitk.DICOMOrient(image, "".join(nib.aff2axcodes(nifti.read_scan_grid(path).affine)))
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return sitk.DICOMOrient(
        image, sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(reader.GetDirection())
    )
