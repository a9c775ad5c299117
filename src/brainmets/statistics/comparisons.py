"""Tests between models: the paper's, the same in the right direction, paired by case, and one model for all arms.

Each row tests one metric in one region, first model against second: fine-tuned against scratch, or arm against arm.
``comparison`` begins with the kind of the test:

- ``paper``: one-sided Mann-Whitney U of pooled values, alternative "greater" for every metric, as the paper ran it;
- ``directed``: the same with the alternative under which the first model is better (HD95: "less");
- ``paired``: Wilcoxon signed-rank on the differences of the same cases;
- ``mixed``: mixed model with a random intercept per case, or a permutation test where that does not fit.

Strategies are compared one-sided, since that fine-tuning helps is the study's hypothesis; arms are compared two-sided
where the paper's own test does not say otherwise, since no arm is expected to win. That fine-tuning makes worse is
tested by the same standard: ``p_worse`` is the paired test the other way round. A metric without a direction
(volumes) is described and not tested. Holm's correction: Scand. J. Stat. 6 (1979) 65-70.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pandas as pd

from brainmets.files import replacing
from brainmets.statistics.comparison_rows import Rows, Settings
from brainmets.statistics.directions import Alternative, better
from brainmets.statistics.signed_rank import difference, mean_difference
from brainmets.statistics.tables import unit_of, values
from brainmets.vocabulary import ARMS, PAPER_METRICS, REGION_ORDER, STRATEGIES, ordered

TEST_COLUMNS = [
    "comparison", "metric", "region", "test", "alternative", "n", "statistic", "p_value", "p_holm", "p_worse",
    "p_worse_holm", "smallest_p", "effect", "effect_low", "effect_high", "note",
]  # fmt: skip

OVER_ARMS = "paired: mean over arms"

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
    "intervals are two-sided; n: values on each side; in paired rows pairs; in mixed rows values or cases; "
    "p_worse: the one-sided paired test the other way round (first is worse) with Holm's correction in its family; "
    "smallest_p: the smallest p that any outcome of the pairs could give"
)


def finetune_vs_scratch(scores: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Fine-tuned against scratch, with the columns ``TEST_COLUMNS``.

    Comparisons: ``paper``, ``directed`` and ``mixed`` over all arms that have both strategies, ``paired: <arm>``, and
    ``paired: mean over arms`` where there are several. ``note`` names the arms that lack one. A table without rows
    where no arm has both.
    """
    rows: list[dict[str, object]] = []
    for metric, region, alternative, table in _tested(scores):
        arms = _arms_with(STRATEGIES, table)
        if not arms:
            continue
        first, second = (table[[(arm, side) for arm in arms]].to_numpy(float) for side in STRATEGIES)
        remarks = _left_out(STRATEGIES, arms, table)
        what = Rows(metric, region, unit_of(scores, metric), settings, table.index, remarks)
        differences = difference(first, second)
        rows += what.unpaired("paper", first, second, "greater")
        rows += what.unpaired("directed", first, second, alternative)
        for place, arm in enumerate(arms):
            rows += what.paired(f"paired: {arm}", "paired", differences[:, place], alternative)
        if len(arms) > 1:
            rows += what.paired(OVER_ARMS, "paired mean", mean_difference(differences), alternative)
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
        for chosen in readings:
            sides = "+".join(chosen)
            complete = _arms_with(chosen, table)
            remarks = _left_out(chosen, complete, table)
            what = Rows(metric, region, unit_of(scores, metric), settings, table.index, remarks)
            block = {arm: table[[(arm, side) for side in chosen]].to_numpy(float) for arm in complete}
            for one, other in permutations(complete, 2):
                pair = f"{one} vs {other}, {sides}"
                rows += what.unpaired(f"paper: {pair}", block[one], block[other], "greater", f"paper {sides}")
                rows += what.unpaired(f"directed: {pair}", block[one], block[other], alternative, f"directed {sides}")
            for one, other in combinations(complete, 2):
                pair = f"{one} vs {other}, " + (sides if len(chosen) == 1 else f"mean of {sides}")
                differences = mean_difference(difference(block[one], block[other]))
                rows += what.paired(f"paired: {pair}", f"paired {sides}", differences, "two-sided")
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
            yield metric, region, alternative, values(scores, metric, region, infinite=True)


def _arms_with(strategies: Sequence[str], table: pd.DataFrame) -> list[str]:
    arms = ordered(table.columns.get_level_values("arm"), ARMS)
    return [arm for arm in arms if all((arm, side) in table.columns for side in strategies)]


def _left_out(strategies: Sequence[str], arms: Sequence[str], table: pd.DataFrame) -> tuple[str, ...]:
    """A remark per arm that lacks one of the strategies: it drops from every comparison, and from the Holm family."""
    others = [arm for arm in ordered(table.columns.get_level_values("arm"), ARMS) if arm not in arms]
    lacking = {arm: [side for side in strategies if (arm, side) not in table.columns] for arm in others}
    return tuple(f"{arm} left out: no scores of {' or '.join(sides)}" for arm, sides in lacking.items())


def _with_holm(rows: list[dict[str, object]], alpha: float) -> pd.DataFrame:
    if not rows:
        return pd.DataFrame(columns=TEST_COLUMNS)
    table = pd.DataFrame(rows).reindex(columns=[*TEST_COLUMNS, "smallest_p_without_zeros", "family"])
    families = table.groupby("family")["p_value"]
    table["p_holm"] = families.transform(lambda p_values: holm(p_values.to_list()))
    table["p_worse_holm"] = table.groupby("family")["p_worse"].transform(lambda p_values: holm(p_values.to_list()))
    _note_hopeless(table, alpha)
    kinds = table["comparison"].map({name: place for place, name in enumerate(dict.fromkeys(table["comparison"]))})
    return table.assign(place=kinds).sort_values("place", kind="stable", ignore_index=True)[TEST_COLUMNS]


def _note_hopeless(table: pd.DataFrame, alpha: float) -> None:
    """Note where no row of a family could survive Holm: already its smallest possible p, times the rows, is alpha."""
    families = table.groupby("family")
    size = families["p_value"].transform("count")
    hopeless = families["smallest_p"].transform("min") * size >= alpha
    zeros = families["smallest_p_without_zeros"].transform("min") * size < alpha
    for few, rows in (("pairs", hopeless & ~zeros), ("non-zero differences", hopeless & zeros)):
        above = table["smallest_p"] >= alpha  # said already
        table.loc[rows & ~above, "note"] += f"; no outcome of so few {few} survives Holm in this family"
