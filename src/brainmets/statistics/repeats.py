"""Training luck: what of a score is the case, and what would another training with other seeds change?

``repeats: r`` trains every model r times. Per arm, region and metric the model of the scores is

    y = strategy + case + case x strategy + training + residual,

the strategy fixed, all else random. Trainings are nested in their strategy: the second fine-tuned model and the second
from scratch share nothing but the number. A patient with several scans counts once, with their mean, and is the "case"
here. The components are those of the analysis of variance, by equating its mean squares to their expectations
(the method of moments for balanced data): Cornfield and Tukey, Ann. Math. Stat. 27 (1956) 907-949; Searle, Casella and
McCulloch, Variance Components (1992), chapter 4. With n patients, 2 strategies and r trainings of each:

    E(MS case)                = residual + r * case_strategy + 2 * r * case
    E(MS case x strategy)     = residual + r * case_strategy
    E(MS training)            = residual + n * training
    E(MS residual)            = residual

A negative solution is cut at 0 and named. Sampling variances add up by Satterthwaite, Biometrics Bull. 2 (1946)
110-114.

Three intervals of a mean stand side by side. *This model*: the patients are drawn anew, the first training stays.
*Retrained*: patients and trainings are drawn anew; it holds the mean that this way of training has. *Next*: where the
mean of one more training lies. All are t intervals, on the logit scale for shares and cut at 0 for amounts as in
``descriptive``; docs/statistics.md says how often they cover.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit, logit

from brainmets.statistics.branches import REPEAT, Block, blocks, over_arms
from brainmets.statistics.tables import in_order
from brainmets.statistics.tests import NAN, Floats
from brainmets.vocabulary import COMPARED_STRATEGIES, METRIC_TITLES, better

UNKNOWN = "every model was trained once: how much of a score is the luck of its training is unknown"
COMPONENTS = ("case", "case_strategy", "training", "residual")
VARIANCES = [f"variance_{name}" for name in COMPONENTS]
SHARES = [f"share_{name}" for name in COMPONENTS]
COMPONENT_COLUMNS = ["arm", "region", "metric", "unit", "n_patients", "n_repeats", *VARIANCES, *SHARES, "note"]
DIFFERENCE = " - ".join(COMPARED_STRATEGIES)
INTERVAL_COLUMNS = [
    "arm", "strategy", "region", "metric", "unit", "n_patients", "n_repeats", "this_mean", "this_low", "this_high",
    "retrained_mean", "retrained_low", "retrained_high", "next_low", "next_high", "note",
]  # fmt: skip


def components(scores: pd.DataFrame, patients: Mapping[str, str]) -> pd.DataFrame:
    """The split of every metric's variance, one row per arm, region and metric with ``COMPONENT_COLUMNS``.

    ``scores`` is ``branches.together``'s table with the column ``repeat``. ``variance_*`` is in the metric's unit
    squared, ``share_*`` its part of their sum. With one repeat, or one patient, all are empty and ``note`` says why.
    """
    rows = []
    for block in blocks(scores, REPEAT, patients):
        n, r = len(block.patients), len(block.branches)
        found, remarks = dict.fromkeys([*VARIANCES, *SHARES], NAN), [UNKNOWN] if r < 2 else []
        if n < 2:
            remarks.append("one patient: no variance between patients")
        if not remarks:
            variances, cut = split(block.values)
            total = sum(variances.values())
            found = {f"variance_{name}": value for name, value in variances.items()}
            found |= {f"share_{name}": value / total if total > 0 else NAN for name, value in variances.items()}
            remarks = [f"negative and cut at 0: {', '.join(cut)}"] if cut else []
            remarks += [] if total > 0 else ["all values equal: nothing to split"]
        note = "; ".join([*remarks, *block.remarks])
        rows.append({**block.labels, "n_patients": n, "n_repeats": r, **found, "note": note})
    return in_order(pd.DataFrame(rows, columns=COMPONENT_COLUMNS))


def split(values: Floats) -> tuple[dict[str, float], list[str]]:
    """The variance components of a balanced table, and the names of those that came out negative and were cut at 0.

    ``values`` has shape (patients, strategies, trainings), at least two of each. Keys: ``COMPONENTS``.

    >>> values = np.array([[[1.0, 2.0], [0.0, 1.0]], [[4.0, 7.0], [2.0, 3.0]]])
    >>> split(values)  # mean squares: case 18, case x strategy 2, training 2.5, residual 0.5
    ({'case': 4.0, 'case_strategy': 0.75, 'training': 1.0, 'residual': 0.5}, [])
    """
    n, k, r = values.shape
    grand = values.mean()
    case, strategy = values.mean(axis=(1, 2), keepdims=True), values.mean(axis=(0, 2), keepdims=True)
    both, training = values.mean(axis=2, keepdims=True), values.mean(axis=0, keepdims=True)
    ms_case = k * r * float(((case - grand) ** 2).sum()) / (n - 1)
    ms_both = r * float(((both - case - strategy + grand) ** 2).sum()) / ((n - 1) * (k - 1))
    ms_training = n * float(((training - strategy) ** 2).sum()) / (k * (r - 1))
    ms_residual = float(((values - both - training + strategy) ** 2).sum()) / (k * (n - 1) * (r - 1))
    solved = {
        "case": (ms_case - ms_both) / (k * r),
        "case_strategy": (ms_both - ms_residual) / r,
        "training": (ms_training - ms_residual) / n,
        "residual": ms_residual,
    }
    noise = 1e-12 * (float(np.square(values).mean()) or 1.0)  # what the rounding of equal values leaves
    cut = [name for name, value in solved.items() if value < -noise]
    return {name: value if value > noise else 0.0 for name, value in solved.items()}, cut


# --- intervals ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A mean, its sampling variance, the degrees of freedom of that, and how much one more training would vary."""

    mean: float
    variance: float
    freedom: float
    next_variance: float = NAN
    next_freedom: float = NAN


def retrained_intervals(scores: pd.DataFrame, patients: Mapping[str, str], alpha: float) -> pd.DataFrame:
    """The interval of these models beside that of retrained ones: both strategies and their difference.

    ``scores`` as in ``components``; columns ``INTERVAL_COLUMNS``. ``strategy`` is "finetune", "scratch" or "finetune -
    scratch". ``this_*`` is of the first repeat, ``retrained_*`` of all, ``next_*`` where the mean of one more training
    (of both strategies, in a difference) lies; at 1 - alpha. With one repeat the latter two are empty and ``note``
    says that training luck is unknown; with one patient every interval is empty.
    """
    rows = []
    for block in blocks(scores, REPEAT, patients):
        for strategy, values in _sides(block):
            row = {**block.labels, "strategy": strategy, "n_patients": len(block.patients)}
            row |= {"n_repeats": len(block.branches)}
            rows.append({**row, **_intervals(values, block, alpha, of_difference=strategy == DIFFERENCE)})
    return in_order(pd.DataFrame(rows, columns=INTERVAL_COLUMNS))


def _sides(block: Block) -> Iterator[tuple[str, list[Floats]]]:
    """Names and the tables (patients, trainings) that a row is made of, the first less the second of two."""
    tables = [block.values[:, place] for place in range(len(COMPARED_STRATEGIES))]
    yield from ((name, [table]) for name, table in zip(COMPARED_STRATEGIES, tables, strict=True))
    yield DIFFERENCE, tables


def _intervals(tables: list[Floats], block: Block, alpha: float, *, of_difference: bool) -> dict[str, object]:
    remarks = []
    scale = "" if of_difference else better(block.metric) or ""
    first = _of_trainings([table[:, :1] for table in tables])
    row: dict[str, object] = dict(zip(("this_low", "this_high"), interval(first, alpha, scale), strict=True))
    row["this_mean"] = first.mean
    if len(block.branches) > 1:
        again = retrained(tables)
        following = Estimate(again.mean, again.next_variance, again.next_freedom)
        row["retrained_mean"] = again.mean
        row |= dict(zip(("retrained_low", "retrained_high"), interval(again, alpha, scale), strict=True))
        row |= dict(zip(("next_low", "next_high"), interval(following, alpha, scale), strict=True))
        if len(block.branches) == 2:
            remarks.append("two trainings tell little of their luck: one degree of freedom")
    else:
        remarks.append(UNKNOWN)
    if len(block.patients) < 2:
        remarks.append("one patient: no interval")
    return {**row, "note": "; ".join([*remarks, *block.remarks])}


def mean_over_patients(values: Floats) -> Estimate:
    """The mean of one value per patient (shape (patients,)), whatever the models that gave them."""
    n = len(values)
    return Estimate(float(values.mean()), float(values.var(ddof=1)) / n if n > 1 else NAN, n - 1)


def _of_trainings(tables: list[Floats]) -> Estimate:
    """The mean over patients of the first table (less the second), its trainings taken as they are."""
    first, *second = (table.mean(axis=1) for table in tables)
    return mean_over_patients(first - second[0] if second else first)


def retrained(tables: list[Floats]) -> Estimate:
    """The mean of a table of shape (patients, trainings), or of one less another, with both drawn anew.

    Its variance is that between patients of their means over trainings, over n, and for each table (MS training -
    MS residual) / (n r), none of them below 0; so much again for each of the trainings is what one more would vary.
    The degrees of freedom are Satterthwaite's, between those of the trainings and of the patients.

    >>> found = retrained([np.array([[1.0, 2.0], [4.0, 7.0]])])
    >>> found.mean, found.variance, round(found.freedom, 6)  # MS patients 16, training 4, residual 1; 19 / 4
    (3.5, 4.75, 1.0)
    """
    fixed = _of_trainings(tables)
    n, r = tables[0].shape
    if n < 2:
        return fixed
    parts, doubts = [], []
    for table in tables:
        training, case = table.mean(axis=0, keepdims=True), table.mean(axis=1, keepdims=True)
        ms_training = n * float(((training - table.mean()) ** 2).sum()) / (r - 1)
        ms_residual = float(((table - training - case + table.mean()) ** 2).sum()) / ((n - 1) * (r - 1))
        part = max(0.0, ms_training - ms_residual) / (n * r)
        parts.append(part)
        squares = ms_training**2 / (r - 1) + ms_residual**2 / ((n - 1) * (r - 1))
        doubts.append(squares / (n * r) ** 2 if part > 0 else 0.0)
    of_patients = fixed.variance**2 / (n - 1)

    def freedom(variance: float, times: float) -> float:
        doubt = of_patients + times**2 * sum(doubts)
        low, high = sorted((r - 1, n - 1))
        return float(np.clip(variance**2 / doubt, low, high)) if doubt > 0 else float(high)

    variance = fixed.variance + sum(parts)
    following = fixed.variance + (r + 1) * sum(parts)
    return Estimate(fixed.mean, variance, freedom(variance, 1), following, freedom(following, r + 1))


def interval(found: Estimate, alpha: float, scale: str) -> tuple[float, float]:
    """The t interval at 1 - alpha: on the logit scale where ``scale`` is "greater" (shares), cut at 0 where "less".

    Another scale is left as it is. NaN without a variance; the mean itself where that is 0.
    """
    if np.isnan(found.variance):
        return NAN, NAN
    if found.variance == 0:
        return found.mean, found.mean
    half = float(stats.t.isf(alpha / 2, found.freedom) * np.sqrt(found.variance))
    mean = found.mean
    if scale == "greater" and 0 < mean < 1:
        half /= mean * (1 - mean)
        return float(expit(logit(mean) - half)), float(expit(logit(mean) + half))
    low, high = mean - half, mean + half
    return max(0.0, low) if scale in ("greater", "less") else low, min(1.0, high) if scale == "greater" else high


# --- words -------------------------------------------------------------------------------------------------------


def sentence(variances: pd.DataFrame, intervals: pd.DataFrame, metric: str, region: str) -> str:
    """What repeated training says of one metric and region, over the mean of the arms (the arm where there is one).

    ``variances`` is ``components``' table, ``intervals`` ``retrained_intervals``'. With one repeat, one patient or no
    arm with both strategies it says that nothing is known.
    """
    named = f"{METRIC_TITLES.get(metric, metric)} of {region}"
    rows = variances[(variances["metric"] == metric) & (variances["region"] == region)]
    if rows.empty:
        return f"No arm has {named} with both strategies: what training luck does to their difference is not known."
    row = over_arms(rows).iloc[0]
    if row["n_repeats"] < 2:
        return f"{UNKNOWN[0].upper()}{UNKNOWN[1:]}."
    shares = row[SHARES].astype(float)
    if shares.isna().any():
        return f"{named}: {row['note']}."
    found = intervals[(intervals["metric"] == metric) & (intervals["region"] == region)]
    found = found[(found["arm"] == row["arm"]) & (found["strategy"] == DIFFERENCE)].iloc[0]
    unit = "" if row["unit"] == "1" else f" {row['unit']}"
    this, again = (
        f"{found[f'{name}_mean']:+.3g} ({found[f'{name}_low']:+.3g} to {found[f'{name}_high']:+.3g})"
        for name in ("this", "retrained")
    )
    return (
        f"Over {row['n_repeats']} trainings of every model, another training moves a model's mean {named} with a "
        f"standard deviation of {np.sqrt(row['variance_training']):.2g}{unit}; of the variance of single scores "
        f"{shares['share_case']:.1%} is between patients, {shares['share_case_strategy']:.1%} what the strategy does "
        f"for each, {shares['share_training']:.1%} between trainings and {shares['share_residual']:.1%} what a "
        f"training does for each patient. Fine-tuned minus scratch is {this} of the first models, {again} of models "
        "trained anew."
    )
