"""The declared rule: how often each of its answers is false where the truth lies on the edge of the claim."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
from scipy import stats

from benchmarks.coverage.rows import PATIENTS, Part, Random, Row, Study
from brainmets.statistics import decision
from brainmets.statistics.tests import Floats, permutation

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


def rows() -> Iterator[Row]:
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


PART = Part("The declared rule", rows)
