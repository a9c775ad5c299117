"""Means, intervals and normality on numbers that can be worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from score_examples import example_scores

from brainmets.scoring.intervals import mean_interval
from brainmets.statistics.descriptive import describe, normality, shapiro, summarise
from brainmets.statistics.tests import bca_interval, generator, widened


def summary(values: list[float], alpha: float = 0.05) -> tuple[dict[str, float], list[str]]:
    return summarise(np.array(values), names(len(values)), alpha, 500, np.random.default_rng(0))


def names(n: int) -> list[str]:
    """So many patients with one case each."""
    return [f"p{number:03d}" for number in range(n)]


def test_summary_of_one_to_five() -> None:
    found, remarks = summary([1, 2, 3, 4, 5])
    assert (found["n"], found["mean"], found["median"], found["q1"], found["q3"]) == (5, 3, 3, 2, 4)
    assert found["sd"] == pytest.approx(np.sqrt(2.5))
    half = 2.7764451 * np.sqrt(2.5 / 5)  # t with 4 degrees of freedom
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((3 - half, 3 + half))
    assert found["bca_low"] < 3 < found["bca_high"]
    assert remarks == []


def test_few_or_equal_values_say_what_has_no_meaning() -> None:
    found, remarks = summary([])
    assert found["n"] == 0
    assert np.isnan(found["mean"])
    assert remarks == ["no defined value"]
    found, remarks = summary([0.7])
    assert found["mean"] == 0.7
    assert np.isnan([found["sd"], found["ci_low"], found["bca_high"]]).all()
    assert "one value" in remarks[0]
    found, remarks = summary([0.7, 0.7, 0.7])
    assert (found["sd"], found["ci_low"], found["bca_high"]) == (0, 0.7, 0.7)
    assert "all values equal" in remarks[0]
    found, remarks = summary([0.2, 0.8])
    assert 0.2 <= found["bca_low"] < found["bca_high"] <= 0.8
    assert "few distinct resamples" in remarks[0]


def test_bca_equals_scipys_on_the_same_sample_at_the_widened_level() -> None:
    values = np.random.default_rng(4).gamma(2, size=25)
    level = 1 - widened(0.05, 25)
    scipys = stats.bootstrap((values,), np.mean, n_resamples=40_000, method="BCa", confidence_level=level, rng=1)
    expected = scipys.confidence_interval
    found, _ = summarise(values, names(25), 0.05, 40_000, np.random.default_rng(2))
    assert (found["bca_low"], found["bca_high"]) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_a_bootstrap_of_few_is_read_at_levels_that_give_ts_width() -> None:
    """Of n normal values a resampled mean has sd s sqrt((n - 1) / n) / sqrt(n); t's interval is t s / sqrt(n) wide."""
    assert widened(0.05, 10) == pytest.approx(2 * stats.norm.sf(2.262157 * np.sqrt(10 / 9)), rel=1e-5)
    assert widened(0.05, 10_000) == pytest.approx(0.05, rel=1e-3)


def test_intervals_of_a_mean_count_patients() -> None:
    """Ten patients scanned twice with the same result know no more than ten patients scanned once."""
    values = np.random.default_rng(3).normal(size=10)
    once, _ = summarise(values, names(10), 0.05, 2000, np.random.default_rng(1))
    twice, remarks = summarise(
        np.repeat(values, 2), list(np.repeat(names(10), 2)), 0.05, 2000, np.random.default_rng(1)
    )
    for name in ("ci_low", "ci_high", "bca_low", "bca_high"):
        assert twice[name] == pytest.approx(once[name])
    assert (twice["n"], remarks) == (20, ["20 cases of 10 patients"])
    alone, remarks = summarise(values, ["p"] * 10, 0.05, 100, np.random.default_rng(1))
    assert np.isnan([alone["ci_low"], alone["bca_high"]]).all()
    assert remarks == ["10 cases of one patient: no interval"]


def test_the_interval_of_patients_with_unequal_scans_by_hand() -> None:
    """Sums 1 and 5 of 1 and 2 values: mean 2, residuals -1 and 1, standard error sqrt(2 * 2) / 3."""
    low, high = mean_interval(np.array([1.0, 5.0]), np.array([1.0, 2.0]), 0.95)
    assert (low, high) == pytest.approx((2 - 12.706205 * 2 / 3, 2 + 12.706205 * 2 / 3))


def test_a_resection_cavity_is_described_and_says_that_it_is_not_tested() -> None:
    scores = example_scores(3, arms=("default",))
    table = describe(pd.concat([scores, scores[scores["region"] == "ET"].assign(region="RC")]), 0.05, 100, 1)
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
    table = describe(scores, 0.05, 100, 1)
    assert len(table) == 6 * 3 * 6
    expected = scores.groupby(["arm", "strategy", "region", "metric"])["value"].mean()
    found = table.set_index(["arm", "strategy", "region", "metric"])["mean"]
    np.testing.assert_allclose(found.sort_index(), expected.sort_index())


def test_undefined_values_are_named_and_the_n_falls() -> None:
    scores = example_scores(6)
    row = scores.index[(scores["metric"] == "hd95") & (scores["case"] == "case02")][0]
    scores.loc[row, "value"] = np.nan
    table = describe(scores, 0.05, 100, 1)
    short = table[table["n"] == 5]
    assert len(short) == 1
    assert "undefined and left out: case02" in short.iloc[0]["note"]


def test_infinite_values_are_named_and_said_to_favour_the_model() -> None:
    scores = example_scores(6)
    row = scores.index[(scores["metric"] == "hd95") & (scores["case"] == "case02")][0]
    scores.loc[row, "value"] = np.inf
    table = describe(scores, 0.05, 100, 1)
    notes = table.loc[table["n"] == 5, "note"].to_list()
    assert notes == ["infinite and left out, which favours this model: case02"]


def test_row_order_and_other_rows_change_no_number() -> None:
    scores = example_scores(6)
    table = describe(scores, 0.05, 200, 1)
    pd.testing.assert_frame_equal(
        table, describe(scores.sample(frac=1, random_state=5), 0.05, 200, 1), check_exact=True
    )
    one_arm = table[table["arm"] == "segresnet"].reset_index(drop=True)
    pd.testing.assert_frame_equal(one_arm, describe(scores[scores["arm"] == "segresnet"], 0.05, 200, 1))
    assert generator(1, "a").random() != generator(2, "a").random()


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
