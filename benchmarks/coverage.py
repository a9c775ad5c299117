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
from itertools import product
from pathlib import Path

import numpy as np
from scipy import stats

from brainmets.review.experts import kappa_interval, weighted_kappa
from brainmets.scoring.intervals import Interval, clopper_pearson, garwood, rate_interval, share_interval
from brainmets.statistics import decision, descriptive, power
from brainmets.statistics.agreement import limits
from brainmets.statistics.tests import (
    Floats,
    cliffs_delta_interval,
    generator,
    hodges_lehmann,
    holm,
    mann_whitney,
    permutation,
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
    for row in (*tests(), *intervals(), *of_the_rule()):
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
