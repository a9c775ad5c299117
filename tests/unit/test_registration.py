"""Rigid registration: known moves of phantoms and of real scans, and the same bytes every time."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from brainmets.phantoms import sites
from brainmets.preparation import registration
from brainmets.preparation.grids import isotropic_grid, resampled, template
from brainmets.preparation.registration import (
    Registration,
    chain,
    inverse,
    mirrored,
    read_transforms,
    register,
    residual,
    to_template,
    write_transforms,
)
from brainmets.preparation.scans import ScanError

CENTRE = np.array([0.0, 17.0, 5.0])
"""Middle of a phantom's brain, LPS mm."""
REACH = np.vstack([CENTRE, *(CENTRE + 70 * side * axis for axis in np.eye(3) for side in (1, -1))])
Angles = tuple[float, float, float]


def motion(degrees: Angles = (0, 0, 0), mm: Angles = (0, 0, 0)) -> sitk.Euler3DTransform:
    transform = sitk.Euler3DTransform()
    transform.SetCenter(CENTRE.tolist())
    transform.SetRotation(*np.radians(degrees).tolist())
    transform.SetTranslation(mm)
    return transform


def apart(one: sitk.Transform, other: sitk.Transform) -> float:
    """The largest distance between what both make of the points of ``REACH``."""
    ways = [np.array([move.TransformPoint(point.tolist()) for point in REACH]) for move in (one, other)]
    return float(np.linalg.norm(ways[0] - ways[1], axis=1).max())


def moved(image: sitk.Image, move: sitk.Euler3DTransform) -> sitk.Image:
    """The image after its content has moved: ``move`` takes points of the image to points of the result."""
    return sitk.Resample(image, image, inverse(move), sitk.sitkLinear, 0.0, sitk.sitkFloat32)


@pytest.fixture(scope="module")
def phantom() -> dict[str, sitk.Image]:
    """Four sequences of one brain in place, 3 mm voxels."""
    images = {}
    for sequence, voxels in sites.make_patient("source", 1, 3.0, seed=3).images.items():
        image = sitk.GetImageFromArray(np.ascontiguousarray(voxels[::-1, ::-1].transpose(2, 1, 0), np.float32))
        image.SetSpacing((3.0, 3.0, 3.0))
        images[sequence] = image
    shift = CENTRE - middle(images["t1c"])
    for image in images.values():
        image.SetOrigin(shift.tolist())
    return images


def middle(image: sitk.Image) -> np.ndarray:
    return np.array(image.TransformContinuousIndexToPhysicalPoint([(side - 1) / 2 for side in image.GetSize()]))


@pytest.fixture(scope="module")
def found(phantom: dict[str, sitk.Image]) -> Registration:
    return register(phantom["t1c"], moved(phantom["t2w"], MOVE), seed=1)


MOVE = motion((9, -6, 10), (12, -9, 13))


def test_a_known_move_is_found(found: Registration) -> None:
    """15 degrees and 20 mm, between two sequences whose contrast is opposite."""
    assert apart(found.transform, MOVE) < 0.7
    assert found.rotation_deg == pytest.approx(14.9, abs=0.5)
    assert found.translation_mm == pytest.approx(19.8, abs=2)  # of the head's centre as found, not CENTRE
    assert found.spread_mm < 1
    assert found.metric > found.metric_before > 1


def test_after_it_nothing_is_left_to_move(phantom: dict[str, sitk.Image], found: Registration) -> None:
    back = resampled(moved(phantom["t2w"], MOVE), phantom["t1c"], found.transform)
    degrees, mm = residual(phantom["t1c"], back)
    assert degrees < 0.5
    assert mm < 0.5
    assert residual(phantom["t1c"], back) == (degrees, mm)  # seed 0 too gives the same bytes
    degrees, mm = residual(phantom["t1c"], moved(back, motion((3, 0, 0), (0, 2, 0))))
    assert degrees == pytest.approx(3, abs=0.5)
    assert mm == pytest.approx(2, abs=0.5)


def test_same_bytes_whatever_the_number_of_threads(phantom: dict[str, sitk.Image], found: Registration) -> None:
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(5)
    try:
        again = register(phantom["t1c"], moved(phantom["t2w"], MOVE), seed=1)
        assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == 5
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    assert again.transform.GetParameters() == found.transform.GetParameters()
    assert again.transform.GetFixedParameters() == found.transform.GetFixedParameters()
    assert (again.metric, again.spread_mm, again.mirrored) == (found.metric, found.spread_mm, found.mirrored)


def test_part_of_a_head_in_thick_slices_finds_its_place(phantom: dict[str, sitk.Image]) -> None:
    """Its lower half, 6 mm slices, turned by 10 degrees."""
    move = motion((10, 0, 0), (0, 8, 4))
    whole = moved(phantom["t2f"], move)
    thick = resampled(whole, thick_grid(whole, 6.0), sitk.Euler3DTransform())
    slices = thick.GetSize()[2]
    part = sitk.Crop(thick, [0, 0, 0], [0, 0, int(slices * 0.4)])
    assert apart(register(phantom["t1c"], part, seed=1).transform, move) < 2


def thick_grid(image: sitk.Image, mm: float) -> sitk.Image:
    grid = isotropic_grid(image, mm)
    size = [image.GetSize()[0], image.GetSize()[1], grid.GetSize()[2]]
    thick = sitk.Image(size, sitk.sitkUInt8)
    thick.SetSpacing((*image.GetSpacing()[:2], mm))
    thick.SetOrigin((*image.GetOrigin()[:2], grid.GetOrigin()[2]))
    return thick


def test_an_image_of_one_value_is_refused(phantom: dict[str, sitk.Image]) -> None:
    empty = sitk.Image([20, 20, 20], sitk.sitkFloat32)
    with pytest.raises(ScanError, match="one value"):
        register(phantom["t1c"], empty, seed=1)
    with pytest.raises(ScanError, match="nothing at 4 mm"):
        register(phantom["t1c"], phantom["t2w"], seed=1, fixed_mask=phantom["t1c"] < -1)


def test_a_brain_smaller_than_the_template_is_laid_into_it_without_changing_its_size() -> None:
    """The template itself, 8% smaller about its middle, turned by 20 degrees."""
    shrink = sitk.Similarity3DTransform()
    shrink.SetCenter(CENTRE.tolist())
    shrink.SetScale(1 / 0.92)
    small = sitk.Resample(template(), template(), shrink, sitk.sitkLinear, 0.0)
    move = motion((20, 4, -6), (3, 10, -8))
    brain = moved(small, move)
    found = to_template(brain, brain > 0.05, 1, template())
    assert apart(found.transform, move) < 1
    assert found.spread_mm < 1
    assert np.isnan(found.mirrored)
    matrix = np.reshape(found.transform.GetMatrix(), (3, 3))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-9)


def test_mirroring_reflects_about_the_middle_and_twice_is_nothing() -> None:
    voxels = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    image = sitk.GetImageFromArray(voxels)
    image.SetDirection((1, 0, 0, 0, 0.8, -0.6, 0, 0.6, 0.8))
    flipped = mirrored(image)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(flipped), voxels[:, :, ::-1])
    assert flipped.GetDirection() == image.GetDirection()
    assert flipped.GetOrigin() == image.GetOrigin()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mirrored(flipped)), voxels)


def test_mirroring_finds_the_left_right_axis_wherever_it_is_stored() -> None:
    voxels = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    image = sitk.GetImageFromArray(voxels)
    image.SetDirection((0, 0, 1, 1, 0, 0, 0, 1, 0))  # sagittal slices: the third axis runs left to right
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mirrored(image)), voxels[::-1])


def test_a_chain_does_both_and_the_inverse_undoes() -> None:
    first, then = motion((25, -7, 3), (4, -18, 9)), motion((-11, 14, 2), (1, 2, 30))
    both = chain(first, then)
    for point in REACH:
        there = then.TransformPoint(first.TransformPoint(point.tolist()))
        np.testing.assert_allclose(both.TransformPoint(point.tolist()), there, atol=1e-9)
    assert apart(chain(both, inverse(both)), sitk.Euler3DTransform()) < 1e-9


def test_transforms_are_kept_forward_and_back(tmp_path: Path) -> None:
    transforms = {"t2w": motion((25, -7, 3), (4, -18, 9)), "template": motion((1e-7, 0, 0.3), (1 / 3, 0, 1e3))}
    write_transforms(tmp_path / "transforms", transforms)
    folder = tmp_path / "transforms"
    assert sorted(path.name for path in folder.iterdir()) == [
        "t2w.tfm", "t2w_back.tfm", "template.tfm", "template_back.tfm",
    ]  # fmt: skip
    read = read_transforms(folder)
    assert sorted(read) == ["t2w", "template"]
    for name, transform in transforms.items():
        assert apart(read[name], transform) < 1e-9
        back = sitk.ReadTransform(str(folder / f"{name}_back.tfm"))
        for point in REACH:
            there = read[name].TransformPoint(point.tolist())
            np.testing.assert_allclose(back.TransformPoint(there), point, atol=1e-6)
    text = (folder / "t2w.tfm").read_text()
    assert text.startswith("#Insight Transform File V1.0")
    assert "Euler3DTransform_double_3_3" in text


def test_a_file_that_is_no_rigid_transform_is_named(tmp_path: Path) -> None:
    (tmp_path / "t2w.tfm").write_text("#Insight Transform File V1.0\n#Transform 0\n")
    with pytest.raises(ScanError, match=r"^t2w\.tfm holds no rigid transform"):
        read_transforms(tmp_path)
    sitk.WriteTransform(sitk.AffineTransform(3), str(tmp_path / "t2w.tfm"))
    with pytest.raises(ScanError, match=r"^t2w\.tfm holds no rigid transform"):
        read_transforms(tmp_path)


def test_a_small_angle_is_told_exactly() -> None:
    assert registration._angle(motion((0, 1e-6, 0))) == pytest.approx(1e-6, rel=1e-4)
    assert registration._angle(motion((0, 0, 179))) == pytest.approx(179)


def real(folder: Path, name: str) -> sitk.Image:
    return sitk.DICOMOrient(sitk.ReadImage(str(folder / f"{name}.nii.gz"), sitk.sitkFloat32), "LPS")


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("sequence", ["T1", "T2", "FLAIR"])
def test_a_real_clinical_case_is_in_place_afterwards(real_data: Path, sequence: str) -> None:
    """5.5 mm slices, tilted by 25 degrees, the head one to two centimetres away by the headers."""
    folder = real_data / "data" / "raw" / "TCGA-FG-6692"
    fixed, moving = real(folder, "T1GD"), real(folder, sequence)
    found = register(fixed, moving, seed=1)
    assert found.spread_mm < 2
    assert found.mirrored < -0.01
    grid = isotropic_grid(fixed, 1.0)
    degrees, _ = residual(resampled(fixed, grid, motion()), resampled(moving, grid, found.transform))
    assert degrees < 3


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("patient", ["patient07", "patient19"])
def test_a_real_flipped_sequence_is_found_by_content(real_data: Path, patient: str) -> None:
    folder = real_data / "data" / "openms" / patient
    fixed, moving = real(folder, "T1POST"), real(folder, "T2")
    assert register(fixed, moving, seed=1).mirrored < -0.01
    assert register(fixed, mirrored(moving), seed=1).mirrored > 0.01


@pytest.mark.real
@pytest.mark.slow
def test_six_axis_orders_of_a_real_scan_are_one_image(real_data: Path) -> None:
    folder = real_data / "data" / "raw" / "TCGA-FG-6692"
    stored = sitk.ReadImage(str(folder / "T2.nii.gz"), sitk.sitkFloat32)
    results = []
    for order in ([0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]):
        image = sitk.DICOMOrient(sitk.PermuteAxes(stored, order), "LPS")
        results.append((sitk.GetArrayFromImage(image).tobytes(), image.GetOrigin(), image.GetDirection()))
    assert len(set(results)) == 1
