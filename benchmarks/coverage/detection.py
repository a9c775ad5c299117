"""FROC, differences at the operating point, and the patient level."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.coverage.rows import ALPHA, NAMES, PATIENTS, SEED, Part, Random, Row, holds
from brainmets.scoring.candidates import Hits
from brainmets.scoring.intervals import auroc_of_patients
from brainmets.statistics import froc, paired_detection
from brainmets.statistics.comparisons import Settings
from brainmets.statistics.tests import Floats, permutation, widened

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
    settings = Settings(ALPHA, 500, int(random.integers(2**31)))
    table = froc.table(screened(random, centre), "TC", settings, [froc.ALL_SIZES])
    row = table.set_index("at").loc[at]
    truths = {froc.RATE_TITLES.get(rate, f"{rate:g}"): true_sensitivity(rate, centre) for rate in froc.RATES}
    return holds((float(row["low"]), float(row["high"])), truths.get(at, float(np.mean(list(truths.values())))))


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


def false_by_both(random: Random, mean: float, less: float) -> paired_detection.Counts:
    """False positives a case of two models, ``mean`` and ``mean - less``, half of the mean in common.

    Each part is negative binomial with a variance of 3 times its mean.
    """

    def part(of: float) -> Floats:
        return random.negative_binomial(of / 2, 1 / 3, PATIENTS).astype(float) if of else np.zeros(PATIENTS)

    common = part(mean / 2)
    ours, theirs = common + part(mean / 2), common + part(mean / 2 - less)
    return paired_detection.Counts(
        ours, theirs, np.maximum(ours - theirs, 0), np.maximum(theirs - ours, 0), np.ones(PATIENTS)
    )


def difference_in_false_positives(random: Random, mean: float, less: float) -> bool | None:
    counts, settings = false_by_both(random, mean, less), Settings(ALPHA, 500, SEED)
    return holds(paired_detection.interval(counts, settings, random, shares=False), less)


def swapped_false_positives(random: Random, mean: float) -> bool:
    counts = false_by_both(random, mean, 0.0)
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


def rows() -> Iterator[Row]:
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
    what = "difference in false positives (bootstrap of patients)"
    for mean, less in ((2.0, 0.0), (2.0, 1.0), (0.5, 0.0)):
        yield Row(
            what, f"mean {mean:g} and {mean - less:g}, variance 3 times the mean", False,
            lambda r, mean=mean, less=less: difference_in_false_positives(r, mean, less),  # type: ignore[misc]
        )  # fmt: skip
    yield Row(
        "difference in false positives (whole patients swapped)", "mean 2 and 2, variance 3 times the mean", True,
        lambda r: swapped_false_positives(r, 2.0),
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


PART = Part("Candidates and the operating point", rows)
