"""The one reader: what it refuses, what "the same grid" means, and how a volume is turned."""

import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from brainmets import nifti
from brainmets.nifti import ImageError

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def written(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    return nifti.write(path / "image.nii.gz", voxels, affine)


def test_a_grid_tells_shape_spacing_orientation_and_voxel_volume(tmp_path: Path) -> None:
    grid = nifti.read_grid(written(tmp_path, np.zeros((4, 5, 6), np.uint8), np.diag([-1.0, -2.0, 3.0, 1.0])))
    assert (grid.shape, grid.spacing, grid.orientation, grid.voxel_mm3) == ((4, 5, 6), (1, 2, 3), "LPS", 6.0)


@pytest.mark.parametrize(("shift_mm", "same"), [(0.009, True), (0.011, False)])
def test_grids_are_the_same_while_no_corner_is_further_off_than_a_hundredth_of_a_millimetre(
    tmp_path: Path, shift_mm: float, same: bool
) -> None:
    moved = AFFINE.copy()
    moved[2, 3] += shift_mm
    first, second = (
        nifti.read_grid(written(tmp_path / str(name), np.zeros((4, 5, 6), np.uint8), affine))
        for name, affine in enumerate((AFFINE, moved))
    )
    assert first.distance_mm(second) == pytest.approx(shift_mm, abs=1e-6)
    assert first.same(second) is same


def test_a_small_turn_counts_by_the_corner_it_moves_most(tmp_path: Path) -> None:
    turned = AFFINE.copy()
    turned[0, 2] = 0.001  # one thousandth a slice, over 100 slices a tenth of a millimetre
    shape = (2, 2, 100)
    first, second = (
        nifti.read_grid(written(tmp_path / str(name), np.zeros(shape, np.uint8), affine))
        for name, affine in enumerate((AFFINE, turned))
    )
    assert first.distance_mm(second) == pytest.approx(0.1, rel=1e-3)
    with pytest.raises(ImageError, match=r"another grid than image\.nii\.gz; resample it(.|\n)*shape \(2, 2, 100\)"):
        second.require_same(first, "resample it")


def test_other_shapes_are_infinitely_far_apart(tmp_path: Path) -> None:
    first, second = (
        nifti.read_grid(written(tmp_path / str(size), np.zeros((size, 5, 6), np.uint8))) for size in (4, 5)
    )
    assert first.distance_mm(second) == float("inf")


def test_what_is_no_volume_is_refused_with_its_path(tmp_path: Path) -> None:
    text = tmp_path / "text.nii.gz"
    text.write_text("no image")
    with pytest.raises(ImageError, match=r"text\.nii\.gz: cannot be read"):
        nifti.read_grid(text)
    text.write_bytes(b"")
    with pytest.raises(ImageError, match=r"is empty \(0 bytes\)"):
        nifti.read_grid(text)
    four = tmp_path / "four.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2, 3), np.int16), AFFINE), four)
    with pytest.raises(ImageError, match=r"three dimensions, its shape is \(2, 2, 2, 3\)"):
        nifti.read_grid(four)
    other = tmp_path / "volume.mgz"
    nib.save(nib.MGHImage(np.zeros((2, 2, 2), np.float32), AFFINE), other)
    with pytest.raises(ImageError, match="is no NIfTI file"):
        nifti.read_grid(other)
    with pytest.raises(FileNotFoundError):
        nifti.read_grid(tmp_path / "absent.nii.gz")


def test_a_header_that_contradicts_its_affine_is_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), AFFINE)
    image.header["pixdim"][3] = 4.0
    nib.save(image, tmp_path / "image.nii.gz")
    with pytest.raises(ImageError, match=r"voxel sides of 1, 2, 4 mm, its affine 1, 2, 3 mm"):
        nifti.read_volume(tmp_path / "image.nii.gz")


def test_labels_are_never_rounded(tmp_path: Path) -> None:
    path = written(tmp_path, np.full((2, 2, 2), 0.5, np.float32))
    with pytest.raises(ImageError, match=r"image\.nii\.gz: a label map must hold whole numbers, found 0\.5 in 8"):
        nifti.read_labels(path)
    labels = nifti.read_labels(written(tmp_path, np.full((2, 2, 2), 3.0, np.float32)))
    assert labels.dtype == np.uint8 and (labels == 3).all()


def test_labels_that_the_map_does_not_name_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, np.array([[[0, 7]]], np.int16))
    with pytest.raises(ImageError, match=r"unknown label value\(s\) 7; known are 0, 1: correct the file"):
        nifti.read_labels(path, {1: 2})
    assert nifti.read_labels(path, {7: 3}).tolist() == [[[0, 3]]]


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SLA", "IRP", "ALS"])
def test_a_volume_is_turned_to_ras_from_any_axes(axes: str) -> None:
    ras = np.arange(24).reshape(2, 3, 4)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axes))
    stored = nib.apply_orientation(ras, turn)
    affine = AFFINE @ nib.orientations.inv_ornt_aff(turn, ras.shape)
    turned, back = nifti.to_ras(stored, affine)
    assert np.array_equal(turned, ras)
    assert np.allclose(back, AFFINE)
    assert np.array_equal(nifti.from_ras(turned, affine), stored)


def test_an_error_crosses_processes_with_its_words() -> None:
    error = pickle.loads(pickle.dumps(ImageError(Path("a/b.nii.gz"), "is wrong")))
    assert (str(error), error.problem) == ("a/b.nii.gz: is wrong", "is wrong")
