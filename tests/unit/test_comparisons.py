"""The tests between models against brute force, hand computation and scipy."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from score_examples import example_scores

from brainmets.statistics.agreement import bland_altman, limits, volume_pairs
from brainmets.statistics.comparisons import (
    AGAINST_SCRATCH,
    ALL_ARMS,
    AUTHORS,
    BOTH_STRATEGIES,
    COMPARED,
    EXPLORATORY,
    FAMILY_STRATEGIES,
    MEAN_OVER_ARMS,
    TEST_COLUMNS,
    Settings,
    against_pretrained,
    arms_pairwise,
    finetune_vs_scratch,
    read_tests,
    write_tests,
)
from brainmets.statistics.tests import (
    cliffs_delta,
    cliffs_delta_interval,
    difference,
    hodges_lehmann,
    holm,
    mann_whitney,
    permutation,
    rounded,
    wilcoxon,
)
from brainmets.vocabulary import better, without_direction

QUICK = Settings(0.05, 200, 1)
RANDOM = np.random.default_rng(0)
KEY = ["kind", "first", "metric", "region"]


def paired_with(table: pd.DataFrame, arm: str) -> pd.Series:
    """Which rows are the paired tests of an arm (or of the mean over arms)."""
    return (table["kind"] == "paired") & (table["first"] == arm)


def patients(n: int) -> list[str]:
    return [f"p{number}" for number in range(n)]


def brute_force(differences: np.ndarray, alternative: str) -> float:
    """The sign-flip p-value by going through all signs of the ranks."""
    ranks = stats.rankdata(np.abs(differences)) * (differences != 0)
    observed = ranks[differences > 0].sum()
    sums = np.array([np.dot(ranks, signs) for signs in product([0, 1], repeat=len(ranks))])
    upper, lower = np.mean(sums >= observed), np.mean(sums <= observed)
    return min(1.0, {"greater": upper, "less": lower, "two-sided": 2 * min(upper, lower)}[alternative])


# --- Wilcoxon and Hodges-Lehmann


def test_wilcoxon_of_one_two_three() -> None:
    found = wilcoxon(np.array([1.0, 2.0, 3.0]), "greater")
    assert (found.statistic, found.p_value, found.zeros, found.tied) == (6, 1 / 8, 0, 0)
    assert wilcoxon(np.array([1.0, 2.0, 3.0]), "less").p_value == 1
    assert wilcoxon(np.array([1.0, 2.0, 3.0]), "two-sided").p_value == 1 / 4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9), st.sampled_from(["greater", "less", "two-sided"]))
def test_wilcoxon_is_exact_with_ties_and_zeros(whole: list[int], alternative: str) -> None:
    differences = np.array(whole, float)
    assert wilcoxon(differences, alternative).p_value == pytest.approx(brute_force(differences, alternative))  # type: ignore[arg-type]


def test_wilcoxon_equals_scipys_exact_test_without_ties() -> None:
    differences = np.random.default_rng(0).normal(0.3, 1, 17)
    for alternative in ("greater", "less", "two-sided"):
        expected = stats.wilcoxon(differences, alternative=alternative, method="exact").pvalue
        assert wilcoxon(differences, alternative).p_value == pytest.approx(expected)


def test_wilcoxon_normal_approximation_for_many_pairs() -> None:
    differences = np.random.default_rng(0).normal(0.2, 1, 150)
    found = wilcoxon(differences, "greater")
    expected = stats.wilcoxon(differences, alternative="greater", method="asymptotic", correction=True).pvalue
    assert not found.exact
    assert found.p_value == pytest.approx(expected)


def test_wilcoxon_states_zeros_ties_and_the_smallest_p() -> None:
    found = wilcoxon(np.array([0.0, 0.0, 1.0, 1.0, -2.0]), "greater")
    assert (found.n, found.zeros, found.tied, found.smallest_p) == (5, 2, 2, 1 / 8)
    assert wilcoxon(np.zeros(4), "two-sided").p_value == 1
    assert np.isnan(wilcoxon(np.array([]), "greater").p_value)
    with pytest.raises(ValueError, match="alternative: 'more'"):
        wilcoxon(np.ones(3), "more")  # type: ignore[arg-type]


def test_hodges_lehmann_by_hand() -> None:
    # Walsh averages of 1, 2, 6: 1, 1.5, 2, 3.5, 4, 6
    assert hodges_lehmann(np.array([1.0, 2.0, 6.0]), 0.05)[0] == 2.75
    shift, low, high, coverage = hodges_lehmann(np.array([1.0, 2.0, 6.0]), 0.05)
    assert (low, high, coverage) == (1, 6, 0.75)  # three pairs allow no better than 75%
    assert np.isnan(hodges_lehmann(np.array([]), 0.05)).all()
    shift, low, high, coverage = hodges_lehmann(np.array([3.0]), 0.05)
    assert shift == 3
    assert np.isnan([low, high, coverage]).all()


def test_hodges_lehmann_interval_turns_the_test_round() -> None:
    """A shift lies in the interval where the two-sided exact test of the differences less the shift keeps it."""
    differences = np.random.default_rng(3).normal(0.5, 1, 10)
    _, low, high, coverage = hodges_lehmann(differences, 0.05)
    assert 0.95 <= coverage < 0.96
    for shift, kept in ((low - 1e-6, False), (low + 1e-6, True), (high - 1e-6, True), (high + 1e-6, False)):
        assert (wilcoxon(differences - shift, "two-sided").p_value > 0.05) is kept


def test_six_pairs_are_the_fewest_for_95_percent() -> None:
    assert hodges_lehmann(np.arange(1.0, 6), 0.05)[3] < 0.95
    assert hodges_lehmann(np.arange(1.0, 7), 0.05)[3] == pytest.approx(1 - 2 / 64)


# --- Mann-Whitney and Cliff's delta


def test_mann_whitney_by_hand() -> None:
    u, p_value, method = mann_whitney(np.array([4.0, 5.0]), np.array([1.0, 2.0, 3.0]), "greater")
    assert (u, method) == (6, "exact")
    assert p_value == pytest.approx(1 / 10)
    assert mann_whitney(np.ones(3), np.ones(3), "greater")[1] == 1
    assert np.isnan(mann_whitney(np.array([]), np.ones(3), "greater")[1])


def test_cliffs_delta_by_hand() -> None:
    assert cliffs_delta(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 1
    assert cliffs_delta(np.array([1.0, 2.0]), np.array([2.0, 1.0])) == 0
    assert cliffs_delta(np.array([1.0, 3.0]), np.array([2.0, 2.0, 0.0])) == pytest.approx((4 - 2) / 6)


def test_cliffs_delta_interval() -> None:
    random = np.random.default_rng(0)
    first, second = random.normal(1, 1, (12, 3)), random.normal(0, 1, (12, 3))
    low, high, remarks = cliffs_delta_interval(first, second, patients(12), 0.05, 1000, np.random.default_rng(1))
    assert -1 <= low < cliffs_delta(first.ravel(), second.ravel()) < high <= 1
    assert remarks == []
    low, high, remarks = cliffs_delta_interval(first + 100, second, patients(12), 0.05, 100, np.random.default_rng(1))
    assert (low, high) == (1, 1)
    assert "no width" in remarks[0]
    low, _, remarks = cliffs_delta_interval(first[:1], second[:1], patients(1), 0.05, 100, np.random.default_rng(1))
    assert np.isnan(low)
    assert "no interval" in remarks[0]


def test_cliffs_delta_interval_leaves_undefined_values_out() -> None:
    first, second = np.array([[1.0], [np.nan], [3.0], [4.0]]), np.array([[0.0], [2.0], [2.5], [np.nan]])
    low, high, _ = cliffs_delta_interval(first, second, patients(4), 0.05, 300, np.random.default_rng(1))
    assert low <= cliffs_delta(np.array([1.0, 3.0, 4.0]), np.array([0.0, 2.0, 2.5])) <= high


# --- Holm


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1, 1]
    found = holm([0.02, float("nan"), 0.03])
    assert found[0] == pytest.approx(0.04)
    assert np.isnan(found[1])
    assert holm([]) == []


# --- whole patients' labels swapped


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=8), st.sampled_from(["greater", "less", "two-sided"]))
def test_permutation_goes_through_all_swaps(whole: list[int], alternative: str) -> None:
    differences = np.array(whole, float)
    sums = np.array([np.dot(signs, whole) for signs in product([1, -1], repeat=len(whole))])
    upper, lower = np.mean(sums >= sum(whole)), np.mean(sums <= sum(whole))
    expected = {"greater": upper, "less": lower, "two-sided": min(1.0, 2 * min(upper, lower))}[alternative]
    assert permutation(differences, alternative, 0.05, RANDOM).p_value == pytest.approx(expected)  # type: ignore[arg-type]


def test_permutation_interval_by_hand() -> None:
    """The means of the seven subsets of 1, 2, 6 run from 1 to 6; so few allow no better than 1 - 2/8."""
    found = permutation(np.array([1.0, 2.0, 6.0]), "greater", 0.05, RANDOM)
    assert (found.n, found.mean, found.p_value) == (3, 3, 1 / 8)
    assert (found.low, found.high, found.coverage) == (1, 6, 0.75)
    quarters = permutation(np.array([1.0, 2.0, 6.0]), "greater", 0.5, RANDOM)  # means 1, 1.5, 2, 3, 3.5, 4, 6
    assert (quarters.low, quarters.high, quarters.coverage) == (1.5, 4, 0.5)


def test_permutation_interval_turns_the_test_round() -> None:
    differences = np.random.default_rng(3).normal(0.5, 1, 10)
    found = permutation(differences, "greater", 0.05, RANDOM)
    assert 0.95 <= found.coverage < 0.952
    for shift, kept in ((found.low - 1e-6, False), (found.low + 1e-6, True), (found.high - 1e-6, True)):
        assert (permutation(differences - shift, "two-sided", 0.05, RANDOM).p_value > 0.05) is kept
    assert permutation(differences - found.high - 1e-6, "two-sided", 0.05, RANDOM).p_value <= 0.05


def test_permutation_of_many_is_random_never_zero_and_close_to_all_swaps() -> None:
    differences = np.random.default_rng(1).normal(5, 1, 20)
    found = permutation(differences, "greater", 0.05, np.random.default_rng(2))
    assert (found.p_value, found.drawn) == (pytest.approx(1 / 20_001), 20_000)
    half = stats.t.ppf(0.975, 19) * differences.std(ddof=1) / np.sqrt(20)
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=0.1)


def test_permutation_of_nothing_and_of_one() -> None:
    assert np.isnan(permutation(np.array([]), "greater", 0.05, RANDOM).p_value)
    found = permutation(np.array([1.5]), "greater", 0.05, RANDOM)
    assert (found.n, found.p_value, found.mean) == (1, 0.5, 1.5)
    assert np.isnan([found.low, found.high]).all()
    assert permutation(np.zeros(4), "two-sided", 0.05, RANDOM).p_value == 1


def test_arms_of_a_case_that_agree_make_no_more_cases() -> None:
    """Three arms that gain and lose together: one difference a case. Taken as thirty, p would be 0.0003."""
    scores = example_scores(10, arms=("default",), gain=0.0)
    gains = pd.Series([0.02, 0.02, 0.02, 0.02, 0.02, 0.02, 0.02, -0.02, -0.02, -0.02], sorted(set(scores["case"])))
    gain = scores["case"].map(gains).where(scores["strategy"] == "finetune", 0.0)
    one = scores.assign(value=0.5 + gain)[scores["metric"] == "dice"]
    three = pd.concat([one.assign(arm=arm) for arm in ("default", "segresnet", "tversky_bce")])
    rows = [finetune_vs_scratch(table, QUICK).set_index("kind").loc["permutation"] for table in (one, three)]
    for row in rows:
        assert (row["n"] == 10).all()
        # 7 of 10 signs or more are positive in 120 + 45 + 10 + 1 of 1024 draws
        assert row["p_value"].to_list() == pytest.approx([176 / 1024] * 3)


def test_levels_where_there_is_nothing_to_find() -> None:
    """Ten patients, three arms that gain and lose together: 30 values a side are not 30 patients."""
    random = np.random.default_rng(6)
    draws, pooled, swapped, named = 400, 0, 0, 0
    for _ in range(draws):
        first, second = (random.normal(0, 2, (10, 1)) + random.normal(0, 1, (10, 3)) for _ in "ab")
        pooled += mann_whitney(first.ravel(), second.ravel(), "greater")[1] < 0.05
        swapped += permutation((first - second).mean(axis=1), "greater", 0.05, random).p_value < 0.05
        nine = random.choice([-1, 1], (10, 1)) * (random.normal(0, 1, (10, 1)) + random.normal(0, 1, (10, 9)))
        named += min(holm([wilcoxon(test, "greater").p_value for test in nine.T])) < 0.05
    two_errors = 2 * np.sqrt(0.05 * 0.95 / draws)
    assert swapped / draws < 0.05 + two_errors
    assert named / draws < 0.05 + two_errors
    assert pooled / draws > 0.1, "the pooled test of the paper does not keep its level here"


# --- several scans of a patient


def test_scans_of_one_patient_count_once() -> None:
    """Four patients scanned twice: the smallest p is 1/16, not 1/256."""
    scores = example_scores(8)
    whose = {f"case{number:02d}": f"patient{number // 2}" for number in range(8)}
    table = finetune_vs_scratch(scores, replace(QUICK, patients=whose)).set_index(KEY)
    for kind, arm in (("paired", MEAN_OVER_ARMS), ("permutation", ALL_ARMS), ("paired", "default")):
        row = table.loc[(kind, arm, "dice", "WT")]
        assert (row["n"], row["p_value"]) == (4, 1 / 16)
        assert "8 cases of 4 patients, each counted once" in row["note"]
    differences = scores[(scores["metric"] == "dice") & (scores["region"] == "WT") & (scores["arm"] == "default")]
    wide = differences.pivot(index="case", columns="strategy", values="value")
    means = (wide["finetune"] - wide["scratch"]).groupby(whose).mean()
    assert table.loc[("paired", "default", "dice", "WT"), "effect"] == pytest.approx(
        hodges_lehmann(means.to_numpy(), 0.05)[0]
    )
    with pytest.raises(ValueError, match="nothing says whose scan case07 is"):
        finetune_vs_scratch(scores, replace(QUICK, patients={f"case{n:02d}": "p" for n in range(7)}))


def test_an_undefined_scan_leaves_its_patients_other_scan() -> None:
    scores = example_scores(8)
    where = (scores["metric"] == "hd95") & (scores["region"] == "TC") & (scores["arm"] == "default")
    scores.loc[scores.index[where & (scores["case"] == "case03")][0], "value"] = np.nan
    whose = {f"case{number:02d}": f"patient{number // 2}" for number in range(8)}
    row = finetune_vs_scratch(scores, replace(QUICK, patients=whose)).set_index(KEY)
    assert row.loc[("paired", "default", "hd95", "TC"), "n"] == 4
    assert "undefined value in case03" in row.loc[("paired", "default", "hd95", "TC"), "note"]


def test_cliffs_interval_of_patients_scanned_twice_is_that_of_patients_scanned_once() -> None:
    random = np.random.default_rng(0)
    first, second = random.normal(0.5, 1, (9, 2)), random.normal(0, 1, (9, 2))
    once = cliffs_delta_interval(first, second, patients(9), 0.05, 500, np.random.default_rng(1))
    both = (np.concatenate([side, side]) for side in (first, second))
    twice = cliffs_delta_interval(*both, patients(9) * 2, 0.05, 500, np.random.default_rng(1))
    assert twice[:2] == pytest.approx(once[:2])


# --- against pretraining alone


def test_the_way_through_pretraining_adds_up_and_is_exploratory() -> None:
    scores = example_scores(8)
    zero_shot = scores[scores["strategy"] == "scratch"].assign(strategy="pretrained")
    zero_shot["value"] -= 0.01 * (zero_shot["metric"] == "dice")
    together = pd.concat([scores, zero_shot])
    pd.testing.assert_frame_equal(finetune_vs_scratch(together, QUICK), finetune_vs_scratch(scores, QUICK))
    table = against_pretrained(together, QUICK)
    assert list(table.columns) == TEST_COLUMNS
    assert set(table["family"]) == {EXPLORATORY}
    assert set(table["alternative"]) == {"two-sided"}
    assert set(table["strategies"]) == {"finetune vs pretrained", "pretrained vs scratch"}
    dice = table[(table["metric"] == "dice") & (table["region"] == "WT") & (table["first"] == MEAN_OVER_ARMS)]
    assert dice["effect"].to_list() == pytest.approx([0.03, -0.01], abs=0.003)
    block = table[(table["strategies"] == "pretrained vs scratch") & (table["first"] == MEAN_OVER_ARMS)]
    np.testing.assert_allclose(block["p_holm"], holm(block["p_value"].to_list()))
    assert against_pretrained(scores, QUICK).empty


def test_arms_with_three_strategies_pool_the_studys_two() -> None:
    scores = example_scores(4)
    together = pd.concat([scores, scores[scores["strategy"] == "scratch"].assign(strategy="pretrained")])
    table = arms_pairwise(together, QUICK)
    assert set(table["strategies"]) == {"finetune", "scratch", "finetune+scratch", "pretrained"}
    alone = table[table["strategies"] != "pretrained"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, arms_pairwise(scores, QUICK))
    assert not arms_pairwise(together[together["strategy"] == "pretrained"], QUICK).empty


# --- directions


def test_directions() -> None:
    assert better("dice") == better("lesion_f1") == better("lesion_small_f1") == "greater"
    assert better("hd95") == better("lesion_hd95") == better("lesion_fn") == "less"
    assert without_direction(["dice", "reference_volume", "lesion_tp", "reference_volume"]) == [
        "lesion_tp",
        "reference_volume",
    ]


def test_single_precision_noise_is_a_tie() -> None:
    assert rounded(np.array([1.0000014305114746 - 1.0]), "mm") == 0
    assert rounded(np.array([1e-6]), "1") == 1e-6


def test_holm_equals_the_definition_written_out() -> None:
    random = np.random.default_rng(4)
    for _ in range(50):
        p_values = np.round(random.random(random.integers(1, 30)) ** 3, 3)  # with ties
        running, expected = 0.0, np.zeros(len(p_values))
        for place, index in enumerate(np.argsort(p_values, kind="stable")):
            running = max(running, min(1.0, (len(p_values) - place) * p_values[index]))
            expected[index] = running
        assert holm(list(p_values)) == list(expected)


# --- the tables


def test_tables_have_the_stated_columns_and_rows() -> None:
    scores = example_scores(7)
    strategies = finetune_vs_scratch(scores, QUICK)
    assert list(strategies.columns) == TEST_COLUMNS
    arms = ("default", "tversky_bce", "segresnet", MEAN_OVER_ARMS)
    kinds = [
        ("paper", ALL_ARMS),
        ("directed", ALL_ARMS),
        *(("paired", arm) for arm in arms),
        ("permutation", ALL_ARMS),
    ]
    found = strategies[COMPARED].drop_duplicates().itertuples(index=False, name=None)
    assert list(found) == [(kind, arm, arm, AGAINST_SCRATCH) for kind, arm in kinds]
    assert (strategies.groupby(COMPARED).size() == 12).all()
    pairs = arms_pairwise(scores, QUICK)
    assert list(pairs.columns) == TEST_COLUMNS
    compared = ("paired", "default", "segresnet", BOTH_STRATEGIES)
    assert (pairs[COMPARED] == compared).all(axis=1).sum() == 12
    assert set(pairs["strategies"]) == {"finetune", "scratch", "finetune+scratch"}
    assert not set(strategies["metric"]) & {"reference_volume", "predicted_volume"}
    assert strategies["p_value"].notna().all()


def test_paper_says_greater_for_every_metric_and_directed_turns_hd95() -> None:
    table = finetune_vs_scratch(example_scores(7), QUICK)
    paper = table[table["kind"] == "paper"].set_index(["metric", "region"])
    directed = table[table["kind"] == "directed"].set_index(["metric", "region"])
    assert (paper["alternative"] == "greater").all()
    assert directed.loc[("hd95", "ET"), "alternative"] == "less"
    assert paper.loc[("hd95", "ET"), "p_value"] > 0.5 > directed.loc[("hd95", "ET"), "p_value"]
    assert paper.loc[("dice", "ET"), "p_value"] == directed.loc[("dice", "ET"), "p_value"]
    assert (paper["n"] == 21).all()


def test_paired_sees_what_pooling_hides() -> None:
    """A gain of 0.02 in every one of 8 cases that differ by 0.3: the sign flips leave 1 of 256."""
    table = finetune_vs_scratch(example_scores(8, gain=0.02), QUICK).set_index(KEY)
    row = table.loc[("paired", MEAN_OVER_ARMS, "dice", "WT")]
    assert row["p_value"] == 1 / 256
    assert row["p_holm"] == pytest.approx(9 / 256)
    assert row["effect"] == pytest.approx(0.02, abs=0.002)
    assert row["effect_low"] < row["effect"] < row["effect_high"]
    assert table.loc[("paper", ALL_ARMS, "dice", "WT"), "p_value"] > 0.05


def test_rows_in_any_order_give_the_same_table() -> None:
    scores = example_scores(5, arms=("default", "segresnet"))
    shuffled = scores.sample(frac=1, random_state=2)
    for compare in (finetune_vs_scratch, arms_pairwise):
        pd.testing.assert_frame_equal(compare(scores, QUICK), compare(shuffled, QUICK), check_exact=True)


def test_holm_counts_the_stated_family() -> None:
    table = finetune_vs_scratch(example_scores(8), QUICK)
    by_arm = table[(table["kind"] == "paired") & (table["first"] != MEAN_OVER_ARMS)]
    assert len(by_arm) == 36
    np.testing.assert_allclose(by_arm["p_holm"], holm(by_arm["p_value"].to_list()))
    paper = table[table["kind"] == "paper"]
    np.testing.assert_allclose(paper["p_holm"], holm(paper["p_value"].to_list()))


NINE = {(metric, region) for metric in ("dice", "hd95", "sensitivity") for region in ("ET", "TC", "WT")}


@pytest.mark.parametrize(("arms", "name"), [(("default", "segresnet"), MEAN_OVER_ARMS), (("segresnet",), "segresnet")])
def test_one_family_is_the_authors_and_holm_counts_its_nine_tests(arms: tuple[str, ...], name: str) -> None:
    scores = example_scores(8, arms=arms)
    extra = scores[scores["metric"] == "dice"].assign(metric="lesion_dice")
    table = finetune_vs_scratch(pd.concat([scores, extra]), QUICK)
    declared = table[table["family"] == AUTHORS]
    assert set(zip(declared["metric"], declared["region"], strict=True)) == NINE
    assert len(declared) == 9
    assert (declared[["kind", "first"]] == ["paired", name]).all(axis=None)
    assert list(declared["alternative"]) == [better(metric) for metric in declared["metric"]]
    np.testing.assert_allclose(declared["p_holm"], holm(declared["p_value"].to_list()))
    assert set(table["family"]) == {AUTHORS, EXPLORATORY}
    assert set(arms_pairwise(example_scores(4), QUICK)["family"]) == {EXPLORATORY}


def test_a_family_that_is_not_whole_says_so() -> None:
    scores = example_scores(8)
    table = finetune_vs_scratch(scores[scores["metric"] != "sensitivity"], QUICK)
    declared = table[table["family"] == AUTHORS]
    assert len(declared) == 6
    assert declared["note"].str.contains("the scores hold 6 of the family's 9 tests").all()


def test_the_resection_cavity_is_tested_nowhere() -> None:
    """No network has an output for it: its constant rows cost the others and could win by the reference alone."""
    scores = example_scores(8)
    cavity = scores[scores["region"] == "ET"].assign(region="RC")
    together = pd.concat([scores, cavity], ignore_index=True)
    for compare in (finetune_vs_scratch, arms_pairwise):
        pd.testing.assert_frame_equal(compare(together, QUICK), compare(scores, QUICK), check_exact=True)


def test_metrics_beside_the_papers_are_a_family_of_their_own() -> None:
    scores = example_scores(8)
    extra = scores[scores["metric"] == "dice"].assign(metric="precision")
    before = finetune_vs_scratch(scores, QUICK)
    after = finetune_vs_scratch(pd.concat([scores, extra]), QUICK)
    kept = after[after["metric"] != "precision"].reset_index(drop=True)
    pd.testing.assert_frame_equal(before, kept)


def test_an_undefined_value_leaves_the_pair_out_by_name() -> None:
    scores = example_scores(7)
    where = (scores["metric"] == "hd95") & (scores["region"] == "TC") & (scores["arm"] == "default")
    scores.loc[scores.index[where & (scores["case"] == "case03")][0], "value"] = np.nan
    table = finetune_vs_scratch(scores, QUICK).set_index(KEY)
    for arm, n in (("default", 6), ("segresnet", 7), (MEAN_OVER_ARMS, 6)):
        assert table.loc[("paired", arm, "hd95", "TC"), "n"] == n
    assert "undefined value in case03" in table.loc[("paired", "default", "hd95", "TC"), "note"]
    assert "20 values against 21" in table.loc[("paper", ALL_ARMS, "hd95", "TC"), "note"]
    assert table.loc[("paired", "default", "hd95", "ET"), "n"] == 7


def with_infinite(scores: pd.DataFrame, strategy: str, case: str, arm: str = "default") -> pd.DataFrame:
    """The scores with an infinite TC HD95 of one model in one case."""
    where = (scores["metric"] == "hd95") & (scores["region"] == "TC") & (scores["arm"] == arm)
    where &= (scores["strategy"] == strategy) & (scores["case"] == case)
    assert where.sum() == 1
    return scores.assign(value=scores["value"].mask(where, np.inf))


def test_an_infinite_distance_is_ranked_as_the_worst_and_not_dropped() -> None:
    """Dropped, it would leave six gains in six pairs; ranked, it is the largest of seven differences, and a loss."""
    scores = example_scores(7, gain=0.05)
    table = finetune_vs_scratch(with_infinite(scores, "finetune", "case03"), QUICK)
    row = table.set_index(KEY).loc[("paired", "default", "hd95", "TC")]
    differences = np.array([-1.0, -2, -3, -4, -5, -6, np.inf])
    assert (row["n"], row["p_value"]) == (7, brute_force(differences, "less"))
    assert "infinite difference ranked as the largest: case03" in row["note"]
    mean = table.set_index(KEY).loc[("paired", MEAN_OVER_ARMS, "hd95", "TC")]
    assert (mean["n"], mean["p_value"]) == (7, row["p_value"])
    paper = table[(table["kind"] == "paper") & (table["metric"] == "hd95") & (table["region"] == "TC")].iloc[0]
    assert paper["n"] == 21
    failed_from_scratch = finetune_vs_scratch(with_infinite(scores, "scratch", "case03"), QUICK)
    gain = failed_from_scratch.set_index(KEY).loc[("paired", "default", "hd95", "TC")]
    assert gain["p_value"] == 1 / 128


def test_means_leave_infinite_pairs_out_and_say_whom_that_favours() -> None:
    scores = example_scores(7, gain=0.05)
    table = finetune_vs_scratch(with_infinite(scores, "finetune", "case03"), QUICK).set_index(KEY)
    row = table.loc[("permutation", ALL_ARMS, "hd95", "TC")]
    assert np.isfinite([row["p_value"], row["effect"]]).all()
    assert "infinite and left out: 1 of the first side and 0 of the second, which favours the first" in row["note"]
    assert "infinite" not in table.loc[("permutation", ALL_ARMS, "hd95", "ET"), "note"]


def test_infinite_on_both_sides_is_level() -> None:
    first, second = np.array([np.inf, 1.0, np.inf, np.nan]), np.array([np.inf, 3.0, 2.0, 2.0])
    np.testing.assert_array_equal(difference(first, second), [0, -2, np.inf, np.nan])
    found = wilcoxon(np.array([np.inf, -np.inf, 1.0]), "greater")
    assert (found.tied, found.p_value) == (2, brute_force(np.array([2.0, -2.0, 1.0]), "greater"))
    shift, low, high, _ = hodges_lehmann(np.array([np.inf, -np.inf, 1.0]), 0.05)
    assert (shift, low, high) == (0.5, -np.inf, np.inf)
    assert cliffs_delta(np.array([np.inf, np.inf]), np.array([np.inf, 1.0])) == 0.5
    assert mann_whitney(np.full(3, np.inf), np.full(3, np.inf), "greater")[1] == 1


def test_worse_is_tested_by_the_standard_of_better() -> None:
    scores = example_scores(8, gain=0.02)
    turned = scores.assign(strategy=scores["strategy"].map({"finetune": "scratch", "scratch": "finetune"}))
    better_rows = finetune_vs_scratch(scores, QUICK).set_index(KEY).sort_index()
    worse_rows = finetune_vs_scratch(turned, QUICK).set_index(KEY).sort_index()
    for rows in (("paired", "default"), ("paired", MEAN_OVER_ARMS)):
        np.testing.assert_allclose(better_rows.loc[rows, "p_value"], worse_rows.loc[rows, "p_worse"])
        np.testing.assert_allclose(better_rows.loc[rows, "p_holm"], worse_rows.loc[rows, "p_worse_holm"])
    assert better_rows.loc["paper", "p_worse"].isna().all()


def test_that_nothing_can_survive_holm_is_said_of_whole_families_only() -> None:
    """Seven cases: nine times 1/128 is above 0.05, eight: 9/256 is below, whatever zeros single rows hold."""
    note = "no outcome of so few pairs survives Holm in this family"
    for n_cases, hopeless in ((7, True), (8, False)):
        table = finetune_vs_scratch(example_scores(n_cases), QUICK)
        mean = table[table["family"] == AUTHORS]
        assert mean["note"].str.contains(note).all() == mean["note"].str.contains(note).any() == hopeless
    scores = example_scores(8)
    level = scores["case"].isin(["case00", "case01"])
    fine = scores[level & (scores["strategy"] == "finetune")].set_index(["arm", "case", "region", "metric"])["value"]
    keys = pd.MultiIndex.from_frame(scores[["arm", "case", "region", "metric"]])
    same = scores.assign(value=np.where(level, fine.reindex(keys), scores["value"]))
    mean = finetune_vs_scratch(same, QUICK)
    mean = mean[mean["family"] == AUTHORS]
    assert mean["note"].str.contains("no outcome of so few non-zero differences survives Holm").all()


@pytest.mark.parametrize("n_cases", [1, 2, 3, 4])
def test_few_cases_give_whole_tables_with_reasons(n_cases: int) -> None:
    scores = example_scores(n_cases)
    for table in (finetune_vs_scratch(scores, QUICK), arms_pairwise(scores, QUICK)):
        assert table["p_value"].notna().all()
        unexplained = table[table["effect_low"].isna() & (table["note"] == "")]
        assert unexplained.empty
        paired = table[table["kind"] == "paired"]
        assert paired["note"].str.contains("falls below alpha|every difference is zero").all()


def test_one_strategy_and_one_arm_give_tables_without_rows() -> None:
    scores = example_scores(4)
    table = finetune_vs_scratch(scores[scores["strategy"] == "scratch"], QUICK)
    assert table.empty
    assert list(table.columns) == TEST_COLUMNS
    assert not arms_pairwise(scores[scores["strategy"] == "scratch"], QUICK).empty
    assert arms_pairwise(scores[scores["arm"] == "default"], QUICK).empty
    single = finetune_vs_scratch(scores[scores["arm"] == "default"], QUICK)
    assert MEAN_OVER_ARMS not in set(single["first"])


def test_an_arm_with_one_strategy_stays_out_of_the_comparison_of_strategies() -> None:
    scores = example_scores(5)
    gone = (scores["arm"] == "segresnet") & (scores["strategy"] == "scratch")
    table = finetune_vs_scratch(scores[~gone], QUICK)
    assert "segresnet" not in set(table["first"])
    assert (table.loc[table["kind"] == "paper", "n"] == 10).all()
    assert table["note"].str.contains("segresnet left out: no scores of scratch").all()
    arms = arms_pairwise(scores[~gone], QUICK)
    assert (arms["note"].str.contains("segresnet left out") == (arms["strategies"] != "finetune")).all()
    assert not finetune_vs_scratch(scores, QUICK)["note"].str.contains("left out").any()


def test_the_family_stands_in_the_header_and_readers_find_the_columns(tmp_path: Path) -> None:
    table = finetune_vs_scratch(example_scores(4), QUICK)
    path = write_tests(tmp_path / "finetune_vs_scratch.csv", table, FAMILY_STRATEGIES)
    lines = path.read_text().splitlines()
    assert lines[0] == ",".join(TEST_COLUMNS)
    assert lines[1].startswith("# all rows are exploratory: the rule that the study declared decides")
    assert "," not in lines[1] + lines[2]
    pd.testing.assert_frame_equal(read_tests(path), table)
    assert list(pd.read_csv(path).columns) == TEST_COLUMNS
    empty = write_tests(tmp_path / "empty.csv", table.iloc[:0], FAMILY_STRATEGIES)
    assert read_tests(empty).empty


# --- Bland-Altman


def test_bland_altman_by_hand() -> None:
    rows = []
    for case, (reference, predicted) in enumerate([(10, 11), (20, 22), (30, 33), (40, 40)]):
        for metric, value in (("reference_volume", reference), ("predicted_volume", predicted)):
            rows.append(("default", "finetune", f"c{case}", "WT", metric, float(value), "mL"))
    scores = pd.DataFrame(rows, columns=["arm", "strategy", "case", "region", "metric", "value", "unit"])
    row = bland_altman(volume_pairs(scores), 0.05).iloc[0]
    sd = np.std([1, 2, 3, 0], ddof=1)
    assert (row["n"], row["bias"]) == (4, 1.5)
    assert row["upper_limit"] == pytest.approx(1.5 + 1.959964 * sd)
    assert row["lower_limit"] == pytest.approx(1.5 - 1.959964 * sd)
    assert row["lower_limit_low"] < row["lower_limit"] < row["lower_limit_high"] < row["bias"] < row["bias_high"]
    assert row["bias"] - row["lower_limit_low"] == pytest.approx(row["upper_limit_high"] - row["bias"])
    few = bland_altman(volume_pairs(scores[scores["case"] == "c0"]), 0.05).iloc[0]
    assert few["bias"] == 1
    assert np.isnan(few["upper_limit"])
    assert "no limits of agreement" in few["note"]


def test_intervals_of_the_limits_are_tolerance_factors() -> None:
    """Of ten normal values 95% lie below mean + 2.911 sd with 95% confidence (tables of tolerance factors)."""
    found = limits(np.arange(10.0), patients(10), 0.1)
    sd = np.arange(10.0).std(ddof=1)
    assert (found["upper_limit_high"] - 4.5) / sd == pytest.approx(2.911, abs=5e-4)
    assert (4.5 - found["lower_limit_low"]) / sd == pytest.approx(2.911, abs=5e-4)


def test_limits_of_patients_scanned_twice_say_what_they_ignore() -> None:
    pairs = volume_pairs(example_scores(4, arms=("default",)))
    whose = {"case00": "p", "case01": "p", "case02": "q", "case03": "r"}
    row = bland_altman(pairs, 0.05, whose).iloc[0]
    assert "4 cases of 3 patients: the limits' intervals and the trend take cases as independent" in row["note"]
    assert row["bias_high"] - row["bias_low"] != pytest.approx(
        bland_altman(pairs, 0.05).iloc[0]["bias_high"] - bland_altman(pairs, 0.05).iloc[0]["bias_low"]
    )


def test_scores_without_volumes_have_no_agreement() -> None:
    pairs = volume_pairs(example_scores(3, volumes=False))
    assert pairs.empty
    assert bland_altman(pairs, 0.05).empty
