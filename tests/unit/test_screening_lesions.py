"""The lesion table: diameters worked out by hand and by brute force, RANO-BM's limits, sides, oedema, files."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linprog

from brainmets.paths import ScreeningPaths
from brainmets.schemas import SCREENED
from brainmets.screening import lesions
from brainmets.screening.lesions import Diameters, MidPlane, diameters, measurable, measure
from brainmets.tables import TableError

OBLIQUE = nib.eulerangles.euler2mat(0.3, -0.2, 0.25)
blobs = hnp.arrays(bool, st.tuples(*[st.integers(1, 6)] * 3)).filter(np.any)


def affine_of(*sides: float, turned: np.ndarray | None = None) -> np.ndarray:
    turned = np.eye(3) if turned is None else turned
    return nib.affines.from_matvec(turned @ np.diag(sides), (-20.0, 7.0, 3.5))


def block(shape: tuple[int, int, int], *of: tuple[slice, slice, slice]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for part in of:
        mask[part] = True
    return mask


def both(found: Diameters) -> tuple[float, float]:
    return found.longest_mm, found.perpendicular_mm


# --- diameters by hand ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turned", [None, OBLIQUE])
def test_one_voxel_measures_its_sides_in_the_axial_plane(turned: np.ndarray | None) -> None:
    found = diameters(np.ones((1, 1, 1)), affine_of(0.5, 0.8, 3, turned=turned))
    assert both(found) == pytest.approx((0.8, 0.5))
    assert (found.slice, found.slices, found.axis) == (0, 1, 2)


@pytest.mark.parametrize("turned", [None, OBLIQUE])
def test_a_row_of_voxels_measures_their_sides(turned: np.ndarray | None) -> None:
    assert both(diameters(np.ones((7, 1, 1)), affine_of(0.5, 0.8, 3, turned=turned))) == pytest.approx((3.5, 0.8))
    assert both(diameters(np.ones((1, 7, 1)), affine_of(0.5, 0.8, 3, turned=turned))) == pytest.approx((5.6, 0.5))


@pytest.mark.parametrize("turned", [None, OBLIQUE])
def test_a_rectangle_by_hand(turned: np.ndarray | None) -> None:
    """4 x 3 pixels: from (-2, -1) to (2, 1); at right angles to it, through the middle, from y = -1.5 to 1.5."""
    found = diameters(np.ones((4, 3, 1)), affine_of(1, 1, 3, turned=turned))
    assert both(found) == pytest.approx((math.sqrt(4**2 + 2**2), 3 * math.sqrt(5) / 2))


def test_a_rectangle_of_pixels_that_are_not_square() -> None:
    """2 x 3 pixels of 3 x 2 mm, 6 x 6 mm: from (-3, -2) to (3, 2), 6 along the longer side; or (-1.5, -3) to (1.5, 3).

    Chords at right angles to (3, 2), direction (-2, 3), go through the middle from y = 3 at x = -2, beyond the border
    from (-3, 2) to (-1.5, 3): they meet it where 2/3 (x + 3) + 2 = -1.5 x, at x = -24/13, y = 36/13.
    """
    found = diameters(np.ones((2, 3, 1)), affine_of(3, 2, 5))
    assert both(found) == pytest.approx((math.sqrt(6**2 + 4**2), 2 * math.hypot(24, 36) / 13))


def test_a_slanted_line_of_pixels_is_as_long_as_its_ends_are_apart() -> None:
    mask = np.eye(5, dtype=bool)[..., None]
    # from (-0.5, 0) to (4.5, 4) or (0, -0.5) to (4, 4.5), which pass the line's middle on both sides
    assert diameters(mask, affine_of(1, 1, 1)).longest_mm == pytest.approx(math.hypot(5, 4))


@pytest.mark.parametrize("pixel", [(1.0, 1.0), (0.5, 0.5), (0.5, 1.0)])
@pytest.mark.parametrize("across_mm", [3.0, 5.0, 7.3, 10.0, 20.0, 40.0])
def test_a_disc_is_measured_within_a_pixel(pixel: tuple[float, float], across_mm: float) -> None:
    x, y = (np.arange(-24, 24, side) for side in pixel)
    apart = []
    for middle in np.random.default_rng(7).random((20, 2)) * pixel:
        disc = (x[:, None] - middle[0]) ** 2 + (y - middle[1]) ** 2 <= (across_mm / 2) ** 2
        found = diameters(disc[..., None], affine_of(*pixel, 1))
        apart.append(found.longest_mm - across_mm)
        assert found.perpendicular_mm == pytest.approx(across_mm, abs=max(pixel))
    assert max(map(abs, apart)) < max(pixel)
    assert np.mean(apart) > 0


@pytest.mark.parametrize("angle", range(0, 180, 15))
def test_a_turned_ellipse_is_measured_along_its_axes(angle: int) -> None:
    pixel, (long, short) = 0.5, (24.0, 11.0)
    x, y = np.meshgrid(*[np.arange(-40, 41) * pixel] * 2, indexing="ij")
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    ellipse = (2 * (c * x + s * y) / long) ** 2 + (2 * (c * y - s * x) / short) ** 2 <= 1
    found = diameters(ellipse[..., None], affine_of(pixel, pixel, 1))
    assert found.longest_mm == pytest.approx(long, abs=pixel)
    assert found.perpendicular_mm == pytest.approx(short, abs=pixel)
    along = found.ends[1] - found.ends[0]
    assert abs(along @ (c, s, 0)) / found.longest_mm > math.cos(math.radians(6))


def test_holes_and_pieces_are_measured_as_a_whole() -> None:
    """A ring, a ring cut open, and two pieces: as a calliper laid over all of it."""
    ring = block((9, 9, 1), (slice(1, 8), slice(1, 8), slice(None)))
    whole = both(diameters(ring, affine_of(1, 1, 1)))
    ring[3:6, 3:6] = False
    assert both(diameters(ring, affine_of(1, 1, 1))) == whole
    ring[4, :4] = False
    assert both(diameters(ring, affine_of(1, 1, 1))) == whole
    pieces = block((12, 1, 1), (slice(0, 2), slice(None), slice(None)), (slice(9, 12), slice(None), slice(None)))
    assert both(diameters(pieces, affine_of(1, 1, 1))) == pytest.approx((12, 1))


def test_the_slice_with_the_longest_diameter_is_measured() -> None:
    affine = affine_of(1, 1, 2)
    mask = block((12, 12, 6), (slice(1, 4), slice(1, 4), slice(1, 5)))
    mask[1:8, 1, 3] = True
    found = diameters(mask, affine)
    assert (found.slice, found.slices) == (3, 4)
    assert found.longest_mm == pytest.approx(math.hypot(7, 2))  # from (-0.5, 0) to (6.5, 2) or as far
    # equally long: the one that is larger across, then the lower in the head
    rows = block((12, 12, 6), (slice(0, 9), slice(0, 1), slice(0, 4)))
    assert diameters(rows, affine).slice == 0
    assert diameters(rows, affine @ np.diag((1, 1, -1, 1))).slice == 3
    rows[4, 0:2, 2:4] = True
    assert (diameters(rows, affine).slice, both(diameters(rows, affine))) == (2, pytest.approx((9, 2)))


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (0, 2, 1)])
@pytest.mark.parametrize("turned", [None, OBLIQUE])
def test_axial_is_across_the_axis_nearest_to_the_top(axes: tuple[int, ...], turned: np.ndarray | None) -> None:
    """The same lesion in a sagittal or coronal file, whatever the order and direction of its axes."""
    mask = block((5, 9, 7), (slice(1, 4), slice(2, 8), slice(1, 6)))
    affine = affine_of(0.9, 0.7, 1.2, turned=turned)
    expected = diameters(mask, affine)
    stored = np.flip(mask.transpose(axes), 1)
    order = np.eye(4)[:, [*axes, 3]]
    back = np.eye(4)
    back[1, 1], back[1, 3] = -1, stored.shape[1] - 1
    found = diameters(stored, affine @ order @ back)
    assert both(found) == pytest.approx(both(expected))
    assert (found.slices, found.axis) == (5, axes.index(2))


@pytest.mark.parametrize("turned", [None, OBLIQUE])
def test_the_ends_are_as_far_apart_as_the_diameters_say(turned: np.ndarray | None) -> None:
    mask = np.random.default_rng(3).random((9, 8, 4)) < 0.2
    affine = affine_of(0.9, 0.7, 1.2, turned=turned)
    found = diameters(mask, affine)
    along, across = found.ends[1] - found.ends[0], found.ends[3] - found.ends[2]
    assert (np.linalg.norm(along), np.linalg.norm(across)) == pytest.approx(both(found))
    assert along @ across == pytest.approx(0, abs=1e-9)
    in_voxels = nib.affines.apply_affine(np.linalg.inv(affine), found.ends)
    np.testing.assert_allclose(in_voxels[:, 2], found.slice)
    assert (in_voxels >= -0.5 - 1e-9).all() and (in_voxels <= np.array(mask.shape) - 0.5 + 1e-9).all()


def test_slices_that_lean_are_measured_in_their_own_plane() -> None:
    """Of a tilted gantry: the planes are the same, only shifted against each other."""
    affine = affine_of(1, 1, 3)
    leaning = affine.copy()
    leaning[1, 2] = 0.6
    mask = np.random.default_rng(5).random((7, 7, 3)) < 0.3
    assert both(diameters(mask, leaning)) == pytest.approx(both(diameters(mask, affine)))


@pytest.mark.parametrize("mask", [np.zeros((3, 3, 3)), np.ones((3, 3)), np.zeros((0, 3, 3))])
def test_a_mask_without_a_lesion_is_refused(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be 3D and hold a voxel"):
        diameters(mask, np.eye(4))


# --- diameters by brute force --------------------------------------------------------------------------------------


def slowly(mask: np.ndarray, affine: np.ndarray) -> tuple[float, float]:
    """Of all slices along the last axis and all pairs of all pixels' edge middles the farthest; the chord by LP."""
    best = (0.0, 0.0)
    for index in np.flatnonzero(mask.any(axis=(0, 1))):
        pixels = np.argwhere(mask[..., index])
        middles = np.concatenate([pixels + step for step in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))])
        at = nib.affines.apply_affine(affine, np.column_stack([middles, np.full(len(middles), index)]))
        apart = np.linalg.norm(at[:, None] - at, axis=2)
        for one, other in np.argwhere(apart >= apart.max() - 1e-9):
            if one < other and round(apart[one, other], 6) >= best[0]:
                across = np.cross(at[other] - at[one], affine[:3, 0]), np.cross(affine[:3, 0], affine[:3, 1])
                across = np.cross(across[1], at[other] - at[one])
                chord = longest_chord(at, across / np.linalg.norm(across))
                best = max(best, (round(apart[one, other], 6), round(chord, 6)))
    return best


def longest_chord(points: np.ndarray, direction: np.ndarray) -> float:
    """Two points of the hull, each a mean of ``points`` with weights, as far apart along ``direction`` as can be."""
    n = len(points)
    equal = np.zeros((5, 2 * n + 1))
    equal[:3, :n], equal[:3, n : 2 * n], equal[:3, -1] = points.T, -points.T, direction
    equal[3, :n] = equal[4, n : 2 * n] = 1
    found = linprog(np.append(np.zeros(2 * n), -1), A_eq=equal, b_eq=[0, 0, 0, 1, 1])
    assert found.success
    return -float(found.fun)


@pytest.mark.parametrize("seed", range(12))
def test_diameters_are_those_of_brute_force(seed: int) -> None:
    chance = np.random.default_rng(seed)
    mask = chance.random((6, 5, 3)) < chance.uniform(0.05, 0.6)
    mask[2, 3, 1] = True
    affine = affine_of(*chance.uniform(0.4, 2, 3), turned=OBLIQUE if seed % 2 else None)
    assert both(diameters(mask, affine)) == pytest.approx(slowly(mask, affine), abs=2e-6)


@settings(max_examples=25, deadline=None)
@given(blobs, st.integers(0, 3))
def test_a_quarter_turn_about_the_head_axis_changes_nothing(mask: np.ndarray, turns: int) -> None:
    before, after = (diameters(one, affine_of(0.8, 0.8, 2)) for one in (mask, np.rot90(mask, turns)))
    assert both(after) == pytest.approx(both(before))
    assert (after.slice, after.slices) == (before.slice, before.slices)


@settings(max_examples=25, deadline=None)
@given(blobs, st.floats(0.1, 10))
def test_diameters_scale_with_the_voxels_and_stay_in_their_box(mask: np.ndarray, scale: float) -> None:
    sides = np.array([0.8, 1.1, 2.0])
    found = diameters(mask, affine_of(*sides))
    larger = diameters(mask, affine_of(*sides * scale))
    assert both(larger) == pytest.approx(tuple(scale * one for one in both(found)), rel=1e-5)
    assert found.longest_mm >= found.perpendicular_mm >= sides[0] / 2
    assert found.longest_mm <= math.hypot(*(sides * mask.shape)[:2]) + 1e-9


# --- measurable ----------------------------------------------------------------------------------------------------

LARGE = Diameters(10, 5, 3, 2, 2, np.zeros((4, 3)))


@pytest.mark.parametrize(
    ("longest", "perpendicular", "slices", "apart", "expected", "why"),
    [
        (10, 5, 2, 1.6, True, "10 mm or more"),
        (10, 5, 2, 5.0, True, "10 mm or more"),
        (9.9, 5, 2, 1.6, False, "longest diameter 9.90 mm, must be 10 or more"),
        (9.999999, 5, 2, 1.6, False, "longest diameter 9.99 mm, must be 10 or more"),
        (9.99999999, 5, 2, 1.6, True, "10 mm or more"),  # ten but for rounding
        (10, 4.9, 2, 1.6, False, "perpendicular 4.90 mm, must be 5 or more"),
        (10, 5, 1, 1.6, False, "on 1 axial slice, must be on 2 or more"),
        (
            9.9, 4.9, 1, 1.6, False,
            "longest diameter 9.90 mm, must be 10 or more; perpendicular 4.90 mm, must be 5 or more; "
            "on 1 axial slice, must be on 2 or more",
        ),
        (9.9, 5, 2, 1.5, True, "by the provision for thin slices (1.5 mm apart): 5 mm or more"),
        (9.9, 5, 2, 1.50000001, True, "by the provision for thin slices (1.5 mm apart): 5 mm or more"),
        (5, 5, 2, 1.5, True, "by the provision for thin slices (1.5 mm apart): 5 mm or more"),
        (4.9, 4.8, 2, 1.5, False,
         "longest diameter 4.90 mm, must be 5 or more on slices 1.5 mm apart; "
         "perpendicular 4.80 mm, must be 5 or more"),
        (9, 4.9, 2, 1.0, False, "perpendicular 4.90 mm, must be 5 or more"),
        (9, 5, 1, 1.0, False, "on 1 axial slice, must be on 2 or more"),
        (10, 5, 2, 1.0, True, "10 mm or more"),
        (10, 5, 2, 5.5, False, "longest diameter 10.00 mm, must be 11 or more, twice the 5.5 mm between slices"),
        (11, 5, 2, 5.5, True, "11 mm or more"),
    ],
)  # fmt: skip
def test_what_is_measurable_at_its_limits(
    longest: float, perpendicular: float, slices: int, apart: float, expected: bool, why: str
) -> None:
    found = replace(LARGE, longest_mm=longest, perpendicular_mm=perpendicular, slices=slices)
    assert measurable(found, affine_of(0.5, 0.5, apart, turned=OBLIQUE)) == (expected, why)


def test_a_thick_sagittal_series_is_not_thin_for_being_cut_into_axial_planes() -> None:
    affine = nib.affines.from_matvec(np.array([[0, 0, 4], [0.5, 0, 0], [0, 0.5, 0]]))
    found = replace(LARGE, longest_mm=9, axis=lesions.axial_axis(affine))
    assert measurable(found, affine) == (
        False,
        "longest diameter 9.00 mm, must be 10 or more; axial slices reformatted; "
        "coarse: pixels of 4 mm in the axial plane",
    )
    fine = nib.affines.from_matvec(np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]))
    assert measurable(found, fine) == (
        True,
        "by the provision for thin slices (1 mm apart): 5 mm or more; axial slices reformatted",
    )


# --- sides ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("right_mm", "side"), [(3, "middle"), (3.01, "right"), (-3, "middle"), (-3.01, "left")])
def test_a_side_is_told_beyond_three_mm_of_the_plane(right_mm: float, side: str) -> None:
    plane = MidPlane((10.0, 5.0, 0.0), (2.0, 0.0, 0.0))
    assert plane.side(np.array([10 + right_mm, 80.0, -3.0])) == side


def test_the_plane_of_the_template_is_carried_to_the_scan() -> None:
    """A head turned by 90 degrees about S, its nose to the left of the scanner: its right is the scanner's front."""
    to_scan = sitk.Euler3DTransform()
    to_scan.SetRotation(0, 0, math.pi / 2)  # LPS: L to P, P to R
    to_scan.SetTranslation((4, -7, 9))  # RAS: (-4, 7, 9)
    plane = MidPlane.of_template(to_scan)
    np.testing.assert_allclose(plane.point, (-4, 7, 9), atol=1e-9)
    np.testing.assert_allclose(plane.normal, (0, 1, 0), atol=1e-9)
    assert plane.side(np.array([30.0, 17.0, 0.0])) == "right"
    assert plane.side(np.array([30.0, -3.0, 0.0])) == "left"


def test_the_plane_of_an_upright_head_parts_left_from_right() -> None:
    plane = MidPlane.of_template(sitk.Euler3DTransform())
    assert (plane.side(np.array([20.0, 0, 0])), plane.side(np.array([-20.0, 0, 0]))) == ("right", "left")


# --- the table -----------------------------------------------------------------------------------------------------


def scan() -> dict:
    """Two lesions in one oedema, and a candidate that nothing is painted of; voxels of 1 x 1 x 2 mm.

    Along x, in a row of 3 x 2 voxels across: oedema at 0 to 1, lesion 1 (core and rim) at 2 to 5, oedema at 6 to 12,
    lesion 2 at 13 to 14, oedema at 15; a second oedema without a lesion.
    """
    numbers, labels = np.zeros((20, 10, 4), np.uint16), np.zeros((20, 10, 4), np.uint8)
    row = (slice(None), slice(2, 5), slice(1, 3))
    labels[row][:16] = 2
    labels[row][2:6], labels[row][3:5], labels[row][13:15] = 3, 1, 3
    numbers[row][2:6], numbers[row][13:15] = 1, 2
    labels[0:3, 8:10, 0] = 2
    numbers[18:20, 8, 3] = 3
    uncertainty = np.zeros(numbers.shape, np.float32)
    uncertainty[numbers == 1], uncertainty[numbers == 2], uncertainty[numbers == 3] = 0.5, 0.75, 1.0
    uncertainty[2, 2, 1] = 0.25
    return {
        "numbers": numbers, "labels": labels, "uncertainty": uncertainty,
        "affine": nib.affines.from_matvec(np.diag((-1.0, 1.0, 2.0)), (10.0, -4.0, 0.0)),
        "scores": {3: 0.25, 1: 0.95, 2: 0.75}, "accepted": [1, 2],
        "middle": MidPlane((0.0, 0.0, 0.0), (1.0, 0.0, 0.0)),
    }  # fmt: skip


def test_the_table_by_hand() -> None:
    table = measure(**scan()).set_index("lesion")
    assert list(table.index) == [1, 2, 3]
    assert table.accepted.tolist() == [True, True, False]
    assert table.score.tolist() == [0.95, 0.75, 0.25]
    assert table.uncertainty.tolist() == pytest.approx([0.5 - 0.25 / 24, 0.75, 1.0])
    assert table.volume_mm3.tolist() == [48, 24, 4]
    assert table[["x_mm", "y_mm", "z_mm"]].to_numpy().tolist() == [[6.5, -1, 3], [-3.5, -1, 3], [-8.5, 4, 6]]
    assert table.side.tolist() == ["right", "left", "left"]
    # 4 x 3 pixels as above; 2 x 3 pixels; a row of two
    assert table.longest_mm.tolist() == pytest.approx([math.sqrt(20), math.sqrt(10), 2])
    assert table.slices.tolist() == [2, 2, 1]
    assert table["slice"].tolist() == [1, 1, 3]
    assert table.measurable.tolist() == [False] * 3
    assert table.why[3] == (
        "longest diameter 2.00 mm, must be 10 or more; perpendicular 1.00 mm, must be 5 or more; "
        "on 1 axial slice, must be on 2 or more"
    )
    assert table.et_mm3.tolist() == [24, 24, 0]
    assert table.netc_mm3.tolist() == [24, 0, 0]
    # 12 mm^3 a step of x: 0, 1, and of 6 to 12 the first three are nearer to 1, the last three to 2, one is between
    assert table.snfh_mm3.tolist() in ([5 * 12, 5 * 12, 0], [6 * 12, 4 * 12, 0])
    assert table.snfh_mm3.sum() == 10 * 12


def test_a_ring_of_the_enhancing_region_has_the_core_that_it_surrounds() -> None:
    """Where only what enhances is numbered, the core lies in no lesion's voxels; nothing painted is lost."""
    given = scan()
    given["numbers"][given["labels"] != 3] = 0
    given["numbers"][18:20, 8, 3] = 3
    table = measure(**given)
    assert table.volume_mm3.tolist() == [24, 24, 4]
    assert table.et_mm3.tolist() == [24, 24, 0]
    assert table.netc_mm3.tolist() == [24, 0, 0]
    assert table.snfh_mm3.sum() == 10 * 12


def test_one_lesion_has_all_oedema_that_touches_it_and_its_own() -> None:
    given = scan()
    given["numbers"][given["numbers"] == 2] = 0
    given |= {"scores": {1: 0.95, 3: 0.25}, "accepted": [1]}
    assert measure(**given).snfh_mm3.tolist() == [10 * 12, 0]
    # of the whole tumour, whose lesions hold their oedema
    given["numbers"][0:16, 2:5, 1:3] = 1
    assert measure(**given).snfh_mm3.tolist() == [10 * 12, 0]


def test_a_turned_head_has_the_same_lesions() -> None:
    given = scan()
    expected = measure(**given)
    turn = np.array([[0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    turned = given | {"affine": turn @ given["affine"], "middle": MidPlane((0.0, 0.0, 0.0), (0.0, -1.0, 0.0))}
    found = measure(**turned)
    places = ["x_mm", "y_mm", "z_mm"]
    np.testing.assert_allclose(found[places], expected[places] @ turn[:3, :3].T, atol=1e-9)
    pd.testing.assert_frame_equal(found.drop(columns=places), expected.drop(columns=places))


def test_without_a_plane_every_side_is_unknown() -> None:
    assert measure(**(scan() | {"middle": None})).side.tolist() == ["unknown"] * 3


def test_no_lesion_is_a_table_without_rows() -> None:
    given = scan()
    given["numbers"][:] = 0
    table = measure(**(given | {"scores": {}, "accepted": []}))
    assert len(table) == 0
    assert table.dtypes.tolist() == measure(**scan()).dtypes.tolist()
    assert list(table.columns) == list(SCREENED.columns)


def spoiled(name: str, value: float) -> dict:
    array = scan()[name].copy()
    array[0, 0, 0] = value
    return {name: array}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scores": {1: 0.95, 2: 0.75, 3: 0.25, 5: 0.2}}, "scores: lesion 5 has no voxel in numbers"),
        ({"scores": {1: 0.95, 3: 0.25}, "accepted": [1]}, "numbers: 2 has no score"),
        ({"scores": {1: 0.95, 2: math.nan, 3: 0.25}}, "scores: that of lesion 2 is nan"),
        ({"scores": {1: 1.5, 2: 0.75, 3: 0.25}}, "scores: that of lesion 1 is 1.5"),
        ({"accepted": [1, 4]}, "accepted: lesion 4 is not among the numbers"),
        ({"labels": np.zeros((20, 10, 3), np.uint8)}, r"labels has shape \(20, 10, 3\), numbers \(20, 10, 4\)"),
        ({"uncertainty": np.zeros((1, 1, 1))}, "uncertainty has shape"),
        (spoiled("uncertainty", 1.5), "uncertainty runs from 0.0 to 1.5"),
        (spoiled("uncertainty", math.nan), "uncertainty runs from nan"),
        (spoiled("uncertainty", -0.5), "uncertainty runs from -0.5"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(**(scan() | wrong))


def test_a_hundred_lesions_and_a_large_one_are_quickly_measured() -> None:
    """In processor time, well below what is promised: 2 s for a hundred, 1 s for one of 60 mL."""
    around = np.arange(-59, 60) * 0.5
    ball = around[:, None, None] ** 2 + around[:, None] ** 2 + around**2 <= (60000 * 3 / (4 * math.pi)) ** (2 / 3)
    start = time.process_time()
    found = diameters(ball, affine_of(0.5, 0.5, 0.5))
    assert time.process_time() - start < 1
    assert found.longest_mm == pytest.approx(2 * (60000 * 3 / (4 * math.pi)) ** (1 / 3), abs=0.5)
    around = np.arange(-8, 9)
    small = around[:, None, None] ** 2 + around[:, None] ** 2 + around**2 <= 64
    numbers = np.zeros((100, 100, 80), np.uint16)
    for number, corner in enumerate(np.ndindex(5, 5, 4), start=1):
        box = tuple(slice(20 * step, 20 * step + 17) for step in corner)
        numbers[box][small] = number
    values = (numbers > 0).astype(np.float32)
    labels = np.where(numbers > 0, 3, 2).astype(np.uint8)
    start = time.process_time()
    table = measure(numbers, labels, values, affine_of(0.5, 0.5, 0.5), dict.fromkeys(range(1, 101), 1.0), [], None)
    assert time.process_time() - start < 2
    assert table.longest_mm.nunique() == 1
    assert table.snfh_mm3.sum() == pytest.approx((labels == 2).sum() / 8)


# --- files ---------------------------------------------------------------------------------------------------------


def test_the_table_is_written_and_read_whole(tmp_path: Path) -> None:
    files, table = ScreeningPaths(tmp_path), measure(**scan())
    lesions.write(files, table)
    pd.testing.assert_frame_equal(lesions.read(files), table)
    content = json.loads(files.table_json.read_text())
    assert content["schema"] == 1
    assert list(content["columns"]) == list(SCREENED.columns)
    assert all(column["meaning"] for column in content["columns"].values())
    assert {name: column["unit"] for name, column in content["columns"].items() if name.endswith(("_mm", "_mm3"))} == {
        name: "mm^3" if name.endswith("_mm3") else "mm" for name in SCREENED.columns if name.endswith(("_mm", "_mm3"))
    }
    assert content["columns"]["side"]["words"] == ["left", "right", "middle", "unknown"]
    assert content["rows"] == table.to_dict("records")
    assert "research use only" in content["title"]


def test_an_empty_table_is_written_and_read(tmp_path: Path) -> None:
    files, table = ScreeningPaths(tmp_path), measure(**scan()).iloc[:0]
    lesions.write(files, table)
    pd.testing.assert_frame_equal(lesions.read(files), table)
    assert json.loads(files.table_json.read_text())["rows"] == []


def test_a_table_that_cannot_be_is_neither_written_nor_read(tmp_path: Path) -> None:
    files, table = ScreeningPaths(tmp_path), measure(**scan())
    with pytest.raises(ValueError, match="give it as measure returns it"):
        lesions.write(files, table.drop(columns="why"))
    assert not list(tmp_path.iterdir())
    lesions.write(files, table)
    files.table.write_text(files.table.read_text().replace("left", "west"))
    with pytest.raises(TableError, match="side 'west' is none of left, right, middle, unknown"):
        lesions.read(files)
