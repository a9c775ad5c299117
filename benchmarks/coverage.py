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
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from brainmets.review.experts import kappa_interval, weighted_kappa
from brainmets.scoring.candidates import Hits
from brainmets.scoring.intervals import (
    Interval,
    auroc,
    clopper_pearson,
    garwood,
    rate_interval,
    share_interval,
)
from brainmets.statistics import descriptive, froc, paired_detection, power
from brainmets.statistics.agreement import limits
from brainmets.statistics.comparisons import Settings
from brainmets.statistics.tests import (
    Floats,
    cliffs_delta_interval,
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
    """A method under one kind of study: ``level`` says whether a rate of rejections or a coverage is simulated."""

    what: str
    how: str
    level: bool
    study: Study
    former: bool = False


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
    yield Row(
        "confirmatory family (Holm): anything named in the answer", nine, True, lambda r: family(r, any_after_holm)
    )
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
    return holds(auroc(*highest_scores(random, area, ill, well), 1 - ALPHA)[1], area)


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


# --- the table ---------------------------------------------------------------------------------------------------


def simulate(row: Row, draws: int) -> str:
    """The row's line: rate with its Monte Carlo error, and whether the nominal level or coverage is kept."""
    random = generator(SEED, row.what, row.how)
    found = [row.study(random) for _ in range(draws)]
    given = [bool(result) for result in found if result is not None]
    rate = float(np.mean(given))
    error = float(np.sqrt(max(rate * (1 - rate), 1 / len(given)) / len(given)))
    nominal = ALPHA if row.level else 1 - ALPHA
    off = rate - nominal if row.level else nominal - rate
    verdict = "not in use" if row.former else "missed" if off > 2 * error else "kept"
    if len(given) < len(found):
        verdict += f"; none given in {1 - len(given) / len(found):.1%}"
    wanted = f"level {nominal:g}" if row.level else f"coverage {nominal:g}"
    return f"| {row.what} | {row.how} | {wanted} | {rate:.3f} ± {error:.3f} | {verdict} |"


def sample_size(pilots: int) -> str:
    """Of pilot studies of ten patients: how often ``cases_needed`` is given, and the real power of what it asks."""
    random = generator(SEED, "power")
    population = random.normal(0.6, 1, 20_000)
    real = {n: power.power(population, n, "greater", ALPHA, random) for n in power.SCANNED}
    asked = [
        power.needed(random.normal(0.6, 1, PATIENTS), "greater", ALPHA, random)["cases_needed"] for _ in range(pilots)
    ]
    numbers = [int(n) for n in asked if not np.isnan(float(n))]  # type: ignore[arg-type]
    powers = [real[n] for n in numbers]
    quartiles, cases = np.quantile(powers, [0.25, 0.5, 0.75]), np.quantile(numbers, [0.25, 0.5, 0.75])
    honest = next(n for n in power.SCANNED if real[n] >= power.TARGET_POWER)
    return (
        f"`cases_needed` makes no promise: of {pilots} pilots of {PATIENTS} patients whose true shift is 0.6 standard "
        f"deviations ({honest} cases give 80% power), {len(numbers)} were given a number; its quartiles are "
        f"{cases[0]:.0f}, {cases[1]:.0f} and {cases[2]:.0f}, with a real power of {quartiles[0]:.2f}, "
        f"{quartiles[1]:.2f} and {quartiles[2]:.2f}; {np.mean(np.array(powers) >= power.TARGET_POWER):.0%} reach 0.8."
    )


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
    for row in (*tests(), *intervals(), *of_detection()):
        lines.append(simulate(row, given.draws))
        print(lines[-1], flush=True)
    lines += ["", sample_size(given.pilots)]
    print("\n".join(lines[-2:]))
    if given.write:
        command = "OMP_NUM_THREADS=1 python benchmarks/coverage.py --write"
        RESULTS.write_text("# Levels and coverage, simulated\n\n" + f"`{command}`\n\n" + "\n".join(lines) + "\n")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
