"""The sample size: what number of cases pilot studies ask for, and the power that it really gives."""

from __future__ import annotations

import numpy as np

from benchmarks.coverage.decision import RULE_ALPHA
from benchmarks.coverage.rows import PATIENTS, SEED, Part
from brainmets.statistics import power
from brainmets.statistics.tests import generator


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


PART = Part("Sample size", words=sample_size, most=100)
