"""The number of cases needed, against cases where it is known."""

import numpy as np
import pytest
from score_examples import example_scores

from brainmets.statistics.comparisons import Settings
from brainmets.statistics.power import POWER_COLUMNS, TARGET_POWER, cases_needed, critical_sum, needed, power
from brainmets.statistics.tests import wilcoxon


def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_differences_that_are_all_positive_need_the_fewest_cases_the_test_allows() -> None:
    row = needed(np.linspace(1, 2, 10), "greater", 0.05, random())
    assert row["cases_needed"] == 5  # 1 / 2^5 is the first below 0.05
    assert row["power_at_cases_needed"] == 1


def test_critical_sums_are_those_of_the_tables() -> None:
    assert critical_sum(10, 0, 0.05) == 55 - 10  # published one-sided limits of the smaller sum: 10 at n = 10
    assert critical_sum(20, 0, 0.05) == 210 - 60
    assert critical_sum(5, 0, 0.05) == 15
    assert critical_sum(4, 0, 0.05) == np.inf
    assert 18 < critical_sum(6, 1, 0.05) <= 2 + 3 + 4 + 5 + 6  # a zero takes rank 1 and one sign away
    assert critical_sum(51, 0, 0.05) == pytest.approx(51 * 52 / 4 + 0.5 + 1.644854 * np.sqrt(51 * 52 * 103 / 24))


def test_power_is_the_share_of_draws_that_the_exact_test_rejects() -> None:
    differences = np.random.default_rng(1).normal(0.6, 1, 400)
    generator = np.random.default_rng(7)
    rejected = [wilcoxon(generator.choice(differences, 12), "greater").p_value <= 0.05 for _ in range(1000)]
    assert power(differences, 12, "greater", 0.05, random()) == pytest.approx(np.mean(rejected), abs=0.05)


def test_lower_is_better_mirrors_higher_is_better() -> None:
    differences = np.random.default_rng(1).normal(0.5, 1, 12)
    up, down = (power(sign * differences, 20, way, 0.05, random()) for sign, way in ((1, "greater"), (-1, "less")))  # type: ignore[arg-type]
    assert up == down


def test_power_grows_with_cases_and_holds_the_level_without_a_shift() -> None:
    differences = np.random.default_rng(1).normal(0.5, 1, 12)
    by_n = [power(differences, n, "greater", 0.05, random()) for n in (6, 12, 24, 48)]
    assert by_n == sorted(by_n)
    symmetric = np.concatenate([differences, -differences])
    assert power(symmetric, 30, "greater", 0.05, random()) == pytest.approx(0.05, abs=0.03)


def test_found_number_reaches_the_target_and_fewer_do_not() -> None:
    differences = np.random.default_rng(1).normal(0.6, 1, 12)
    row = needed(differences, "greater", 0.05, random())
    n = int(row["cases_needed"])  # type: ignore[call-overload]
    assert power(differences, n, "greater", 0.05, np.random.default_rng(8)) > TARGET_POWER - 0.05
    assert power(differences, n // 2, "greater", 0.05, np.random.default_rng(8)) < TARGET_POWER


def test_every_larger_number_that_was_scanned_reaches_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """Power that falls back below 0.8 at 8 cases: the answer is 9, not 6."""
    curve = {6: 0.85, 7: 0.82, 8: 0.79}
    monkeypatch.setattr("brainmets.statistics.power.power", lambda _, n, *__: curve.get(n, 0.9 if n > 8 else 0.1))
    row = needed(np.linspace(1, 2, 10), "greater", 0.05, random())
    assert (row["cases_needed"], row["power_at_cases_needed"]) == (9, 0.9)


def test_power_of_a_given_set_falls_somewhere_as_cases_are_added() -> None:
    """Why a search by halving would not do: the exact test's level jumps with n."""
    differences = np.array([1.0, 2.0, 3.0, 4.0, -0.5])
    by_n = [power(differences, n, "greater", 0.05, random()) for n in range(5, 12)]
    assert by_n != sorted(by_n)


def test_infinite_differences_count_as_the_largest() -> None:
    finite = np.array([0.5, 1.0, 1.5, 2.0, -9.0])
    infinite = np.array([0.5, 1.0, 1.5, 2.0, -np.inf])
    assert power(finite, 20, "greater", 0.05, random()) == power(infinite, 20, "greater", 0.05, random())


def test_no_improvement_too_few_and_too_many_are_said() -> None:
    assert "no improvement" in str(needed(-np.linspace(1, 2, 8), "greater", 0.05, random())["note"])
    assert "no improvement" in str(needed(np.zeros(8), "greater", 0.05, random())["note"])
    assert "too few" in str(needed(np.array([1.0, 2.0]), "greater", 0.05, random())["note"])
    weak = np.concatenate([np.linspace(1, 2, 50), [1.01], -np.linspace(1, 2, 50)])
    row = needed(weak, "greater", 0.05, random())
    assert row["note"] == "more than 500 cases"
    assert np.isnan(row["cases_needed"])  # type: ignore[call-overload]


def test_table() -> None:
    table = cases_needed(example_scores(7), Settings(0.05, 100, 1))
    assert list(table.columns) == POWER_COLUMNS
    assert len(table) == 4 * 3 * 4
    assert table[table["cases_needed"].isna()]["note"].ne("").all()
    assert (table.loc[table["metric"] == "hd95", "alternative"] == "less").all()
    one = example_scores(7)
    assert cases_needed(one[one["strategy"] == "scratch"], Settings(0.05, 100, 1)).empty
    few = cases_needed(example_scores(2), Settings(0.05, 100, 1))
    assert few["note"].str.contains("too few").all()
