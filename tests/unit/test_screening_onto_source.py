"""Results on the source grid: places worked out by hand, on grids that lie askew, are coarse, or run the other way."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from brainmets import nifti
from brainmets.preparation import registration
from brainmets.preparation.grids import image_of
from brainmets.preparation.scans import Series
from brainmets.screening import onto_source
from brainmets.screening.onto_source import Onto, carry, entropy, paint, unmoved

PREPARED = np.array([[1.0, 0, 0, -40], [0, 1, 0, -50], [0, 0, 1, -30], [0, 0, 0, 1]])
SHAPE = (80, 100, 60)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def turn(degrees: tuple[float, float, float], shift: tuple[float, float, float]) -> sitk.Euler3DTransform:
    transform = sitk.Euler3DTransform()
    transform.SetRotation(*np.deg2rad(degrees).tolist())
    transform.SetTranslation(shift)
    return transform


def to_scan(transform: sitk.Euler3DTransform, place: np.ndarray) -> np.ndarray:
    """A place of the prepared grid (RAS mm) where the scanner saw it (RAS mm)."""
    there = transform.TransformPoint((LPS[:3, :3] @ place).tolist())
    return LPS[:3, :3] @ np.array(there)


def oblique(sides: tuple[float, float, float], shape: tuple[int, int, int], axes: str = "RAS") -> sitk.Image:
    """A grid that is turned by 20 degrees about R and 10 about S, around the origin; its axes run as ``axes`` says."""
    a, b = np.deg2rad(20), np.deg2rad(10)
    about_r = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_s = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_r @ about_s @ np.diag(sides)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    voxels = np.zeros(shape, np.float32)
    wanted = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(axes)))
    return image_of(
        nib.apply_orientation(voxels, wanted), affine @ nib.orientations.inv_ornt_aff(wanted, voxels.shape)
    )


def cube(centre: tuple[int, int, int], half: int, value: float) -> np.ndarray:
    volume = np.zeros(SHAPE, np.float32)
    volume[tuple(slice(place - half, place + half + 1) for place in centre)] = value
    return volume


def regions(tc: np.ndarray) -> dict[str, np.ndarray]:
    return {"ET": tc * 0, "TC": tc, "WT": tc}


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR"])
def test_a_cube_comes_to_lie_where_the_scanner_saw_it(axes):
    """A cube of 9 mm, through a known rigid transform, onto an oblique grid of 1 x 1 x 2 mm."""
    transform = turn((8, -5, 12), (6, -9, 4))
    onto = Onto(oblique((1.0, 1.0, 2.0), (160, 170, 90), axes), registration.inverse(transform))
    tc = cube((55, 60, 35), 4, 0.9)
    results = carry(onto, PREPARED, regions(tc), (tc > 0).astype(np.uint16), "TC")
    expected = to_scan(transform, np.array([55 - 40, 60 - 50, 35 - 30.0]))
    index = nib.affines.apply_affine(np.linalg.inv(results.affine), expected)
    for volume in (results.numbers == 1, results.labels == 1, results.probabilities["TC"] > 0.45):
        assert np.linalg.norm(np.array(ndimage.center_of_mass(volume)) - index) < 0.5
    assert results.labels.shape == results.t1c.shape == results.numbers.shape
    assert results.labels.sum() * 2 == pytest.approx(9**3, rel=0.1)  # voxels of 2 mm^3, all of label 1
    assert results.beyond == ()


@pytest.mark.parametrize("axes", ["RAS", "LPS", "RPS", "SAL"])
def test_left_stays_left(axes):
    """The large cube lies on the right, the small one on the left and further to the front."""
    right, left = cube((60, 50, 30), 5, 0.9), cube((20, 70, 30), 2, 0.8)
    numbers = np.where(right > 0, 1, 0) + np.where(left > 0, 2, 0)
    onto = Onto(oblique((1.0, 1.0, 1.0), (110, 130, 90), axes), sitk.Euler3DTransform())
    results = carry(onto, PREPARED, regions(right + left), numbers, "TC")
    places = {
        number: nib.affines.apply_affine(results.affine, ndimage.center_of_mass(results.numbers == number))
        for number in (1, 2)
    }
    assert places[1] == pytest.approx([20, 0, 0], abs=0.5)
    assert places[2] == pytest.approx([-20, 20, 0], abs=0.5)
    assert (results.numbers == 1).sum() > 5 * (results.numbers == 2).sum()


def test_a_small_lesion_is_not_lost_between_thick_slices():
    """One voxel of 1 mm that lies 2 mm from the centres of the voxels of 6 mm has no nearest voxel to be seen by."""
    onto = Onto(oblique((1.0, 1.0, 6.0), (110, 130, 15)), sitk.Euler3DTransform())
    tc, numbers = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint16)
    lost = None
    for z in range(25, 36):  # of some places along S one falls between
        trial = np.zeros(SHAPE, np.uint16)
        trial[45, 52, z] = 1
        if not sitk.GetArrayFromImage(
            sitk.Resample(image_of(trial, PREPARED), onto.image, onto.to_prepared, sitk.sitkNearestNeighbor)
        ).any():
            lost = z
            break
    assert lost is not None
    tc[45, 52, lost], numbers[45, 52, lost] = 0.7, 1
    results = carry(onto, PREPARED, regions(tc), numbers, "TC")
    assert (results.numbers == 1).sum() == 1
    (index,) = np.argwhere(results.numbers == 1)
    off = np.abs(nib.affines.apply_affine(np.linalg.inv(results.affine), [5.0, 2.0, lost - 30.0]) - index)
    assert (off <= 0.5 + 1e-9).all()  # the voxel in which its centre lies


def test_two_small_lesions_between_the_same_slices_both_keep_a_voxel():
    onto = Onto(image_of(np.zeros((10, 12, 8), np.float32), np.diag([8.0, 8, 8, 1]) + LAST), sitk.Euler3DTransform())
    tc, numbers = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint16)
    for number, place in enumerate([(42, 52, 32), (43, 52, 32), (42, 53, 32)], start=1):
        tc[place], numbers[place] = 0.9 - number / 10, number
    results = carry(onto, PREPARED, regions(tc), numbers, "TC")
    assert sorted(results.numbers[results.numbers > 0].tolist()) == [1, 2, 3]
    places = np.array([np.argwhere(results.numbers == number)[0] for number in (1, 2, 3)])
    assert np.abs(places - places[0]).max() == 1


LAST = np.array([[0, 0, 0, -40.0], [0, 0, 0, -50], [0, 0, 0, -30], [0, 0, 0, 0]])


def test_what_lies_beyond_the_scan_is_named():
    onto = Onto(image_of(np.zeros((20, 20, 10), np.float32), np.diag([2.0, 2, 2, 1])), sitk.Euler3DTransform())
    tc = cube((5, 5, 5), 1, 0.9) + cube((50, 60, 40), 1, 0.9)
    numbers = np.where(cube((5, 5, 5), 1, 1) > 0, 1, 0) + np.where(cube((50, 60, 40), 1, 1) > 0, 2, 0)
    results = carry(onto, PREPARED, regions(tc), numbers, "TC")
    assert results.beyond == (1,)
    assert set(np.unique(results.numbers)) == {0, 2}


def test_a_prepared_case_passes_as_it_is():
    tc = cube((50, 60, 40), 3, 0.6)
    results = unmoved(tc, PREPARED, regions(tc), tc > 0, "TC")
    assert np.array_equal(results.probabilities["TC"], tc)
    assert np.array_equal(results.labels, np.where(tc > 0, 1, 0))
    assert np.array_equal(results.numbers, tc > 0)
    assert results.beyond == () and results.affine is PREPARED


def test_regions_are_painted_one_over_the_other():
    one = {
        "WT": np.array([0.9, 0.9, 0.9, 0.5]),
        "TC": np.array([0.1, 0.6, 0.6, 0.5]),
        "ET": np.array([0, 0, 0.51, 0.5]),
    }
    assert paint({name: values.astype(np.float32) for name, values in one.items()}).tolist() == [2, 1, 3, 0]


def test_entropy_in_bits():
    assert entropy(np.array([0.0, 0.5, 1.0, 0.25], np.float32)).tolist() == pytest.approx(
        [0, 1, 0, 0.811278], abs=1e-6
    )


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "LAS"])
def test_the_source_keeps_the_axes_of_its_file(tmp_path: Path, axes):
    """Voxel for voxel what the file holds, whichever way its axes run, also where it is NRRD."""
    image = oblique((1.0, 1.5, 2.0), (30, 32, 34), axes)
    voxels = np.random.default_rng(0).normal(100, 20, image.GetSize()).astype(np.float32)
    affine = Onto(image, sitk.Euler3DTransform()).affine
    nifti.write(tmp_path / "t1c.nii.gz", voxels, affine)
    sitk.WriteImage(image_of(voxels, affine), str(tmp_path / "t1c.nrrd"))
    for name in ("t1c.nii.gz", "t1c.nrrd"):
        series = Series("p", "", name, 1, (tmp_path / name,), "volume")
        onto = onto_source.source(series, tmp_path, "t1c")
        assert np.array_equal(onto.voxels, voxels)
        assert onto.affine == pytest.approx(affine, abs=1e-4)
        assert onto.upright


def test_the_way_back_is_the_inverse_of_the_preparation(tmp_path: Path):
    transform = turn((4, 3, -6), (2, 8, -5))
    registration.write_transforms(tmp_path, {"template": transform})
    nifti.write(tmp_path / "t1c.nii.gz", np.ones((20, 20, 20), np.float32), np.diag([5.0, 5, 5, 1]))
    series = Series("p", "", "t1c.nii.gz", 1, (tmp_path / "t1c.nii.gz",), "volume")
    onto = onto_source.source(series, tmp_path, "template")
    there = onto.to_prepared.TransformPoint(transform.TransformPoint((10.0, 20.0, 30.0)))
    assert there == pytest.approx((10, 20, 30), abs=1e-6)


def test_leaning_slices_are_known():
    """By half a degree more than rounding, which a viewer straightens."""
    affine = np.diag([1.0, 1, 3, 1])
    affine[1, 2] = 3 * np.tan(np.deg2rad(5))
    onto = Onto(image_of(np.zeros((20, 20, 20), np.float32), affine), sitk.Euler3DTransform())
    assert not onto.upright
