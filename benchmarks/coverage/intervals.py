"""The intervals of means, differences, shares of lesions, false positives and agreement."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import stats

from benchmarks.coverage.rows import ALPHA, NAMES, PATIENTS, SEED, Part, Random, Row, holds
from brainmets.review.experts import kappa_interval, weighted_kappa
from brainmets.scoring.intervals import clopper_pearson, garwood, rate_interval, share_interval
from brainmets.statistics import descriptive
from brainmets.statistics.agreement import limits
from brainmets.statistics.tests import Floats, cliffs_delta_interval, generator, hodges_lehmann, permutation


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


def rows() -> Iterator[Row]:
    """Rows whose simulated number is how often an interval holds the truth."""
    normal = "normal differences"
    yield Row(
        "Hodges-Lehmann shift", normal, False,
        lambda r: holds(hodges_lehmann(r.normal(0.5, 1, PATIENTS), ALPHA)[1:3], 0.5),
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


PART = Part("Intervals of scores, lesions and agreement", rows)
