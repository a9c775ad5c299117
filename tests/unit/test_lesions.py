"""Lesion-wise definitions by hand and against the official scorers' printed values; lesion tables; detection."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest

from brainmets.nifti import read_grid, read_labels
from brainmets.scoring.case import score_case
from brainmets.scoring.detection import (
    SIZE_BINS,
    SizeBin,
    detection_by_size,
    false_positives_per_case,
)
from brainmets.scoring.intervals import clopper_pearson

ISOTROPIC = (1.0, 1.0, 1.0)


def empty(shape=(40, 20, 20)):
    return np.zeros(shape, dtype=np.uint8)


def put(labels, low, size, value=3):
    labels[tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))] = value
    return labels


def scored(reference, prediction, definition, spacing=ISOTROPIC, region="ET"):
    scores = score_case(reference, prediction, spacing, np.eye(4), definition, [region])
    return {row["metric"]: row["value"] for row in scores.scores}, scores


# --- brats_2023 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "n_lesions"),
    [
        ((3, 0, 0), 1),  # two voxels between: the dilations touch
        ((4, 0, 0), 2),  # three between: they do not
        ((3, 2, 1), 1),
        ((3, 3, 2), 2),  # only a dilation that reaches over corners would join these
        ((3, 3, 3), 2),
    ],
)
def test_2023_joins_reference_lesions_whose_dilations_touch(offset, n_lesions):
    reference = put(put(empty(), (5, 5, 5), (1, 1, 1)), tuple(5 + step for step in offset), (1, 1, 1))
    _, scores = scored(reference, empty(), "brats_2023")
    assert len(scores.lesions) == n_lesions


def test_2023_by_hand():
    reference, prediction = empty(), empty()
    put(reference, (2, 2, 2), (4, 4, 4))  # found in two pieces of 16 voxels each, both united
    put(prediction, (2, 2, 2), (1, 4, 4))
    put(prediction, (5, 2, 2), (1, 4, 4))
    put(reference, (20, 2, 2), (3, 3, 3))  # missed
    put(reference, (30, 2, 2), (1, 1, 2))  # 2 mm^3: does not count
    put(prediction, (30, 15, 15), (1, 1, 1))  # false
    values, scores = scored(reference, prediction, "brats_2023")
    assert (values["lesion_tp"], values["lesion_fn"], values["lesion_fp"]) == (1, 1, 1)
    assert values["lesion_dice"] == pytest.approx((2 * 32 / (64 + 32)) / 3)
    own = scored(put(empty(), (2, 2, 2), (4, 4, 4)), np.where(reference & prediction, prediction, 0), "brats_2023")[0]
    assert values["lesion_hd95"] == pytest.approx((own["hd95"] + 374 + 374) / 3)
    assert values["lesion_f1"] == pytest.approx(2 / (2 + 1 + 1))
    table = pd.DataFrame(scores.lesions)
    found = table[(table.kind == "reference") & table.detected]
    assert found.matched.tolist() == ["1 2"]
    assert set(table[table.kind == "reference"].volume_mm3) == {64.0, 27.0, 2.0}  # the tiny one stays visible


def test_2023_a_neighbour_counts_as_a_match_without_overlap():
    reference, prediction = put(empty(), (5, 5, 5), (3, 3, 3)), put(empty(), (8, 5, 5), (3, 3, 3))
    values, _ = scored(reference, prediction, "brats_2023")
    assert (values["lesion_tp"], values["lesion_fp"], values["lesion_dice"]) == (1, 0, 0.0)
    assert values["lesion_hd95"] == values["hd95"] == 3.0
    assert scored(reference, put(empty(), (9, 5, 5), (3, 3, 3)), "brats_2023")[0]["lesion_tp"] == 0


def test_2023_one_prediction_over_two_lesions_matches_both():
    reference = put(put(empty(), (2, 5, 5), (4, 4, 4)), (12, 5, 5), (4, 4, 4))
    prediction = put(empty(), (2, 5, 5), (14, 4, 4))
    values, scores = scored(reference, prediction, "brats_2023")
    assert (values["lesion_tp"], values["lesion_fp"], values["lesion_fn"]) == (2, 0, 0)
    assert values["lesion_dice"] == pytest.approx(2 * 64 / (64 + 224))
    predicted = [row for row in scores.lesions if row["kind"] == "predicted"]
    assert [row["matched"] for row in predicted] == ["1 2"]


# --- brats_2026 -----------------------------------------------------------------------------------------


def test_2026_matches_one_to_one():
    reference = put(put(empty(), (2, 5, 5), (4, 4, 4)), (12, 5, 5), (4, 4, 4))
    prediction = put(empty(), (2, 5, 5), (14, 4, 4))
    values, _ = scored(reference, prediction, "brats_2026")
    assert (values["lesion_tp"], values["lesion_fp"], values["lesion_fn"]) == (1, 0, 1)
    assert values["lesion_dice"] == pytest.approx((2 * 64 / (64 + 224)) / 2)


def test_2026_takes_the_largest_sum_of_dice():
    # the middle prediction overlaps both lesions; giving it to the first would leave the second unmatched
    reference = put(put(empty(), (0, 5, 5), (6, 4, 4)), (8, 5, 5), (6, 4, 4))
    prediction = put(put(empty(), (0, 5, 5), (2, 4, 4)), (4, 5, 5), (8, 4, 4))
    dice = {(0, 0): 2 * 2 / 8, (0, 1): 2 * 2 / 14, (1, 1): 2 * 4 / 14}
    values, _ = scored(reference, prediction, "brats_2026")
    assert values["lesion_tp"] == 2
    assert values["lesion_dice"] == pytest.approx((dice[0, 0] + dice[1, 1]) / 2)


def test_2026_parts_large_from_small_lesions():
    reference, prediction = empty(), empty()
    put(reference, (2, 2, 2), (3, 3, 3))  # 27 mm^3: large
    put(prediction, (2, 2, 2), (1, 1, 3))  # Dice 6 / 30 = 0.2: just detected
    put(reference, (12, 2, 2), (2, 2, 2))  # small, detected
    put(prediction, (12, 2, 2), (2, 2, 2))
    put(reference, (20, 2, 2), (2, 2, 6))  # small (24), matched but below Dice 0.2
    put(prediction, (20, 2, 2), (1, 1, 2))
    put(reference, (30, 2, 2), (1, 1, 1))  # small, missed
    put(prediction, (30, 15, 15), (1, 1, 1))  # false
    values, _ = scored(reference, prediction, "brats_2026")
    assert [values[f"lesion_{name}"] for name in ("tp", "fp", "fn")] == [3, 1, 1]
    assert [values[f"lesion_large_{name}"] for name in ("tp", "fp", "fn")] == [1, 1, 0]
    assert [values[f"lesion_small_{name}"] for name in ("tp", "fp", "fn")] == [1, 1, 2]
    assert values["lesion_small_f1"] == pytest.approx(2 / (2 + 1 + 2))
    assert values["lesion_large_f1"] == pytest.approx(2 / 3)
    assert values["lesion_dice"] == pytest.approx(0.2 / 2)  # one large lesion and one false positive
    assert values["lesion_hd95"] > 373 / 2


def test_2026_threshold_is_a_volume_not_a_number_of_voxels():
    reference = put(empty(), (2, 2, 2), (4, 4, 4))  # 64 voxels of 0.25 mm^3 are 16 mm^3
    values, scores = scored(reference, reference, "brats_2026", spacing=(0.5, 0.5, 1.0))
    assert values["lesion_small_tp"] == 1
    assert "lesion_dice" not in values
    reasons = {row["metric"]: row["reason"] for row in scores.excluded}
    assert "27 mm^3" in reasons["lesion_dice"] and "lesion_large_f1" in reasons


def test_2026_exchanges_first_and_last_voxel_side_as_its_scorer_does():
    reference, prediction = put(empty(), (5, 5, 5), (8, 8, 8)), put(empty(), (7, 5, 5), (8, 8, 8))
    one = scored(reference, prediction, "brats_2026", spacing=(1.0, 1.0, 3.0))[0]
    other = scored(reference.T, prediction.T, "brats_2026", spacing=(1.0, 1.0, 3.0))[0]
    assert one["lesion_hd95"] == pytest.approx(6.0)
    assert other["lesion_hd95"] == pytest.approx(2.0)
    assert one["hd95"] == pytest.approx(2.0)  # whole-region metrics are measured along the right axes


# --- empty masks ----------------------------------------------------------------------------------------

LESION = put(empty(), (5, 5, 5), (4, 4, 4))


@pytest.mark.parametrize(
    ("definition", "reference", "prediction", "expected"),
    [
        ("brats_2023", empty(), empty(), {"lesion_dice": 1, "lesion_hd95": 0, "lesion_f1": 1}),
        ("brats_2023", empty(), LESION, {"lesion_dice": 0, "lesion_hd95": 374, "lesion_f1": 0, "lesion_fp": 1}),
        ("brats_2023", LESION, empty(), {"lesion_dice": 0, "lesion_hd95": 374, "lesion_f1": 0, "lesion_fn": 1}),
        ("brats_2026", empty(), empty(), {"lesion_f1": 1}),
        ("brats_2026", empty(), LESION, {"lesion_f1": 0, "lesion_fp": 1}),
        (
            *("brats_2026", LESION, empty()),
            {"lesion_dice": 0, "lesion_hd95": 373, "lesion_nsd": 0, "lesion_f1": 0, "lesion_large_fn": 1},
        ),
    ],
)
def test_empty_masks(definition, reference, prediction, expected):
    values, scores = scored(reference, prediction, definition)
    for metric, value in expected.items():
        assert values[metric] == value, metric
    assert all(math.isfinite(value) for value in values.values())
    excluded = {row["metric"] for row in scores.excluded}
    assert not excluded & set(values)
    assert ("lesion_dice" in excluded) == (definition == "brats_2026" and not reference.any())


# --- the official scorers -------------------------------------------------------------------------------

OFFICIAL = {
    "brats_2023": {
        "Num_TP": "lesion_tp",
        "Num_FP": "lesion_fp",
        "Num_FN": "lesion_fn",
        "LesionWise_Score_Dice": "lesion_dice",
        "LesionWise_Score_HD95": "lesion_hd95",
        "Sensitivity": "sensitivity",
        "Specificity": "specificity",
        "Legacy_Dice": "dice",
        "Legacy_HD95": "hd95",
    },
    "brats_2026": {
        "all_instance_tp": "lesion_tp",
        "all_instance_fp": "lesion_fp",
        "all_instance_fn": "lesion_fn",
        "all_instance_f1": "lesion_f1",
        "lesionwise_dsc_mean": "lesion_dice",
        "lesionwise_hd95_mean": "lesion_hd95",
        "lesionwise_nsd_mean": "lesion_nsd",
        "global_dsc": "dice",
        **{
            f"{size}_instance_{name}": f"lesion_{size}_{name}"
            for size in ("large", "small")
            for name in ("tp", "fp", "fn", "f1")
        },
    },
}


@pytest.mark.real
@pytest.mark.parametrize("definition", ["brats_2023", "brats_2026"])
@pytest.mark.parametrize("case", ["BraTS-MET-00132-000", "BraTS-MET-01325-000"])
def test_equals_the_official_scorers(real_data, case, definition):
    official = json.loads((real_data / "reference" / "lesionwise" / "official_values.json").read_text())["cases"]
    reference, prediction = (
        real_data / "data" / "met_masks" / case / f"{name}.nii.gz" for name in ("reference", "prediction")
    )
    grid = read_grid(reference)
    maps = read_labels(reference), read_labels(prediction)
    scores = score_case(*maps, grid.spacing, grid.affine, definition)
    values = {(row["region"], row["metric"]): row["value"] for row in scores.scores}
    for region, (printed, metric) in itertools.product(("ET", "TC", "WT"), OFFICIAL[definition].items()):
        expected = official[case][definition][region][printed]
        if expected is None:
            assert (region, metric) not in values
        elif metric.endswith(("_tp", "_fp", "_fn")):
            assert values[region, metric] == expected, (region, printed)
        else:
            assert values[region, metric] == pytest.approx(expected, abs=1e-6), (region, printed)
        if definition == "brats_2023":
            volume = official[case][definition][region]["GT_Complete_Volume"]
            assert 1000 * values[region, "reference_volume"] == pytest.approx(volume)


# --- tables ---------------------------------------------------------------------------------------------


def test_lesion_rows_by_hand():
    reference = put(put(empty(), (1, 1, 1), (2, 2, 2)), (10, 4, 4), (3, 3, 3))
    affine = np.array([[-2.0, 0, 0, 100], [0, 0, 2.0, 0], [0, 2.0, 0, -7], [0, 0, 0, 1]])
    scores = score_case(reference, empty(), (2.0, 2.0, 2.0), affine, "brats_2023", ["ET"])
    largest, smallest = scores.lesions
    assert (largest["lesion"], largest["volume_mm3"]) == (1, 216.0)
    # voxel centroid (11, 5, 5): x = 100 - 22, y = 2 * 5, z = 2 * 5 - 7
    assert (largest["x_mm"], largest["y_mm"], largest["z_mm"]) == (78.0, 10.0, 3.0)
    assert (smallest["lesion"], smallest["volume_mm3"], smallest["x_mm"]) == (2, 64.0, 97.0)
    assert not largest["detected"] and largest["matched"] == "" and largest["dice"] == 0.0


@pytest.mark.parametrize("definition", ["brats_2023", "brats_2026"])
def test_memory_order_changes_nothing(definition):
    rng = np.random.default_rng(2)
    maps = [empty((40, 33, 20)), empty((40, 33, 20))]
    for labels, _ in itertools.product(maps, range(8)):
        put(labels, [rng.integers(0, side - 5) for side in labels.shape], rng.integers(1, 6, 3), rng.integers(1, 5))
    affine = np.array([[0, 0, 3.0, 5], [-1.0, 0, 0, 6], [0, 2.0, 0, 7], [0, 0, 0, 1]])
    expected = score_case(*maps, (1.0, 2.0, 3.0), affine, definition)
    views = [np.repeat(labels, 2, axis=1)[:, ::2] for labels in maps]  # neither order
    for first, second in (
        [np.asfortranarray(labels) for labels in maps],
        [maps[0], np.asfortranarray(maps[1])],
        views,
    ):
        scores = score_case(first, second, (1.0, 2.0, 3.0), affine, definition)
        pd.testing.assert_frame_equal(pd.DataFrame(scores.scores), pd.DataFrame(expected.scores))
        pd.testing.assert_frame_equal(pd.DataFrame(scores.lesions), pd.DataFrame(expected.lesions))


def lesion_table(rows):
    columns = ["case", "region", "kind", "volume_mm3", "matched", "detected_iou"]
    return pd.DataFrame(rows, columns=columns).assign(arm="default", strategy="scratch")


def test_detection_by_size_by_hand():
    rows = [("a", "ET", "reference", volume, "", volume > 100) for volume in (3.0, 64.9, 65.0, 600.0, 5000.0)]
    rows.append(("a", "ET", "predicted", 9.0, "", False))
    table = detection_by_size(lesion_table(rows), regions=("ET", "TC")).set_index(["region", "bin"])
    assert len(table) == 2 * len(SIZE_BINS)
    assert table.loc["ET", "n"].to_dict() == {"tiny": 2, "small": 1, "medium": 1, "large": 1}
    assert table.loc["ET", "detected"].to_dict() == {"tiny": 0, "small": 0, "medium": 1, "large": 1}
    assert table.loc[("ET", "tiny"), "sensitivity"] == 0
    assert table["patients"].max() == 1
    assert (table.loc[("ET", "medium"), "low"], table.loc[("ET", "medium"), "high"]) == (0, 1), "one patient alone"
    nothing = table.loc[("TC", "tiny")]
    assert nothing["n"] == 0 and math.isnan(nothing["sensitivity"]) and (nothing["low"], nothing["high"]) == (0, 1)


def test_detection_counts_patients_and_not_their_lesions():
    """Four patients with five lesions each, all or none found: as informative as four lesions, not as twenty."""
    rows = [(case, "ET", "reference", 5.0, "", case in "ab") for case in "abcd" for _ in range(5)]
    row = detection_by_size(lesion_table(rows)).iloc[0]
    assert (row["patients"], row["n"], row["detected"], row["sensitivity"]) == (4, 20, 10, 0.5)
    independent = 3 / (3.182446 / 1.959964) ** 2  # 20 lesions over a design effect of 20 / 3, and t for z
    expected = clopper_pearson(independent / 2, independent, 0.95)
    assert (row["low"], row["high"]) == pytest.approx(expected, rel=1e-5)
    scans = detection_by_size(lesion_table(rows), patients={"a": "x", "b": "x", "c": "y", "d": "z"}).iloc[0]
    assert scans["patients"] == 3
    assert scans["low"] < row["low"]
    with pytest.raises(ValueError, match="nothing says whose scan d is"):
        detection_by_size(lesion_table(rows), patients={"a": "x", "b": "x", "c": "y"})


def test_detection_refuses_bins_that_lose_lesions():
    table = lesion_table([("a", "ET", "reference", 5.0, "", True)])
    with pytest.raises(ValueError, match="ends at 2"):
        detection_by_size(table, bins=[SizeBin("one", 0, 2), SizeBin("two", 3, 9)])
    with pytest.raises(ValueError, match="none of the bins"):
        detection_by_size(table, bins=[SizeBin("one", 6, 9)])
    with pytest.raises(ValueError, match="detected_iou: score the cases anew"):
        detection_by_size(table.drop(columns="detected_iou"))


def test_false_positives_count_cases_without_any():
    rows = [
        ("a", "ET", "predicted", 9.0, "", False),
        ("a", "ET", "predicted", 9.0, "1", False),  # beside a lesion, where the challenge's rule lets it pass
        ("b", "ET", "predicted", 9.0, "1", True),
        ("b", "ET", "reference", 9.0, "", False),
    ]
    table = false_positives_per_case(lesion_table(rows), ["a", "b", "c", "d"]).set_index("region")
    assert table.loc["ET", ["n_cases", "false_positives", "per_case"]].tolist() == [4, 2, 0.5]
    assert table.loc["ET", ["cases_with_false_positives", "most_in_one_case"]].tolist() == [1, 2]
    assert table.loc["WT", "false_positives"] == 0
    price = (3.182446 / 1.959964) ** 2  # t with three degrees of freedom for z
    assert table.loc["WT", "high"] == pytest.approx(-math.log(0.025) * price / 4, rel=1e-5)
    same = false_positives_per_case(lesion_table(rows), ["a", "b", "c", "d"], patients=dict.fromkeys("abcd", "one"))
    assert (same.loc[0, "patients"], same.loc[0, "low"], same.loc[0, "high"]) == (1, 0, math.inf)
    with pytest.raises(ValueError, match=r"not in the list of cases: b"):
        false_positives_per_case(lesion_table(rows), ["a"])
    with pytest.raises(ValueError, match="each once"):
        false_positives_per_case(lesion_table(rows), ["a", "b", "a"])
