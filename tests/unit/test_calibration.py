"""Calibration and doubt: numbers worked out by hand, intervals that count patients, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.reliability_examples import example_sums, uneven_sums, write_sums
from sklearn.metrics import roc_auc_score

from brainmets.scoring.calibration import BINS, SUMS
from brainmets.scoring.candidates import CaseDetections, Detections, collect
from brainmets.statistics import calibration_figures
from brainmets.statistics.calibration import (
    CALIBRATION_COLUMNS,
    UNCERTAINTY_COLUMNS,
    brier,
    calibration,
    ece,
    read_reliability,
    reliability_bins,
    uncertainty,
)
from brainmets.statistics.comparisons import Settings
from brainmets.statistics.tests import auroc, clustered_auroc_interval
from brainmets.tables import TableError

QUICK = Settings(alpha=0.05, n_bootstrap=400, seed=1)
MODEL = ("default", "finetune")


def row(table: pd.DataFrame, **place: object) -> pd.Series:
    chosen = table[np.logical_and.reduce([table[name] == value for name, value in place.items()])]
    assert len(chosen) == 1
    return chosen.iloc[0]


# --- calibration


def test_a_calibrated_model_and_one_that_is_too_sure() -> None:
    """Bins of 100 voxels at their middles; 0.04 too much in ten bins of eleven that hold 1000 of 2000 voxels."""
    table = calibration(example_sums(), QUICK)
    right = row(table, strategy="finetune", region="ET", zone="near")
    assert (right["cases"], right["patients"], right["n"], right["positive"]) == (4, 4, 8000, 2000)
    assert right["ece"] == pytest.approx(0)
    assert right["mean_p"] == pytest.approx(right["observed_share"])
    middles = (np.arange(10) + 0.5) / 10
    assert right["brier"] == pytest.approx(100 * np.sum(middles * (1 - middles)) / 2000)
    sure = row(table, strategy="scratch", region="ET", zone="near")
    assert sure["ece"] == pytest.approx(0.04 / 2)
    assert sure["mean_p"] - sure["observed_share"] == pytest.approx(0.02)
    assert sure["brier"] == pytest.approx(right["brier"] + 0.04**2 / 2)
    assert row(table, strategy="scratch", region="ET", zone="head")["ece"] == pytest.approx(0.04 * 1000 / 11_000)


def test_errors_of_opposite_sign_do_not_cancel() -> None:
    """Ten voxels of 0.2 with four positive, ten of 0.8 with six: mean p is right, the ECE is 0.2."""
    sums = np.zeros((BINS + 1, len(SUMS)))
    sums[2], sums[8] = [10, 2, 0.4, 0.8, 4], [10, 8, 6.4, 4.8, 6]
    assert float(ece(sums)) == pytest.approx(0.2)
    # 4 x 0.8^2 + 6 x 0.2^2 in either bin
    assert float(brier(sums)) == pytest.approx(2 * (4 * 0.64 + 6 * 0.04) / 20)


def test_equal_patients_have_an_interval_without_width() -> None:
    sure = row(calibration(example_sums(), QUICK), strategy="scratch", region="TC", zone="near")
    assert (sure["brier_low"], sure["brier_high"]) == pytest.approx((sure["brier"], sure["brier"]))
    assert (sure["ece_low"], sure["ece_high"]) == pytest.approx((0.02, 0.02))
    assert sure["ece_by_chance"] == pytest.approx(0)
    assert "4 patients: the bootstrap interval rests on few distinct resamples" in sure["note"]


def test_intervals_count_patients_and_not_scans() -> None:
    sums = uneven_sums(cases=8)
    cases = sorted(set(sums["case"]))
    two_each = Settings(0.05, 400, 1, {case: f"patient {place // 2}" for place, case in enumerate(cases)})
    alone, paired = (row(calibration(sums, how), arm="default", strategy="scratch", region="WT", zone="near")
                     for how in (QUICK, two_each))  # fmt: skip
    assert (alone["patients"], paired["patients"], paired["cases"]) == (8, 4, 8)
    assert (alone["ece"], alone["brier"]) == pytest.approx((paired["ece"], paired["brier"]))
    assert (alone["ece_high"], alone["brier_low"]) != (paired["ece_high"], paired["brier_low"])
    with pytest.raises(ValueError, match="nothing says whose scan P00, P01, "):
        calibration(sums, Settings(0.05, 400, 1, {"other": "x"}))


def test_what_unlike_patients_alone_would_show_is_said() -> None:
    """Two models of one reference, each right on the whole: patients differ under one of them alone."""
    sums = example_sums([f"P{number}" for number in range(10)], excess={"finetune": 0.0, "scratch": 0.0})
    unlike = sums["strategy"] == "scratch"
    much = sums["case"].str[1:].astype(int).mod(2).map({0: 0.03, 1: -0.03})
    p = ((sums["bin"] - 0.5) / BINS + much).clip(lower=0.001)
    sums.loc[unlike & (sums["bin"] > 0), "sum_p"] = (sums["n"] * p)[unlike & (sums["bin"] > 0)]
    table = calibration(sums, QUICK)
    alike, apart = (row(table, strategy=one, region="ET", zone="near") for one in ("finetune", "scratch"))
    assert alike["ece_by_chance"] == pytest.approx(0, abs=1e-12)
    assert 0.002 < apart["ece_by_chance"] < 0.01
    assert apart["ece_low"] == 0 < apart["ece_high"]


def test_one_patient_has_no_interval_and_an_empty_zone_no_numbers() -> None:
    sums = example_sums(["P1"])
    sums.loc[sums["zone"] == "near", list(SUMS)] = 0
    table = calibration(sums, QUICK)
    head = row(table, strategy="scratch", region="ET", zone="head")
    assert np.isnan(head["ece_low"])
    assert head["note"] == "1 patient(s): no interval"
    near = row(table, strategy="scratch", region="ET", zone="near")
    assert near["n"] == 0
    assert np.isnan(near["brier"])
    assert near["note"] == "no voxel lies in this zone"


def test_order_and_other_models_change_no_number() -> None:
    sums = uneven_sums(cases=5)
    whole = calibration(sums, QUICK)
    mixed = calibration(sums.sample(frac=1, random_state=1), QUICK)
    pd.testing.assert_frame_equal(whole, mixed, rtol=1e-12)
    alone = calibration(sums[sums["arm"] == "segresnet"], QUICK)
    pd.testing.assert_frame_equal(whole[whole["arm"] == "segresnet"].reset_index(drop=True), alone)


def test_points_of_the_diagram_and_their_bands() -> None:
    sums = example_sums([f"P{number}" for number in range(6)])
    lone = (sums["bin"] == 7) & (sums["case"] != "P0")
    sums.loc[lone | (sums["bin"] == 8), list(SUMS)] = 0
    table = reliability_bins(sums, QUICK)
    place = {"strategy": "scratch", "region": "ET", "zone": "near"}
    assert len(table) == 2 * 3 * 2 * (BINS + 1)
    third = row(table, **place, bin=3)
    assert third[["n", "positive"]].tolist() == [600, 6 * 25]
    assert third[["mean_p", "observed_share", "low", "high"]].tolist() == pytest.approx([0.29, 0.25, 0.25, 0.25])
    of_one = row(table, **place, bin=7)
    assert of_one["observed_share"] == pytest.approx(0.65)
    assert np.isnan(of_one["low"]), "one patient's voxels have no band"
    assert row(table, **place, bin=8)["n"] == 0
    assert np.isnan(row(table, **place, bin=8)["mean_p"])


def test_no_sums_give_tables_without_rows(tmp_path: Path) -> None:
    sums = read_reliability(tmp_path)
    assert sums.empty
    assert list(calibration(sums, QUICK).columns) == CALIBRATION_COLUMNS
    assert reliability_bins(sums, QUICK).empty


# --- the file


def test_what_is_written_is_read_and_sums_to_the_same(tmp_path: Path) -> None:
    sums = uneven_sums(cases=3)
    read = read_reliability(write_sums(tmp_path, sums))
    pd.testing.assert_frame_equal(calibration(read, QUICK), calibration(sums, QUICK))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t[:-1], r"default scratch P4 has 65 rows up to bin 10, not 66"),
        (lambda t: t[t["case"] != "P2"], r"reliability\.csv of default scratch lacks case P2"),
        (lambda t: t.assign(positive=t["positive"].where(t["bin"] != 4, 50)), r"other reference voxels"),
        (lambda t: t.assign(positive=t["n"] + 1), r"ET head bin 0: no voxels have n 10000, .*positive 10001"),
        (lambda t: t.assign(sum_p=t["sum_p"] * 1.2), r"no voxels have"),
        (lambda t: t.assign(sum_p2=t["sum_p"] * 1.2), r"no voxels have"),
        (lambda t: t.assign(sum_p_positive=t["positive"] * 1.2), r"no voxels have"),
        (lambda t: t.assign(n=t["n"].where(t["zone"] == "head", 20_000)), r"no voxels have"),
        (lambda t: t.assign(n=t["n"].astype(object).where(t["bin"] != 1, "")), r"line 3: n is empty"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, damage, message: str) -> None:
    sums = example_sums()
    scratch = sums["strategy"] == "scratch"
    with pytest.raises(TableError, match=message):
        read_reliability(write_sums(tmp_path, pd.concat([sums[~scratch], damage(sums[scratch])])))


def test_a_model_without_sums_beside_one_that_has_them_is_refused(tmp_path: Path) -> None:
    write_sums(tmp_path, example_sums(excess={"finetune": 0.0}))
    other = tmp_path / "default" / "scratch"
    other.mkdir()
    (other / "scores.csv").touch()
    with pytest.raises(TableError, match=r"scratch has scores and no reliability\.csv, which .* some models only"):
        read_reliability(tmp_path)


def test_a_case_of_two_files_is_refused(tmp_path: Path) -> None:
    write_sums(tmp_path / "one", example_sums())
    write_sums(tmp_path / "two", example_sums())
    with pytest.raises(TableError, match=r"one.*and .*two.* default finetune P1 occurs twice; keep one"):
        read_reliability(tmp_path)


# --- the figure


def test_the_diagram_has_both_strategies_of_an_arm_and_their_voxels() -> None:
    bins = reliability_bins(uneven_sums(cases=4), QUICK)
    pretrained = bins[bins["strategy"] == "scratch"].assign(strategy="pretrained", observed_share=0.0)
    figure = calibration_figures.reliability(pd.concat([bins, pretrained]))
    shares = [panel for panel in figure.axes if panel.get_title()]
    assert [panel.get_title() for panel in shares] == [
        f"{arm}, {region}" for arm in ("Default", "SegResNet") for region in ("ET", "TC", "WT")
    ]
    assert len(figure.axes) == 2 * len(shares)
    assert {len(panel.lines) for panel in shares} == {3}, "the diagonal and two strategies: none that is pretrained"
    own = bins[(bins["arm"] == "default") & (bins["region"] == "ET") & (bins["zone"] == "near")]
    drawn = np.asarray(shares[0].lines[1].get_ydata(), float)
    assert drawn == pytest.approx(own.loc[own["strategy"] == "finetune", "observed_share"].to_numpy(float))
    assert {shares[0].lines[number].get_linestyle() for number in (1, 2)} == {"-", "--"}, "apart in a grey print"
    assert [text.get_text() for text in figure.legends[0].get_texts()][:2] == ["fine-tuned", "from scratch"]
    empty = calibration_figures.reliability(bins[:0])
    assert [text.get_text() for text in empty.axes[0].texts] == ["no kept probabilities"]


# --- doubt


def detections(cases: dict[str, tuple[list[tuple], list[int], list[tuple]]]) -> Detections:
    """By case: candidates (score, uncertainty), lesions' numbers, overlaps (candidate, lesion, shared, IoU); of TC."""
    found = {}
    for case, (candidates, lesions, overlaps) in cases.items():
        of_candidates = [("TC", n, score, score, 50.0, 0.0, 0.0, 0.0, doubt)
                         for n, (score, doubt) in enumerate(candidates, 1)]  # fmt: skip
        names = ["region", "candidate", "score", "mean", "volume_mm3", "x_mm", "y_mm", "z_mm", "uncertainty"]
        of_lesions = [("TC", lesion, 50.0, 4.6, 0.0, 0.0, 0.0) for lesion in lesions]
        place = ["region", "lesion", "volume_mm3", "diameter_mm", "x_mm", "y_mm", "z_mm"]
        pairs = [("TC", *pair, False) for pair in overlaps]
        both = ["region", "candidate", "lesion", "shared_mm3", "iou", "centroid_inside"]
        found[case] = CaseDetections(
            pd.DataFrame(of_candidates, columns=names), pd.DataFrame(of_lesions, columns=place),
            pd.DataFrame(pairs, columns=both),
        )  # fmt: skip
    return collect(found, *MODEL)


THREE = detections(
    {
        # candidates 1 and 2 find lesions 1 and 2; 3 touches lesion 2 by a corner and is false one to one
        "a": ([(0.9, 0.2), (0.6, 0.5), (0.3, 0.9)], [1, 2], [(1, 1, 40.0, 0.8), (2, 2, 30.0, 0.5), (3, 2, 5.0, 0.05)]),
        # lesion 1 is found at 0.4 only, lesion 2 by nothing
        "b": ([(0.4, 0.7), (0.35, 0.6)], [1, 2], [(1, 1, 20.0, 0.3)]),
        "c": ([(0.2, 0.5)], [], []),
        "d": ([], [], []),
    }
)


def asked(table: pd.DataFrame, **place: object) -> pd.Series:
    return row(table, region="TC", **({"hit": "one_to_one", "predictor": "uncertainty"} | place))


def test_doubt_of_false_candidates_by_hand() -> None:
    """False: 0.9, 0.6, 0.5; hits: 0.2, 0.5, 0.7. Of nine pairs six are in order and one is tied."""
    table = uncertainty({MODEL: THREE}, QUICK)
    assert list(table.columns) == UNCERTAINTY_COLUMNS
    assert len(table) == 3 * 3 * 3, "regions, rules, and three questions"
    one = asked(table, question="false")
    assert one[["n", "events", "patients"]].tolist() == [6, 3, 3]
    assert one["auroc"] == pytest.approx(6.5 / 9)
    assert (one["median_event"], one["median_other"]) == (0.6, 0.5)
    low = asked(table, question="false", predictor="low_score")
    # false: 0.3, 0.35, 0.2; hits: 0.9, 0.6, 0.4
    assert low["auroc"] == 1
    # by any overlap candidate 3 of case a hits too: false are 0.6 and 0.5
    assert asked(table, question="false", hit="overlap")["events"] == 2


def test_doubt_of_missed_lesions_by_hand() -> None:
    """Lesion 1 of case b is missed (0.4): its candidate doubts more (0.7) than those of the two found (0.2, 0.5)."""
    table = uncertainty({MODEL: THREE}, QUICK)
    one = asked(table, question="missed")
    assert one[["n", "events", "patients", "without_candidate"]].tolist() == [3, 1, 2, 1]
    assert one["auroc"] == 1
    assert one["median_event"] == 0.7
    assert one["median_other"] == pytest.approx(0.35)
    assert table.loc[table["question"] == "missed", "predictor"].unique().tolist() == ["uncertainty"]


def test_a_lesion_of_exactly_one_half_is_missed() -> None:
    """The label map paints what exceeds 0.5."""
    pairs = [(1, 1, 40.0, 0.8), (2, 2, 40.0, 0.8)]
    both = detections({"a": ([(0.51, 0.4), (0.5, 0.3)], [1, 2], pairs), "b": ([], [], [])})
    assert asked(uncertainty({MODEL: both}, QUICK), question="missed")["events"] == 1


def test_where_one_kind_is_absent_the_row_says_why() -> None:
    table = uncertainty({MODEL: THREE}, QUICK)
    none = row(table, region="ET", hit="overlap", question="false", predictor="uncertainty")
    assert (none["n"], none["note"]) == (0, "there is no candidate: no AUROC")
    assert np.isnan(none["auroc"])
    found = detections({"a": ([(0.9, 0.2)], [1], [(1, 1, 40.0, 0.8)]), "b": ([(0.8, 0.1)], [1], [(1, 1, 40.0, 0.8)])})
    table = uncertainty({MODEL: found}, QUICK)
    assert asked(table, question="false")["note"] == "no candidate is false: no AUROC"
    assert asked(table, question="missed")["note"] == "no lesion that a candidate reaches is missed: no AUROC"
    false = detections({"a": ([(0.9, 0.2)], [1], []), "b": ([], [1], [])})
    table = uncertainty({MODEL: false}, QUICK)
    assert asked(table, question="false")["note"] == "every candidate is false: no AUROC"
    missed = asked(table, question="missed")
    assert missed["note"] == "there is no lesion that a candidate reaches: no AUROC"
    assert missed["without_candidate"] == 2


def test_one_patient_has_an_auroc_and_no_interval() -> None:
    same = Settings(0.05, 400, 1, dict.fromkeys("abcd", "x"))
    one = asked(uncertainty({MODEL: THREE}, same), question="false")
    assert one["auroc"] == pytest.approx(6.5 / 9)
    assert one["patients"] == 1
    assert np.isnan(one["low"])
    assert one["note"] == "1 patient(s): no interval for the AUROC"


def test_the_auroc_is_that_of_scikit_learn_and_its_interval_counts_patients() -> None:
    random = np.random.default_rng(4)
    events = [np.round(random.normal(0.8, 1, n), 1) for n in (3, 0, 5, 2, 9, 1, 4, 6)]
    others = [np.round(random.normal(0, 1, n), 1) for n in (6, 2, 0, 8, 1, 4, 4, 3)]
    one, other = np.concatenate(events), np.concatenate(others)
    truth = np.repeat([1, 0], [len(one), len(other)])
    assert auroc(one, other) == pytest.approx(roc_auc_score(truth, np.concatenate([one, other])))
    low, high, _ = clustered_auroc_interval(events, others, 0.05, 2000, np.random.default_rng(1))
    assert 0 <= low < auroc(one, other) < high <= 1
    twice = [np.concatenate([values, values]) for values in events], [np.concatenate([v, v]) for v in others]
    again = clustered_auroc_interval(*twice, 0.05, 2000, np.random.default_rng(1))
    assert again[:2] == pytest.approx((low, high)), "the same voxels twice are no new patients"
