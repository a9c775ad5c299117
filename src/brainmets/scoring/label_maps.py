"""Label maps from NIfTI files, checked: three dimensions, whole numbers, known labels, one grid with their partner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from brainmets.regions import LABELS
from brainmets.scoring.foreground import Labels, Spacing

GRID_TOLERANCE_MM = 0.01
"""Two grids are one when no corner of theirs lies further apart: above any writer's rounding, below any shift."""


class ScoringError(ValueError):
    """Predictions and references that cannot be compared; the message names files and values."""


@dataclass(frozen=True)
class Grid:
    """Shape, voxel-to-RAS affine (4x4, mm) and voxel sides in mm, from a file's header alone."""

    path: Path
    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]
    spacing: Spacing

    @classmethod
    def read(cls, path: Path) -> Grid:
        """Read the header. Raises ``ScoringError`` for a file that is no 3D NIfTI image or contradicts itself."""
        try:
            image: Any = nib.load(path)
        except Exception as error:
            raise ScoringError(f"{path}: not a readable NIfTI file ({error})") from error
        if len(image.shape) != 3:
            raise ScoringError(f"{path}: a label map has three dimensions, this file has shape {tuple(image.shape)}")
        spacing = tuple(float(side) for side in image.header.get_zooms())
        affine = np.asarray(image.affine, dtype=np.float64)
        sides = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
        if not np.allclose(sides, spacing, rtol=1e-3):
            raise ScoringError(
                f"{path}: the header gives voxel sides of {_numbers(spacing)} mm, its affine {_numbers(sides)} mm: "
                "distances would be wrong under one of them; write the file again with a consistent header"
            )
        return cls(path, image.shape, affine, (spacing[0], spacing[1], spacing[2]))

    def check_same(self, other: Grid) -> None:
        """Raise ``ScoringError`` showing both grids unless they are one."""
        if self.shape == other.shape:
            n = np.array(self.shape)
            corners = np.array([[i, j, k] for i in (0, n[0]) for j in (0, n[1]) for k in (0, n[2])])
            apart = corners @ (self.affine - other.affine)[:3, :3].T + (self.affine - other.affine)[:3, 3]
            if np.sqrt((apart**2).sum(axis=1)).max() <= GRID_TOLERANCE_MM:
                return
        raise ScoringError(
            "prediction and reference lie on different grids; resample the prediction to the reference first\n"
            f"  {self._describe()}\n  {other._describe()}"
        )

    def _describe(self) -> str:
        rows = "; ".join(_numbers(row) for row in self.affine[:3])
        return f"{self.path}: shape {tuple(self.shape)}, affine [{rows}]"


def read_labels(path: Path, label_map: Mapping[int, int] | None) -> Labels:
    """A label map in BraTS labels as ``uint8``, axes as stored (memory order too).

    ``label_map`` takes the file's values to BraTS values (0 stays 0); ``None`` when the file has BraTS labels already.
    Raises ``ScoringError`` naming the file and the values that are no whole numbers or no known labels.
    """
    try:
        image: Any = nib.load(path)
        stored = np.asanyarray(image.dataobj)
    except Exception as error:
        raise ScoringError(f"{path}: cannot be read ({error})") from error
    known = dict(label_map) if label_map is not None else {value: value for value in LABELS.values()}
    known.setdefault(0, 0)
    labels = _whole_numbers(stored, path)
    present = np.flatnonzero(_present(labels)) if labels.dtype == np.uint8 else np.unique(labels)
    unknown = sorted(set(present.tolist()) - set(known))
    if unknown:
        raise ScoringError(
            f"{path}: unknown labels {', '.join(map(str, unknown))}; known are "
            f"{', '.join(map(str, sorted(known)))}: correct the file, or give label_map "
            "(on the command line --label-map)"
        )
    if labels.dtype == np.uint8 and all(known[int(value)] == value for value in present):
        return labels
    result = np.zeros_like(labels, dtype=np.uint8)
    for value in present:
        if known[int(value)]:
            result[labels == value] = known[int(value)]
    return result


def _whole_numbers(stored: npt.NDArray[Any], path: Path) -> npt.NDArray[Any]:
    """``uint8`` wherever the values fit."""
    if stored.dtype == np.uint8:
        return stored
    if stored.dtype.kind not in "iuf":
        raise ScoringError(f"{path}: voxels of type {stored.dtype} are no labels")
    if stored.dtype.kind == "f":
        broken = stored[~np.isfinite(stored) | (stored != np.rint(stored))]
        if broken.size:
            shown = ", ".join(f"{value:g}" for value in np.unique(broken)[:5])
            raise ScoringError(f"{path}: labels must be whole numbers, found {shown} in {broken.size} voxels")
    low, high = (int(stored.min()), int(stored.max())) if stored.size else (0, 0)
    return stored.astype(np.uint8 if low >= 0 and high <= 255 else np.int64, order="K")


def _present(labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
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
