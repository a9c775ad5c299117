"""Raw scans as volumes that people named, small and without a head: enough to be sorted."""

from pathlib import Path

import nibabel as nib
import numpy as np

NAMES = ("T1", "T1GD", "T2", "FLAIR")


def write_scan(folder: Path, names: tuple[str, ...] = NAMES, seed: int = 0) -> None:
    """Volumes of one scan, 20 slices of noise each, named as people name them."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for name in names:
        voxels = rng.integers(1, 200, (24, 24, 20)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([8.0, 8.0, 6.0, 1.0])), folder / f"{name}.nii.gz")
