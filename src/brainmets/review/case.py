"""One held-out case as the review sees it: images, reference and every model's prediction on one grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from brainmets import nifti
from brainmets.cohorts.cohort import read_manifest
from brainmets.paths import StudyPaths
from brainmets.vocabulary import SEQUENCES, Model


@dataclass(frozen=True)
class ReviewCase:
    """One case, turned so that the array axes run along R, A and S (the nearest permutation and flips; no resampling).

    ``name`` is what figures print (a pseudonym where the study asks for one). ``images``: float32 per sequence;
    ``reference`` and ``predictions``: BraTS labels, uint8; ``affine``: voxel to mm, RAS.
    """

    name: str
    images: dict[str, npt.NDArray[np.float32]]
    reference: npt.NDArray[np.uint8]
    predictions: dict[Model, npt.NDArray[np.uint8]]
    affine: npt.NDArray[np.float64]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel edges along R, A and S in mm."""
        x, y, z = (float(edge) for edge in nib.affines.voxel_sizes(self.affine))
        return x, y, z

    def voxel(self, point_mm: npt.ArrayLike) -> tuple[int, int, int]:
        """The voxel that holds a point given in RAS mm, moved to the grid's edge where the point lies outside."""
        place = nib.affines.apply_affine(np.linalg.inv(self.affine), np.asarray(point_mm, dtype=float))
        x, y, z = np.clip(np.rint(place), 0, np.array(self.reference.shape) - 1).astype(int)
        return int(x), int(y), int(z)


def read_case(
    files: StudyPaths, case: str, models: list[Model], name: str | None = None, sequences: tuple[str, ...] = SEQUENCES
) -> ReviewCase:
    """Read a held-out case of a study. ``name`` replaces the case's name in what is shown.

    Raises ``FileNotFoundError`` naming an absent file and the notebook that writes it, and ``ValueError`` where two
    files of the case differ in grid.
    """
    manifest = read_manifest(files.manifest("target"))
    if case not in manifest:
        raise ValueError(f"{case!r} is not a case of the target cohort; known are {', '.join(sorted(manifest))}")
    reference = _written(files.references / f"{case}.nii.gz", "01")
    predictions = {model: _written(files.predictions(*model) / f"{case}.nii.gz", "06") for model in models}
    images = {sequence: _written(manifest[case].images[sequence], "01") for sequence in sequences}
    grid = nifti.read_grid(reference).to_ras()
    for path in (*predictions.values(), *images.values()):
        nifti.read_grid(path).to_ras().require_same(grid, "the case cannot be shown")
    return ReviewCase(
        name=name or case,
        images={sequence: _turned(path, nifti.read_volume(path)[0], np.float32) for sequence, path in images.items()},
        reference=_turned(reference, nifti.read_labels(reference), np.uint8),
        predictions={model: _turned(path, nifti.read_labels(path), np.uint8) for model, path in predictions.items()},
        affine=grid.affine,
    )


def pseudonyms_of(cases: list[str]) -> dict[str, str]:
    """``case 01``, ``case 02``, ... for the cases in the order of their names."""
    width = max(2, len(str(len(cases))))
    return {case: f"case {number:0{width}d}" for number, case in enumerate(sorted(cases), start=1)}


def _written(path: Path, notebook: str) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is not in {path.parent.name}: run notebook {notebook} first")
    return path


def _turned(path: Path, voxels: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    return nifti.to_ras(voxels, nifti.read_grid(path).affine)[0].astype(dtype)
