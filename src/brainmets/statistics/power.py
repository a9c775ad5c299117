"""How many held-out cases it takes to decide: planned for the margin that would matter, not for the effect seen here.

A case is a patient here: where several scans are of one, the patient counts once. The observed differences tell how
much patients differ, and nothing else is taken from them: they are centred, and shifted to where the question puts the
truth. Cases are drawn from them with replacement, tested as the rule says, and counted. The answer holds if new
patients differ as these do, which a handful of cases cannot promise. Source of resampling for sample size: Collings
and Hamilton, Biometrics 44 (1988) 847-860.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from brainmets.params import Decision
from brainmets.statistics.comparisons import Settings
from brainmets.statistics.decision import differences
from brainmets.statistics.tests import FEW_CASES, NAN, Floats, generator, hodges_lehmann, rounded, sum_distribution

Question = Literal["superiority", "non-inferiority", "equivalence"]
QUESTIONS: dict[Question, float] = {"superiority": 1.0, "non-inferiority": 0.0, "equivalence": 0.0}
"""What is to be shown, and the true difference for which it is planned, in margins."""
POWER_COLUMNS = [
    "question", "metric", "region", "unit", "margin", "true_difference", "alpha", "n_observed",
    "power_at_n_observed", "target_power", "cases_needed", "power_at_cases_needed", "n_simulations", "note",
]  # fmt: skip
TARGET_POWER = 0.8
MOST_CASES = 500
SCANNED = (*range(1, 51), *range(55, 101, 5), *range(120, 201, 20), *range(250, 501, 50))
"""Numbers of cases that are tried, up to ``MOST_CASES``: power is not monotone in n, since the exact test's level is
not, so that a search by halving could stop at a number above which power falls again."""
SIMULATIONS = 1000
EXACT_UP_TO = 50

Draw = npt.NDArray[np.int64]


def cases_needed(
    scores: pd.DataFrame,
    rule: Decision,
    settings: Settings,
    detection: pd.DataFrame | None = None,
    why_no_detection: str = "",
) -> pd.DataFrame:
    """Held-out cases for 80% power to decide the primary endpoint; a row per question, columns ``POWER_COLUMNS``.

    Superiority is planned for a true gain of the margin, non-inferiority and equivalence for no true difference.
    ``cases_needed`` is the number of cases from which on every larger number in ``SCANNED`` reaches the target. It is
    empty, and ``note`` says why, where there is no finite centre, where fewer than five differences are there to draw
    from, where ``MOST_CASES`` do not reach the target, or where there are no differences. Arguments as
    ``decision.decide`` has them.
    """
    found = differences(scores, rule.endpoint, settings, detection, why_no_detection)
    labels = {"metric": rule.endpoint.metric, "region": rule.endpoint.region, "unit": found.unit, "alpha": rule.alpha}
    rows = []
    for question, margins in QUESTIONS.items():
        random = generator(settings.seed, "power", rule.endpoint.metric, rule.endpoint.region)
        row = needed(centred(found.values, found.unit), question, rule.margin, rule.alpha, random)
        note = found.missing or row["note"]
        rows.append({"question": question, **labels, "true_difference": margins * rule.margin, **row, "note": note})
    return pd.DataFrame(rows, columns=POWER_COLUMNS)


def centred(values: Floats, unit: str) -> Floats:
    """The differences less their Hodges-Lehmann shift, so that none is left; empty where it is not finite."""
    shift = hodges_lehmann(values, 0.05)[0]
    return rounded(values - shift, unit) if np.isfinite(shift) else np.empty(0)


def needed(
    differences: Floats, question: Question, margin: float, alpha: float, random: np.random.Generator
) -> dict[str, object]:
    """What one question takes; ``differences`` are centred ones, above 0 where fine-tuned is better, none NaN."""
    n = len(differences)
    row: dict[str, object] = {
        "margin": margin,
        "n_observed": n,
        "power_at_n_observed": NAN,
        "target_power": TARGET_POWER,
        "cases_needed": NAN,
        "power_at_cases_needed": NAN,
        "n_simulations": SIMULATIONS,
    }
    if n < FEW_CASES:
        return {**row, "note": f"{n} observed differences with a finite centre: too few to draw from"}
    row["power_at_n_observed"] = power(differences, n, question, margin, alpha, random)
    cases, reached = None, NAN
    for scanned in reversed([number for number in SCANNED if number <= MOST_CASES]):
        found = power(differences, scanned, question, margin, alpha, random)
        if found < TARGET_POWER:
            break
        cases, reached = scanned, found
    if cases is None:
        return {**row, "note": f"more than {MOST_CASES} cases"}
    return {**row, "cases_needed": cases, "power_at_cases_needed": reached, "note": ""}


def power(
    differences: Floats, n: int, question: Question, margin: float, alpha: float, random: np.random.Generator
) -> float:
    """Share of ``SIMULATIONS`` draws of ``n`` centred ``differences`` in which ``question`` is answered with yes.

    Superiority with a true gain of the margin and non-inferiority without a true difference are one test: of the
    differences and the margin against 0. Equivalence takes it in both directions.
    """
    drawn = random.integers(0, len(differences), (SIMULATIONS, n))
    tie_breaks = random.random(drawn.shape)
    shown = rejects(differences + margin, drawn, tie_breaks, alpha)
    if question == "equivalence":
        shown &= rejects(margin - differences, drawn, tie_breaks, alpha)
    return float(np.mean(shown))


def rejects(differences: Floats, drawn: Draw, tie_breaks: Floats, alpha: float) -> npt.NDArray[np.bool_]:
    """Which of the draws the one-sided signed-rank test (above 0) rejects at ``alpha``.

    ``drawn`` holds places of ``differences``, shape (draws, n). Drawing with replacement repeats values that would
    differ in new cases: such ties are broken by ``tie_breaks``, random in [0, 1), so that the ranks are whole numbers.
    Zeros are ranked first and carry no sign (Pratt). Critical sums are exact up to 50 cases and by the normal
    approximation with continuity correction beyond.
    """
    n = drawn.shape[1]
    size = stats.rankdata(np.abs(differences), method="dense")[drawn]  # 1, 2, ...; a fraction breaks ties
    order = np.argsort(size + tie_breaks, axis=1)
    positive = np.take_along_axis((differences > 0)[drawn], order, axis=1)
    sums = positive @ np.arange(1, n + 1)
    zeros, which = np.unique((differences == 0)[drawn].sum(axis=1), return_inverse=True)
    critical = np.array([critical_sum(n, int(count), alpha) for count in zeros])
    return np.asarray(sums >= critical[which])


@cache
def critical_sum(n: int, zeros: int, alpha: float) -> float:
    """Smallest sum of positive ranks that the test of ``n`` differences, ``zeros`` of them zero, rejects.

    Infinite where no sum is rejected.
    """
    ranks = np.arange(zeros + 1.0, n + 1)
    if n > EXACT_UP_TO:
        return float(ranks.sum() / 2 + 0.5 + stats.norm.isf(alpha) * np.sqrt((ranks**2).sum()) / 2)
    upper = np.cumsum(sum_distribution(ranks)[::-2])[::-1]  # P(sum >= s), s = 0, 1, ...
    rejected = np.flatnonzero(upper <= alpha)
    return float(rejected[0]) if len(rejected) else float("inf")
