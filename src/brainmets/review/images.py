"""One held-out case as the review sees it: images, reference and every model's prediction on one grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

from brainmets.cohorts.cohort import read_manifest
from brainmets.paths import StudyPaths
from brainmets.regions import SEQUENCES

Model = tuple[str, str]
"""An (arm, strategy) pair."""


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
    reference, affine = _read(files.references / f"{case}.nii.gz", "01")
    predictions = {}
    for arm, strategy in models:
        path = files.predictions(arm, strategy) / f"{case}.nii.gz"
        predictions[arm, strategy], found = _read(path, "06")
        _same_grid(path, predictions[arm, strategy], found, reference, affine)
    images = {}
    for sequence in sequences:
        path = manifest[case].images[sequence]
        images[sequence], found = _read(path, "01")
        _same_grid(path, images[sequence], found, reference, affine)
    return ReviewCase(
        name=name or case,
        images={sequence: image.astype(np.float32) for sequence, image in images.items()},
        reference=np.rint(reference).astype(np.uint8),
        predictions={model: np.rint(labels).astype(np.uint8) for model, labels in predictions.items()},
        affine=affine,
    )


def pseudonyms(cases: list[str]) -> dict[str, str]:
    """``case 01``, ``case 02``, ... for the cases in the order of their names."""
    width = max(2, len(str(len(cases))))
    return {case: f"case {number:0{width}d}" for number, case in enumerate(sorted(cases), start=1)}


def _read(path: Path, writer: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is not in {path.parent.name}: run notebook {writer} first")
    image = nib.as_closest_canonical(nib.load(path))
    return image.get_fdata(caching="unchanged"), image.affine


def _same_grid(
    path: Path,
    array: npt.NDArray[np.float64],
    affine: npt.NDArray[np.float64],
    reference: npt.NDArray[np.float64],
    reference_affine: npt.NDArray[np.float64],
) -> None:
    if array.shape != reference.shape or not np.allclose(affine, reference_affine, atol=1e-3):
        raise ValueError(
            f"{path.name}: grid {array.shape} with affine {affine.tolist()} differs from the reference's "
            f"{reference.shape} with {reference_affine.tolist()}; the case cannot be shown"
        )
