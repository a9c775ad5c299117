"""The tests of the score tables: how often each rejects what is true."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import stats

from benchmarks.coverage.rows import ALPHA, PATIENTS, Part, Random, Row
from brainmets.statistics import descriptive
from brainmets.statistics.tests import Floats, holm, mann_whitney, permutation, wilcoxon


def differences(random: Random, n: int = PATIENTS, tests: int = 9, common: float = 0.5) -> Floats:
    """First minus second of correlated tests (shape (n, tests)), with each patient's labels swapped at random.

    Patients differ in how much anything changes them (log-normal scale), which their tests share.
    """
    scale = random.lognormal(0, 0.7, (n, 1))
    shared, own = random.normal(size=(n, 1)), random.normal(size=(n, tests))
    changes = scale * (np.sqrt(common) * shared + np.sqrt(1 - common) * own)
    return np.asarray(changes * random.choice([-1.0, 1.0], (n, 1)))


def rounded_differences(random: Random) -> Floats:
    """With ties and zeros, as distances on a grid have them."""
    return np.round(differences(random, tests=1)[:, 0])


def family(random: Random, decided: Callable[[Floats], bool]) -> bool:
    return decided(differences(random))


def any_after_holm(changes: Floats, alternative: str = "greater") -> bool:
    return min(holm([wilcoxon(test, alternative).p_value for test in changes.T])) < ALPHA  # type: ignore[arg-type]


def any_uncorrected(changes: Floats) -> bool:
    found = [wilcoxon(test, "greater") for test in changes.T]
    return any(min(test.p_value, test.p_opposite) < ALPHA for test in found)


def three_arms(random: Random, case: float, strategy: float) -> tuple[Floats, Floats]:
    """Scores of both strategies (shape (patients, 3 arms)): sd of patients, of patient by strategy, 1 of the rest."""
    of_case = random.normal(0, case, (PATIENTS, 1))
    sides = (of_case + random.normal(0, strategy, (PATIENTS, 1)) + random.normal(size=(PATIENTS, 3)) for _ in "ab")
    first, second = sides
    return first, second


def pooled_rank_test(random: Random, case: float, strategy: float) -> bool:
    first, second = three_arms(random, case, strategy)
    return mann_whitney(first.ravel(), second.ravel(), "greater")[1] < ALPHA


def intercept_alone(random: Random) -> bool:
    """A mixed model with an intercept per patient alone; of a complete table it is this analysis of variance."""
    first, second = three_arms(random, 2.0, 1.2)
    both = np.concatenate([first, second], axis=1)
    strategy = np.repeat([0.5, -0.5], 3) * (first.mean() - second.mean())
    arm = np.tile((first + second).mean(axis=0) / 2 - both.mean(), 2)
    residual = both - both.mean(axis=1, keepdims=True) - strategy - arm
    freedom = 6 * PATIENTS - PATIENTS - 3
    error = np.sqrt((residual**2).sum() / freedom * 2 / (3 * PATIENTS))
    return bool(stats.t.sf((first.mean() - second.mean()) / error, freedom) < ALPHA)


def swapped_labels(random: Random) -> bool:
    first, second = three_arms(random, 2.0, 1.2)
    return permutation((first - second).mean(axis=1), "greater", ALPHA, random).p_value < ALPHA


def trend(random: Random) -> bool:
    return bool(stats.spearmanr(random.lognormal(size=PATIENTS), random.normal(size=PATIENTS)).pvalue < ALPHA)


def rows() -> Iterator[Row]:
    """Rows whose simulated number is a rate of rejections where there is nothing to find."""
    swaps = "whole patients' labels swapped"
    paired = "signed-rank test, one-sided"
    yield Row(paired, swaps, True, lambda r: wilcoxon(differences(r, tests=1)[:, 0], "greater").p_value < ALPHA)
    yield Row(
        "signed-rank test, two-sided", swaps, True,
        lambda r: wilcoxon(differences(r, tests=1)[:, 0], "two-sided").p_value < ALPHA,
    )  # fmt: skip
    yield Row(
        paired, "with ties and zeros", True, lambda r: wilcoxon(rounded_differences(r), "greater").p_value < ALPHA
    )
    nine = f"nine correlated tests, {swaps}"
    yield Row("the authors' family (Holm), exploratory", nine, True, lambda r: family(r, any_after_holm))
    yield Row(
        "harm (`p_worse_holm`), exploratory", nine, True,
        lambda r: family(r, lambda changes: any_after_holm(changes, "less")),
    )  # fmt: skip
    yield Row("former: any uncorrected, either way", nine, True, lambda r: family(r, any_uncorrected), former=True)
    arms = "3 arms that gain and lose together"
    yield Row("permutation of the mean over arms", arms, True, swapped_labels)
    yield Row("former: mixed model, intercept per case alone", arms, True, intercept_alone, former=True)
    yield Row(
        "`paper`, `directed`: pooled rank test", "patients unlike, strategies alike", True,
        lambda r: pooled_rank_test(r, 3.0, 0.0),
    )  # fmt: skip
    yield Row(
        "`paper`, `directed`: pooled rank test", "patients alike, arms agree", True,
        lambda r: pooled_rank_test(r, 0.0, 1.0),
    )  # fmt: skip
    yield Row("Bland-Altman's trend (Spearman)", "no trend", True, trend)
    yield Row(
        "Shapiro-Wilk", "normal values", True, lambda r: descriptive.shapiro(r.normal(size=PATIENTS))[1] < ALPHA
    )  # fmt: skip


PART = Part("Tests of scores", rows)
