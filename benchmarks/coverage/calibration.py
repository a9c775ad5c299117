"""Brier score, expected calibration error, and the AUROC of doubt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit, logit

from benchmarks.coverage.rows import ALPHA, NAMES, PATIENTS, SEED, Part, Random, Row, holds
from brainmets.scoring.calibration import BINS, SUMS, bins_of
from brainmets.statistics import calibration
from brainmets.statistics.comparisons import Settings
from brainmets.statistics.tests import Floats, clustered_auroc_interval, generator

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


def observed_share(random: Random, of: Voxels, place: int) -> bool | None:
    """The band of bin ``place`` in the reliability diagram."""
    table = of.draw(random)
    sums = pd.DataFrame(table.reshape(-1, len(SUMS)), columns=list(SUMS))
    sums = sums.assign(case=np.repeat(NAMES, BINS + 1), bin=np.tile(np.arange(BINS + 1), PATIENTS))
    sums = sums.assign(arm="default", strategy="finetune", region="TC", zone="near")
    row = calibration.reliability_bins(sums, Settings(ALPHA, 1000, int(random.integers(2**31)))).iloc[place]
    truth = of.truth()[place]
    return holds((float(row["low"]), float(row["high"])), float(truth[4] / truth[0]))


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


def rows() -> Iterator[Row]:
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
    yield Row(
        "observed share of a bin (patients resampled)", f"0.4 to 0.5; {how}", False,
        lambda r, of=of: observed_share(r, of, 5),  # type: ignore[misc]
    )  # fmt: skip
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
        f"An ECE is above 0 by chance. Over {studies} studies a calibrated model of {PATIENTS} patients that are "
        f"alike has a mean ECE of {alike} voxels a patient (in brackets the mean of `ece_by_chance`). Where patients "
        f"are unlike by 0.5 in log odds, more voxels do not help: {ece:.4f} ({chance:.4f}) with {shown[-1][0]:,}, "
        f"where all patients there could be have {truth:.4f}."
    )


PART = Part("Probabilities and doubt", rows, ece_above_chance, most=100)
