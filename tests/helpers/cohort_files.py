"""A cohort's files in a layout of its own, written voxel by voxel."""

from pathlib import Path

import nibabel as nib
import numpy as np

OWN_LAYOUT = {
    "t1n": "{case}/T1.nii.gz",
    "t1c": "{case}/T1POST.nii.gz",
    "t2w": "{case}/T2.nii.gz",
    "t2f": "{case}/FLAIR.nii.gz",
    "label": "{case}/GT.nii.gz",
}


def write_image(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([1.0, 1.0, 2.0, 1.0]) if affine is None else affine), path)


def write_case(folder: Path, layout: dict[str, str], case: str, labels: np.ndarray | None = None) -> None:
    rng = np.random.default_rng(list(case.encode()))
    for name, pattern in layout.items():
        if name == "patient":
            continue
        values = rng.integers(1, 100, (6, 5, 4)).astype(np.int16)
        if name == "label":
            values = np.zeros((6, 5, 4), np.int16) if labels is None else labels
        write_image(folder / pattern.format(case=case), values)
