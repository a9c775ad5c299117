"""NIfTI images and label maps: the one reader, the one writer, and the one rule for "the same grid".

Arrays keep the file's axes (i, j, k) and its memory order. An affine (4x4) takes voxel indices to mm in RAS+: x to the
patient's right, y to the front, z to the top. Two grids are the same when their shapes are equal and no corner of one
lies further than ``GRID_TOLERANCE_MM`` from its partner.
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

from brainmets.files import replacing
from brainmets.vocabulary import CONVERT, LABELS, NIFTI_SUFFIXES

Affine = npt.NDArray[np.float64]
Spacing = tuple[float, float, float]
"""Voxel sides in mm, in the order of the axes."""

SUFFIXES = NIFTI_SUFFIXES
GRID_TOLERANCE_MM = 0.01
"""Above any writer's rounding, below any shift that matters."""


class ImageError(ValueError):
    """A file that is no image, or not one that can be used; ``problem`` is the message without the file's path."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.problem = problem

    def __reduce__(self) -> tuple[Any, ...]:  # an exception of two arguments does not cross processes by itself
        return _image_error, (str(self), self.problem)


def _image_error(message: str, problem: str) -> ImageError:
    error = ImageError(Path(), problem)
    error.args = (message,)
    return error


@dataclass(frozen=True)
class Grid:
    """Shape, affine and voxel sides of one 3D file."""

    path: Path
    shape: tuple[int, int, int]
    affine: Affine
    spacing: Spacing

    @property
    def orientation(self) -> str:
        """Where the three axes point, such as "RAS" or "LPS" (the nearest directions)."""
        return "".join(nib.aff2axcodes(self.affine))

    @property
    def voxel_mm3(self) -> float:
        """Volume of one voxel."""
        return float(np.prod(self.spacing))

    def to_ras(self) -> Grid:
        """The grid of the volume that ``nifti.to_ras`` gives."""
        turn = nib.io_orientation(self.affine)
        axes = np.argsort(turn[:, 0])
        x, y, z = (int(axis) for axis in axes)
        affine = self.affine @ nib.orientations.inv_ornt_aff(turn, self.shape)
        shape, spacing = self.shape, self.spacing
        return Grid(self.path, (shape[x], shape[y], shape[z]), affine, (spacing[x], spacing[y], spacing[z]))

    def distance_mm(self, other: Grid) -> float:
        """The largest distance between the same corner of both grids; infinite where the shapes differ."""
        if self.shape != other.shape:
            return float("inf")
        corners = np.array(list(product(*((0, size) for size in self.shape))), dtype=float)
        apart = nib.affines.apply_affine(self.affine, corners) - nib.affines.apply_affine(other.affine, corners)
        return float(np.linalg.norm(apart, axis=1).max())

    def same(self, other: Grid) -> bool:
        """Whether both are one grid by the rule of this module."""
        return self.distance_mm(other) <= GRID_TOLERANCE_MM

    def require_same(self, other: Grid, remedy: str) -> None:
        """Raise ``ImageError`` that shows both grids and says what to do, unless they are one."""
        if not self.same(other):
            raise ImageError(
                self.path,
                f"lies on another grid than {other.path.name}; {remedy}\n"
                f"  {self.path.name}: {self.describe()}\n  {other.path.name}: {other.describe()}",
            )

    def describe(self) -> str:
        """Shape and affine in one line."""
        rows = "; ".join(_numbers(row) for row in self.affine[:3])
        return f"shape {self.shape}, affine [{rows}]"


def read_grid(path: Path) -> Grid:
    """The grid from the file's header alone.

    Raises ``ImageError`` for a file that is no single 3D NIfTI volume, and for a header that gives other voxel sides
    than its affine (distances and volumes would be wrong under one of them).
    """
    return _grid(path, _open(path))


def read_scan_grid(path: Path) -> Grid:
    """The grid of an image as it comes from a scanner, from the file's header alone.

    Raises ``ImageError`` as ``read_grid`` does, and for a header that says no orientation (sform and qform code both
    0) or whose voxels are no single numbers (colour, complex).
    """
    image = _open(path)
    grid = _grid(path, image)
    if image.get_data_dtype().kind not in "iuf":
        raise ImageError(path, "its voxels are no single numbers (colour or complex); export its grey values")
    if not (int(image.header["sform_code"]) or int(image.header["qform_code"])):
        raise ImageError(
            path, "says no orientation: left and right cannot be told apart; export it again from the DICOM files"
        )
    return grid


def read_volume(path: Path) -> tuple[npt.NDArray[Any], Grid]:
    """The voxels (3D, scaled as the header says, of the type that this gives) and their grid.

    Raises ``ImageError`` as ``read_grid`` does, and for voxels that cannot be decoded.
    """
    image = _open(path)
    grid = _grid(path, image)
    try:
        return np.asanyarray(image.dataobj), grid
    except Exception as error:  # a damaged stream raises almost anything
        raise ImageError(path, _unreadable(path, error)) from error


def read_labels(path: Path, label_map: Mapping[int, int] | None = None) -> npt.NDArray[np.uint8]:
    """A label map in BraTS labels (3D, ``uint8``).

    ``label_map`` takes the file's values to BraTS values (0 stays 0); without it the file holds BraTS values. Raises
    ``ImageError`` as ``read_volume`` does, and for values that are not whole numbers or that ``label_map`` does not
    name: nothing is rounded.
    """
    known = {0: 0, **label_map} if label_map is not None else {value: value for value in LABELS.values()}
    labels = _whole_numbers(read_volume(path)[0], path)
    present = np.flatnonzero(_present(labels)) if labels.dtype == np.uint8 else np.unique(labels)
    if unknown := [int(value) for value in present if int(value) not in known]:
        raise ImageError(
            path,
            f"unknown label value(s) {', '.join(map(str, unknown))}; known are {', '.join(map(str, sorted(known)))}: "
            "correct the file, or name them in label_map (on the command line --label-map), as background where they "
            "are to be ignored",
        )
    if labels.dtype == np.uint8 and all(known[int(value)] == value for value in present):
        return labels
    mapped = np.zeros_like(labels, dtype=np.uint8)
    for value in present:
        if known[int(value)]:
            mapped[labels == value] = known[int(value)]
    return mapped


def write(path: Path, voxels: npt.NDArray[Any], affine: Affine) -> Path:
    """Write a volume whole or not at all, with no header field but its type and affine."""
    with replacing(path) as aside:
        nib.save(nib.Nifti1Image(voxels, affine), aside)
    return path


def to_ras(voxels: npt.NDArray[Any], affine: Affine) -> tuple[npt.NDArray[Any], Affine]:
    """The volume with its axes along R, A and S: the nearest permutation and flips, no resampling."""
    turn = nib.io_orientation(affine)
    turned = nib.apply_orientation(voxels, turn)
    return turned, affine @ nib.orientations.inv_ornt_aff(turn, voxels.shape)


def from_ras(voxels: npt.NDArray[Any], affine: Affine) -> npt.NDArray[Any]:
    """The opposite of ``to_ras``: a volume along R, A and S in the axes of the file with this affine."""
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.io_orientation(affine))
    return nib.apply_orientation(voxels, turn)


def _open(path: Path) -> nib.Nifti1Image:
    if not path.name.endswith(NIFTI_SUFFIXES):
        raise ImageError(path, f"is no NIfTI file ({' or '.join(NIFTI_SUFFIXES)}); {CONVERT}")
    try:
        return nib.Nifti1Image.from_filename(path)
    except FileNotFoundError:
        raise
    except Exception as error:
        try:
            return nib.Nifti2Image.from_filename(path)
        except Exception:  # the first error is the informative one
            raise ImageError(path, _unreadable(path, error)) from error


def _unreadable(path: Path, error: Exception) -> str:
    if path.is_file() and not path.stat().st_size:
        return "is empty (0 bytes); copy it again"
    return f"cannot be read ({str(error).replace(str(path), path.name) or type(error).__name__}); copy it again"


def _grid(path: Path, image: nib.Nifti1Image) -> Grid:
    if len(image.shape) != 3:
        raise ImageError(path, f"must be one 3D volume of three dimensions, its shape is {tuple(image.shape)}")
    affine = np.asarray(image.affine, dtype=np.float64)
    x, y, z = (float(side) for side in image.header.get_zooms())
    sides = nib.affines.voxel_sizes(affine)
    if not np.allclose(sides, (x, y, z), rtol=1e-3):
        raise ImageError(
            path,
            f"the header gives voxel sides of {_numbers((x, y, z))} mm, its affine {_numbers(sides)} mm: distances "
            "would be wrong under one of them; write the file again with a consistent header",
        )
    return Grid(path, image.shape, affine, (x, y, z))


def _whole_numbers(stored: npt.NDArray[Any], path: Path) -> npt.NDArray[Any]:
    """``uint8`` wherever the values fit."""
    if stored.dtype == np.uint8:
        return stored
    if stored.dtype.kind not in "iuf":
        raise ImageError(path, f"voxels of type {stored.dtype} are no labels")
    if stored.dtype.kind == "f":
        broken = stored[~np.isfinite(stored) | (stored != np.rint(stored))]
        if broken.size:
            shown = ", ".join(f"{value:g}" for value in np.unique(broken)[:5])
            raise ImageError(path, f"a label map must hold whole numbers, found {shown} in {broken.size} voxels")
    low, high = (int(stored.min()), int(stored.max())) if stored.size else (0, 0)
    return stored.astype(np.uint8 if low >= 0 and high <= 255 else np.int64, order="K")


def _present(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which of the 256 values occur; looks only at 8-byte words that are not all zero."""
    flat = labels.ravel(order="K")
    whole = flat.size // 8 * 8
    words = flat[:whole].view(np.uint64)
    bytes_of_words = words[words != 0].view(np.uint8)
    found = np.bincount(np.concatenate([bytes_of_words, flat[whole:]]), minlength=256) > 0
    found[0] |= bool(flat.size)
    return found


def _numbers(values: npt.ArrayLike) -> str:
    return ", ".join(f"{value:.6g}" for value in np.asarray(values, dtype=float))
