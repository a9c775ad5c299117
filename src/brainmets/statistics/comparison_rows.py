"""The rows of a table of tests: one metric in one region, first model against second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from brainmets.statistics.descriptive import generator
from brainmets.statistics.directions import Alternative, rounded
from brainmets.statistics.mixed_model import contrast
from brainmets.statistics.signed_rank import SignedRank, hodges_lehmann, wilcoxon
from brainmets.statistics.unpaired import cliffs_delta, cliffs_delta_interval, mann_whitney
from brainmets.vocabulary import PAPER_METRICS

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """What every test is told: level, bootstrap resamples, and the seed that all random draws start from."""

    alpha: float
    n_bootstrap: int
    seed: int


@dataclass(frozen=True)
class Rows:
    """Makes the rows of one metric in one region.

    ``first`` and ``second`` have shape (cases, values per case); NaN is an undefined value, an infinite one the worst.
    ``remarks`` stand in the note of every row.
    """

    metric: str
    region: str
    unit: str
    settings: Settings
    cases: pd.Index
    remarks: tuple[str, ...] = ()

    def unpaired(
        self, comparison: str, first: Floats, second: Floats, alternative: Alternative, family: str = ""
    ) -> list[dict[str, object]]:
        """Of all values of both sides as if they were independent."""
        ours, theirs = first[~np.isnan(first)], second[~np.isnan(second)]
        statistic, p_value, method = mann_whitney(ours, theirs, alternative)
        notes = self._left_out(~np.isnan(first) & ~np.isnan(second))
        if len(ours) != len(theirs):
            notes.append(f"{len(ours)} values against {len(theirs)}")
        shared = f"{len(first)} cases on both sides"
        if first.shape[1] > 1:
            shared += f", {first.shape[1]} values each"
        notes.append(f"{shared}, taken as independent")
        low, high, remarks = cliffs_delta_interval(
            first, second, self.settings.alpha, self.settings.n_bootstrap, self._random(comparison)
        )
        row = {
            "test": f"Mann-Whitney U, {method}",
            "alternative": alternative,
            "n": min(len(ours), len(theirs)),
            "statistic": statistic,
            "p_value": p_value,
            "effect": cliffs_delta(ours, theirs),
            "effect_low": low,
            "effect_high": high,
        }
        return [self._row(comparison, family or comparison, row, [*notes, *remarks])]

    def paired(
        self, comparison: str, family: str, differences: Floats, alternative: Alternative
    ) -> list[dict[str, object]]:
        """Of ``differences`` of shape (cases,), first minus second; infinite ones are ranked as the largest."""
        defined = ~np.isnan(differences)
        kept = rounded(differences[defined], self.unit)
        result = wilcoxon(kept, alternative)
        shift, low, high, coverage = hodges_lehmann(kept, self.settings.alpha)
        notes = [*self._left_out(defined), f"{result.zeros} zero and {result.tied} tied differences"]
        if np.isinf(differences).any():
            notes.append(f"infinite difference ranked as the largest: {self._named(np.isinf(differences))}")
        notes += self._outcomes(result, alternative)
        if result.n == 1:
            notes.append("one pair: no interval")
        elif coverage < 1 - self.settings.alpha:
            notes.append(f"widest interval that {result.n} pairs allow; it covers {coverage:.1%}")
        row = {
            "test": "Wilcoxon signed-rank, " + ("exact" if result.exact else "normal approximation"),
            "alternative": alternative,
            "n": result.n,
            "statistic": result.statistic,
            "p_value": result.p_value,
            "p_worse": result.p_opposite,
            "smallest_p": result.smallest_p,
            "smallest_p_without_zeros": without_zeros(result.n, alternative),
            "effect": shift,
            "effect_low": low,
            "effect_high": high,
        }
        return [self._row(comparison, family, row, notes)]

    def mixed(
        self, comparison: str, first: Floats, second: Floats, alternative: Alternative
    ) -> list[dict[str, object]]:
        """Of the pairs with two finite values: a mean cannot hold an infinite one."""
        finite = np.isfinite(first) & np.isfinite(second)
        notes = [*self._left_out(~np.isnan(first) & ~np.isnan(second)), *_infinite(first, second)]
        first, second = np.where(finite, first, np.nan), np.where(finite, second, np.nan)
        table = pd.DataFrame(
            {
                "case": np.tile(np.repeat(self.cases.to_numpy(), first.shape[1]), 2),
                "other": np.tile(np.arange(first.shape[1]), 2 * len(first)),
                "first": np.repeat([True, False], first.size),
                "value": np.concatenate([first.ravel(), second.ravel()]),
            }
        ).dropna()
        settings = self.settings
        result = contrast(table, alternative, settings.alpha, settings.n_bootstrap, self._random(comparison))
        row = {
            "test": result.test,
            "alternative": alternative,
            "n": result.n,
            "statistic": result.statistic,
            "p_value": result.p_value,
            "effect": result.estimate,
            "effect_low": result.low,
            "effect_high": result.high,
        }
        return [self._row(comparison, "mixed", row, [*notes, result.note])]

    def _outcomes(self, result: SignedRank, alternative: Alternative) -> list[str]:
        """What the number of pairs alone says about p."""
        alpha = self.settings.alpha
        if result.n == 0:
            return ["no pair with both values defined"]
        if result.zeros == result.n:
            return ["every difference is zero: p is 1"]
        if result.smallest_p < alpha:
            return []
        few = "pairs" if without_zeros(result.n, alternative) >= alpha else "non-zero differences"
        return [f"no outcome of so few {few} falls below alpha: the smallest p is {result.smallest_p:.3g}"]

    def _row(self, comparison: str, family: str, row: dict[str, object], notes: Sequence[str]) -> dict[str, object]:
        group = "paper's metrics" if self.metric in PAPER_METRICS else "other metrics"
        return {
            "comparison": comparison,
            "metric": self.metric,
            "region": self.region,
            **row,
            "note": "; ".join(note for note in (*notes, *self.remarks) if note),
            "family": f"{family}, {group}",
        }

    def _left_out(self, defined: npt.NDArray[np.bool_]) -> list[str]:
        names = self._named(~defined)
        return [f"undefined value in {names}"] if names else []

    def _named(self, marked: npt.NDArray[np.bool_]) -> str:
        return ", ".join(str(case) for case, mark in zip(self.cases, marked, strict=True) if np.any(mark))

    def _random(self, comparison: str) -> np.random.Generator:
        pair = comparison.removeprefix("paper").removeprefix("directed")
        return generator(self.settings.seed, pair, self.metric, self.region)


def without_zeros(n: int, alternative: Alternative) -> float:
    """The smallest p of ``n`` pairs of which no difference is zero."""
    return min(1.0, (2 if alternative == "two-sided" else 1) * 0.5**n)


def _infinite(first: Floats, second: Floats) -> list[str]:
    """Which side has infinite values that a mean leaves out, and whom that favours."""
    ours, theirs = int(np.isinf(first).sum()), int(np.isinf(second).sum())
    if ours == theirs == 0:
        return []
    favoured = "neither" if ours == theirs else "the first" if ours > theirs else "the second"
    return [f"infinite and left out: {ours} of the first side and {theirs} of the second, which favours {favoured}"]
