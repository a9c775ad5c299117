"""Whole-region metrics: geometry that can be worked out by hand, empty masks, and equality with other packages."""

from __future__ import annotations

import math

import numpy as np
import pytest

from brainmets.nifti import read_grid, read_labels
from brainmets.scoring import metrics
from brainmets.scoring.boxes import crop, foreground_boxes
from brainmets.scoring.metrics import LESION_WISE, WHOLE_REGION, region_metrics
from brainmets.scoring.surface import Surface, nearest_points, restricted, weighted_percentile
from brainmets.vocabulary import REGIONS, region_mask

SPACINGS = [(1.0, 1.0, 1.0), (0.5, 0.5, 1.0), (0.9, 1.3, 2.7)]


def block(shape, low, high):
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def blobs(rng, shape=(30, 26, 22), n=4):
    """A few overlapping balls, so that surfaces are smooth, touch and part."""
    mask = np.zeros(shape, dtype=bool)
    grid = np.indices(shape)
    for _ in range(n):
        centre = [rng.uniform(0, side) for side in shape]
        radius = rng.uniform(1, 6)
        mask |= sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) <= radius**2
    return mask


def test_two_voxels_apart_by_hand():
    # two voxels of 2 x 3 x 4 mm with two voxels between them on the first axis: corners at x = 0, 2 and 6, 8 mm
    reference, prediction = block((6, 3, 3), (0, 1, 1), (1, 2, 2)), block((6, 3, 3), (3, 1, 1), (4, 2, 2))
    values = region_metrics(reference, prediction, (2.0, 3.0, 4.0))
    assert values["dice"] == values["sensitivity"] == values["precision"] == values["nsd_1mm"] == 0
    # half of each voxel's corners is 4 mm from the other, half 6 mm
    assert values["hd"] == values["hd95"] == 6.0
    assert values["specificity"] == (6 * 3 * 3 - 2) / (6 * 3 * 3 - 1)
    assert values["reference_volume"] == values["predicted_volume"] == 0.024


def test_block_against_half_of_it_by_hand():
    reference, prediction = block((12, 8, 8), (2, 2, 2), (6, 6, 6)), block((12, 8, 8), (2, 2, 2), (4, 6, 6))
    values = region_metrics(reference, prediction, (1.0, 1.0, 1.0))
    assert values["dice"] == pytest.approx(2 * 32 / (64 + 32))
    assert values["sensitivity"] == 0.5
    assert values["precision"] == 1.0
    assert values["specificity"] == 1.0
    assert values["reference_volume"] == pytest.approx(0.064)
    assert values["predicted_volume"] == pytest.approx(0.032)
    assert values["hd"] == 2.0  # the reference's far face lies 2 mm beyond the prediction's


def test_equal_masks():
    mask = blobs(np.random.default_rng(1))
    values = region_metrics(mask, mask, (0.5, 0.5, 1.0))
    assert values["dice"] == values["nsd_1mm"] == values["sensitivity"] == values["precision"] == 1.0
    assert values["hd"] == values["hd95"] == 0.0


def test_nsd_tolerance_includes_its_limit():
    # a plate moved by its own thickness across the plate: every surface element moves by exactly one voxel side
    reference, prediction = block((20, 20, 20), (2, 2, 5), (18, 18, 9)), block((20, 20, 20), (2, 2, 6), (18, 18, 10))
    assert region_metrics(reference, prediction, (1.0, 1.0, 1.0))["nsd_1mm"] == 1.0
    moved = region_metrics(reference, prediction, (1.0, 1.0, 1.1))
    assert 0.0 < moved["nsd_1mm"] < 0.5
    assert moved["hd"] == pytest.approx(1.1)


def test_hd95_leaves_out_a_speck_that_hd_counts():
    reference = block((60, 30, 30), (2, 2, 2), (26, 26, 26))
    prediction = reference | block((60, 30, 30), (56, 5, 5), (57, 6, 6))
    values = region_metrics(reference, prediction, (1.0, 1.0, 1.0))
    assert values["hd95"] == 0.0
    assert values["hd"] == 31.0  # corners at 57 and 26


def test_mask_touching_every_side_of_the_image():
    whole = np.ones((4, 5, 6), dtype=bool)
    part = block((4, 5, 6), (0, 0, 0), (4, 5, 3))
    values = region_metrics(whole, part, (1.0, 1.0, 2.0))
    assert values["hd"] == 6.0
    assert values["specificity"] == 1.0  # no voxel lies outside the reference


EMPTY = np.zeros((4, 4, 10), dtype=bool)
FULL = block((4, 4, 10), (1, 1, 1), (2, 2, 3))
DIAGONAL = math.sqrt(2.0**2 + 2.0**2 + 10.0**2)


@pytest.mark.parametrize(
    ("reference", "prediction", "state"),
    [(EMPTY, EMPTY, "both_empty"), (EMPTY, FULL, "reference_empty"), (FULL, EMPTY, "prediction_empty")],
)
def test_empty_masks_follow_the_printed_policy(reference, prediction, state):
    values = region_metrics(reference, prediction, (0.5, 0.5, 1.0))
    policy = metrics.empty_policy().query("definition == 'whole region'").set_index("metric")[state]
    assert set(policy.index) == set(values)
    for metric, rule in policy.items():
        if rule == "image diagonal":
            assert values[metric] == pytest.approx(DIAGONAL)
        elif rule != "computed":
            assert values[metric] == float(rule)
    assert all(math.isfinite(value) for value in values.values())


def test_volumes_and_specificity_of_empty_masks_by_hand():
    missed = region_metrics(FULL, EMPTY, (0.5, 0.5, 1.0))
    assert (missed["reference_volume"], missed["predicted_volume"]) == (0.0005, 0.0)
    false = region_metrics(EMPTY, FULL, (0.5, 0.5, 1.0))
    assert false["specificity"] == 158 / 160
    assert missed["hd95"] == false["hd95"] > region_metrics(FULL, np.roll(FULL, 7, axis=2), (0.5, 0.5, 1.0))["hd95"]


def test_policy_names_every_metric():
    assert set(WHOLE_REGION) == set(metrics.UNITS)
    policy = metrics.empty_policy()
    assert len(policy) == len(WHOLE_REGION) + sum(len(rules) for rules in LESION_WISE.values())
    assert not policy.isna().any().any()


@pytest.mark.parametrize(
    ("reference", "prediction", "spacing", "message"),
    [
        (EMPTY, EMPTY[:2], (1, 1, 1), r"\(4, 4, 10\), prediction \(2, 4, 10\)"),
        (EMPTY[0], EMPTY[0], (1, 1, 1), "2 dimensions"),
        (EMPTY.astype(float), EMPTY, (1, 1, 1), "float64"),
        (EMPTY, EMPTY, (1, 0, 1), "positive"),
        (EMPTY, EMPTY, (1, 1), "three"),
    ],
)
def test_wrong_arguments_are_named(reference, prediction, spacing, message):
    with pytest.raises(ValueError, match=message):
        region_metrics(reference, prediction, spacing)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_equals_surface_distance(seed, spacing):
    deepmind = pytest.importorskip("surface_distance")
    rng = np.random.default_rng(seed)
    reference, prediction = blobs(rng), blobs(rng)
    distances = deepmind.compute_surface_distances(reference, prediction, spacing)
    values = region_metrics(reference, prediction, spacing)
    assert values["hd95"] == pytest.approx(deepmind.compute_robust_hausdorff(distances, 95), abs=1e-9)
    assert values["nsd_1mm"] == pytest.approx(deepmind.compute_surface_dice_at_tolerance(distances, 1.0), abs=1e-9)
    furthest = max(distances["distances_gt_to_pred"].max(), distances["distances_pred_to_gt"].max())
    assert values["hd"] == pytest.approx(furthest, abs=1e-9)
    assert values["dice"] == pytest.approx(deepmind.compute_dice_coefficient(reference, prediction), abs=1e-12)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("density", [0.02, 0.5])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_equals_segmentationmetrics(density, spacing):
    other = pytest.importorskip("segmentationmetrics", reason="segmentationmetrics 1.1.1 is not installed")
    rng = np.random.default_rng(7)
    for reference, prediction in [
        (rng.random((17, 21, 13)) < density, rng.random((17, 21, 13)) < density),
        (blobs(rng), blobs(rng)),
    ]:
        expected = other.SegmentationMetrics(prediction, reference, spacing)
        values = region_metrics(reference, prediction, spacing)
        for metric, name in SEGMENTATIONMETRICS.items():
            assert values[metric] == pytest.approx(getattr(expected, name), abs=1e-9), metric


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("case", ["BraTS-MET-00132-000", "BraTS-MET-01325-000"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_equals_segmentationmetrics_on_real_masks(real_data, case):
    other = pytest.importorskip("segmentationmetrics", reason="segmentationmetrics 1.1.1 is not installed")
    paths = [real_data / "data" / "met_masks" / case / f"{name}.nii.gz" for name in ("reference", "prediction")]
    spacing = read_grid(paths[0]).spacing
    reference, prediction = (read_labels(path) for path in paths)
    for region in REGIONS:
        masks = region_mask(reference, region), region_mask(prediction, region)
        expected, values = other.SegmentationMetrics(masks[1], masks[0], spacing), region_metrics(*masks, spacing)
        for metric, name in SEGMENTATIONMETRICS.items():
            assert values[metric] == pytest.approx(getattr(expected, name), abs=1e-9), (region, metric)


SEGMENTATIONMETRICS = {
    "dice": "dice",
    "hd95": "hausdorff_distance",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "reference_volume": "true_volume",
    "predicted_volume": "predicted_volume",
}


# --- what the metrics are built from --------------------------------------------------------------------


def surface(points, lesions):
    """Points (n, 3) that all weigh the same."""
    return Surface(points.T, np.ones(len(points)), lesions)


@pytest.mark.parametrize("spacing", [*SPACINGS, (0.5, 0.5, 6.0)])
@pytest.mark.parametrize("reach", [8, 40])
def test_nearest_points_equal_brute_force(spacing, reach):
    rng = np.random.default_rng(3)
    first, second = (surface(rng.integers(0, reach, (n, 3)), rng.integers(1, 5, n)) for n in (150, 200))
    steps = first.points[:, :, None] - second.points[:, None, :]
    every = np.sqrt(((steps * np.array(spacing)[:, None, None]) ** 2).sum(axis=0))
    found = nearest_points(first, second, spacing)
    np.testing.assert_allclose(found.distances, every.min(axis=1), atol=1e-12)
    # the lesion named is one of a nearest point
    for number in range(1, 5):
        own = every[found.lesions == number][:, second.lesions == number]
        np.testing.assert_allclose(own.min(axis=1), found.distances[found.lesions == number], atol=1e-12)
    chosen, allowed = np.flatnonzero(first.lesions == 2), np.flatnonzero(np.isin(second.lesions, [1, 4]))
    partial = restricted(first, chosen, second, allowed, found, spacing)
    np.testing.assert_allclose(partial, every[chosen][:, allowed].min(axis=1), atol=1e-12)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("percent", [50, 95, 100])
def test_a_large_surface_restricted_to_each_of_several_lesions(spacing, percent):
    rng = np.random.default_rng(4)
    places = rng.integers(0, 100, (6, 3))
    second = surface(
        np.concatenate([place + rng.integers(0, 5, (30, 3)) for place in places]), np.repeat(range(1, 7), 30)
    )
    first = surface(rng.integers(0, 100, (6000, 3)), np.ones(6000, np.int64))
    found, every = nearest_points(first, second, spacing), np.arange(6000)
    for number in range(1, 7):
        allowed = np.flatnonzero(second.lesions == number)
        distances = restricted(first, every, second, allowed, found, spacing)
        alone = nearest_points(first, second.of(allowed), spacing).distances
        np.testing.assert_array_equal(distances, alone)
        assert weighted_percentile(distances, first.weights, percent) == np.sort(alone)[6000 * percent // 100 - 1]


def test_nearest_points_of_nothing():
    nothing = surface(np.zeros((0, 3), np.int64), np.zeros(0, np.int64))
    point = surface(np.array([[1, 2, 3]]), np.ones(1, np.int64))
    assert np.isinf(nearest_points(point, nothing, (1, 1, 1)).distances).all()
    assert len(nearest_points(nothing, point, (1, 1, 1)).distances) == 0


@pytest.mark.parametrize("percent", [20, 79, 95, 99.9, 100])
def test_weighted_percentile_of_many_points(percent):
    rng = np.random.default_rng(11)
    distances, areas = rng.integers(0, 300, 9000) / 7, rng.random(9000)
    value = weighted_percentile(distances, areas, percent)
    share = areas[distances <= value].sum() / areas.sum()
    assert share >= percent / 100 - 1e-12
    assert areas[distances < value].sum() / areas.sum() < percent / 100


def test_weighted_percentile_by_hand():
    distances, areas = np.array([3.0, 1.0, 2.0]), np.array([1.0, 6.0, 3.0])
    assert weighted_percentile(distances, areas, 60) == 1.0
    assert weighted_percentile(distances, areas, 61) == 2.0
    assert weighted_percentile(distances, areas, 95) == 3.0
    assert math.isinf(weighted_percentile(np.zeros(0), np.zeros(0), 95))


@pytest.mark.parametrize("order", ["C", "F"])
def test_boxes_hold_every_voxel_once_and_keep_lesions_apart(order):
    rng = np.random.default_rng(5)
    reference, prediction = np.zeros((2, 45, 50, 37), dtype=np.uint8)
    for labels in (reference, prediction):
        for _ in range(6):
            x, y, z = (rng.integers(0, side - 3) for side in labels.shape)
            labels[x : x + 3, y : y + 3, z : z + 3] = rng.integers(1, 4)
    boxes = foreground_boxes(np.asarray(reference, order=order), np.asarray(prediction, order=order))
    assert len(boxes) > 1
    owner = np.zeros(reference.shape, dtype=int)
    joined = [np.zeros_like(reference), np.zeros_like(prediction)]
    for number, box in enumerate(boxes, start=1):
        window = tuple(slice(low, low + n) for low, n in zip(box.origin, box.reference.shape, strict=True))
        held = (box.reference > 0) | (box.prediction > 0)
        assert not (owner[window][held]).any()
        owner[window][held] = number
        joined[0][window] += box.reference
        joined[1][window] += box.prediction
    np.testing.assert_array_equal(joined[0], reference)
    np.testing.assert_array_equal(joined[1], prediction)
    inside = (reference > 0) | (prediction > 0)
    assert (owner[inside] > 0).all()
    points, numbers = np.argwhere(inside), owner[inside]
    apart = np.abs(points[:, None] - points[None]).max(axis=2)
    assert apart[numbers[:, None] != numbers[None]].min() >= 4


def test_boxes_and_crops_of_nothing():
    nothing = np.zeros((5, 6, 7), dtype=np.uint8)
    assert foreground_boxes(nothing, nothing) == []
    assert crop(nothing > 0, nothing > 0, (0, 0, 0)) is None


def test_a_crop_holds_both_masks_and_says_where_it_lies():
    reference, prediction = block((9, 9, 9), (2, 3, 4), (4, 5, 6)), block((9, 9, 9), (3, 3, 1), (7, 4, 5))
    found = crop(reference, prediction, (100, 200, 300))
    assert found is not None
    origin, first, second = found
    assert origin == (102, 203, 301)
    np.testing.assert_array_equal(first, reference[2:7, 3:5, 1:6])
    np.testing.assert_array_equal(second, prediction[2:7, 3:5, 1:6])


def test_a_metric_that_is_computed_or_excluded_has_no_value_for_empty_masks():
    for rules, metric, how in (
        (WHOLE_REGION, "specificity", "computed"),
        (LESION_WISE["brats_2026"], "lesion_dice", "excluded"),
    ):
        with pytest.raises(ValueError, match=f"{metric} is {how}"):
            metrics.empty_value(rules, metric, "both_empty")
