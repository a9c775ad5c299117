"""What holds for every pair of masks: symmetry, bounds, flips, axis order, spacing, and where the mask lies."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from brainmets.scoring.case import score_case
from brainmets.scoring.metrics import image_diagonal, region_metrics

# powers of two, so that squared distances and their sums are exact and no rounding hides behind a tolerance
SIDES = st.sampled_from([0.25, 0.5, 1.0, 2.0])
SPACING = st.tuples(SIDES, SIDES, SIDES)
RATIOS = ("dice", "sensitivity", "specificity", "precision", "nsd_1mm")
FAST = settings(max_examples=60, deadline=None)


@st.composite
def pairs(draw, values=(0, 1)):
    shape = draw(st.tuples(*[st.integers(1, 7)] * 3))
    labels = hnp.arrays(np.uint8, shape, elements=st.sampled_from(values), fill=st.just(values[0]))
    return draw(labels), draw(labels)


def masks(pair):
    return tuple(labels > 0 for labels in pair)


@FAST
@given(pairs(), SPACING)
def test_symmetry(pair, spacing):
    reference, prediction = masks(pair)
    forward, backward = region_metrics(reference, prediction, spacing), region_metrics(prediction, reference, spacing)
    for metric in ("dice", "hd95", "hd", "nsd_1mm"):
        assert forward[metric] == pytest.approx(backward[metric], abs=1e-12)
    assert forward["sensitivity"] == backward["precision"]
    assert forward["reference_volume"] == backward["predicted_volume"]


@FAST
@given(pairs(), SPACING)
def test_bounds(pair, spacing):
    reference, prediction = masks(pair)
    values = region_metrics(reference, prediction, spacing)
    assert all(math.isfinite(value) for value in values.values())
    assert all(0 <= values[metric] <= 1 for metric in RATIOS)
    # surface elements lie on corners, so the furthest two are one image diagonal apart
    assert 0 <= values["hd95"] <= values["hd"] <= image_diagonal(reference.shape, spacing) + 1e-12
    assert (values["dice"] == 1) == np.array_equal(reference, prediction)


@FAST
@given(pairs(), SPACING, st.sampled_from(list(itertools.permutations(range(3)))), st.tuples(*[st.booleans()] * 3))
def test_flips_and_axis_order_change_nothing(pair, spacing, order, flips):
    axes = [axis for axis, flip in enumerate(flips) if flip]
    turned = [np.flip(mask, axes).transpose(order) for mask in masks(pair)]
    before = region_metrics(*masks(pair), spacing)
    after = region_metrics(*turned, tuple(spacing[axis] for axis in order))
    for metric, value in before.items():
        assert after[metric] == pytest.approx(value, abs=1e-9), metric


@FAST
@given(pairs(), SPACING)
def test_doubled_spacing_doubles_distances(pair, spacing):
    before = region_metrics(*masks(pair), spacing)
    after = region_metrics(*masks(pair), tuple(2 * side for side in spacing))
    for metric in ("dice", "sensitivity", "specificity", "precision"):
        assert after[metric] == before[metric]
    for metric in ("hd95", "hd"):
        assert after[metric] == pytest.approx(2 * before[metric])
    for metric in ("reference_volume", "predicted_volume"):
        assert after[metric] == pytest.approx(8 * before[metric])
    assert after["nsd_1mm"] <= before["nsd_1mm"] + 1e-12


@FAST
@given(
    pairs(values=(0, 1, 2, 3, 4)), st.tuples(*[st.integers(0, 20)] * 3), st.sampled_from(["brats_2023", "brats_2026"])
)
def test_background_around_the_case_changes_no_score(pair, before, definition):
    """Cutting into boxes must not show: the same masks anywhere in a larger image score the same."""
    padded = [np.pad(labels, [(n, 9) for n in before]) for labels in pair]
    small, large = (score_case(*maps, (0.5, 0.5, 1.0), np.eye(4), definition) for maps in (pair, padded))
    for one, other in zip(small.scores, large.scores, strict=True):
        assert (one["region"], one["metric"]) == (other["region"], other["metric"])
        if one["metric"] != "specificity" and not _is_diagonal(one, pair[0].shape):
            assert other["value"] == pytest.approx(one["value"], abs=1e-9), one
    assert len(small.lesions) == len(large.lesions)


def _is_diagonal(row, shape):
    """The distance that stands for an empty mask grows with the image, as it should."""
    return row["metric"] in ("hd", "hd95") and row["value"] == image_diagonal(shape, (0.5, 0.5, 1.0))


@FAST
@given(pairs(), SPACING, st.sampled_from(list(itertools.permutations(range(3)))), st.tuples(*[st.booleans()] * 3))
def test_lesion_wise_scores_ignore_flips_and_axis_order(pair, spacing, order, flips):
    axes = [axis for axis, flip in enumerate(flips) if flip]
    turned = [np.flip(labels, axes).transpose(order) for labels in pair]
    before = score_case(*pair, spacing, np.eye(4), "brats_2023", ["WT"])
    after = score_case(*turned, tuple(spacing[axis] for axis in order), np.eye(4), "brats_2023", ["WT"])
    for one, other in zip(before.scores, after.scores, strict=True):
        assert other["value"] == pytest.approx(one["value"], abs=1e-9), one["metric"]
    volumes = [sorted(row["volume_mm3"] for row in scores.lesions) for scores in (before, after)]
    assert volumes[0] == volumes[1]


@FAST
@given(pairs(values=(0, 1, 2, 3)), st.sampled_from(["brats_2023", "brats_2026"]))
def test_lesion_table_agrees_with_the_counts(pair, definition):
    scores = score_case(*pair, (3.0, 3.0, 3.0), np.eye(4), definition)
    values = {(row["region"], row["metric"]): row["value"] for row in scores.scores}
    for region in ("ET", "TC", "WT"):
        reference = [row for row in scores.lesions if (row["region"], row["kind"]) == (region, "reference")]
        predicted = [row for row in scores.lesions if (row["region"], row["kind"]) == (region, "predicted")]
        # every voxel is 27 mm^3: no lesion is too small to count
        assert values[region, "lesion_tp"] == sum(bool(row["matched"]) for row in reference)
        assert values[region, "lesion_fn"] == sum(not row["matched"] for row in reference)
        assert values[region, "lesion_fp"] == sum(not row["matched"] for row in predicted)
        assert 1000 * values[region, "reference_volume"] == pytest.approx(sum(row["volume_mm3"] for row in reference))
        assert 1000 * values[region, "predicted_volume"] == pytest.approx(sum(row["volume_mm3"] for row in predicted))
        assert all(0 <= row["dice"] <= 1 for row in scores.lesions)
