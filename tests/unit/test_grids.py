"""Grids, and the one resampling of images and labels, on geometry that can be worked out by hand."""

import numpy as np
import pytest
import SimpleITK as sitk

from brainmets.preparation.grids import (
    FIELD_OF_VIEW_MM,
    isotropic_grid,
    resampled,
    resampled_labels,
    share_outside,
    template,
    template_grid,
)

IDENTITY = sitk.Euler3DTransform()
Sides = tuple[float, float, float]


def volume(voxels: np.ndarray, spacing: Sides = (1.0, 1.0, 1.0), origin: Sides = (0.0, 0.0, 0.0)) -> sitk.Image:
    """From an array in (x, y, z) order."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    return image


def voxels(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0)


def by(*shift_mm: float) -> sitk.Euler3DTransform:
    transform = sitk.Euler3DTransform()
    transform.SetTranslation(shift_mm)
    return transform


def box(grid: sitk.Image) -> list[tuple[float, ...]]:
    return [
        grid.TransformContinuousIndexToPhysicalPoint([-0.5] * 3),
        grid.TransformContinuousIndexToPhysicalPoint([side - 0.5 for side in grid.GetSize()]),
    ]


def test_the_template_lies_in_mni_space_with_axes_along_l_p_s() -> None:
    image = template()
    assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert image.GetSpacing() == (1, 1, 1)
    inside = voxels(image) > 0
    assert np.count_nonzero(inside) / 1000 == pytest.approx(1887, abs=1)  # mL
    vertex = np.argwhere(inside)[:, 2].max()
    assert image.TransformIndexToPhysicalPoint((98, 100, int(vertex)))[2] == 82


@pytest.mark.parametrize(
    ("spacing", "size"),
    [((1, 1, 1), (240, 240, 180)), ((0.5, 0.5, 1), (480, 480, 180)), ((1.2, 1.2, 5), (200, 200, 36))],
)
def test_one_field_of_view_at_every_spacing(spacing: Sides, size: tuple[int, int, int]) -> None:
    grid = template_grid(spacing)
    assert grid.GetSize() == size
    low, high = np.array(box(grid))
    np.testing.assert_allclose(high - low, FIELD_OF_VIEW_MM)
    np.testing.assert_allclose((low + high) / 2, [0, 17, 5], atol=0.51)  # the middle of the template's brain
    assert share_outside(template(), grid, IDENTITY) == 0


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, 1, 6), (1, float("nan"), 1)])
def test_a_spacing_that_makes_no_sense_is_refused(spacing: Sides) -> None:
    with pytest.raises(ValueError, match="spacing_mm must be three sides"):
        template_grid(spacing)


def test_an_isotropic_grid_covers_the_same_box() -> None:
    image = volume(np.zeros((40, 30, 6), np.float32), (0.5, 0.5, 5.0), (-3, 8, 20))
    grid = isotropic_grid(image, 2.5)
    assert grid.GetSize() == (8, 6, 12)
    np.testing.assert_allclose(box(grid), box(image))


def test_resampling_onto_its_own_grid_changes_nothing_and_a_shift_shifts() -> None:
    image = volume(np.random.default_rng(1).random((6, 5, 4)).astype(np.float32))
    np.testing.assert_array_equal(voxels(resampled(image, image, IDENTITY)), voxels(image))
    moved = voxels(resampled(image, image, by(1, 0, 0)))  # a target point looks 1 mm towards the left
    np.testing.assert_array_equal(moved[:-1], voxels(image)[1:])
    assert not moved[-1].any()  # beyond the image


def test_half_way_between_two_voxels_lies_their_mean() -> None:
    image = volume(np.arange(24, dtype=np.float32).reshape(6, 2, 2))
    assert voxels(resampled(image, image, by(0.5, 0, 0)))[2, 0, 0] == (8 + 12) / 2


def test_intensities_stay_within_their_range() -> None:
    image = volume((np.random.default_rng(2).random((12, 12, 12)) > 0.5).astype(np.float32) * 100, (0.5, 0.5, 3))
    for side in (0.4, 1.0, 2.2):
        values = voxels(resampled(image, isotropic_grid(image, side), by(0.2, 0.1, 0.3)))
        assert values.min() >= 0
        assert values.max() <= 100.001


@pytest.mark.parametrize(("side", "lowest", "highest"), [(1.0, 0, 1), (2.0, 0.45, 0.55)])
def test_only_a_voxel_of_more_than_twice_the_size_averages(side: float, lowest: float, highest: float) -> None:
    """Planes of 0 and 1, 0.5 mm thick: points between them at 1 mm, their mean at 2 mm."""
    stripes = np.zeros((80, 8, 8), np.float32)
    stripes[::2] = 1
    image = volume(stripes, (0.5, 1.0, 1.0))
    grid = volume(np.zeros((int(30 / side), 8, 8), np.uint8), (side, 1.0, 1.0), (5.0, 0.0, 0.0))
    values = voxels(resampled(image, grid, IDENTITY))
    assert (values >= lowest).all()
    assert (values <= highest).all()


def test_labels_on_their_own_grid_stay_as_they_are() -> None:
    labels = volume(np.random.default_rng(3).integers(0, 4, (9, 8, 7)).astype(np.uint8))
    found = resampled_labels(labels, labels, IDENTITY)
    np.testing.assert_array_equal(voxels(found.image), voxels(labels))
    assert (found.kept, found.outside) == (0, 0)


def test_no_label_gives_no_label() -> None:
    labels = volume(np.zeros((4, 4, 4), np.uint8))
    found = resampled_labels(labels, template_grid((2, 2, 2)), IDENTITY)
    assert not voxels(found.image).any()
    assert (found.kept, found.outside) == (0, 0)


def test_a_thick_slice_becomes_as_many_thin_ones() -> None:
    """A block one slice of 5 mm thick: voxel centres within 2.5 mm of it get half of its share or more."""
    labels = np.zeros((9, 9, 5), np.uint8)
    labels[2:7, 2:7, 2] = 3
    native = volume(labels, (1.0, 1.0, 5.0))
    grid = volume(np.zeros((9, 9, 25), np.uint8), (1.0, 1.0, 1.0), (0.0, 0.0, -2.0))
    found = voxels(resampled_labels(native, grid, IDENTITY).image)
    assert np.flatnonzero(found[4, 4]).tolist() == [10, 11, 12, 13, 14]
    assert np.unique(found).tolist() == [0, 3]


def test_a_component_too_small_for_the_grid_keeps_one_voxel_at_its_place() -> None:
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[13, 21, 30] = 2
    labels[:8, :8, :8] = 1
    native = volume(labels, (0.5, 0.5, 0.5))
    grid = volume(np.zeros((7, 7, 7), np.uint8), (3.0, 3.0, 3.0))
    found = resampled_labels(native, grid, IDENTITY)
    assert np.argwhere(voxels(found.image) == 2).tolist() == [[2, 3, 5]]  # 6.5, 10.5, 15 mm (half to even)
    assert (voxels(found.image) == 1).any()
    assert (found.kept, found.outside) == (1, 0)


def test_components_that_fall_into_one_voxel_all_stay() -> None:
    """Twelve single voxels of values 1 to 12 within the reach of one voxel of the target grid."""
    labels = np.zeros((24, 24, 24), np.uint8)
    for number, place in enumerate(np.ndindex(2, 2, 3), start=1):
        labels[tuple(10 + 2 * np.array(place))] = number
    native = volume(labels, (0.25, 0.25, 0.25))
    grid = volume(np.zeros((4, 4, 4), np.uint8), (2.0, 2.0, 2.0))
    found = resampled_labels(native, grid, IDENTITY)
    assert set(np.unique(voxels(found.image))) == set(range(13))
    assert found.outside == 0
    assert np.count_nonzero(voxels(found.image)) == 12


def test_a_component_beyond_the_grid_is_counted() -> None:
    labels = np.zeros((20, 4, 4), np.uint8)
    labels[1:3, 1:3, 1:3] = 1
    labels[17:19, 1:3, 1:3] = 1
    native = volume(labels)
    grid = volume(np.zeros((8, 4, 4), np.uint8))
    found = resampled_labels(native, grid, IDENTITY)
    assert (found.kept, found.outside) == (0, 1)
    np.testing.assert_array_equal(voxels(found.image), labels[:8])
    assert share_outside(native, grid, IDENTITY) == 0.5


@pytest.mark.parametrize("seed", range(4))
def test_turned_labels_lose_no_component(seed: int) -> None:
    """Single voxels and blocks of ten values under a rotation onto voxels three times as large."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((60, 60, 60), np.uint8)
    for value in range(1, 11):
        place, size = rng.integers(15, 42, 3), rng.integers(1, 5)
        labels[tuple(slice(a, a + size) for a in place)] = value
    native = volume(labels)
    turn = sitk.Euler3DTransform()
    turn.SetCenter((30, 30, 30))
    turn.SetRotation(*rng.uniform(-0.4, 0.4, 3))
    grid = volume(np.zeros((20, 20, 20), np.uint8), (3.0, 3.0, 3.0), (1.0, 1.0, 1.0))
    found = resampled_labels(native, grid, turn)
    assert found.outside == 0
    assert set(np.unique(voxels(found.image))) == set(np.unique(labels))


def test_the_share_of_an_empty_mask_outside_is_none() -> None:
    empty = volume(np.zeros((4, 4, 4), np.uint8))
    assert share_outside(empty, empty, IDENTITY) == 0
