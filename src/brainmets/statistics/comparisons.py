"""Tests between models: the paper's, the same in the right direction, paired by case, and one model for all arms.

Each row tests one metric in one region, a first side against a second: fine-tuned against scratch, or arm against arm.
``kind`` is the test:

- ``paper``: one-sided Mann-Whitney U of pooled values, alternative "greater" for every metric, as the paper ran it;
- ``directed``: the same with the alternative under which the first side is better (HD95: "less");
- ``paired``: Wilcoxon signed-rank on the differences of the same cases;
- ``mixed``: mixed model with a random intercept per case, or a permutation test where that does not fit.

``first`` and ``second`` are the arms of the two sides, ``strategies`` is how these were trained: "finetune vs scratch"
(the first side fine-tuned, the second from scratch), or "finetune", "scratch" or "finetune+scratch", on both sides.
In place of an arm is "all arms" where the arms' values are pooled, and "mean over arms" where each case counts once,
with its mean; a paired test of "finetune+scratch" takes the mean of a case's two values in the same way.

``family`` says what a row may carry. One family is *confirmatory*, declared before any data: paired, on the mean over
arms (the arm itself where there is one), one-sided towards fine-tuning being better, ``CONFIRMATORY_METRICS`` on ET, TC
and WT, corrected by Holm over these nine. It is the family that the paper's authors chose when they published paired
tests of their own. Every other row is *exploratory*: corrected within its own block at most, it can raise a question
and answers none. So is ``p_worse`` in every row, the paired test the other way round: it describes harm.

Arms are compared two-sided where the paper's own test does not say otherwise, since no arm is expected to win. A metric
without a direction (volumes) is described and not tested; nor is the resection cavity, which no network has an output
for: every arm scores the same there whatever it has learnt, so that a test of it would only cost the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from brainmets.files import replacing
from brainmets.statistics.mixed_model import contrast
from brainmets.statistics.tables import unit_of, values
from brainmets.statistics.tests import (
    Floats,
    SignedRank,
    cliffs_delta,
    cliffs_delta_interval,
    difference,
    generator,
    hodges_lehmann,
    holm,
    mann_whitney,
    mean_difference,
    rounded,
    smallest_p,
    wilcoxon,
)
from brainmets.vocabulary import (
    ARMS,
    COMPARED_STRATEGIES,
    PAPER_METRICS,
    REGION_ORDER,
    REGIONS,
    RESECTION_CAVITY,
    Alternative,
    better,
    ordered,
)

COMPARED = ["kind", "first", "second", "strategies"]
TEST_COLUMNS = [
    *COMPARED, "family", "metric", "region", "test", "alternative", "n", "statistic", "p_value", "p_holm", "p_worse",
    "p_worse_holm", "smallest_p", "effect", "effect_low", "effect_high", "note",
]  # fmt: skip
ALL_ARMS, MEAN_OVER_ARMS = "all arms", "mean over arms"
AGAINST_SCRATCH = " vs ".join(COMPARED_STRATEGIES)
BOTH_STRATEGIES = "+".join(COMPARED_STRATEGIES)

CONFIRMATORY, EXPLORATORY = "confirmatory", "exploratory"
CONFIRMATORY_METRICS = ("dice", "hd95", "sensitivity")
CONFIRMATORY_TESTS = len(CONFIRMATORY_METRICS) * len(REGIONS)

FAMILY_STRATEGIES = (
    "confirmatory family: the paired rows of the mean over arms (of the arm where there is one) for dice hd95 and "
    "sensitivity on ET TC and WT; one-sided towards better; Holm over these nine. All other rows are exploratory: Holm "
    "within the rows of the same kind (paired per arm with all arms together) and within the paper's four metrics "
    "(dice hd95 sensitivity specificity) or within the other metrics; RC is described and not tested"
)
FAMILY_ARMS = (
    "all rows are exploratory: Holm within the rows of the same kind and the same strategies (all pairs of arms "
    "together) and within the paper's four metrics (dice hd95 sensitivity specificity) or within the other metrics; "
    "a row without a p-value does not count; RC is described and not tested"
)
READING = (
    "effect: Cliff's delta in paper and directed rows (interval by resampling cases); Hodges-Lehmann shift in paired "
    "rows and model coefficient or mean difference in mixed rows - both first minus second in the metric's unit; "
    "intervals are two-sided; n: values on each side; in paired rows pairs; in mixed rows values or cases; "
    "p_worse: the one-sided paired test the other way round (first is worse) with Holm's correction over the same rows "
    "- exploratory in every row; "
    "smallest_p: the smallest p that any outcome of the pairs could give"
)


@dataclass(frozen=True)
class Settings:
    """What every test needs: level, bootstrap resamples, and the seed that all random draws start from."""

    alpha: float
    n_bootstrap: int
    seed: int


@dataclass(frozen=True)
class Sides:
    """The two sides of a comparison in one metric and region.

    ``ours`` and ``theirs``, the first side's values and the second's, have shape (cases, values per case) in ``unit``;
    NaN is an undefined value, an infinite one the worst. ``remarks`` are part of every row's note.
    """

    first: str
    second: str
    strategies: str
    metric: str
    region: str
    unit: str
    cases: pd.Index
    ours: Floats
    theirs: Floats
    remarks: tuple[str, ...] = ()

    @property
    def better(self) -> Alternative:
        """The alternative under which the first side is the better one."""
        return better(self.metric) or "two-sided"

    @property
    def differences(self) -> Floats:
        """First minus second, one per case (the mean of its values'), rounded; NaN where a value is undefined."""
        return rounded(mean_difference(difference(self.ours, self.theirs)), self.unit)

    def of_arm(self, place: int, arm: str) -> Sides:
        """The arm at ``place`` among the values of each case."""
        return replace(self, first=arm, second=arm, ours=self.ours[:, [place]], theirs=self.theirs[:, [place]])

    def named(self, marked: npt.NDArray[np.bool_]) -> str:
        """The cases for which ``marked`` (cases first) is true anywhere."""
        return ", ".join(str(case) for case, mark in zip(self.cases, marked, strict=True) if np.any(mark))

    def undefined(self) -> list[str]:
        """A remark that names the cases with an undefined value; an empty list without one."""
        names = self.named(np.isnan(self.ours) | np.isnan(self.theirs))
        return [f"undefined value in {names}"] if names else []

    def random(self, settings: Settings, kind: str = "") -> np.random.Generator:
        """The generator of this comparison's random draws: one for ``paper`` and ``directed``, one for ``mixed``."""
        name = kind if self.first == ALL_ARMS else f"{kind}: {self.first} vs {self.second}, {self.strategies}"
        return generator(settings.seed, name, self.metric, self.region)

    def labels(self, kind: str) -> dict[str, object]:
        """The columns that say what a row compares."""
        return {
            "kind": kind,
            "first": self.first,
            "second": self.second,
            "strategies": self.strategies,
            "family": EXPLORATORY,
            "metric": self.metric,
            "region": self.region,
        }

    def note(self, remarks: Sequence[str]) -> str:
        """The remarks of a row, and those that every row of these sides has."""
        return "; ".join(remark for remark in (*remarks, *self.remarks) if remark)


# --- the two tables ----------------------------------------------------------------------------------------------


def finetune_vs_scratch(scores: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Fine-tuned against scratch, with the columns ``TEST_COLUMNS``.

    ``paper``, ``directed`` and ``mixed`` run over all arms that have both strategies, ``paired`` over each arm, and
    over the mean of the arms where there are several. ``note`` names the arms that lack a strategy. The confirmatory
    rows are nine (see the module), fewer only where the scores lack a metric or region of them, which ``note`` says. A
    table without rows where no arm has both.
    """
    rows: list[dict[str, object]] = []
    for pooled, paired_sides in against_scratch(scores):
        rows += [unpaired(pooled, "paper", "greater", settings), unpaired(pooled, "directed", pooled.better, settings)]
        rows += [paired(sides, sides.better, settings) for sides in paired_sides[:-1]]
        rows.append({**paired(paired_sides[-1], pooled.better, settings), "family": _family(pooled)})
        rows.append(mixed(pooled, pooled.better, settings))
    return _with_holm(rows, settings.alpha)


def _family(sides: Sides) -> str:
    """The family of the paired test over all arms."""
    declared = sides.metric in CONFIRMATORY_METRICS and sides.region in REGIONS
    return CONFIRMATORY if declared else EXPLORATORY


def against_scratch(scores: pd.DataFrame) -> Iterator[tuple[Sides, list[Sides]]]:
    """Per tested metric and region: all arms pooled, and each arm; where there are several, at last their mean."""
    for metric, region, table in _tested(scores):
        arms = _arms_with(COMPARED_STRATEGIES, table)
        if not arms:
            continue
        ours, theirs = (table[[(arm, side) for arm in arms]].to_numpy(float) for side in COMPARED_STRATEGIES)
        remarks = _left_out(COMPARED_STRATEGIES, arms, table)
        what = (AGAINST_SCRATCH, metric, region, unit_of(scores, metric), table.index, ours, theirs, remarks)
        pooled = Sides(ALL_ARMS, ALL_ARMS, *what)
        mean = [Sides(MEAN_OVER_ARMS, MEAN_OVER_ARMS, *what)] if len(arms) > 1 else []
        yield pooled, [pooled.of_arm(place, arm) for place, arm in enumerate(arms)] + mean


def arms_pairwise(scores: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Arm against arm, with the columns ``TEST_COLUMNS``.

    ``paper`` and ``directed`` take every ordered pair (as in the paper: the first is hypothesised to be better), with
    the strategies pooled and each alone, since the paper does not say which; ``paired`` (each strategy, and the mean
    over both) and ``mixed`` (both) take every pair once, two-sided. A table without rows where there is one arm.
    """
    rows: list[dict[str, object]] = []
    strategies = ordered(scores["strategy"], COMPARED_STRATEGIES)
    readings = [strategies, *([strategy] for strategy in strategies)] if len(strategies) > 1 else [strategies]
    for metric, region, table in _tested(scores):
        for chosen in readings:
            arms = _arms_with(chosen, table)
            block = {arm: table[[(arm, side) for side in chosen]].to_numpy(float) for arm in arms}
            what = ("+".join(chosen), metric, region, unit_of(scores, metric), table.index)
            remarks = _left_out(chosen, arms, table)
            pairs = {(one, two): Sides(one, two, *what, block[one], block[two], remarks)
                     for one, two in permutations(arms, 2)}  # fmt: skip
            for sides in pairs.values():
                rows.append(unpaired(sides, "paper", "greater", settings))
                rows.append(unpaired(sides, "directed", sides.better, settings))
            for pair in combinations(arms, 2):
                rows.append(paired(pairs[pair], "two-sided", settings))
                if chosen == strategies:
                    rows.append(mixed(pairs[pair], "two-sided", settings))
    return _with_holm(rows, settings.alpha)


def _tested(scores: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Metric, region and their values, for every metric with a direction, the paper's first, and every region that
    the networks have an output for."""
    tested = scores[scores["region"] != RESECTION_CAVITY]
    for metric in ordered(tested["metric"], PAPER_METRICS):
        if better(metric) is not None:
            for region in ordered(tested.loc[tested["metric"] == metric, "region"], REGION_ORDER):
                yield metric, region, values(scores, metric, region, infinite=True)


def _arms_with(strategies: Sequence[str], table: pd.DataFrame) -> list[str]:
    arms = ordered(table.columns.get_level_values("arm"), ARMS)
    return [arm for arm in arms if all((arm, side) in table.columns for side in strategies)]


def _left_out(strategies: Sequence[str], arms: Sequence[str], table: pd.DataFrame) -> tuple[str, ...]:
    """A remark per arm that lacks one of the strategies: it drops from every comparison, and from the Holm family."""
    others = [arm for arm in ordered(table.columns.get_level_values("arm"), ARMS) if arm not in arms]
    lacking = {arm: [side for side in strategies if (arm, side) not in table.columns] for arm in others}
    return tuple(f"{arm} left out: no scores of {' or '.join(sides)}" for arm, sides in lacking.items())


# --- one row -----------------------------------------------------------------------------------------------------


def unpaired(sides: Sides, kind: str, alternative: Alternative, settings: Settings) -> dict[str, object]:
    """The row of a Mann-Whitney test: all values of both sides as if they were independent."""
    ours, theirs = sides.ours[~np.isnan(sides.ours)], sides.theirs[~np.isnan(sides.theirs)]
    statistic, p_value, method = mann_whitney(ours, theirs, alternative)
    low, high, remarks = cliffs_delta_interval(
        sides.ours, sides.theirs, settings.alpha, settings.n_bootstrap, sides.random(settings)
    )
    n_cases, per_case = sides.ours.shape
    unequal = [f"{len(ours)} values against {len(theirs)}"] if len(ours) != len(theirs) else []
    each = f", {per_case} values each" if per_case > 1 else ""
    notes = [*sides.undefined(), *unequal, f"{n_cases} cases on both sides{each}, taken as independent", *remarks]
    return {
        **sides.labels(kind),
        "test": f"Mann-Whitney U, {method}",
        "alternative": alternative,
        "n": min(len(ours), len(theirs)),
        "statistic": statistic,
        "p_value": p_value,
        "effect": cliffs_delta(ours, theirs),
        "effect_low": low,
        "effect_high": high,
        "note": sides.note(notes),
    }


def paired(sides: Sides, alternative: Alternative, settings: Settings) -> dict[str, object]:
    """The row of a signed-rank test of the cases' differences; infinite ones are ranked as the largest."""
    differences = sides.differences
    kept = differences[~np.isnan(differences)]
    result = wilcoxon(kept, alternative)
    shift, low, high, coverage = hodges_lehmann(kept, settings.alpha)
    undefined = sides.named(np.isnan(differences))
    notes = [f"undefined value in {undefined}"] if undefined else []
    notes.append(f"{result.zeros} zero and {result.tied} tied differences")
    if np.isinf(differences).any():
        notes.append(f"infinite difference ranked as the largest: {sides.named(np.isinf(differences))}")
    notes.append(_on_outcomes(result, alternative, settings.alpha))
    if result.n == 1:
        notes.append("one pair: no interval")
    elif coverage < 1 - settings.alpha:
        notes.append(f"widest interval that {result.n} pairs allow; it covers {coverage:.1%}")
    return {
        **sides.labels("paired"),
        "test": "Wilcoxon signed-rank, " + ("exact" if result.exact else "normal approximation"),
        "alternative": alternative,
        "n": result.n,
        "statistic": result.statistic,
        "p_value": result.p_value,
        "p_worse": result.p_opposite,
        "smallest_p": result.smallest_p,
        "smallest_p_without_zeros": smallest_p(result.n, alternative),
        "effect": shift,
        "effect_low": low,
        "effect_high": high,
        "note": sides.note(notes),
    }


def _on_outcomes(result: SignedRank, alternative: Alternative, alpha: float) -> str:
    """What the number of pairs alone says about p; empty where it says nothing."""
    if result.n == 0:
        return "no pair with both values defined"
    if result.zeros == result.n:
        return "every difference is zero: p is 1"
    if result.smallest_p < alpha:
        return ""
    few = "pairs" if smallest_p(result.n, alternative) >= alpha else "non-zero differences"
    return f"no outcome of so few {few} falls below alpha: the smallest p is {result.smallest_p:.3g}"


def mixed(sides: Sides, alternative: Alternative, settings: Settings) -> dict[str, object]:
    """The row of a mixed model of the pairs with two finite values: a mean cannot hold an infinite one."""
    first, second = sides.ours, sides.theirs
    finite = np.isfinite(first) & np.isfinite(second)
    n_cases, per_case = first.shape
    table = pd.DataFrame(
        {
            "case": np.tile(np.repeat(sides.cases.to_numpy(), per_case), 2),
            "other": np.tile(np.arange(per_case), 2 * n_cases),
            "first": np.repeat([True, False], first.size),
            "value": np.concatenate([np.where(finite, side, np.nan).ravel() for side in (first, second)]),
        }
    ).dropna()
    random = sides.random(settings, "mixed")
    result = contrast(table, alternative, settings.alpha, settings.n_bootstrap, random)
    notes = [*sides.undefined(), result.note]
    ours, theirs = int(np.isinf(first).sum()), int(np.isinf(second).sum())
    if ours or theirs:
        favoured = "neither" if ours == theirs else "the first" if ours > theirs else "the second"
        lost = f"{ours} of the first side and {theirs} of the second"
        notes.insert(-1, f"infinite and left out: {lost}, which favours {favoured}")
    return {
        **sides.labels("mixed"),
        "test": result.test,
        "alternative": alternative,
        "n": result.n,
        "statistic": result.statistic,
        "p_value": result.p_value,
        "effect": result.estimate,
        "effect_low": result.low,
        "effect_high": result.high,
        "note": sides.note(notes),
    }


# --- Holm, and the files -----------------------------------------------------------------------------------------


def _with_holm(rows: list[dict[str, object]], alpha: float) -> pd.DataFrame:
    """The table, comparison by comparison, with Holm's correction within each block of rows.

    A block is what ``FAMILY_STRATEGIES`` and ``FAMILY_ARMS`` say: the confirmatory family, and of the exploratory rows
    those of one kind, the same strategies, the arms or their mean, and the paper's metrics or the others.
    """
    if not rows:
        return pd.DataFrame(columns=TEST_COLUMNS)
    table = pd.DataFrame(rows).reindex(columns=[*TEST_COLUMNS, "smallest_p_without_zeros"])
    of_paper, averaged = table["metric"].isin(PAPER_METRICS), table["first"] == MEAN_OVER_ARMS
    blocks = table.groupby(["family", "kind", "strategies", averaged.rename("averaged"), of_paper.rename("of_paper")])
    for p_value, corrected in (("p_value", "p_holm"), ("p_worse", "p_worse_holm")):
        table[corrected] = blocks[p_value].transform(lambda p_values: holm(p_values.to_list()))
    size = blocks["p_value"].transform("count")
    hopeless = blocks["smallest_p"].transform("min") * size >= alpha
    zeros = blocks["smallest_p_without_zeros"].transform("min") * size < alpha
    said = table["smallest_p"] >= alpha
    for few, concerned in (("pairs", hopeless & ~zeros), ("non-zero differences", hopeless & zeros)):
        note = f"; no outcome of so few {few} survives Holm in this family"
        table.loc[concerned & ~said, "note"] += note
    confirmatory = table["family"] == CONFIRMATORY
    if (tests := int(confirmatory.sum())) < CONFIRMATORY_TESTS:
        table.loc[confirmatory, "note"] += f"; the scores hold {tests} of the family's {CONFIRMATORY_TESTS} tests"
    order = table.groupby(COMPARED, sort=False).ngroup()
    return table.assign(order=order).sort_values("order", kind="stable", ignore_index=True)[TEST_COLUMNS]


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
