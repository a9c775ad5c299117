"""Tests between models: the paper's, the same in the right direction, and two that pair each patient with itself.

Each row tests one metric in one region, a first side against a second: fine-tuned against scratch, or arm against arm.
``kind`` is the test:

- ``paper``: one-sided Mann-Whitney U of pooled values, alternative "greater" for every metric, as the paper ran it;
- ``directed``: the same with the alternative under which the first side is better (HD95: "less");
- ``paired``: Wilcoxon signed-rank on the differences of the same patients;
- ``permutation``: the mean of these differences, over all arms, tested by swapping whole patients' labels.

A patient with several scans counts once, with the mean over them (``Settings.patients``); without more knowledge each
case is a patient.

``first`` and ``second`` are the arms of the two sides, ``strategies`` is how these were trained: "finetune vs scratch"
(the first side fine-tuned, the second from scratch), or "finetune", "scratch" or "finetune+scratch", on both sides. In
place of an arm is "all arms" where the arms' values are pooled, and "mean over arms" where each patient counts once,
with its mean; a paired test of "finetune+scratch" takes the mean of a patient's two values in the same way.

All of this is exploratory: what decides a study is the rule that its YAML declares (``statistics.decision``). A row
here can raise a question and answers none. ``family`` sets one block of rows apart, ``authors``: paired, on the mean
over arms (the arm itself where there is one), one-sided towards fine-tuning being better, ``AUTHORS_METRICS`` on ET,
TC and WT, corrected by Holm over these nine. It is the family that the paper's authors chose when they published
paired tests of their own. Every other row is corrected within its own block at most. ``p_worse``, the paired test the
other way round, describes harm.

Arms are compared two-sided where the paper's own test does not say otherwise, since no arm is expected to win. A
metric without a direction (volumes) is described and not tested; nor is the resection cavity, which no network has an
output for: every arm scores the same there whatever it has learnt, so that a test of it would only cost the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from brainmets import tables
from brainmets.files import write_text
from brainmets.scoring.intervals import patients_of
from brainmets.statistics.tables import unit_of, values, with_reference
from brainmets.statistics.tests import (
    NAN,
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
    permutation,
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
PRETRAINED = "pretrained"
THROUGH_PRETRAINED = (("finetune", PRETRAINED), (PRETRAINED, "scratch"))
BOTH_STRATEGIES = "+".join(COMPARED_STRATEGIES)

AUTHORS, EXPLORATORY = "authors", "exploratory"
AUTHORS_METRICS = ("dice", "hd95", "sensitivity")
AUTHORS_TESTS = len(AUTHORS_METRICS) * len(REGIONS)

_WITHIN = (
    "and within the paper's four metrics (dice hd95 sensitivity specificity) or within the other metrics; "
    "RC is described and not tested"
)
FAMILY_STRATEGIES = (
    "all rows are exploratory: the rule that the study declared decides (decision.csv). Family authors: the paired "
    "rows of the mean over arms (of the arm where there is one) for dice hd95 and sensitivity on ET TC and WT as the "
    "paper's authors chose them; one-sided towards better; Holm over these nine. All other rows: Holm within the rows "
    f"of the same kind (paired per arm with all arms together) {_WITHIN}"
)
FAMILY_ARMS = (
    "all rows are exploratory: Holm within the rows of the same kind and the same strategies (all pairs of arms "
    f"together) {_WITHIN}"
)
FAMILY_PRETRAINED = (
    "all rows are exploratory and two-sided: Holm within the rows of the same strategies (per arm with all arms "
    f"together; mean over arms) {_WITHIN}"
)
READING = (
    "family: the authors' nine or another row; effect: Cliff's delta in paper and directed rows (interval by "
    "resampling patients); Hodges-Lehmann shift in paired rows and mean difference in permutation rows - both first "
    "minus second in the metric's unit; intervals are two-sided; n: values on each side; in paired and permutation "
    "rows patients; p_worse: the one-sided paired test the other way round (first is worse) with Holm's correction "
    "over the same rows - exploratory in every row; smallest_p: the smallest p that any outcome could give"
)


@dataclass(frozen=True)
class Settings:
    """What every test needs: level, bootstrap resamples, the seed that all random draws start from, and patients.

    ``patients`` maps every case to its patient; where it is empty, each case is a patient of its own.
    """

    alpha: float
    n_bootstrap: int
    seed: int
    patients: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sides:
    """The two sides of a comparison in one metric and region.

    ``patients[i]`` is whose scan ``cases[i]`` is; ``ours`` and ``theirs``, the first side's values and the second's,
    have shape (cases, values per case) in ``unit``; NaN is an undefined value, an infinite one the worst. ``remarks``
    are part of every row's note.
    """

    first: str
    second: str
    strategies: str
    metric: str
    region: str
    unit: str
    cases: pd.Index
    patients: Sequence[str]
    ours: Floats
    theirs: Floats
    remarks: tuple[str, ...] = ()

    @property
    def better(self) -> Alternative:
        """The alternative under which the first side is the better one."""
        return better(self.metric) or "two-sided"

    @property
    def differences(self) -> Floats:
        """First minus second, one per patient, rounded: the mean over its cases of the mean over their values.

        A case with an undefined value is left out, and NaN stands for a patient without another one.
        """
        of_cases = pd.Series(rounded(self.of_cases, self.unit))
        of_patients = of_cases.groupby(np.asarray(self.patients)).mean()
        return rounded(np.asarray(of_patients, np.float64), self.unit)

    @property
    def of_cases(self) -> Floats:
        """First minus second, one per case: the mean of its values' differences; NaN where one is undefined."""
        return mean_difference(difference(self.ours, self.theirs))

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

    def few_patients(self) -> list[str]:
        """A remark that a patient counts once; an empty list where every case is one."""
        n_cases, n_patients = len(self.cases), len(set(self.patients))
        return [f"{n_cases} cases of {n_patients} patients, each counted once"] if n_patients < n_cases else []

    def random(self, settings: Settings, kind: str = "") -> np.random.Generator:
        """The generator of this comparison's draws: one for ``paper`` and ``directed``, one for ``permutation``."""
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

    ``paper``, ``directed`` and ``permutation`` run over all arms that have both strategies, ``paired`` over each arm,
    and over the mean of the arms where there are several. ``note`` names the arms that lack a strategy. The rows of
    the authors' family are nine (see the module), fewer only where the scores lack a metric or region of them, which
    ``note`` says. A table without rows where no arm has both.
    """
    rows: list[dict[str, object]] = []
    for pooled, paired_sides in strategy_sides(scores, COMPARED_STRATEGIES, settings.patients):
        rows += [unpaired(pooled, "paper", "greater", settings), unpaired(pooled, "directed", pooled.better, settings)]
        rows += [paired(sides, sides.better, settings) for sides in paired_sides[:-1]]
        rows.append({**paired(paired_sides[-1], pooled.better, settings), "family": _family(pooled)})
        rows.append(swapped(pooled, pooled.better, settings))
    return _with_holm(rows, settings.alpha)


def _family(sides: Sides) -> str:
    """The family of the paired test over all arms."""
    chosen = sides.metric in AUTHORS_METRICS and sides.region in REGIONS
    return AUTHORS if chosen else EXPLORATORY


def against_pretrained(scores: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """What lies between scratch and fine-tuning, with the columns ``TEST_COLUMNS``: the two ``THROUGH_PRETRAINED``.

    Fine-tuned against pretrained alone (zero-shot) says what training on the target adds to pretraining; pretrained
    against scratch, what pretraining alone is worth beside training alone. Each patient's two differences add up to
    fine-tuned minus scratch. Paired, two-sided and exploratory. A table without rows where nothing was scored with
    ``pretrained``.
    """
    rows = [
        paired(sides, "two-sided", settings)
        for compared in THROUGH_PRETRAINED
        for _, paired_sides in strategy_sides(scores, compared, settings.patients)
        for sides in paired_sides
    ]
    return _with_holm(rows, settings.alpha)


def strategy_sides(
    scores: pd.DataFrame, compared: tuple[str, str], patients: Mapping[str, str]
) -> Iterator[tuple[Sides, list[Sides]]]:
    """The first of the ``compared`` strategies against the second.

    Per tested metric and region: all arms pooled, and each arm; where there are several, at last their mean.
    """
    for metric, region, table in _tested(scores):
        arms = _arms_with(compared, table)
        if not arms:
            continue
        ours, theirs = (table[[(arm, side) for arm in arms]].to_numpy(float) for side in compared)
        remarks = _left_out(compared, arms, table)
        unit, whose = unit_of(scores, metric), patients_of(table.index, patients)
        what = (" vs ".join(compared), metric, region, unit, table.index, whose, ours, theirs, remarks)
        pooled = Sides(ALL_ARMS, ALL_ARMS, *what)
        mean = [Sides(MEAN_OVER_ARMS, MEAN_OVER_ARMS, *what)] if len(arms) > 1 else []
        yield pooled, [pooled.of_arm(place, arm) for place, arm in enumerate(arms)] + mean


def arms_pairwise(scores: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Arm against arm, with the columns ``TEST_COLUMNS``.

    ``paper`` and ``directed`` take every ordered pair (as in the paper: the first is hypothesised to be better), with
    the strategies pooled and each alone, since the paper does not say which; ``paired`` (each strategy, and the mean
    over both) and ``permutation`` (both) take every pair once, two-sided. Scores of ``pretrained`` are a reading of
    their own. A table without rows where there is one arm.
    """
    rows: list[dict[str, object]] = []
    every = ordered(scores["strategy"], COMPARED_STRATEGIES)
    strategies = [strategy for strategy in every if strategy in COMPARED_STRATEGIES]
    readings = [[strategy] for strategy in every]
    if len(strategies) > 1:
        readings.insert(0, strategies)
    for metric, region, table in _tested(scores):
        for chosen in readings:
            arms = _arms_with(chosen, table)
            block = {arm: table[[(arm, side) for side in chosen]].to_numpy(float) for arm in arms}
            whose = patients_of(table.index, settings.patients)
            what = ("+".join(chosen), metric, region, unit_of(scores, metric), table.index, whose)
            remarks = _left_out(chosen, arms, table)
            pairs = {(one, two): Sides(one, two, *what, block[one], block[two], remarks)
                     for one, two in permutations(arms, 2)}  # fmt: skip
            for sides in pairs.values():
                rows.append(unpaired(sides, "paper", "greater", settings))
                rows.append(unpaired(sides, "directed", sides.better, settings))
            for pair in combinations(arms, 2):
                rows.append(paired(pairs[pair], "two-sided", settings))
                if chosen == readings[0]:
                    rows.append(swapped(pairs[pair], "two-sided", settings))
    return _with_holm(rows, settings.alpha)


def _tested(scores: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Metric, region and their values, for every metric with a direction, the paper's first, and every region that
    the networks have an output for, of the cases whose reference holds it.
    """
    tested = with_reference(scores)
    tested = tested[tested["region"] != RESECTION_CAVITY]
    for metric in ordered(tested["metric"], PAPER_METRICS):
        if better(metric) is not None:
            for region in ordered(tested.loc[tested["metric"] == metric, "region"], REGION_ORDER):
                yield metric, region, values(tested, metric, region, infinite=True)


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
        sides.ours, sides.theirs, sides.patients, settings.alpha, settings.n_bootstrap, sides.random(settings)
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
    """The row of a signed-rank test of the patients' differences; infinite ones are ranked as the largest."""
    of_cases, differences = sides.of_cases, sides.differences
    kept = differences[~np.isnan(differences)]
    result = wilcoxon(kept, alternative)
    shift, low, high, coverage = hodges_lehmann(kept, settings.alpha)
    undefined = sides.named(np.isnan(of_cases))
    notes = [*([f"undefined value in {undefined}"] if undefined else []), *sides.few_patients()]
    notes.append(f"{result.zeros} zero and {result.tied} tied differences")
    if np.isinf(of_cases).any():
        notes.append(f"infinite difference ranked as the largest: {sides.named(np.isinf(of_cases))}")
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


def swapped(sides: Sides, alternative: Alternative, settings: Settings) -> dict[str, object]:
    """The row of a permutation test of the mean difference, over the pairs of two finite values: no mean holds others.

    A patient's difference is the mean over its pairs; its labels are swapped for all of them at once.
    """
    first, second = sides.ours, sides.theirs
    finite = np.isfinite(first) & np.isfinite(second)
    pairs = pd.DataFrame(np.where(finite, first, np.nan) - np.where(finite, second, np.nan))
    of_patients = pairs.mean(axis=1).groupby(np.asarray(sides.patients)).mean().dropna().to_numpy(float)
    result = permutation(of_patients, alternative, settings.alpha, sides.random(settings, "permutation"))
    notes = [*sides.undefined(), *sides.few_patients()]
    ours, theirs = int(np.isinf(first).sum()), int(np.isinf(second).sum())
    if ours or theirs:
        favoured = "neither" if ours == theirs else "the first" if ours > theirs else "the second"
        lost = f"{ours} of the first side and {theirs} of the second"
        notes.append(f"infinite and left out: {lost}, which favours {favoured}")
    notes.append(f"{result.drawn} random swaps" if result.drawn else f"all {2**result.n} swaps")
    if result.n < 2:
        notes.append(f"{result.n} patient(s): no interval")
    elif result.coverage < 1 - settings.alpha:
        notes.append(f"widest interval that {result.n} patients allow; it covers {result.coverage:.1%}")
    return {
        **sides.labels("permutation"),
        "test": "permutation of labels within patients",
        "alternative": alternative,
        "n": result.n,
        "statistic": result.mean,
        "p_value": result.p_value,
        "smallest_p": smallest_p(result.n, alternative) if result.n else NAN,
        "effect": result.mean,
        "effect_low": result.low,
        "effect_high": result.high,
        "note": sides.note(notes),
    }


# --- Holm, and the files -----------------------------------------------------------------------------------------


def _with_holm(rows: list[dict[str, object]], alpha: float) -> pd.DataFrame:
    """The table, comparison by comparison, with Holm's correction within each block of rows.

    A block is what ``FAMILY_STRATEGIES`` and ``FAMILY_ARMS`` say: the authors' family, and of the other rows those of
    one kind, the same strategies, the arms or their mean, and the paper's metrics or the others.
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
    authors = table["family"] == AUTHORS
    if (tests := int(authors.sum())) < AUTHORS_TESTS:
        table.loc[authors, "note"] += f"; the scores hold {tests} of the family's {AUTHORS_TESTS} tests"
    order = table.groupby(COMPARED, sort=False).ngroup()
    return table.assign(order=order).sort_values("order", kind="stable", ignore_index=True)[TEST_COLUMNS]


def write_tests(path: Path, table: pd.DataFrame, family: str) -> Path:
    """Write a table of tests; ``# `` lines under the column names state the Holm family and how to read the columns.

    ``pandas.read_csv(path, comment="#")`` skips them; ``read_tests`` does so. They hold no comma, so that a reader
    that knows no comments still finds the columns.
    """
    statements = "".join(f"# {line.replace(',', ';')}\n" for line in (family, READING))
    header, _, body = tables.text(table).partition("\n")
    return write_text(path, f"{header}\n{statements}{body}")


def read_tests(path: Path) -> pd.DataFrame:
    """Read what ``write_tests`` wrote; ``note`` is text, never NaN."""
    return tables.read(path, comment="#").fillna({"note": ""})
