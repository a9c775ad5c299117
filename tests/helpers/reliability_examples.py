"""Sums by bin as notebook 06 leaves them, of made-up models whose probabilities are too high by a known amount."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from brainmets import tables
from brainmets.scoring.calibration import BINS, COLUMNS
from brainmets.statistics.tables import in_order
from brainmets.vocabulary import REGIONS, ZONES


def example_sums(
    cases: Sequence[str] = ("P1", "P2", "P3", "P4"),
    arms: Sequence[str] = ("default",),
    excess: dict[str, float] | None = None,
) -> pd.DataFrame:
    """Of each bin 100 voxels (and 10,000 of probability 0 in the head) at its middle, the same in every case.

    ``excess``: strategy to what its probabilities are too high by, 0 at the least and at most their own value; the
    reference is the same for all, so that p is moved, within its bin.
    """
    rows = []
    for arm in arms:
        for strategy, much in (excess or {"finetune": 0.0, "scratch": 0.04}).items():
            for case in cases:
                for region in REGIONS:
                    for zone in ZONES:
                        for number in range(BINS + 1):
                            n = 100 if number else {"head": 10_000, "near": 1000}[zone]
                            share = (number - 0.5) / BINS if number else 0.0
                            p, positive = (share + much if number else 0.0), round(n * share)
                            sums = (n, n * p, n * p**2, positive * p, positive)
                            rows.append((arm, strategy, case, region, zone, number, *sums))
    return in_order(pd.DataFrame(rows, columns=list(COLUMNS)))


def write_sums(folder: Path, sums: pd.DataFrame) -> Path:
    """``<arm>/<strategy>/reliability.csv`` below ``folder``."""
    for (arm, strategy), own in sums.groupby(["arm", "strategy"]):
        tables.write(folder / str(arm) / str(strategy) / "reliability.csv", own)
    return folder


def uneven_sums(cases: int = 10, seed: int = 2) -> pd.DataFrame:
    """Cases of unlike size and calibration, to draw figures and intervals of."""
    random = np.random.default_rng(seed)
    table = example_sums([f"P{number:02d}" for number in range(cases)], ("default", "segresnet"))
    size = {case: float(random.lognormal(0, 0.8)) for case in sorted(set(table["case"]))}
    table["n"] = (table["n"] * table["case"].map(size)).round().astype(int) + 1
    middle = (table["bin"] - 0.5).clip(lower=0) / BINS
    more = table["strategy"].map({"finetune": 0.02, "scratch": 0.045}) * (table["bin"] > 0)
    p = middle + more
    shift = {case: float(random.normal(0, 0.6)) for case in size}
    odds = np.log(middle.clip(lower=0.001) / (1 - middle.clip(lower=0.001))) + table["case"].map(shift)
    table["positive"] = (table["n"] / (1 + np.exp(-odds))).round().astype(int)
    table["sum_p"], table["sum_p2"] = table["n"] * p, table["n"] * p**2
    table["sum_p_positive"] = table["positive"] * p
    return table
