"""Do the tests keep their level and the intervals their coverage? Every one of the product, by simulation.

    OMP_NUM_THREADS=1 python benchmarks/coverage.py --write

Each row draws made-up studies whose truth is known, of the size the product is for (about ten patients), and counts
how often a test rejects what is true, or an interval holds the truth. Rows marked "former" are methods that are not in
use: they show what the draws ask for. All draws start from one seed; the numbers repeat. ``--write`` keeps the table
in benchmarks/results/coverage.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit, logit

from brainmets.review.experts import kappa_interval, weighted_kappa
from brainmets.scoring.calibration import BINS, bins_of
from brainmets.scoring.candidates import Hits
from brainmets.scoring.intervals import (
    Interval,
    auroc_of_patients,
    clopper_pearson,
    garwood,
    rate_interval,
    share_interval,
)
from brainmets.statistics import (
    calibration,
    decision,
    descriptive,
    froc,
    learning_curve,
    paired_detection,
    power,
    repeats,
)
from brainmets.statistics.agreement import limits
from brainmets.statistics.branches import Block
from brainmets.statistics.comparisons import Settings
from brainmets.statistics.tests import (
    Floats,
    cliffs_delta_interval,
    clustered_auroc_interval,
    generator,
    hodges_lehmann,
    holm,
    mann_whitney,
    permutation,
    widened,
    wilcoxon,
)

ALPHA, PATIENTS, SEED = 0.05, 10, 9
NAMES = [f"p{number:02d}" for number in range(PATIENTS)]
RESULTS = Path(__file__).parent / "results" / "coverage.md"
Random = np.random.Generator
Study = Callable[[Random], bool | None]
"""Draws one study; whether its test rejected or its interval held the truth; None where the method gives none."""


@dataclass(frozen=True)
class Row:
    """A method under one kind of study: ``level`` says whether a rate of rejections or a coverage is simulated.

    ``nominal`` is the level, or what the coverage lacks of 1.
    """

    what: str
    how: str
    level: bool
    study: Study
    former: bool = False
    nominal: float = ALPHA


# --- tests -------------------------------------------------------------------------------------------------------


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


def tests() -> Iterator[Row]:
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


# --- intervals ---------------------------------------------------------------------------------------------------


def holds(interval: Interval, truth: float) -> bool | None:
    """Whether the interval holds the truth; None where there is no interval."""
    return None if np.isnan(interval[0]) else bool(interval[0] <= truth <= interval[1])


def mean_of_swaps(values: Floats, truth: float, random: Random) -> bool | None:
    found = permutation(values, "two-sided", ALPHA, random)
    return holds((found.low, found.high), truth)


def cliff(random: Random) -> bool | None:
    """Patients and arms make half of the variance each; the first side is half a standard deviation better."""
    of_case = random.normal(0, np.sqrt(0.5), (PATIENTS, 1))
    first, second = (of_case + random.normal(0, np.sqrt(0.5), (PATIENTS, 3)) for _ in "ab")
    truth = 2 * float(stats.norm.cdf(0.5 / np.sqrt(2))) - 1
    low, high, _ = cliffs_delta_interval(first + 0.5, second, NAMES, ALPHA, 1000, random)
    return holds((low, high), truth)


def scans(random: Random) -> bool | None:
    """Mean Dice of ten patients scanned one to three times; the scans of a patient correlate with 0.6."""
    number = random.integers(1, 4, PATIENTS)
    patients = np.repeat(random.normal(0, np.sqrt(0.6), PATIENTS), number)
    values = 0.8 + 0.05 * (patients + random.normal(0, np.sqrt(0.4), len(patients)))
    return holds(descriptive.share_interval(values, list(np.repeat(NAMES, number)), ALPHA), 0.8)


def bland_altman(random: Random, limit: str) -> bool | None:
    found = limits(random.normal(1, 2, PATIENTS), NAMES, ALPHA)
    truth = {"bias": 1.0, "upper_limit": 1 + 2 * float(stats.norm.ppf(1 - ALPHA / 2))}[limit]
    return holds((found[f"{limit}_low"], found[f"{limit}_high"]), truth)


def lesions(random: Random, share: float, alike: float, skewed: bool) -> tuple[Floats, Floats]:
    """Lesions found and lesions of each patient; ``alike`` is the intraclass correlation of being found."""
    of = np.ceil(random.lognormal(1, 1, PATIENTS)) if skewed else random.geometric(1 / 4, PATIENTS)
    spread = (1 - alike) / alike
    chance = random.beta(share * spread, (1 - share) * spread, PATIENTS)
    return random.binomial(of.astype(int), chance).astype(float), of.astype(float)


def detection(random: Random, share: float, alike: float, skewed: bool = False) -> bool | None:
    return holds(share_interval(*lesions(random, share, alike, skewed), 1 - ALPHA), share)


def exact_detection(random: Random) -> bool | None:
    found, of = lesions(random, 0.8, 0.4, skewed=False)
    return holds(clopper_pearson(found.sum(), of.sum(), 1 - ALPHA), 0.8)


def false_positives(random: Random, mean: float, dispersion: float = 3.0) -> bool | None:
    counts = random.negative_binomial(mean / (dispersion - 1), 1 / dispersion, PATIENTS).astype(float)
    return holds(rate_interval(counts, np.ones(PATIENTS), 1 - ALPHA), mean)


def exact_false_positives(random: Random) -> bool | None:
    counts = random.negative_binomial(1, 1 / 3, PATIENTS)
    low, high = garwood(float(counts.sum()), 1 - ALPHA)
    return holds((low / PATIENTS, high / PATIENTS), 2.0)


def ratings(random: Random, patients: int, cuts: list[float]) -> np.ndarray:
    """Two raters' ratings (shape (patients, 2 models, 2 raters)): quality and error correlate within a patient."""
    alike, noise = 0.4, 0.6

    def draw(*shape: int) -> Floats:
        of_patient = random.normal(0, np.sqrt(alike), (patients, 1, *shape))
        return of_patient + random.normal(0, np.sqrt(1 - alike), (patients, 2, *shape))

    return np.searchsorted(cuts, draw()[..., None] + noise * draw(2))


FIVE, TWO = [-1.5, -0.6, 0.3, 1.2], [0.0]


def kappa(random: Random, cuts: list[float], truth: float) -> bool | None:
    given = ratings(random, PATIENTS, cuts)
    one, two = given[..., 0], given[..., 1]
    found = float(weighted_kappa(one.ravel(), two.ravel()))
    left_out = np.array([
        weighted_kappa(np.delete(one, place, 0).ravel(), np.delete(two, place, 0).ravel()) for place in range(PATIENTS)
    ])  # fmt: skip
    if not found < 1 or np.isnan(left_out).any():
        return None
    return holds(kappa_interval(found, left_out), truth)


def kappa_of_resampled_ratings(random: Random, truth: float) -> bool | None:
    given = ratings(random, PATIENTS, FIVE).reshape(-1, 2)
    drawn = given[random.integers(0, len(given), (500, len(given)))]
    low, high = np.nanquantile(weighted_kappa(drawn[..., 0], drawn[..., 1]), [0.025, 0.975])
    return holds((float(low), float(high)), truth)


def intervals() -> Iterator[Row]:
    """Rows whose simulated number is how often an interval holds the truth."""
    normal = "normal differences"
    yield Row(
        "Hodges-Lehmann shift", normal, False,
        lambda r: holds(hodges_lehmann(r.normal(0.5, 1, PATIENTS), ALPHA)[1:3], 0.5),  # type: ignore[arg-type]
    )  # fmt: skip
    yield Row(
        "mean difference (permutation)", normal, False, lambda r: mean_of_swaps(r.normal(0.5, 1, PATIENTS), 0.5, r)
    )  # fmt: skip
    yield Row(
        "mean difference (permutation)", "skewed differences (exponential)", False,
        lambda r: mean_of_swaps(r.exponential(1, PATIENTS), 1.0, r),
    )  # fmt: skip
    yield Row("Cliff's delta (BCa, widened)", "patients make half the variance", False, cliff)
    yield Row(
        "mean of a share (t on the logit)", "Dice, beta(8, 1.5)", False,
        lambda r: holds(descriptive.share_interval(r.beta(8, 1.5, PATIENTS), NAMES, ALPHA), 8 / 9.5),
    )  # fmt: skip
    yield Row("mean of a share (t on the logit)", "1 to 3 scans a patient, correlation 0.6", False, scans)
    yield Row(
        "mean of an amount (t, cut at 0)", "gamma of shape 4", False,
        lambda r: holds(descriptive.amount_interval(r.gamma(4, 1, PATIENTS), NAMES, ALPHA), 4.0),
    )  # fmt: skip
    yield Row(
        "mean of an amount (t, cut at 0)", "HD95 with outliers, log-normal(0, 1)", False,
        lambda r: holds(descriptive.amount_interval(r.lognormal(0, 1, PATIENTS), NAMES, ALPHA), float(np.exp(0.5))),
    )  # fmt: skip
    yield Row("Bland-Altman's bias", normal, False, lambda r: bland_altman(r, "bias"))
    yield Row("Bland-Altman's limits", normal, False, lambda r: bland_altman(r, "upper_limit"))
    yield from of_lesions()
    truths = []
    for name, cuts in (("1 to 5", FIVE), ("yes or no", TWO)):
        many = ratings(generator(SEED, "kappa", name), 200_000, cuts).reshape(-1, 2)
        truths.append(float(weighted_kappa(many[:, 0], many[:, 1])))
    how = f"kappa {truths[0]:.2f}, two models' ratings correlate with 0.4"
    yield Row("experts' kappa, 1 to 5 (jackknife)", how, False, lambda r: kappa(r, FIVE, truths[0]))
    yield Row(
        "experts' kappa, yes or no (jackknife)", f"kappa {truths[1]:.2f}", False, lambda r: kappa(r, TWO, truths[1])
    )
    yield Row(
        "former: kappa, bootstrap of ratings", how, False,
        lambda r: kappa_of_resampled_ratings(r, truths[0]), former=True,
    )  # fmt: skip
    yield from of_branches()


def of_lesions() -> Iterator[Row]:
    """Shares of lesions found, and false positives."""
    what = "share of lesions found"
    for share, alike in ((0.5, 0.4), (0.8, 0.4), (0.95, 0.4), (0.8, 0.7)):
        how = f"share {share}, correlation {alike}"
        yield Row(what, how, False, lambda r, share=share, alike=alike: detection(r, share, alike))  # type: ignore[misc]
    yield Row(
        what, "share 0.8, 0.4, few patients with most lesions", False, lambda r: detection(r, 0.8, 0.4, skewed=True)
    )  # fmt: skip
    yield Row("former: exact binomial", "share 0.8, correlation 0.4", False, exact_detection, former=True)
    for mean in (0.5, 2.0, 5.0):
        how = f"mean {mean:g}, variance 3 times the mean"
        yield Row("false positives per case", how, False, lambda r, mean=mean: false_positives(r, mean))  # type: ignore[misc]
    yield Row(
        "false positives per case", "mean 2, variance 6 times the mean", False, lambda r: false_positives(r, 2.0, 6.0)
    )  # fmt: skip
    yield Row("former: exact Poisson", "mean 2, variance 3 times the mean", False, exact_false_positives, former=True)


# --- trainings and learning curves -------------------------------------------------------------------------------

REPEATS = 3


def trainings(random: Random, luck: float, alike: float = 1.0) -> list[Floats]:
    """Scores (patients, repeats) of both strategies, mean 0.

    Standard deviations: ``alike`` of patients, 0.3 of patient by strategy, ``luck`` of trainings, 0.3 of the rest.
    """
    of_case = random.normal(0, alike, (PATIENTS, 1))
    return [
        of_case
        + random.normal(0, 0.3, (PATIENTS, 1))
        + random.normal(0, luck, (1, REPEATS))
        + random.normal(0, 0.3, (PATIENTS, REPEATS))
        for _ in "ab"
    ]


def of_retrained(random: Random, luck: float, strategies: int) -> bool | None:
    found = repeats.retrained(trainings(random, luck)[:strategies])
    return holds(repeats.interval(found, ALPHA, ""), 0.0)


def of_one_more_training(random: Random, luck: float) -> bool | None:
    found = repeats.retrained(trainings(random, luck)[:1])
    following = repeats.Estimate(found.mean, found.next_variance, found.next_freedom)
    return holds(repeats.interval(following, ALPHA, ""), float(random.normal(0, luck)))


def of_this_model(random: Random, luck: float) -> bool | None:
    """The difference's interval of the first trainings, taken for one of the strategies."""
    first, second = trainings(random, luck)
    found = repeats.mean_over_patients(first[:, 0] - second[:, 0])
    return holds(repeats.interval(found, ALPHA, ""), 0.0)


def of_both_resampled(random: Random, luck: float) -> bool | None:
    scores = trainings(random, luck)[0]
    patients = random.multinomial(PATIENTS, np.full(PATIENTS, 1 / PATIENTS), 1000) / PATIENTS
    again = random.multinomial(REPEATS, np.full(REPEATS, 1 / REPEATS), 1000) / REPEATS
    low, high = np.quantile(np.einsum("bp,pr,br->b", patients, scores, again), [ALPHA / 2, 1 - ALPHA / 2])
    return holds((float(low), float(high)), 0.0)


SIZES = (5, 10, 15, 20, 40)
AT = 1
"""The place of 10 among ``SIZES``, at which k is simulated."""
WORTH_SETTINGS = Settings(ALPHA, 1000, SEED)


def learning_curves(shift: float, gain: float) -> Floats:
    """Means of both strategies at ``SIZES``: scratch bends; fine-tuned is it ``shift`` cases on, ``gain`` higher."""
    cases = np.array(SIZES, float)
    return np.stack([0.8 - 0.9 * (cases + shift) ** -0.7 + gain, 0.8 - 0.9 * cases**-0.7])


def of_curves(random: Random, shift: float, gain: float = 0.0, luck: float = 0.0) -> Block:
    """Patients (sd 0.15) who gain unequally (0.03), with a rest (0.04); ``luck`` is what all share in a training."""
    of_patients = random.normal(0, 0.15, (PATIENTS, 1, 1))
    gains = random.normal(0, 0.03, (PATIENTS, 2, 1))
    rest = random.normal(0, 0.04, (PATIENTS, 2, len(SIZES))) + random.normal(0, luck, (2, len(SIZES)))
    values = learning_curves(shift, gain) + of_patients + gains + rest
    return Block("default", "TC", "dice", "1", tuple(NAMES), SIZES, values)


def worth_in_cases(random: Random, shift: float, gain: float = 0.0, luck: float = 0.0) -> bool | None:
    means = learning_curves(shift, gain)
    _, low, high = learning_curve.worth(of_curves(random, shift, gain, luck), WORTH_SETTINGS)
    truth = learning_curve.more_cases(means[None], np.array(SIZES, float))[0, AT]
    return bool(low[AT] <= truth <= high[AT])


def of_branches() -> Iterator[Row]:
    """Intervals of retrained models, and of "pretraining is worth k cases"."""
    for luck in (0.0, 0.3, 1.0):
        how = f"{REPEATS} repeats, training luck {luck:g} of the patients' spread"
        yield Row("mean of a retrained model", how, False, lambda r, luck=luck: of_retrained(r, luck, 1))  # type: ignore[misc]
        yield Row("retrained difference", how, False, lambda r, luck=luck: of_retrained(r, luck, 2))  # type: ignore[misc]
        yield Row("mean of one more training", how, False, lambda r, luck=luck: of_one_more_training(r, luck))  # type: ignore[misc]
    how = f"{REPEATS} repeats, training luck 0.3 of the patients' spread"
    yield Row(
        "difference of these models, taken for that of retrained ones", how, False,
        lambda r: of_this_model(r, 0.3), former=True,
    )  # fmt: skip
    yield Row(
        "former: bootstrap of patients and repeats", how, False, lambda r: of_both_resampled(r, 0.3), former=True
    )  # fmt: skip
    what, at = "pretraining is worth k cases", f"sizes {', '.join(map(str, SIZES))}; at {SIZES[AT]}"
    yield Row(what, f"{at}, 6 cases", False, lambda r: worth_in_cases(r, 6))
    yield Row(what, f"{at}, none: equal curves", False, lambda r: worth_in_cases(r, 0))
    yield Row(what, f"{at}, more than all", False, lambda r: worth_in_cases(r, 6, gain=0.1))
    yield Row(
        "the same, taken for retrained models", f"{at}, 6 cases, training luck 0.02", False,
        lambda r: worth_in_cases(r, 6, luck=0.02), former=True,
    )  # fmt: skip


def training_luck(studies: int) -> str:
    """What the split of variance finds of a known training luck, for ten patients and three repeats."""
    random = generator(SEED, "training luck")
    truth = {"case": 1.0, "case_strategy": 0.09, "training": 0.09, "residual": 0.09}
    found = [repeats.split(np.stack(trainings(random, 0.3), axis=1))[0] for _ in range(studies)]
    table = {name: np.array([one[name] for one in found]) for name in truth}
    words = [
        f"{name.replace('_', ' by ')} {value:g} (mean {table[name].mean():.3f}, quartiles "
        f"{np.quantile(table[name], 0.25):.3f} to {np.quantile(table[name], 0.75):.3f})"
        for name, value in truth.items()
    ]
    unsaid = [learning_curve.doubts(block, *worth_interval(block)) for block in (of_curves(random, 6) for _ in found)]
    return (
        f"Components of variance from {PATIENTS} patients and {REPEATS} repeats, over {studies} studies: "
        f"{', '.join(words)}; the training's is cut at 0 in {np.mean(table['training'] == 0):.0%}. Of as many "
        f"learning curves on which pretraining is worth 6 cases, {np.mean([bool(one) for one in unsaid]):.0%} end in "
        "the sentence that the data cannot say."
    )


def worth_interval(block: Block) -> tuple[float, float]:
    """The limits of k at ``SIZES[AT]``."""
    _, low, high = learning_curve.worth(block, WORTH_SETTINGS)
    return float(low[AT]), float(high[AT])


# --- detection ---------------------------------------------------------------------------------------------------

MODEL_OF = ("default", "finetune")
ALIKE, REACHED, FALSE = 0.4, 0.95, 2.0
"""Of the candidates drawn: how alike a patient's scores are, the share of lesions reached, false ones a case."""


def screened(random: Random, centre: float) -> Hits:
    """One scan each: 4 lesions on average, scores around ``centre``; false ones around 0, variance 3 times mean."""
    of_lesions, of_false = [], []
    for name in NAMES:
        n = random.geometric(1 / 4)
        scores = centre + random.normal(0, np.sqrt(ALIKE)) + random.normal(0, np.sqrt(1 - ALIKE), n)
        reached = np.where(random.random(n) < REACHED, scores, -np.inf)
        of_lesions += [(*MODEL_OF, name, "TC", place, 113.0, 6.0, one) for place, one in enumerate(reached)]
        wrong = random.normal(size=random.negative_binomial(FALSE / 2, 1 / 3))
        of_false += [(*MODEL_OF, name, "TC", place, one, 20.0) for place, one in enumerate(wrong)]
    first = ["arm", "strategy", "case", "region"]
    found = pd.DataFrame(of_lesions, columns=[*first, "lesion", "volume_mm3", "diameter_mm", "score"])
    return Hits(tuple(NAMES), found, pd.DataFrame(of_false, columns=[*first, "candidate", "score", "volume_mm3"]))


def true_sensitivity(rate: float, centre: float) -> float:
    """At the threshold that lets ``rate`` false candidates a case through in the population."""
    if rate >= FALSE:
        return REACHED
    return REACHED * float(stats.norm.sf(stats.norm.isf(rate / FALSE) - centre))


def froc_interval(random: Random, centre: float, at: str) -> bool | None:
    table = froc.table(screened(random, centre), "TC", ALPHA, 500, int(random.integers(2**31)), {}, [froc.ALL_SIZES])
    row = table.set_index("at").loc[at]
    truths = {froc.RATE_TITLES.get(rate, f"{rate:g}"): true_sensitivity(rate, centre) for rate in froc.RATES}
    return holds((row["low"], row["high"]), truths.get(at, float(np.mean(list(truths.values())))))


def froc_percentiles(random: Random, centre: float, rate: float) -> bool | None:
    steps = froc.Steps.of(screened(random, centre), "TC", [froc.ALL_SIZES])
    drawn = steps.replicates([rate], 500, random)["all"][:, 0]
    level = widened(ALPHA, PATIENTS)
    low, high = np.quantile(drawn, [level / 2, 1 - level / 2])
    return holds((float(low), float(high)), true_sensitivity(rate, centre))


def found_by_both(random: Random, share: float, gain: float, patients: int) -> paired_detection.Counts:
    """Found by two models (probit), which share half of what makes a patient, and a lesion, hard."""
    of = np.minimum(random.geometric(1 / 4, patients), 30)
    whose = np.repeat(np.arange(patients), of)
    of_patient, of_lesion = random.normal(0, np.sqrt(ALIKE / 2), patients), random.normal(0, np.sqrt(0.3), of.sum())

    def found(chance: float) -> np.ndarray:
        own = random.normal(0, np.sqrt(ALIKE / 2), patients)[whose] + random.normal(0, np.sqrt(0.3), of.sum())
        return np.asarray(of_patient[whose] + of_lesion + own < stats.norm.ppf(chance))

    def by_patient(marked: np.ndarray) -> Floats:
        return np.bincount(whose, marked, patients).astype(float)

    one, two = found(share + gain), found(share)
    return paired_detection.Counts(
        by_patient(one), by_patient(two), by_patient(one & ~two), by_patient(two & ~one), of.astype(float)
    )


def difference_in_sensitivity(random: Random, share: float, gain: float, patients: int = PATIENTS) -> bool | None:
    settings = Settings(ALPHA, 500, SEED)
    return holds(
        paired_detection.interval(found_by_both(random, share, gain, patients), settings, random, shares=True), gain
    )


def swapped_detections(random: Random, share: float) -> bool:
    counts = found_by_both(random, share, 0.0, PATIENTS)
    return permutation(counts.ours - counts.theirs, "two-sided", ALPHA, random).p_value < ALPHA


def lesions_as_independent(random: Random, share: float) -> bool:
    """McNemar's exact test, which takes each lesion for a patient of its own; the gains of a patient are alike."""
    counts = found_by_both(random, share, 0.0, PATIENTS)
    gained, lost = int(counts.gained.sum()), int(counts.lost.sum())
    return gained + lost > 0 and bool(stats.binomtest(gained, gained + lost).pvalue < ALPHA)


def highest_scores(random: Random, area: float, ill: int, well: int) -> tuple[Floats, Floats]:
    return random.normal(np.sqrt(2) * float(stats.norm.ppf(area)), 1, ill), random.normal(size=well)


def area_under_curve(random: Random, area: float, ill: int, well: int) -> bool | None:
    return holds(auroc_of_patients(*highest_scores(random, area, ill, well), 1 - ALPHA)[1], area)


def delong(random: Random, area: float, ill: int, well: int) -> bool | None:
    one, two = highest_scores(random, area, ill, well)
    pairs = (one[:, None] > two).astype(float)
    half = 1.96 * np.sqrt(pairs.mean(axis=1).var(ddof=1) / ill + pairs.mean(axis=0).var(ddof=1) / well)
    return holds((pairs.mean() - half, pairs.mean() + half), area)


def of_detection() -> Iterator[Row]:
    """FROC, differences at the operating point, and the patient level."""
    what, how = "FROC: sensitivity at {} (effective lesions)", "lesions 0.4 alike, 2 false a case, centre {:g}"
    for at, centre in (("1/4", 1.5), ("1", 1.5), ("4", 1.5), ("1", 2.5), (froc.SCORE, 1.5)):
        yield Row(
            what.format(at), how.format(centre), False,
            lambda r, at=at, centre=centre: froc_interval(r, centre, at),  # type: ignore[misc]
        )  # fmt: skip
    yield Row(
        "former: FROC, percentiles at 4", how.format(1.5), False, lambda r: froc_percentiles(r, 1.5, 4.0), former=True
    )
    what = "difference in sensitivity (bootstrap of patients)"
    for share, gain, n in ((0.7, 0.0, 10), (0.7, 0.15, 10), (0.9, 0.05, 10), (0.7, 0.15, 6), (0.7, 0.15, 25)):
        yield Row(
            what, f"share {share:g}, gain {gain:g}, {n} patients", False,
            lambda r, share=share, gain=gain, n=n: difference_in_sensitivity(r, share, gain, n),  # type: ignore[misc]
        )  # fmt: skip
    for share in (0.7, 0.95):
        yield Row(
            "difference in sensitivity (whole patients swapped)", f"share {share:g}, no gain", True,
            lambda r, share=share: swapped_detections(r, share),  # type: ignore[misc]
        )  # fmt: skip
    yield Row(
        "former: McNemar's test of lesions", "share 0.7, no gain", True, lambda r: lesions_as_independent(r, 0.7),
        former=True,
    )  # fmt: skip
    for area, ill, well in ((0.8, 7, 3), (0.9, 10, 5), (0.9, 10, 10)):
        yield Row(
            "area under the curve of patients", f"area {area:g}, {ill} with and {well} without lesions", False,
            lambda r, area=area, ill=ill, well=well: area_under_curve(r, area, ill, well),  # type: ignore[misc]
        )  # fmt: skip
    yield Row(
        "former: DeLong's normal interval", "area 0.9, 10 with and 5 without lesions", False,
        lambda r: delong(r, 0.9, 10, 5), former=True,
    )  # fmt: skip


# --- calibration and doubt ---------------------------------------------------------------------------------------

GRID = (np.arange(200) + 0.5) / 200
"""Probabilities that a voxel near a lesion is given: often near 0 or 1, as beta(0.3, 0.7)."""
GIVEN = stats.beta(0.3, 0.7).pdf(GRID) / stats.beta(0.3, 0.7).pdf(GRID).sum()
INTO_BINS = np.equal.outer(bins_of(GRID), np.arange(BINS + 1)).astype(float)


@dataclass(frozen=True)
class Voxels:
    """Patients whose voxels' log odds differ from the probability's by ``bias``, and among them (sd) by ``unlike``.

    ``voxels``: of the median patient; ``skew``: sd of the logarithm of their number.
    """

    bias: float
    unlike: float
    voxels: int = 3000
    skew: float = 0.3

    def draw(self, random: Random) -> Floats:
        """Sums of each patient (shape (patients, bins, SUMS)), as ``scoring.calibration`` makes them."""
        n = np.maximum(10, random.lognormal(np.log(self.voxels), self.skew, PATIENTS)).astype(int)
        counts = random.multinomial(n, GIVEN).astype(float)
        shift = random.normal(self.bias, self.unlike, (PATIENTS, 1))
        positive = random.binomial(counts.astype(int), expit(logit(GRID) + shift)).astype(float)
        sums = (counts, counts * GRID, counts * GRID**2, positive * GRID, positive)
        return np.stack([part @ INTO_BINS for part in sums], axis=2)

    @cache  # noqa: B019 - a handful of them, that live as long as the program
    def truth(self) -> Floats:
        """The sums of all patients there could be, for one voxel."""
        shift = self.bias + self.unlike * stats.norm.ppf((np.arange(2000) + 0.5) / 2000)
        share = expit(logit(GRID) + shift[:, None]).mean(axis=0)
        sums = (GIVEN, GIVEN * GRID, GIVEN * GRID**2, GIVEN * share * GRID, GIVEN * share)
        return np.stack([part @ INTO_BINS for part in sums], axis=1)


def calibrated(random: Random, of: Voxels, name: str) -> bool | None:
    found = calibration.scores_with_intervals(of.draw(random), ALPHA, 1000, random)
    truth = {"ece": calibration.ece, "brier": calibration.brier}[name](of.truth())
    return holds((float(found[f"{name}_low"]), float(found[f"{name}_high"])), float(truth))  # type: ignore[arg-type]


def ece_of_percentiles(random: Random, of: Voxels) -> bool | None:
    table = of.draw(random)
    weights = random.multinomial(PATIENTS, np.full(PATIENTS, 1 / PATIENTS), 1000).astype(float)
    low, high = np.quantile(calibration.ece(np.tensordot(weights, table, 1)), [ALPHA / 2, 1 - ALPHA / 2])
    return holds((float(low), float(high)), float(calibration.ece(of.truth())))


def doubt(random: Random, apart: float, alike: float, candidates: float) -> bool | None:
    """Uncertainties of false candidates and of hits, normal and ``apart`` by so many sd, ``alike`` in a patient."""
    of_patient = random.normal(0, np.sqrt(alike), PATIENTS)
    sides = [
        [centre + own + random.normal(0, np.sqrt(1 - alike), random.poisson(candidates)) for own in of_patient]
        for centre in (apart, 0.0)
    ]
    if not all(any(len(values) for values in side) for side in sides):
        return None
    low, high, _ = clustered_auroc_interval(sides[0], sides[1], ALPHA, 1000, random)
    return holds((low, high), float(stats.norm.cdf(apart / np.sqrt(2))))


def of_calibration() -> Iterator[Row]:
    """Brier score, ECE, and the AUROC of doubt."""
    unlike = "patients unlike (0.5 in log odds)"
    cases = {
        "calibrated, patients alike": Voxels(0.0, 0.0),
        f"calibrated on the whole, {unlike}": Voxels(0.0, 0.5),
        f"off by 0.25 in log odds, {unlike}": Voxels(0.25, 0.5),
        f"off by 0.5, {unlike}": Voxels(0.5, 0.5),
        f"off by 0.5, {unlike}, few with most voxels": Voxels(0.5, 0.5, skew=1.0),
    }
    for how, of in cases.items():
        yield Row("ECE (patients resampled, 0 where chance)", how, False, lambda r, of=of: calibrated(r, of, "ece"))  # type: ignore[misc]
    for how, of in list(cases.items())[-2:]:
        yield Row("Brier score (patients resampled)", how, False, lambda r, of=of: calibrated(r, of, "brier"))  # type: ignore[misc]
    how, of = list(cases.items())[1]
    yield Row("former: ECE, plain percentiles", how, False, lambda r: ece_of_percentiles(r, of), former=True)
    for apart, alike, candidates in (
        (0.0, 0.3, 4.0),
        (1.0, 0.3, 4.0),
        (2.5, 0.3, 4.0),
        (1.0, 0.6, 4.0),
        (1.0, 0.3, 1.0),
    ):
        truth = float(stats.norm.cdf(apart / np.sqrt(2)))
        how = f"AUROC {truth:.2f}, correlation {alike}, {candidates:g} of either a patient"
        yield Row(
            "AUROC of doubt (BCa, patients)", how, False,
            lambda r, apart=apart, alike=alike, candidates=candidates: doubt(r, apart, alike, candidates),  # type: ignore[misc]
        )  # fmt: skip


def ece_above_chance(studies: int) -> str:
    """Of a calibrated model: its mean ECE by the number of voxels, and what ``ece_by_chance`` makes of it."""
    shown = []
    for of in (*(Voxels(0.0, 0.0, voxels) for voxels in (30, 300, 3000, 30_000)), Voxels(0.0, 0.5, 30_000)):
        random = generator(SEED, "ece", str(of.voxels), str(of.unlike))
        tables = [of.draw(random) for _ in range(studies)]
        found = [calibration.scores_with_intervals(table, ALPHA, 200, random) for table in tables]
        mean, chance = (np.mean([float(one[name]) for one in found]) for name in ("ece", "ece_by_chance"))  # type: ignore[arg-type]
        shown.append((of.voxels, float(mean), float(chance), float(calibration.ece(of.truth()))))
    alike = ", ".join(f"{ece:.4f} ({chance:.4f}) with {n:,}" for n, ece, chance, _ in shown[:-1])
    _, ece, chance, truth = shown[-1]
    return (
        f"An ECE is above 0 by chance: a calibrated model of {PATIENTS} patients that are alike has a mean ECE of "
        f"{alike} voxels a patient (in brackets the mean of `ece_by_chance`). Where patients are unlike by 0.5 in log "
        f"odds, more voxels do not help: {ece:.4f} ({chance:.4f}) with {shown[-1][0]:,}, where all patients there "
        f"could be have {truth:.4f}."
    )


# --- the declared rule -------------------------------------------------------------------------------------------

RULE_ALPHA, MARGIN = 0.025, 1.0
"""Of the rule that is simulated; the margin is one standard deviation of the patients' differences."""
SHIFT = float(stats.gamma.ppf(0.5, 2)) / 2
"""The Hodges-Lehmann shift of an exponential variable: the median of the mean of two."""


def drawn(random: Random, n: int, shape: str) -> Floats:
    """Differences of standard deviation 1: "normal" ones, or exponential ones with rare large gains or losses.

    Their shift is 0, or with "mean" at the end of ``shape`` their mean.
    """
    if shape == "normal":
        return random.normal(size=n)
    centred = random.exponential(size=n) - (1.0 if shape.endswith("mean") else SHIFT)
    return centred if "gains" in shape else -centred


def answers(values: Floats) -> tuple[str, str]:
    """Verdict and size of the declared rule, as ``decision.decide`` has them for differences in the unit "1"."""
    p_values = {
        name: decision.shifted_p(values, "1", margins * MARGIN, alternative)
        for name, alternative, margins in decision.QUESTIONS
    }
    return decision.verdict_of(p_values, RULE_ALPHA)


def claims(values: Floats, claim: str) -> bool:
    """Whether the rule claims it: superior, superior beyond the margin, no loss of the margin, or equivalence."""
    verdict, size = answers(values)
    if claim == "superior":
        return verdict == "superior"
    if claim == "superior beyond the margin":
        return (verdict, size) == ("superior", decision.BEYOND)
    within = size == decision.WITHIN
    return within if claim == "equivalent" else within or verdict in ("superior", "non-inferior")


def mean_claims(values: Floats, shift: float, random: Random) -> bool:
    """Whether the test of the mean beside the declared one claims that it is above ``shift``."""
    return permutation(values - shift, "greater", RULE_ALPHA, random).p_value <= RULE_ALPHA


def in_sequence(random: Random, n: int, false_from: int) -> bool:
    """Whether any of five correlated endpoints, tested in order, is claimed falsely.

    Those before ``false_from`` truly gain two standard deviations; the others gain nothing.
    """
    shared, own = random.normal(size=(n, 1)), random.normal(size=(n, 5))
    changes = np.sqrt(0.5) * (shared + own) + 2.0 * (np.arange(5) < false_from)
    for place in range(5):
        if decision.shifted_p(changes[:, place], "1", 0.0, "greater") > RULE_ALPHA:
            return False
        if place >= false_from:
            return True
    return False


def any_of_five(random: Random, n: int) -> bool:
    shared, own = random.normal(size=(n, 1)), random.normal(size=(n, 5))
    changes = np.sqrt(0.5) * (shared + own)
    return any(decision.shifted_p(test, "1", 0.0, "greater") <= RULE_ALPHA for test in changes.T)


def of_the_rule() -> Iterator[Row]:
    """Rows whose simulated number is a rate of false claims, each where the truth lies on the edge of the claim."""

    def row(claim: str, truth: float, shape: str, n: int) -> Row:
        how = f"{n} patients, {shape}, truth {truth:g} margins"
        study: Study = lambda random: claims(truth + drawn(random, n, shape), claim)  # noqa: E731
        return Row(f"rule: {claim}", how, True, study, nominal=RULE_ALPHA)

    edges = (
        ("superior", 0.0, "losses"),
        ("not worse by the margin", -MARGIN, "losses"),
        ("equivalent", MARGIN, "gains"),
    )
    for claim, truth, rare in edges:
        for shape, n in product(("normal", f"rare large {rare}"), (6, 10, 20)):
            yield row(claim, truth, shape, n)
        yield row(claim, truth, f"rare large {rare}, of the mean", PATIENTS)
    for shape in ("normal", "rare large losses"):
        yield row("superior beyond the margin", MARGIN, shape, PATIENTS)
    for shape in ("normal", "rare large losses, of the mean"):
        yield Row(
            "beside the rule: mean not worse by the margin", f"{PATIENTS} patients, {shape}, truth -1 margins", True,
            lambda r, shape=shape: mean_claims(drawn(r, PATIENTS, shape) - MARGIN, -MARGIN, r),  # type: ignore[misc]
            nominal=RULE_ALPHA,
        )  # fmt: skip
    for n, false_from in product((6, 10, 20), (0, 2)):
        how = f"{n} patients, five correlated endpoints, the first {false_from} truly gain"
        yield Row(
            "rule: any false superiority in the fixed order", how, True,
            lambda r, n=n, false_from=false_from: in_sequence(r, n, false_from), nominal=RULE_ALPHA,  # type: ignore[misc]
        )  # fmt: skip
    yield Row(
        "former: any of five without order or correction", "10 patients, five correlated endpoints, no gain", True,
        lambda r: any_of_five(r, 10), former=True, nominal=RULE_ALPHA,
    )  # fmt: skip


# --- the table ---------------------------------------------------------------------------------------------------


def simulate(row: Row, draws: int) -> str:
    """The row's line: rate with its Monte Carlo error, and whether the nominal level or coverage is kept."""
    random = generator(SEED, row.what, row.how)
    found = [row.study(random) for _ in range(draws)]
    given = [bool(result) for result in found if result is not None]
    rate = float(np.mean(given))
    error = float(np.sqrt(max(rate * (1 - rate), 1 / len(given)) / len(given)))
    nominal = row.nominal if row.level else 1 - row.nominal
    off = rate - nominal if row.level else nominal - rate
    verdict = "not in use" if row.former else "missed" if off > 2 * error else "kept"
    if len(given) < len(found):
        verdict += f"; none given in {1 - len(given) / len(found):.1%}"
    wanted = f"level {nominal:g}" if row.level else f"coverage {nominal:g}"
    return f"| {row.what} | {row.how} | {wanted} | {rate:.3f} ± {error:.3f} | {verdict} |"


def sample_size(pilots: int) -> str:
    """Of pilot studies of ten patients: how often ``cases_needed`` is given, and the real power of what it asks."""
    random = generator(SEED, "power")
    margin = 0.6
    population = power.centred(random.normal(size=2_000), "1")
    real = {n: power.power(population, n, "superiority", margin, RULE_ALPHA, random) for n in power.SCANNED}
    asked = [
        power.needed(power.centred(random.normal(size=PATIENTS), "1"), "superiority", margin, RULE_ALPHA, random)
        for _ in range(pilots)
    ]
    given = np.array([row["cases_needed"] for row in asked], float)
    numbers = [int(n) for n in given[~np.isnan(given)]]
    powers = [real[n] for n in numbers]
    quartiles, cases = np.quantile(powers, [0.25, 0.5, 0.75]), np.quantile(numbers, [0.25, 0.5, 0.75])
    honest = next(n for n in power.SCANNED if real[n] >= power.TARGET_POWER)
    return (
        f"`cases_needed` makes no promise: of {pilots} pilots of {PATIENTS} patients whose differences vary by one "
        f"standard deviation, for a margin of {margin:g} of it ({honest} cases give 80% power), {len(numbers)} were "
        f"given a number; its quartiles are {cases[0]:.0f}, {cases[1]:.0f} and {cases[2]:.0f}, with a real power of "
        f"{quartiles[0]:.2f}, {quartiles[1]:.2f} and {quartiles[2]:.2f}; "
        f"{np.mean(np.array(powers) >= power.TARGET_POWER):.0%} reach 0.8."
    )


def rows() -> Iterator[Row]:
    """Every row of the table."""
    for part in (tests, intervals, of_detection, of_calibration, of_the_rule):
        yield from part()


def main() -> None:
    """Print the table, and keep it with ``--write``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=4000, help="studies per row")
    parser.add_argument("--pilots", type=int, default=100, help="pilot studies of the sample size")
    parser.add_argument("--write", action="store_true", help=f"keep the table in {RESULTS.name}")
    given = parser.parse_args()
    start = time.perf_counter()
    lines = [
        f"{PATIENTS} patients, {given.draws} studies per row, ± one Monte Carlo standard error; seed {SEED}.",
        "",
        "| test or interval | studies | nominal | simulated | verdict |",
        "|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for row in rows():
        lines.append(simulate(row, given.draws))
        print(lines[-1], flush=True)
    for words in (sample_size(given.pilots), training_luck(given.draws), ece_above_chance(given.pilots)):
        lines += ["", words]
        print(f"\n{words}", flush=True)
    if given.write:
        command = "OMP_NUM_THREADS=1 python benchmarks/coverage.py --write"
        RESULTS.write_text("# Levels and coverage, simulated\n\n" + f"`{command}`\n\n" + "\n".join(lines) + "\n")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
