"""One held-out case as the review sees it: images, reference and every model's prediction on one grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd

from brainmets import nifti, tables
from brainmets.cohorts.cohort import read_manifest
from brainmets.paths import StudyPaths
from brainmets.vocabulary import Model

DRAWN = ("t1c", "t2f")
"""The sequences that pictures are drawn on."""


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
    files: StudyPaths, case: str, models: list[Model], name: str | None = None, sequences: tuple[str, ...] = DRAWN
) -> ReviewCase:
    """Read a held-out case of a study. ``name`` replaces the case's name in what is shown.

    A case takes 4 bytes a voxel for each sequence and 1 for each label map: hold one at a time.

    Raises ``FileNotFoundError`` naming an absent file and the notebook that writes it, and ``ValueError`` where two
    files of the case differ in grid.
    """
    manifest = read_manifest(files.manifest("target"))
    if case not in manifest:
        raise ValueError(f"{case!r} is not a case of the target cohort; known are {', '.join(sorted(manifest))}")
    reference = files.references / f"{case}.nii.gz"
    predictions = {model: files.predictions(*model) / f"{case}.nii.gz" for model in models}
    images = {sequence: manifest[case].images[sequence] for sequence in sequences}
    for notebook, paths in (("01", [reference, *images.values()]), ("06", predictions.values())):
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(f"{path.name} is not in {path.parent.name}: run notebook {notebook} first")
    grid = nifti.read_grid(reference).to_ras()
    return ReviewCase(
        name=name or case,
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


# --- names of cases ------------------------------------------------------------------------------------------------


def pseudonyms_of(cases: list[str]) -> dict[str, str]:
    """``case 01``, ``case 02``, ... for the cases in the order of their names.

    >>> pseudonyms_of(["P07", "P03"])
    {'P03': 'case 01', 'P07': 'case 02'}
    """
    width = max(2, len(str(len(cases))))
    return {case: f"case {number:0{width}d}" for number, case in enumerate(sorted(cases), start=1)}


def write_pseudonyms(folder: Path, names: Mapping[str, str]) -> None:
    """Keep the key from case names to pseudonyms beside the results; the report reads it and never shows it.

    Without names an older key is deleted, so that the report shows names again.
    """
    key = folder / "pseudonyms.csv"
    if names:
        tables.write(key, pd.DataFrame({"case": list(names), "pseudonym": list(names.values())}))
    else:
        key.unlink(missing_ok=True)


def slug(name: str) -> str:
    """The name as part of a file's name: letters, digits, "-" and "." stay, anything else becomes "_".

    >>> slug("case 01")
    'case_01'
    """
    return "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in name)
