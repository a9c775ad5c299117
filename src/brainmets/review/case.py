"""One held-out case as the review sees it: images, reference and every model's prediction on one grid."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

from brainmets import nifti
from brainmets.cohorts.cohort import read_manifest
from brainmets.paths import StudyPaths
from brainmets.vocabulary import Model

DRAWN = ("t1c", "t2f")
"""The sequences that pictures are drawn on, where the case has them."""
STAND_INS = {
    "t1n": ("t1n", "t1c", "t2f", "t2w"),
    "t1c": ("t1c", "t2f", "t2w", "t1n"),
    "t2w": ("t2w", "t2f", "t1c", "t1n"),
    "t2f": ("t2f", "t2w", "t1c", "t1n"),
}
"""What is drawn in the place of a sequence that a case lacks: the first that it has, by how well metastases show."""


def stand_in(sequence: str, there: Collection[str]) -> str:
    """``sequence``, or what is drawn in its place where it is not ``there``; ``ValueError`` where nothing is.

    >>> stand_in("t2f", ["t1n", "t2w"]), stand_in("t1c", ["t1n", "t1c"])
    ('t2w', 't1c')
    """
    for name in STAND_INS[sequence]:
        if name in there:
            return name
    raise ValueError(f"no image is there to draw in the place of {sequence}")


@dataclass(frozen=True)
class ReviewCase:
    """One case, turned so that the array axes run along R, A and S (the nearest permutation and flips; no resampling).

    ``name`` is the case's, which figures print. ``images``: float32 per sequence;
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


def read_case(files: StudyPaths, case: str, models: list[Model], sequences: tuple[str, ...] = DRAWN) -> ReviewCase:
    """Read a held-out case of a study, with ``sequences`` or, where it lacks one, its ``stand_in``.

    A case takes 4 bytes a voxel for each sequence and 1 for each label map: hold one at a time.

    Raises ``FileNotFoundError`` naming an absent file and the notebook that writes it, and ``ValueError`` where two
    files of the case differ in grid.
    """
    manifest = read_manifest(files.manifest("target"))
    if case not in manifest:
        raise ValueError(f"{case!r} is not a case of the target cohort; known are {', '.join(sorted(manifest))}")
    reference = files.references / f"{case}.nii.gz"
    predictions = {model: files.predictions(*model) / f"{case}.nii.gz" for model in models}
    shown = [stand_in(sequence, manifest[case].images) for sequence in sequences]
    images = {sequence: manifest[case].images[sequence] for sequence in dict.fromkeys(shown)}
    for notebook, paths in (("01", [reference, *images.values()]), ("06", predictions.values())):
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(f"{path.name} is not in {path.parent.name}: run notebook {notebook} first")
    grid = nifti.read_grid(reference).to_ras()
    return ReviewCase(
        name=case,
        images={sequence: _image(path, grid) for sequence, path in images.items()},
        reference=_labels(reference, grid),
        predictions={model: _labels(path, grid) for model, path in predictions.items()},
        affine=grid.affine,
    )


def _image(path: Path, case: nifti.Grid) -> npt.NDArray[np.float32]:
    voxels, grid = nifti.read_volume(path)
    grid.to_ras().require_same(case, "the case cannot be shown")
    return nifti.to_ras(voxels, grid.affine)[0].astype(np.float32)


def _labels(path: Path, case: nifti.Grid) -> npt.NDArray[np.uint8]:
    grid = nifti.read_grid(path)
    grid.to_ras().require_same(case, "the case cannot be shown")
    return nifti.to_ras(nifti.read_labels(path), grid.affine)[0]
