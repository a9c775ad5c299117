"""What surrounds the head, and how it is brought to zero."""

from pathlib import Path

import numpy as np
import pytest

from brainmets import nifti
from brainmets.cohorts.background import background, write_on_zero_background

HEAD = (slice(3, 7), slice(3, 7), slice(3, 7))


def image(around: float, dtype: type = np.float64) -> np.ndarray:
    voxels = np.full((10, 10, 10), around, dtype)
    voxels[HEAD] = np.random.default_rng(1).normal(50, 5, (4, 4, 4))
    return voxels


@pytest.mark.parametrize("around", [0.0, -3.25, 7.0])
def test_the_background_is_the_value_on_the_faces(around: float) -> None:
    assert background(image(around)) == around


def test_a_head_may_touch_less_than_half_of_the_faces() -> None:
    voxels = image(-2.0)
    voxels[:3, :, :] = np.random.default_rng(2).normal(size=(3, 10, 10))
    assert background(voxels) == -2.0


def test_noise_is_no_background() -> None:
    assert background(np.random.default_rng(3).normal(size=(10, 10, 10))) is None
    assert background(np.empty((0, 4, 4))) is None


def test_a_copy_has_zero_around_and_the_same_differences_within(tmp_path: Path) -> None:
    given = nifti.write(tmp_path / "given.nii.gz", image(-3.25), np.diag([1.0, 1.0, 2.0, 1.0]))
    copy, grid = nifti.read_volume(write_on_zero_background(given, tmp_path / "copy.nii.gz"))
    outside = np.ones(copy.shape, bool)
    outside[HEAD] = False
    assert (copy[outside] == 0).all()
    assert np.allclose(copy[HEAD], image(-3.25)[HEAD] + 3.25)
    assert grid.same(nifti.read_grid(given))


def test_a_scan_without_a_constant_background_is_refused(tmp_path: Path) -> None:
    given = nifti.write(tmp_path / "given.nii.gz", np.random.default_rng(3).normal(size=(9, 9, 9)), np.eye(4))
    with pytest.raises(ValueError, match=r"given\.nii\.gz: no value surrounds the head"):
        write_on_zero_background(given, tmp_path / "copy.nii.gz")
