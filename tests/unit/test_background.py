"""What surrounds the head, and how it is brought to zero."""

from pathlib import Path

import numpy as np
import pytest

from brainmets import nifti
from brainmets.cohorts.background import background, with_zero_background
from brainmets.cohorts.cohort import Case

LEVELS = {"t1n": 0.0, "t1c": -3.25}
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
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    given = {name: nifti.write(tmp_path / f"{name}.nii.gz", image(level), affine) for name, level in LEVELS.items()}
    case = Case("a", "a", given, tmp_path / "labels.nii.gz")
    (prepared,) = with_zero_background([case], {given["t1c"]: -3.25}, tmp_path / "copies")
    assert prepared.images == {**given, "t1c": tmp_path / "copies" / "a_t1c.nii.gz"}
    copy, grid = nifti.read_volume(prepared.images["t1c"])
    outside = np.ones(copy.shape, bool)
    outside[HEAD] = False
    assert (copy[outside] == 0).all()
    assert np.allclose(copy[HEAD], image(-3.25)[HEAD] + 3.25)
    assert grid.same(nifti.read_grid(given["t1c"]))


def test_copies_of_an_earlier_audit_are_gone(tmp_path: Path) -> None:
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "old_t1c.nii.gz").write_bytes(b"")
    case = Case("a", "a", {}, tmp_path / "labels.nii.gz")
    assert with_zero_background([case], {}, tmp_path / "copies") == [case]
    assert not (tmp_path / "copies").exists()
