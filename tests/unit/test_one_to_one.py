"""The one-to-one rule by hand, and against every possible pairing of small masks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from brainmets.scoring.case import score_case

DEFINITIONS = ("brats_2023", "brats_2026")
SMALL = settings(max_examples=150, deadline=None)


def empty(shape=(60, 12, 12)):
    return np.zeros(shape, dtype=np.uint8)


def put(labels, low, size):
    labels[tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))] = 3
    return labels


def counts(reference, prediction, definition="brats_2023"):
    """Found, missed and false by the one-to-one rule, and the table's rows by kind, the largest lesion first."""
    scores = score_case(reference, prediction, (1.0, 1.0, 1.0), np.eye(4), definition, ["ET"])
    value = {row["metric"]: row["value"] for row in scores.scores}
    found = {
        kind: [row["detected_iou"] for row in scores.lesions if row["kind"] == kind]
        for kind in ("reference", "predicted")
    }
    assert value["lesion_iou_tp"] == sum(found["reference"])
    assert value["lesion_iou_fn"] == len(found["reference"]) - sum(found["reference"])
    assert value["lesion_iou_fp"] == len(found["predicted"]) - sum(found["predicted"])
    return value, found


def iou_counts(*maps):
    value, _ = counts(*maps)
    return [value[f"lesion_iou_{name}"] for name in ("tp", "fn", "fp")]


def test_a_slab_over_four_lesions_finds_one():
    reference, prediction = empty(), put(empty(), (2, 4, 4), (36, 4, 4))
    for start in (2, 12, 22, 32):
        put(reference, (start, 4, 4), (6, 4, 4))  # IoU 96 / 576 = 0.17 with the slab
    value, found = counts(reference, prediction)
    assert value["lesion_tp"] == 4  # the challenge's rule, untouched
    assert iou_counts(reference, prediction) == [1, 3, 0]
    assert found["predicted"] == [True]


def test_a_slab_too_large_for_any_lesion_finds_none():
    reference, prediction = empty(), put(empty(), (0, 2, 2), (60, 8, 8))
    for start in (2, 12, 22, 32):
        put(reference, (start, 4, 4), (6, 4, 4))  # IoU 96 / 3840 = 0.025
    assert counts(reference, prediction)[0]["lesion_tp"] == 4
    assert iou_counts(reference, prediction) == [0, 4, 1]


@pytest.mark.parametrize("size", [(1, 1, 1), (4, 4, 4)])
def test_beside_a_lesion_is_not_found(size):
    reference, prediction = put(empty(), (5, 4, 4), (4, 4, 4)), put(empty(), (9, 4, 4), size)
    value, found = counts(reference, prediction)
    assert (value["lesion_tp"], value["lesion_fp"]) == (1, 0)
    assert iou_counts(reference, prediction) == [0, 1, 1]
    assert found == {"reference": [False], "predicted": [False]}


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize(("length", "found"), [(10, True), (11, False)])
def test_one_voxel_in_ten_is_just_enough(length, found, definition):
    reference, prediction = put(empty(), (5, 4, 4), (length, 1, 1)), put(empty(), (7, 4, 4), (1, 1, 1))
    assert counts(reference, prediction, definition)[1] == {"reference": [found], "predicted": [found]}


def test_more_pairs_go_before_a_larger_overlap():
    # the longer prediction fits the longer lesion best (IoU 7 / 12), but no other reaches the shorter one (1 / 10)
    reference = put(put(empty(), (0, 4, 4), (10, 1, 1)), (11, 4, 4), (2, 1, 1))
    prediction = put(put(empty(), (0, 4, 4), (1, 1, 1)), (3, 4, 4), (9, 1, 1))
    value, found = counts(reference, prediction, "brats_2026")
    assert found["reference"] == [True, True]
    assert value["lesion_iou_fp"] == 0


def test_a_large_lesion_is_not_found_by_its_speck():
    # two voxels apart: brats_2023 makes one lesion of both
    reference = put(put(empty(), (5, 4, 4), (6, 6, 6)), (13, 4, 4), (1, 1, 1))
    prediction = put(empty(), (13, 4, 4), (1, 1, 1))
    value, found = counts(reference, prediction)
    assert value["lesion_tp"] == 1
    assert found["reference"] == [False]
    assert counts(reference, prediction, "brats_2026")[1]["reference"] == [False, True]


def test_two_near_lesions_each_with_its_prediction_leave_no_false_one():
    reference = put(put(empty(), (5, 4, 4), (4, 4, 4)), (11, 4, 4), (4, 4, 4))
    assert counts(reference, reference)[1] == {"reference": [True], "predicted": [True, True]}
    one = put(empty(), (5, 4, 4), (4, 4, 4))
    assert counts(reference, one)[1] == {"reference": [True], "predicted": [True]}  # 64 of the 128 voxels


def test_a_broken_ring_predicted_whole_is_found():
    ring = put(empty(), (5, 2, 4), (8, 8, 1))
    ring[7:11, 4:8, 4] = 0
    broken = ring.copy()
    broken[8:10] = 0
    broken[:, 5:7] = 0  # four corners of 8 voxels, two voxels apart: one lesion of 32
    value, found = counts(broken, ring)
    assert value["lesion_tp"] == 1
    assert found == {"reference": [True], "predicted": [True]}


def test_equal_lesions_are_told_apart_by_place_in_every_memory_order():
    reference, prediction = empty(), put(empty(), (2, 4, 4), (16, 4, 4))
    for start in (2, 12):
        put(reference, (start, 4, 4), (6, 4, 4))
    for first, second in ((reference, prediction), (np.asfortranarray(reference), np.asfortranarray(prediction))):
        assert counts(first, second)[1]["reference"] == [True, False]


def test_nothing_anywhere():
    assert iou_counts(empty(), empty()) == [0, 0, 0]
    assert iou_counts(put(empty(), (1, 1, 1), (2, 2, 2)), empty()) == [0, 1, 0]
    assert iou_counts(empty(), put(empty(), (1, 1, 1), (2, 2, 2))) == [0, 0, 1]


# --- against every possible pairing ------------------------------------------------------------------------------


@st.composite
def sparse_maps(draw):
    """Two small label maps that fall into several components."""
    shape = draw(st.tuples(st.integers(3, 10), st.integers(1, 5), st.integers(1, 3)))
    values = hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 3]))
    return draw(values), draw(values)


def components(labels) -> list[np.ndarray]:
    numbers, n = ndimage.label(labels > 0, np.ones((3, 3, 3)))
    return [numbers == number for number in range(1, n + 1)]


def pairings(iou: np.ndarray, row: int = 0, taken: frozenset = frozenset()) -> Iterator[list[tuple[int, int]]]:
    """Every set of pairs of 0.1 or more in which no row and no column occurs twice."""
    if row == len(iou):
        yield []
        return
    yield from pairings(iou, row + 1, taken)
    for column in np.flatnonzero(iou[row] >= 0.1):
        if column not in taken:
            for others in pairings(iou, row + 1, taken | {column}):
                yield [(row, int(column)), *others]


@SMALL
@given(sparse_maps())
def test_no_other_pairing_is_better(maps):
    reference, prediction = (components(labels) for labels in maps)
    iou = np.array([[np.sum(a & b) / np.sum(a | b) for b in prediction] for a in reference])
    iou = iou.reshape(len(reference), len(prediction))
    every = list(pairings(iou))
    best = max((len(pairs), round(sum(iou[pair] for pair in pairs), 9)) for pairs in every)
    optimal = [pairs for pairs in every if (len(pairs), round(sum(iou[pair] for pair in pairs), 9)) == best]
    scores = score_case(*maps, (1.0, 1.0, 1.0), np.eye(4), "brats_2026", ["ET"])
    volumes = [
        sorted(row["volume_mm3"] for row in scores.lesions if row["kind"] == kind and row["detected_iou"])
        for kind in ("reference", "predicted")
    ]
    expected = [
        [sorted(float(side[pair[k]].sum()) for pair in pairs) for k, side in enumerate((reference, prediction))]
        for pairs in optimal
    ]
    assert volumes in expected


@SMALL
@given(sparse_maps(), st.sampled_from(DEFINITIONS))
def test_a_perfect_prediction_finds_all_and_invents_nothing(maps, definition):
    value, _ = counts(maps[0], maps[0], definition)
    assert (value["lesion_iou_fn"], value["lesion_iou_fp"]) == (0, 0)


@SMALL
@given(sparse_maps())
def test_missed_and_false_change_places_with_the_masks(maps):
    one, other = counts(*maps, "brats_2026")[0], counts(*maps[::-1], "brats_2026")[0]
    names = ("lesion_iou_tp", "lesion_iou_fn", "lesion_iou_fp")
    assert [one[name] for name in names] == [other[name] for name in (names[0], names[2], names[1])]


@SMALL
@given(sparse_maps())
def test_found_one_to_one_is_found_by_the_challenge_and_both_definitions_agree_on_false_ones(maps):
    scores = score_case(*maps, (3.0, 3.0, 3.0), np.eye(4), "brats_2023", ["ET"])
    assert all(row["detected"] for row in scores.lesions if row["detected_iou"])
    false = [counts(*maps, definition)[0]["lesion_iou_fp"] for definition in DEFINITIONS]
    assert false[0] == false[1]
