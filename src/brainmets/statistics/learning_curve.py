"""The learning curve, and what it says in cases: "pretraining is worth k cases".

Both strategies are trained with several numbers of the target's cases and scored on the same held-out patients. At a
size n, k is how many more cases training from scratch needs to reach the fine-tuned model's mean: the fine-tuned curve
is read at n, and the scratch curve is asked where it first reaches that height. Between two sizes the scratch curve is
taken as a straight line over log(cases), as learning curves bend; beyond its first and last size nothing is assumed.
So k has no number where scratch with all cases does not get there ("more than N - n"), nor where scratch with the
fewest is better already ("less than"). For the inverse to exist the scratch curve must rise: means that fall are drawn
level by isotonic regression (Barlow, Bartholomew, Bremner and Brunk, Statistical Inference under Order Restrictions,
1972), and then the sentence says that the data cannot say.

The interval of k resamples patients, each with its scores at all sizes and of both strategies (percentile bootstrap,
Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13, at Hesterberg's wider levels as in
``tests.widened``). It takes the trained models as they are: each size is trained once. Means and differences have t
intervals over patients, as in ``descriptive``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from brainmets.statistics.branches import TRAINING_CASES, Block, blocks, over_arms
from brainmets.statistics.comparisons import MEAN_OVER_ARMS, Settings
from brainmets.statistics.repeats import interval, mean_over_patients
from brainmets.statistics.tables import in_order
from brainmets.statistics.tests import NAN, Floats, generator, percent, widened
from brainmets.vocabulary import COMPARED_STRATEGIES, METRIC_TITLES, arm_title, better

RULE = (
    "k: how many more cases training from scratch needs to reach the mean of the fine-tuned model of n cases; scratch "
    "means are joined by straight lines over log(cases), after isotonic regression; the interval resamples the "
    "held-out patients and takes every trained model as it is. The sentence is about the largest n of at most half of "
    "all training cases, of the mean over arms (of the arm where there is one)."
)
DIFFERENCE = "difference"
SERIES = (*COMPARED_STRATEGIES, DIFFERENCE)
ESTIMATES = [f"{name}{end}" for name in SERIES for end in ("", "_low", "_high")]
CURVE_COLUMNS = [
    "arm", "region", "metric", "unit", TRAINING_CASES, "n_patients", *ESTIMATES, "worth", "worth_low", "worth_high",
    "note",
]  # fmt: skip
NOT_RISING = "the mean from scratch does not rise with every step of cases"
ONE_SIZE = "one number of training cases is no curve"
ONE_PATIENT = "one patient: no interval"
NO_CURVE = "No learning curve was made: how many cases pretraining is worth is unknown"
TOO_WIDE = "the interval holds everything from worthless to worth more than all further cases"
ONCE = "each size was trained once"
SAME = 1e-12


def curve(scores: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """One row per arm, region, metric and number of training cases, with ``CURVE_COLUMNS``.

    ``scores`` is ``branches.together``'s table with the column ``training_cases``, the study's full number among them.
    ``finetune``, ``scratch`` and ``difference`` (the first less the second) are means over patients with their
    intervals, in the metric's unit. ``worth`` is k in cases, from below 0 (scratch is better) up; infinite where
    scratch never reaches the fine-tuned mean, and -infinite where it is better with the fewest cases already. Empty
    where there is one size. ``note`` says why the data cannot say what k is, if so.
    """
    rows = []
    for block in blocks(scores, TRAINING_CASES, settings.patients):
        n = len(block.patients)
        series = dict(zip(COMPARED_STRATEGIES, np.moveaxis(block.values, 1, 0), strict=True))
        series[DIFFERENCE] = series[COMPARED_STRATEGIES[0]] - series[COMPARED_STRATEGIES[1]]
        k, low, high = worth(block, settings)
        for place, size in enumerate(block.branches):
            row: dict[str, Any] = {**block.labels, TRAINING_CASES: size, "n_patients": n}
            for name, values in series.items():
                found = mean_over_patients(values[:, place])
                scale = "" if name == DIFFERENCE else better(block.metric) or ""
                row |= {name: found.mean}
                row |= dict(zip((f"{name}_low", f"{name}_high"), interval(found, settings.alpha, scale), strict=True))
            row |= {"worth": k[place], "worth_low": low[place], "worth_high": high[place]}
            rows.append({**row, "note": "; ".join([*doubts(block, low[place], high[place]), *block.remarks])})
    return in_order(pd.DataFrame(rows, columns=CURVE_COLUMNS))


def doubts(block: Block, low: float, high: float) -> list[str]:
    """Why nothing can be said of k, whose interval is ``low`` to ``high``; an empty list where something can."""
    if len(block.branches) < 2:
        return [ONE_SIZE]
    found = [] if _rises(_upwards(block)[:, 1].mean(axis=0)) else [NOT_RISING]
    if len(block.patients) < 2:
        found.append(ONE_PATIENT)
    return found + ([TOO_WIDE] if low <= 0 and np.isposinf(high) else [])


def _upwards(block: Block) -> Floats:
    """The values so that more is better."""
    return block.values if better(block.metric) == "greater" else -block.values


def _rises(means: Floats) -> bool:
    return bool((np.diff(means) >= -SAME).all())


# --- worth k cases -----------------------------------------------------------------------------------------------


def worth(block: Block, settings: Settings) -> tuple[Floats, Floats, Floats]:
    """Worth in cases at every size of ``block``, and its interval at 1 - alpha: three arrays of shape (sizes,).

    NaN with one size; the interval is NaN with one patient.
    """
    values, sizes, n = _upwards(block), np.array(block.branches, float), len(block.patients)
    if len(sizes) < 2:
        nothing = np.full(len(sizes), NAN)
        return nothing, nothing, nothing
    estimate = more_cases(values.mean(axis=0)[None], sizes)[0]
    if n < 2:
        return estimate, np.full(len(sizes), NAN), np.full(len(sizes), NAN)
    random = generator(settings.seed, "worth", block.arm, block.metric, block.region)
    draws = random.multinomial(n, np.full(n, 1 / n), settings.n_bootstrap) / n
    replicates = more_cases(np.tensordot(draws, values, axes=1), sizes)
    level = widened(settings.alpha, n)
    # of two neighbours the outer one: no mean of a number and of infinity
    low = np.quantile(replicates, level / 2, axis=0, method="lower")
    high = np.quantile(replicates, 1 - level / 2, axis=0, method="higher")
    return estimate, low, high


def more_cases(means: Floats, sizes: Floats) -> Floats:
    """How many more cases the second curve needs to reach the first, at every size.

    ``means`` has shape (samples, 2, sizes), more being better; ``sizes`` rise. Returns shape (samples, sizes):
    infinite where the second curve never gets there, -infinite where it starts above.

    >>> more_cases(np.array([[[0.6, 0.7, 0.8], [0.5, 0.6, 0.7]]]), np.array([5.0, 10.0, 15.0])).round(9)
    array([[ 5.,  5., inf]])
    """
    wanted, reached = means[:, 0], isotonic(means[:, 1])
    places = np.log(sizes)
    needed = np.full(wanted.shape, np.inf)
    for place in reversed(range(len(sizes))):
        end = reached[:, [place]]
        if place == 0:
            needed = np.where(end >= wanted - SAME, sizes[0], needed)
            needed = np.where(end > wanted + SAME, -np.inf, needed)
            break
        start = reached[:, [place - 1]]
        rise = np.where(end > start, end - start, 1.0)
        share = np.clip((wanted - start) / rise, 0, 1)
        on_the_way = np.exp(places[place - 1] + share * (places[place] - places[place - 1]))
        needed = np.where(end >= wanted - SAME, on_the_way, needed)
    return np.asarray(needed - sizes)


def isotonic(curves: Floats) -> Floats:
    """The nearest curves that do not fall (least squares); ``curves`` has shape (samples, sizes), equal weights.

    By the min-max formula, for all samples at once: at j the largest over i <= j of the smallest over k >= j of the
    mean from i to k.

    >>> isotonic(np.array([[1.0, 3.0, 2.0, 4.0]]))
    array([[1. , 2.5, 2.5, 4. ]])
    """
    n = curves.shape[1]
    sums = np.concatenate([np.zeros((len(curves), 1)), np.cumsum(curves, axis=1)], axis=1)
    level = np.empty_like(curves)
    for j in range(n):
        starts = [[(sums[:, k + 1] - sums[:, i]) / (k + 1 - i) for k in range(j, n)] for i in range(j + 1)]
        level[:, j] = np.max([np.min(means, axis=0) for means in starts], axis=0)
    return level


# --- words -------------------------------------------------------------------------------------------------------


def record(table: pd.DataFrame, metric: str, region: str, alpha: float) -> dict[str, Any]:
    """What ``worth.json`` says of one metric and region: rule, sentence, arm, metric, region, sizes.

    ``table`` is ``curve``'s, made at ``alpha``. ``sizes`` holds one entry per number of training cases:
    training_cases, finetune, scratch, worth, low, high (null where there is no number), more_than and less_than (the
    bound where scratch never reaches the fine-tuned mean, or is better with the fewest cases already, else null), and
    note (why the data cannot say, if so). Without a curve the sentence says so and ``sizes`` is empty.
    """
    of = table[(table["metric"] == metric) & (table["region"] == region)]
    content: dict[str, Any] = {"rule": RULE, "metric": metric, "region": region, "arm": None, "sizes": []}
    named = f"{METRIC_TITLES.get(metric, metric)} of {region}"
    if of[TRAINING_CASES].nunique() < 2:
        return {**content, "sentence": f"{NO_CURVE} ({named})."}
    rows = over_arms(of).sort_values(TRAINING_CASES)
    sizes = [int(size) for size in rows[TRAINING_CASES]]
    at = max((place for place, size in enumerate(sizes) if 2 * size <= sizes[-1]), default=0)
    content["sizes"] = [_entry(row, sizes) for row in rows.to_dict("records")]
    content["arm"] = str(rows["arm"].iloc[0])
    return {**content, "sentence": sentence(rows.iloc[at], sizes, named, alpha)}


def _entry(row: Mapping[Any, Any], sizes: Sequence[int]) -> dict[str, Any]:
    n, k = int(row[TRAINING_CASES]), float(row["worth"])
    return {
        TRAINING_CASES: n,
        **{name: float(row[name]) for name in COMPARED_STRATEGIES},
        "worth": _number(k),
        "low": _number(row["worth_low"]),
        "high": _number(row["worth_high"]),
        "more_than": sizes[-1] - n if np.isposinf(k) else None,
        "less_than": sizes[0] - n if np.isneginf(k) else None,
        "note": str(row["note"]),
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def sentence(row: Mapping[Any, Any] | pd.Series, sizes: Sequence[int], named: str, alpha: float) -> str:
    """What the row says, in one sentence: so many cases with their interval, more than the data hold, or neither."""
    n, k, low, high = int(row[TRAINING_CASES]), *(float(row[f"worth{end}"]) for end in ("", "_low", "_high"))
    arm = "the mean over arms" if row["arm"] == MEAN_OVER_ARMS else arm_title(row["arm"])
    unclear = [doubt for doubt in (NOT_RISING, ONE_PATIENT, TOO_WIDE) if doubt in str(row["note"])]
    if unclear:
        return f"How many cases pretraining is worth, the data cannot say ({named}, {arm}): {'; '.join(unclear)}."
    interval_words = f"{percent(1 - alpha)} interval over patients {_words(low, n, sizes)} to {_words(high, n, sizes)}"
    fine_tuned = f"the mean {named} that fine-tuning reaches with {n} training cases ({arm})"
    if np.isposinf(k):
        return (
            f"Pretraining is worth more than {sizes[-1] - n} cases: training from scratch does not reach {fine_tuned} "
            f"even with all {sizes[-1]}; {interval_words}; {ONCE}."
        )
    if np.isneginf(k):
        return (
            f"Pretraining is worth no case: training from scratch with {sizes[0]} is better than {fine_tuned}; "
            f"{interval_words}; {ONCE}."
        )
    if round(k) <= 0:
        return (
            f"Pretraining is worth no case: training from scratch reaches {fine_tuned} with about {n + k:.0f}; "
            f"{interval_words}; {ONCE}."
        )
    level = "" if low > 0 else ", so that it may be worth none"
    return (
        f"Pretraining is worth {k:.0f} case{'s' * (round(k) != 1)}: training from scratch reaches {fine_tuned} with "
        f"about {n + k:.0f}; {interval_words}{level}; {ONCE}."
    )


def _words(bound: float, n: int, sizes: Sequence[int]) -> str:
    """A limit of k: its number, or what it lies beyond."""
    if np.isposinf(bound):
        return f"more than {sizes[-1] - n}"
    return f"less than {sizes[0] - n}" if np.isneginf(bound) else f"{bound:.0f}"
