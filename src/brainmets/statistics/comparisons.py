"""Tests between models: the paper's, the same in the right direction, paired by case, and one model for all arms.

Each row tests one metric in one region, first model against second: fine-tuned against scratch, or arm against arm.
``comparison`` begins with the kind of the test:

- ``paper``: one-sided Mann-Whitney U of pooled values, alternative "greater" for every metric, as the paper ran it;
- ``directed``: the same with the alternative under which the first model is better (HD95: "less");
- ``paired``: Wilcoxon signed-rank on the differences of the same cases;
- ``mixed``: mixed model with a random intercept per case, or a permutation test where that does not fit.

Strategies are compared one-sided, since that fine-tuning helps is the study's hypothesis; arms are compared two-sided
where the paper's own test does not say otherwise, since no arm is expected to win. A metric without a direction
(volumes) is described and not tested. Holm's correction: Scand. J. Stat. 6 (1979) 65-70.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from brainmets.atomic import replacing
from brainmets.statistics.descriptive import generator
from brainmets.statistics.directions import PAPER_METRICS, Alternative, better, rounded
from brainmets.statistics.mixed_model import contrast
from brainmets.statistics.score_tables import ARMS, REGION_ORDER, STRATEGIES, ordered, unit_of, values
from brainmets.statistics.signed_rank import hodges_lehmann, wilcoxon
from brainmets.statistics.unpaired import cliffs_delta, cliffs_delta_interval, mann_whitney

TEST_COLUMNS = [
    "comparison", "metric", "region", "test", "alternative", "n", "statistic", "p_value", "p_holm", "effect",
    "effect_low", "effect_high", "note",
]  # fmt: skip

FAMILY_STRATEGIES = (
    "Holm family: all rows of this table with the same kind of comparison (paper; directed; paired per arm with all "
    "arms together; paired mean over arms; mixed) within the paper's four metrics (dice hd95 sensitivity specificity) "
    "or within the other metrics; every region counts; a row without a p-value does not"
)
FAMILY_ARMS = (
    "Holm family: all rows of this table with the same kind of comparison and the same strategies (all pairs of arms "
    "together) within the paper's four metrics (dice hd95 sensitivity specificity) or within the other metrics; "
    "every region counts; a row without a p-value does not"
)
READING = (
    "effect: Cliff's delta in paper and directed rows (interval by resampling cases); Hodges-Lehmann shift in paired "
    "rows and model coefficient or mean difference in mixed rows - both first minus second in the metric's unit; "
    "intervals are two-sided; n: values on each side; in paired rows pairs; in mixed rows values or cases"
)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """What every test is told: level, bootstrap resamples, and the seed that all random draws start from."""

    alpha: float
    n_bootstrap: int
    seed: int


def finetune_vs_scratch(scores: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Fine-tuned against scratch, with the columns ``TEST_COLUMNS``.

    Comparisons: ``paper``, ``directed`` and ``mixed`` over all arms that have both strategies, ``paired: <arm>``, and
    ``paired: mean over arms`` where there are several. A table without rows where no arm has both.
    """
    rows: list[dict[str, object]] = []
    for metric, region, alternative, table in _tested(scores):
        arms = _arms_with(STRATEGIES, table)
        if not arms:
            continue
        first, second = (table[[(arm, side) for arm in arms]].to_numpy(float) for side in STRATEGIES)
        what = _Rows(metric, region, unit_of(scores, metric), settings, table.index)
        rows += what.unpaired("paper", first, second, "greater")
        rows += what.unpaired("directed", first, second, alternative)
        for place, arm in enumerate(arms):
            rows += what.paired(f"paired: {arm}", "paired", first[:, place] - second[:, place], alternative)
        if len(arms) > 1:
            rows += what.paired("paired: mean over arms", "paired mean", (first - second).mean(axis=1), alternative)
        rows += what.mixed("mixed", first, second, alternative)
    return _with_holm(rows, settings.alpha)


def arms_pairwise(scores: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Arm against arm, with the columns ``TEST_COLUMNS``.

    ``comparison`` is ``<kind>: <first> vs <second>, <strategies>``. ``paper`` and ``directed`` take every ordered pair
    (as in the paper: the first is hypothesised to be better), with the strategies pooled and each alone, since the
    paper does not say which; ``paired`` (each strategy, and the mean over both) and ``mixed`` take every pair once,
    two-sided. A table without rows where there is one arm.
    """
    rows: list[dict[str, object]] = []
    strategies = ordered(scores["strategy"], STRATEGIES)
    readings = [strategies, *([strategy] for strategy in strategies)] if len(strategies) > 1 else [strategies]
    for metric, region, alternative, table in _tested(scores):
        what = _Rows(metric, region, unit_of(scores, metric), settings, table.index)
        for chosen in readings:
            sides = "+".join(chosen)
            complete = _arms_with(chosen, table)
            block = {arm: table[[(arm, side) for side in chosen]].to_numpy(float) for arm in complete}
            for one, other in permutations(complete, 2):
                pair = f"{one} vs {other}, {sides}"
                rows += what.unpaired(f"paper: {pair}", block[one], block[other], "greater", f"paper {sides}")
                rows += what.unpaired(f"directed: {pair}", block[one], block[other], alternative, f"directed {sides}")
            for one, other in combinations(complete, 2):
                pair = f"{one} vs {other}, " + (sides if len(chosen) == 1 else f"mean of {sides}")
                difference = (block[one] - block[other]).mean(axis=1)
                rows += what.paired(f"paired: {pair}", f"paired {sides}", difference, "two-sided")
                if chosen == strategies:
                    rows += what.mixed(f"mixed: {one} vs {other}, {sides}", block[one], block[other], "two-sided")
    return _with_holm(rows, settings.alpha)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given; NaN stays NaN and does not count in the family."""
    adjusted = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    by_size = known[np.argsort(np.asarray(p_values)[known], kind="stable")]
    running = 0.0
    for place, index in enumerate(by_size):
        running = max(running, min(1.0, (len(by_size) - place) * p_values[index]))
        adjusted[index] = running
    return [float(value) for value in adjusted]


def write_tests(path: Path, table: pd.DataFrame, family: str) -> Path:
    """Write a table of tests; ``# `` lines under the column names state the Holm family and how to read the columns.

    ``pandas.read_csv(path, comment="#")`` skips them; ``read_tests`` does so. They hold no comma, so that a reader
    that knows no comments still finds the columns.
    """
    statements = "".join(f"# {line.replace(',', ';')}\n" for line in (family, READING))
    header, _, body = table.to_csv(index=False).partition("\n")
    with replacing(path) as aside:
        aside.write_text(f"{header}\n{statements}{body}", encoding="utf-8")
    return path


def read_tests(path: Path) -> pd.DataFrame:
    """Read what ``write_tests`` wrote; ``note`` is text, never NaN."""
    return pd.read_csv(path, comment="#").fillna({"note": ""})


def _tested(scores: pd.DataFrame) -> Iterator[tuple[str, str, Alternative, pd.DataFrame]]:
    metrics = ordered(scores["metric"], PAPER_METRICS)
    for metric in metrics:
        alternative = better(metric)
        if alternative is None:
            continue
        for region in ordered(scores.loc[scores["metric"] == metric, "region"], REGION_ORDER):
            yield metric, region, alternative, values(scores, metric, region)


def _arms_with(strategies: Sequence[str], table: pd.DataFrame) -> list[str]:
    arms = ordered(table.columns.get_level_values("arm"), ARMS)
    return [arm for arm in arms if all((arm, side) in table.columns for side in strategies)]


@dataclass(frozen=True)
class _Rows:
    """Makes the rows of one metric in one region; first and second have shape (cases, values per case)."""

    metric: str
    region: str
    unit: str
    settings: Settings
    cases: pd.Index

    def unpaired(
        self, comparison: str, first: Floats, second: Floats, alternative: Alternative, family: str = ""
    ) -> list[dict[str, object]]:
        ours, theirs = first[np.isfinite(first)], second[np.isfinite(second)]
        statistic, p_value, method = mann_whitney(ours, theirs, alternative)
        notes = self._left_out(np.isfinite(first) & np.isfinite(second))
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
        defined = np.isfinite(differences)
        kept = rounded(differences[defined], self.unit)
        result = wilcoxon(kept, alternative)
        shift, low, high, coverage = hodges_lehmann(kept, self.settings.alpha)
        notes = [*self._left_out(defined), f"{result.zeros} zero and {result.tied} tied differences"]
        if result.n == 0:
            notes.append("no pair with both values defined")
        elif result.zeros == result.n:
            notes.append("every difference is zero: p is 1")
        elif result.smallest_p >= self.settings.alpha:
            notes.append(f"no outcome of so few pairs falls below alpha: the smallest p is {result.smallest_p:.3g}")
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
            "effect": shift,
            "effect_low": low,
            "effect_high": high,
            "smallest_p": result.smallest_p,
        }
        return [self._row(comparison, family, row, notes)]

    def mixed(
        self, comparison: str, first: Floats, second: Floats, alternative: Alternative
    ) -> list[dict[str, object]]:
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
        notes = [*self._left_out(np.isfinite(first) & np.isfinite(second)), result.note]
        return [self._row(comparison, "mixed", row, notes)]

    def _row(self, comparison: str, family: str, row: dict[str, object], notes: Sequence[str]) -> dict[str, object]:
        group = "paper's metrics" if self.metric in PAPER_METRICS else "other metrics"
        return {
            "comparison": comparison,
            "metric": self.metric,
            "region": self.region,
            **row,
            "note": "; ".join(note for note in notes if note),
            "family": f"{family}, {group}",
        }

    def _left_out(self, defined: npt.NDArray[np.bool_]) -> list[str]:
        names = [str(case) for case, kept in zip(self.cases, defined, strict=True) if not np.all(kept)]
        return [f"undefined value in {', '.join(names)}"] if names else []

    def _random(self, comparison: str) -> np.random.Generator:
        pair = comparison.removeprefix("paper").removeprefix("directed")
        return generator(self.settings.seed, pair, self.metric, self.region)


def _with_holm(rows: list[dict[str, object]], alpha: float) -> pd.DataFrame:
    if not rows:
        return pd.DataFrame(columns=TEST_COLUMNS)
    table = pd.DataFrame(rows).reindex(columns=[*TEST_COLUMNS, "smallest_p", "family"])
    families = table.groupby("family")["p_value"]
    table["p_holm"] = families.transform(lambda p_values: holm(p_values.to_list()))
    extreme = table["smallest_p"] * families.transform("count")
    hopeless = (table["smallest_p"] < alpha) & (extreme >= alpha)
    table.loc[hopeless, "note"] += "; no outcome of so few pairs survives Holm in this family"
    kinds = table["comparison"].map({name: place for place, name in enumerate(dict.fromkeys(table["comparison"]))})
    return table.assign(place=kinds).sort_values("place", kind="stable", ignore_index=True)[TEST_COLUMNS]
