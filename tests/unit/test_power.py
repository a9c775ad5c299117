"""The number of cases needed for the margin, against cases where it is known."""

import numpy as np
import pytest
from decided import rule
from score_examples import example_scores

from brainmets.statistics.comparisons import Settings
from brainmets.statistics.power import (
    POWER_COLUMNS,
    TARGET_POWER,
    Question,
    cases_needed,
    centred,
    critical_sum,
    needed,
    power,
    rejects,
)
from brainmets.statistics.tests import Floats, wilcoxon

SUPERIOR: Question = "superiority"
NORMAL = centred(np.random.default_rng(1).normal(0, 1, 12), "1")


def random() -> np.random.Generator:
    return np.random.default_rng(0)


def of(differences: Floats, n: int, margin: float = 0.6, question: Question = SUPERIOR) -> float:
    return power(differences, n, question, margin, 0.05, random())


def test_differences_that_are_within_the_margin_need_the_fewest_cases_the_test_allows() -> None:
    """Centred differences of at most 0.5: a gain of 1 makes all positive, and 1 / 2^5 is the first below 0.05."""
    for question in ("superiority", "non-inferiority", "equivalence"):
        row = needed(np.linspace(-0.5, 0.5, 11), question, 1.0, 0.05, random())  # type: ignore[arg-type]
        assert (row["cases_needed"], row["power_at_cases_needed"]) == (5, 1)
    assert needed(np.linspace(-0.5, 0.5, 11), SUPERIOR, 1.0, 0.025, random())["cases_needed"] == 6


def test_critical_sums_are_those_of_the_tables() -> None:
    assert critical_sum(10, 0, 0.05) == 55 - 10  # published one-sided limits of the smaller sum: 10 at n = 10
    assert critical_sum(20, 0, 0.05) == 210 - 60
    assert critical_sum(5, 0, 0.05) == 15
    assert critical_sum(4, 0, 0.05) == np.inf
    assert 18 < critical_sum(6, 1, 0.05) <= 2 + 3 + 4 + 5 + 6  # a zero takes rank 1 and one sign away
    assert critical_sum(51, 0, 0.05) == pytest.approx(51 * 52 / 4 + 0.5 + 1.644854 * np.sqrt(51 * 52 * 103 / 24))


def test_power_is_the_share_of_draws_that_the_exact_test_rejects() -> None:
    differences = np.random.default_rng(1).normal(0, 1, 400)
    generator = np.random.default_rng(7)
    rejected = [wilcoxon(generator.choice(differences, 12) + 0.6, "greater").p_value <= 0.05 for _ in range(1000)]
    assert of(differences, 12) == pytest.approx(np.mean(rejected), abs=0.05)


def test_equivalence_takes_both_tests() -> None:
    differences = np.random.default_rng(1).normal(0, 1, 400)
    generator = np.random.default_rng(7)
    both = []
    for _ in range(1000):
        drawn = generator.choice(differences, 15)
        both.append(max(wilcoxon(drawn + 0.9, "greater").p_value, wilcoxon(drawn - 0.9, "less").p_value) <= 0.05)
    assert of(differences, 15, 0.9, "equivalence") == pytest.approx(np.mean(both), abs=0.05)
    assert of(differences, 15, 0.9, "equivalence") < of(differences, 15, 0.9, "non-inferiority")


def test_the_effect_that_was_seen_plays_no_part() -> None:
    seen = np.random.default_rng(1).normal(0, 1, 12)
    np.testing.assert_allclose(centred(seen + 5, "1"), centred(seen, "1"))
    assert of(centred(seen + 5, "1"), 20) == of(centred(seen, "1"), 20) == of(centred(seen - 5, "1"), 20)


def test_power_grows_with_cases_and_margin_and_holds_the_level_without_a_margin() -> None:
    by_n = [of(NORMAL, n, 0.5) for n in (6, 12, 24, 48)]
    assert by_n == sorted(by_n)
    by_margin = [of(NORMAL, 12, margin) for margin in (0.2, 0.4, 0.8, 1.6)]
    assert by_margin == sorted(by_margin)
    symmetric = np.concatenate([NORMAL, -NORMAL])
    assert of(symmetric, 30, 0.0) == pytest.approx(0.05, abs=0.03)


def test_found_number_reaches_the_target_and_fewer_do_not() -> None:
    row = needed(NORMAL, SUPERIOR, 0.6, 0.05, random())
    n = int(row["cases_needed"])  # type: ignore[call-overload]
    assert power(NORMAL, n, SUPERIOR, 0.6, 0.05, np.random.default_rng(8)) > TARGET_POWER - 0.05
    assert power(NORMAL, n // 2, SUPERIOR, 0.6, 0.05, np.random.default_rng(8)) < TARGET_POWER


def test_every_larger_number_that_was_scanned_reaches_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """Power that falls back below 0.8 at 8 cases: the answer is 9, not 6."""
    curve = {6: 0.85, 7: 0.82, 8: 0.79}
    monkeypatch.setattr("brainmets.statistics.power.power", lambda _, n, *__: curve.get(n, 0.9 if n > 8 else 0.1))
    row = needed(NORMAL, SUPERIOR, 0.6, 0.05, random())
    assert (row["cases_needed"], row["power_at_cases_needed"]) == (9, 0.9)


def test_power_of_a_given_set_falls_somewhere_as_cases_are_added() -> None:
    """Why a search by halving would not do: the exact test's level jumps with n."""
    by_n = [of(np.array([-1.0, 0.0, 1.0, 2.0, -2.5]), n, 2.0) for n in range(5, 12)]
    assert by_n != sorted(by_n)


def test_infinite_differences_count_as_the_largest() -> None:
    finite, infinite = (np.array([0.5, 1.0, 1.5, 2.0, lost]) for lost in (-9.0, -np.inf))
    drawn = random().integers(0, 5, (500, 20))
    breaks = random().random(drawn.shape)
    np.testing.assert_array_equal(rejects(finite, drawn, breaks, 0.05), rejects(infinite, drawn, breaks, 0.05))


def test_too_few_and_too_many_are_said() -> None:
    assert "too few" in str(needed(np.array([1.0, 2.0]), SUPERIOR, 1.0, 0.05, random())["note"])
    row = needed(np.linspace(-1, 1, 101), SUPERIOR, 0.01, 0.05, random())
    assert row["note"] == "more than 500 cases"
    assert np.isnan(row["cases_needed"])  # type: ignore[call-overload]
    no_centre = centred(np.array([np.inf] * 5 + [0.0]), "mm")
    assert "finite centre: too few" in str(needed(no_centre, SUPERIOR, 1.0, 0.05, random())["note"])


def test_table() -> None:
    settings = Settings(0.05, 100, 1)
    table = cases_needed(example_scores(7), rule(margin=0.02), settings)
    assert list(table.columns) == POWER_COLUMNS
    assert list(table["question"]) == ["superiority", "non-inferiority", "equivalence"]
    assert list(table["true_difference"]) == [0.02, 0, 0]
    assert table["cases_needed"][0] == table["cases_needed"][1], "one test of the same shifted differences"
    one = example_scores(7)
    none = cases_needed(one[one["strategy"] == "scratch"], rule(), settings)
    assert none["note"].str.contains("no arm was scored both").all()
    assert cases_needed(example_scores(2), rule(), settings)["note"].str.contains("too few").all()
