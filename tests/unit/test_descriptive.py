"""Means, intervals and normality on numbers that can be worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from score_examples import example_scores, two_cases

from brainmets.scoring.intervals import mean_interval
from brainmets.statistics.descriptive import (
    COUNTS,
    describe,
    false_volumes,
    normality,
    shapiro,
    share_interval,
    summarise,
)
from brainmets.statistics.tests import bca_interval, widened


def summary(values: list[float], alpha: float = 0.05, share: bool = True) -> tuple[dict[str, float], list[str]]:
    return summarise(np.array(values), names(len(values)), alpha, share)


def names(n: int) -> list[str]:
    """So many patients with one case each."""
    return [f"p{number:03d}" for number in range(n)]


def test_summary_of_one_to_five() -> None:
    found, remarks = summary([1, 2, 3, 4, 5], share=False)
    assert (found["n"], found["mean"], found["median"], found["q1"], found["q3"]) == (5, 3, 3, 2, 4)
    assert found["sd"] == pytest.approx(np.sqrt(2.5))
    half = 2.7764451 * np.sqrt(2.5 / 5)  # t with 4 degrees of freedom
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((3 - half, 3 + half))
    assert remarks == []


def test_few_or_equal_values_say_what_has_no_meaning() -> None:
    found, remarks = summary([])
    assert found["n"] == 0
    assert np.isnan(found["mean"])
    assert remarks == ["no defined value"]
    found, remarks = summary([0.7])
    assert found["mean"] == 0.7
    assert np.isnan([found["sd"], found["ci_low"], found["ci_high"]]).all()
    assert "one value" in remarks[0]
    found, remarks = summary([0.7, 0.7, 0.7])
    assert (found["sd"], found["ci_low"], found["ci_high"]) == (0, 0.7, 0.7)
    assert "all values equal" in remarks[0]


def test_the_interval_of_a_share_by_hand() -> None:
    """Mean 0.9, standard error 0.02, logit(0.9) = ln 9; t with 4 degrees of freedom."""
    values = np.array([0.9 - 0.02 * np.sqrt(5), 0.9, 0.9, 0.9, 0.9 + 0.02 * np.sqrt(5)]) * 1.0
    error = values.std(ddof=1) / np.sqrt(5)
    half = 2.7764451 * error / (0.9 * 0.1)
    low, high = share_interval(values, names(5), 0.05)
    assert np.log(low / (1 - low)) == pytest.approx(np.log(9) - half)
    assert np.log(high / (1 - high)) == pytest.approx(np.log(9) + half)


@pytest.mark.parametrize("values", [[0.2, 1.0, 1.0], [0.97, 0.99, 1.0, 1.0], [0.0, 0.0, 0.3], [0.0, 1.0]])
def test_no_interval_of_a_share_leaves_zero_to_one(values: list[float]) -> None:
    mean, error = np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values))
    half = stats.t.ppf(0.975, len(values) - 1) * error
    assert mean + half > 1 or mean - half < 0, "the plain t interval does"
    found, _ = summary(values)
    assert 0 <= found["ci_low"] < found["mean"] < found["ci_high"] <= 1


def test_no_interval_of_a_distance_falls_below_zero() -> None:
    found, _ = summary([1.0, 2.0, 60.0], share=False)
    assert found["ci_low"] == 0
    assert found["ci_high"] == pytest.approx(21 + 4.3026527 * np.std([1, 2, 60], ddof=1) / np.sqrt(3))


def test_bca_equals_scipys_on_the_same_sample() -> None:
    values = np.random.default_rng(4).gamma(2, size=25)
    scipys = stats.bootstrap((values,), np.mean, n_resamples=40_000, method="BCa", rng=1).confidence_interval
    replicates = values[np.random.default_rng(2).integers(0, 25, (40_000, 25))].mean(axis=1)
    low, high, _ = bca_interval(values.mean(), replicates, (values.sum() - values) / 24, 0.05)
    assert (low, high) == pytest.approx((scipys.low, scipys.high), abs=0.02)


def test_a_bootstrap_of_few_is_read_at_levels_that_give_ts_width() -> None:
    """Of n normal values a resampled mean has sd s sqrt((n - 1) / n) / sqrt(n); t's interval is t s / sqrt(n) wide."""
    assert widened(0.05, 10) == pytest.approx(2 * stats.norm.sf(2.262157 * np.sqrt(10 / 9)), rel=1e-5)
    assert widened(0.05, 10_000) == pytest.approx(0.05, rel=1e-3)


def test_intervals_of_a_mean_count_patients() -> None:
    """Ten patients scanned twice with the same result know no more than ten patients scanned once."""
    values = np.random.default_rng(3).uniform(0.5, 1, size=10)
    whose = [name for name in names(10) for _ in range(2)]
    for share in (True, False):
        once, _ = summarise(values, names(10), 0.05, share)
        twice, remarks = summarise(np.repeat(values, 2), whose, 0.05, share)
        assert (twice["ci_low"], twice["ci_high"]) == pytest.approx((once["ci_low"], once["ci_high"]))
        assert (twice["n"], remarks) == (20, ["20 cases of 10 patients"])
        alone, remarks = summarise(values, ["p"] * 10, 0.05, share)
        assert np.isnan([alone["ci_low"], alone["ci_high"]]).all()
        assert remarks == ["10 cases of one patient, who alone gives no interval"]


def test_the_interval_of_patients_with_unequal_scans_by_hand() -> None:
    """Sums 1 and 5 of 1 and 2 values: mean 2, residuals -1 and 1, standard error sqrt(2 * 2) / 3."""
    low, high = mean_interval(np.array([1.0, 5.0]), np.array([1.0, 2.0]), 0.95)
    assert (low, high) == pytest.approx((2 - 12.706205 * 2 / 3, 2 + 12.706205 * 2 / 3))


def test_a_resection_cavity_is_described_and_says_that_it_is_not_tested() -> None:
    scores = example_scores(3, arms=("default",))
    table = describe(pd.concat([scores, scores[scores["region"] == "ET"].assign(region="RC")]), 0.05)
    assert (table["note"].str.contains("RC: described and not tested") == (table["region"] == "RC")).all()
    assert (table["region"] == "RC").any()


def test_bca_without_bias_and_skew_is_the_percentile_interval() -> None:
    replicates = np.linspace(-1, 1, 2001)
    low, high, corrected = bca_interval(0.0, replicates, np.array([-1.0, 0.0, 1.0]), 0.1)
    assert corrected
    assert (low, high) == pytest.approx((-0.9, 0.9))


def test_bca_falls_back_where_the_estimate_lies_outside() -> None:
    replicates = np.linspace(1, 2, 101)
    low, high, corrected = bca_interval(0.0, replicates, np.array([0.0, 1.0]), 0.1)
    assert not corrected
    assert (low, high) == pytest.approx((1.05, 1.95))


def test_describe_has_one_row_per_model_region_and_metric() -> None:
    scores = example_scores(6)
    table = describe(scores, 0.05)
    assert len(table) == 6 * 3 * 6
    expected = scores.groupby(["arm", "strategy", "region", "metric"])["value"].mean()
    found = table.set_index(["arm", "strategy", "region", "metric"])["mean"]
    np.testing.assert_allclose(found.sort_index(), expected.sort_index())


def test_undefined_values_are_named_and_the_n_falls() -> None:
    scores = example_scores(6)
    row = scores.index[(scores["metric"] == "hd95") & (scores["case"] == "case02")][0]
    scores.loc[row, "value"] = np.nan
    table = describe(scores, 0.05)
    short = table[table["n"] == 5]
    assert len(short) == 1
    assert "undefined and left out: case02" in short.iloc[0]["note"]


def test_infinite_values_are_named_and_said_to_favour_the_model() -> None:
    scores = example_scores(6)
    row = scores.index[(scores["metric"] == "hd95") & (scores["case"] == "case02")][0]
    scores.loc[row, "value"] = np.inf
    table = describe(scores, 0.05)
    notes = table.loc[table["n"] == 5, "note"].to_list()
    assert notes == ["infinite and left out, which favours this model: case02"]


def test_row_order_and_other_rows_change_no_number() -> None:
    scores = example_scores(6)
    table = describe(scores, 0.05)
    pd.testing.assert_frame_equal(table, describe(scores.sample(frac=1, random_state=5), 0.05), check_exact=True)
    one_arm = table[table["arm"] == "segresnet"].reset_index(drop=True)
    pd.testing.assert_frame_equal(one_arm, describe(scores[scores["arm"] == "segresnet"], 0.05))


# --- cases without a region


def row(table: pd.DataFrame, metric: str, strategy: str = "finetune") -> pd.Series:
    """The row of ET."""
    chosen = (table["metric"] == metric) & (table["region"] == "ET") & (table["strategy"] == strategy)
    (found,) = table[chosen].to_dict("records")
    return pd.Series(found)


def test_a_both_empty_case_does_not_turn_a_total_miss_into_one_half() -> None:
    """ "ET 0.500 against 0.500": a case without ET that is rightly left empty, and one whose ET is missed."""
    found = row(describe(two_cases(invented_ml=0.0), 0.05), "dice")
    assert (found["n"], found["mean"]) == (1, 0)
    assert found[COUNTS].to_list() == [0, 1, 0, 1]


def test_three_false_voxels_in_a_case_without_the_region_move_no_mean_but_are_told() -> None:
    clean, false = (describe(two_cases(invented_ml=volume), 0.05) for volume in (0.0, 0.003))
    for metric in ("dice", "hd95", "sensitivity"):
        assert row(clean, metric)["mean"] == row(false, metric)["mean"]
    assert row(false, "dice")[COUNTS].to_list() == [0, 1, 1, 0]
    told = false_volumes(two_cases(invented_ml=0.003))
    assert (told["region"] == "ET").all()
    of_finetuned = told[told["strategy"] == "finetune"].iloc[0]
    assert of_finetuned[["n_cases", "n_predicted", "mean_ml", "largest_ml", "largest_in"]].to_list() == [
        *(1, 1, 0.003, 0.003),
        "empty",
    ]
    scratch = told[told["strategy"] == "scratch"].iloc[0]
    assert scratch[["n_cases", "n_predicted", "mean_ml", "largest_in"]].to_list() == [1, 0, 0.0, ""]


def test_specificity_and_volumes_run_over_every_case() -> None:
    table = describe(two_cases(invented_ml=0.003), 0.05)
    assert (row(table, "specificity")["n"], row(table, "predicted_volume")["n"]) == (2, 2)


def test_a_region_that_no_reference_holds_has_no_mean_and_says_why() -> None:
    scores = two_cases(invented_ml=0.0)
    found = row(describe(scores[scores["case"] == "empty"], 0.05), "dice")
    assert found["n"] == 0
    assert np.isnan(found["mean"])
    assert found["note"] == "no case has this region in its reference"
    assert found[COUNTS].to_list() == [0, 0, 0, 1]


def test_without_volumes_no_case_can_be_told_and_none_is_left_out() -> None:
    scores = two_cases(invented_ml=0.0)
    found = row(describe(scores[scores["unit"] != "mL"], 0.05), "dice")
    assert (found["n"], found["mean"]) == (2, 0.5)
    assert found[COUNTS].isna().all()
    assert false_volumes(scores[scores["unit"] != "mL"]).empty


def test_shapiro_on_two_and_on_equal_values() -> None:
    assert "needs 3 values" in shapiro(np.array([1.0, 2.0]))[2]
    assert "all values equal" in shapiro(np.array([1.0, 1.0, 1.0]))[2]
    w, p, note = shapiro(np.array([0.1, 0.2, 0.25, 0.3, 0.32, 9.0]))
    assert note == ""
    assert p < 0.01
    assert w < 0.6


def test_normality_says_where_it_was_not_tested() -> None:
    table = normality(example_scores(2), 0.05)
    assert (table["note"] == "n = 2: Shapiro-Wilk needs 3 values").all()
    assert (table["normal_rejected"] == "").all()
    table = normality(example_scores(8), 0.05)
    tested = table[table["metric"] == "dice"]
    assert set(tested["normal_rejected"]) <= {"True", "False"}
    assert (tested["n"] == 8).all()


def test_two_patients_read_the_bootstrap_at_a_level_below_rounding() -> None:
    """For two units t's width asks for a level of about 1e-72, where 1 - level / 2 is 1 in floating point."""
    level = widened(0.05, 2)
    assert 0 < level < 1e-60
    low, high, corrected = bca_interval(0.5, np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0]), level)
    assert (low, high, corrected) == (pytest.approx(0), 1, True)
