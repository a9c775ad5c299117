"""What can and cannot be concluded: the facts, taken from the tables, and the text that a template makes of them.

``templates/conclusion.txt.j2`` and ``answer.txt.j2`` hold the sentences; nothing in them is fixed in advance but the
grammar. Which metric was better, whether that survives Holm's correction, how many cases would be needed: all of it is
a number, a list or a yes or no in ``facts``.

The answer holds the verdict of the declared rule (``statistics.decision``), its further endpoints, and plain
descriptions: means with their number of cases, and lesions found. Nothing else that was tested is in it. The
conclusion reports exploratory findings too, and says that they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from brainmets.params import Decision
from brainmets.statistics import decision
from brainmets.statistics.agreement import bland_altman, volume_pairs
from brainmets.statistics.comparisons import AUTHORS, BOTH_STRATEGIES, MEAN_OVER_ARMS, Settings
from brainmets.statistics.declared import Declared
from brainmets.statistics.descriptive import false_volumes
from brainmets.statistics.tables import models, undefined, values, with_reference
from brainmets.statistics.tests import percent
from brainmets.vocabulary import (
    ARMS,
    COMPARED_STRATEGIES,
    DETECTION_SENSITIVITY,
    METRIC_TITLES,
    PAPER_METRICS,
    REGION_ORDER,
    REGIONS,
    STRATEGY_TITLES,
    Model,
    arm_title,
    better,
    ordered,
)

Facts = dict[str, Any]

SIDES = {"better": ("p_value", "p_holm"), "worse": ("p_worse", "p_worse_holm")}
LESION_REGION = "TC"
MEAN_METRICS = ("dice", "hd95")
WITHOUT_TRAINING = "pretrained"
"""The strategy of the networks as pretrained: not trained on the target at all."""
PLAIN = {
    "ET": "enhancing tumour",
    "TC": "tumour core",
    "WT": "whole tumour",
    "dice": "overlap",
    "hd95": "distance of the outlines",
    "hd": "largest distance of the outlines",
    "sensitivity": "share of the tumour that was found",
    "specificity": "share of healthy tissue left alone",
    "precision": "share of the prediction that is tumour",
    "nsd_1mm": "share of the outline that is right to 1 mm",
    DETECTION_SENSITIVITY: "share of the lesions found",
}
"""Regions and metrics as a physician says them; any other metric keeps its name."""
LISTED = 12
"""Results that are named one by one; where more are found, they are counted."""
IN_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
MOST_EFFECTS = 6
"""Up to so many shifts are written with their numbers; of a longer list the names alone."""


@dataclass(frozen=True)
class Decided:
    """The declared rule, when it was declared, ``decision.decide``'s table, and ``power.cases_needed``'s."""

    rule: Decision
    declared: Declared
    table: pd.DataFrame
    needed: pd.DataFrame


def facts(
    scores: pd.DataFrame,
    strategies: pd.DataFrame,
    arms: pd.DataFrame,
    by_size: pd.DataFrame,
    decided: Decided,
    settings: Settings,
) -> Facts:
    """Everything that the conclusion and the answer say, from the tables of the other modules.

    ``scores`` is the whole score table; where a reference lacks a region, this leaves the case out as
    ``tables.with_reference`` does. ``strategies`` is ``finetune_vs_scratch``'s table, ``arms`` ``arms_pairwise``'s,
    ``by_size`` ``scoring.detection.detection_by_size``'s. Keys: decision (``decision.facts``, and declared: when, and
    whether it was changed), power (its rows of ``cases_needed``); alpha, n_cases, arms, compared_arms, n_undefined and
    left_out (what was compared); only (the strategies that are there, where nothing could be compared, else an empty
    list); means, pretrained, false_volumes, infinite and overturned; main (the authors' family) and single (arm by
    arm), see ``tally``; shifts_written (whether any of their shifts is given as a number); papers_test, pairs (between
    arms), volumes, detection (whether there are lesion tables), lesions and found (by size and together). A comparison
    that could not be made is None or an empty list.
    """
    alpha = settings.alpha
    compared = not strategies.empty
    judged = with_reference(scores)
    main = strategies[strategies["family"] == AUTHORS] if compared else strategies
    single = strategies[(strategies["kind"] == "paired") & strategies["metric"].isin(PAPER_METRICS)]
    single = single[~single["first"].isin([MEAN_OVER_ARMS, *main["first"]])]
    over_arms, by_arm = (None if tests.empty else tally(tests, alpha) for tests in (main, single))
    return {
        "decision": {**decision.facts(decided.table, decided.rule), "declared": decided.declared.record()},
        "power": decided.needed.to_dict("records"),
        "alpha": alpha,
        "n_cases": int(scores["case"].nunique()),
        "arms": [arm_title(arm) for arm in ordered(scores["arm"], ARMS)],
        "compared_arms": [arm_title(arm) for arm in arms_with_both(scores)],
        "n_undefined": int(undefined(scores)["value"].isna().sum()),
        "left_out": arms_left_out(scores),
        "only": [] if compared else list(dict.fromkeys(strategy for _, strategy in models(scores))),
        "means": means(judged) if compared else [],
        "pretrained": pretrained(judged),
        "false_volumes": invented(scores),
        "infinite": infinite(judged) if compared else None,
        "overturned": overturned(judged) if compared else [],
        "main": over_arms,
        "single": by_arm,
        "shifts_written": _shifts_written(over_arms, by_arm),
        "papers_test": papers_test(strategies, alpha),
        "pairs": between_arms(arms, alpha),
        "volumes": volumes(scores, alpha),
        "detection": len(by_size) > 0,
        "lesions": lesions(by_size),
        "found": found_lesions(by_size, arms_with_both(scores)),
    }


def conclusion(known: Facts) -> str:
    """The conclusion of ``facts``: short paragraphs with an empty line between them."""
    return "\n\n".join(render("conclusion.txt.j2", known))


def answer(known: Facts) -> list[str]:
    """The answer in at most five sentences that a physician understands.

    The verdict, the further endpoints of the rule, the mean Dice of both strategies beside what pretraining alone
    reaches, the lesions found, and the limit. Where nothing could be compared it says that, and what pretraining alone
    reaches.
    """
    return render("answer.txt.j2", known)


# --- facts -------------------------------------------------------------------------------------------------------


def arms_with_both(scores: pd.DataFrame) -> list[str]:
    """The arms that have both compared strategies."""
    present = models(scores)
    return [arm for arm in ordered(scores["arm"], ARMS) if {(arm, side) for side in COMPARED_STRATEGIES} <= {*present}]


def arms_left_out(scores: pd.DataFrame) -> list[Facts]:
    """Each strategy with the arms that lack it where others have both; an empty list where no arm has both."""
    present, arms = models(scores), ordered(scores["arm"], ARMS)
    if not arms_with_both(scores):
        return []
    lacking = {side: [arm_title(arm) for arm in arms if (arm, side) not in present] for side in COMPARED_STRATEGIES}
    return [{"strategy": side, "arms": titles} for side, titles in lacking.items() if titles]


def _pairs(scores: pd.DataFrame, metric: str) -> dict[str, pd.DataFrame]:
    """By region, both strategies' values of the pairs with two finite ones; index arm and case, columns strategies."""
    pairs = {}
    for region in REGIONS:
        table = values(scores, metric, region)
        parts = {arm: table[arm][list(COMPARED_STRATEGIES)].dropna() for arm in arms_with_both(scores)}
        if any(len(part) for part in parts.values()):
            pairs[region] = pd.concat(parts, names=["arm", "case"])
    return pairs


def means(scores: pd.DataFrame) -> list[Facts]:
    """Dice and HD95 of both strategies: means over cases, then over arms, and n, the cases of each region."""
    found = []
    for metric in MEAN_METRICS:
        regions = [
            {"region": region, **pairs.groupby("arm").mean().mean().to_dict(), "n": pairs.index.unique("case").size}
            for region, pairs in _pairs(scores, metric).items()
        ]
        if regions:
            found.append({"metric": metric, "regions": regions})
    return found


def pretrained(scores: pd.DataFrame) -> Facts | None:
    """What the networks reach on the target without any training there: arms, and Dice and n of each region.

    Of the arms that were trained on the target too where there are any, so that the means stand beside theirs.
    """
    arms = [arm for arm, strategy in models(scores) if strategy == WITHOUT_TRAINING]
    chosen = [arm for arm in arms if arm in arms_with_both(scores)] or arms
    of_them: list[Model] = [(arm, WITHOUT_TRAINING) for arm in chosen]
    tables = {region: values(scores, "dice", region)[of_them] for region in REGIONS}
    regions = [
        {"region": region, "dice": float(table.mean().mean()), "n": len(table.dropna(how="all"))}
        for region, table in tables.items()
        if table.notna().any(axis=None)
    ]
    return {"arms": [arm_title(arm) for arm in chosen], "regions": regions} if regions else None


def invented(scores: pd.DataFrame) -> list[Facts]:
    """By region that some reference lacks: n_cases without it, and each strategy's mean volume predicted there."""
    table = false_volumes(scores)
    return [
        {
            "region": region,
            "n_cases": int(own["n_cases"].max()),
            "means": own.groupby("strategy", sort=False)["mean_ml"].mean().to_dict(),
        }
        for region, own in table[table["region"].isin(list(REGIONS))].groupby("region", sort=False)
    ]


def infinite(scores: pd.DataFrame) -> dict[str, int] | None:
    """How many distances of each strategy are infinite, which no mean can hold; None where none is."""
    found = scores.loc[np.isinf(scores["value"]), "strategy"].value_counts()
    return {side: int(found.get(side, 0)) for side in COMPARED_STRATEGIES} if len(found) else None


def overturned(scores: pd.DataFrame) -> list[Facts]:
    """The mean differences, over the arms ("arm" is None) and of each arm, whose sign one case alone decides."""
    found = []
    for metric in MEAN_METRICS:
        for region, pairs in _pairs(scores, metric).items():
            table = (pairs[COMPARED_STRATEGIES[0]] - pairs[COMPARED_STRATEGIES[1]]).unstack("arm")
            single: dict[str | None, pd.Series] = {arm: table[arm] for arm in ordered(table.columns, ARMS)}
            every = {None: table.dropna().mean(axis=1), **single} if len(single) > 1 else {None: table.iloc[:, 0]}
            for arm, differences in every.items():
                cases = _deciding(differences.dropna())
                if len(cases) == 1:
                    found.append({"arm": arm, "metric": metric, "region": region, "case": cases[0]})
    return found


def _deciding(differences: pd.Series) -> list[str]:
    """The cases without which the mean of at least three differences has the opposite sign."""
    if len(differences) < 3:
        return []
    without = (differences.sum() - differences) / (len(differences) - 1)
    return [str(case) for case in differences.index[np.sign(without) * np.sign(differences.mean()) < 0]]


def tally(paired: pd.DataFrame, alpha: float) -> Facts:
    """In how many of the paired tests fine-tuning was better and worse, before and after Holm's correction.

    Keys: tests, pairs (the most of any test), arms; reachable, whether any outcome could have given p below alpha, and
    correctable, whether any could have survived Holm (the smallest possible p, times the tests, is below alpha);
    interval_attainable, whether that many pairs allow an interval at 1 - alpha; better and worse, each with the
    tests below alpha "before" and "after" the correction: arm, metric, region, effect, low, high, p and p_holm.
    """
    tests, pairs = int(paired["p_value"].notna().sum()), int(paired["n"].max())
    least = paired["smallest_p"].min()
    found: Facts = {
        "tests": tests,
        "pairs": pairs,
        "arms": [arm_title(arm) for arm in dict.fromkeys(paired["first"])],
        "reachable": not least >= alpha,
        "correctable": not least * tests >= alpha,
        "interval_attainable": 2 * 0.5**pairs <= alpha,
    }
    names = {"first": "arm", "effect_low": "low", "effect_high": "high"}
    for side, (p_value, p_holm) in SIDES.items():
        columns = ["first", "metric", "region", "effect", "effect_low", "effect_high", p_value, p_holm]
        rows = paired[columns].rename(columns={**names, p_value: "p", p_holm: "p_holm"})
        before, after = (rows[rows[name] < alpha].to_dict("records") for name in ("p", "p_holm"))
        found[side] = {"before": before, "after": after}
    return found


def _shifts_written(main: Facts | None, single: Facts | None) -> bool:
    """Whether the text gives any shift with its interval: before correction over the arms, after it arm by arm."""
    lists = [tests[side][when] for tests, when in ((main, "before"), (single, "after")) if tests for side in SIDES]
    return any(0 < len(rows) <= MOST_EFFECTS for rows in lists)


def smallest(rows: Sequence[Mapping[Any, Any]]) -> Facts:
    """The smallest p, and the rows that share it."""
    least = min(row["p"] for row in rows)
    return {"p": least, "rows": [row for row in rows if np.isclose(row["p"], least, rtol=1e-9)]}


def papers_test(strategies: pd.DataFrame, alpha: float) -> Facts | None:
    """The paper's own test beside the same in the right direction: tests, below alpha, smallest, directed."""
    tested = strategies[strategies["metric"].isin(PAPER_METRICS) & strategies["p_value"].notna()]
    paper, directed = (
        tested.loc[tested["kind"] == kind, ["metric", "region", "p_value"]]
        .rename(columns={"p_value": "p"})
        .to_dict("records")
        for kind in ("paper", "directed")
    )
    if not paper:
        return None
    return {
        "tests": len(paper),
        "below": sum(row["p"] < alpha for row in paper),
        "smallest": smallest(paper),
        "directed": [row for row in directed if row["p"] < alpha],
    }


def between_arms(arms: pd.DataFrame, alpha: float) -> Facts | None:
    """Which arms differ, by the paired tests on the mean of both strategies, or on the one that is there.

    Keys: tests, cases, reachable and correctable as in ``tally``; before and after, the tests below alpha before and
    after Holm's correction, with winner, loser, metric, region and p; smallest, of these; of_pairs, where more than
    ``LISTED`` are below it after: how many each arm of a pair won. None for one arm.
    """
    if arms.empty:
        return None
    paired = arms[(arms["kind"] == "paired") & arms["metric"].isin(PAPER_METRICS)]
    averaged = paired[paired["strategies"] == BOTH_STRATEGIES]
    chosen = paired if averaged.empty else averaged
    before, after = [], []
    for row in chosen[chosen["p_value"] < alpha].to_dict("records"):
        worse_first = (row["effect"] < 0) == (better(row["metric"]) == "greater")
        winner, loser = (row["second"], row["first"]) if worse_first else (row["first"], row["second"])
        found = {
            "winner": arm_title(winner),
            "loser": arm_title(loser),
            "metric": row["metric"],
            "region": row["region"],
            "p": row["p_value"],
        }
        before.append(found)
        if row["p_holm"] < alpha:
            after.append(found)
    tests, least = int(chosen["p_value"].notna().sum()), chosen["smallest_p"].min()
    return {
        "tests": tests,
        "cases": int(chosen["n"].max()),
        "reachable": not least >= alpha,
        "correctable": not least * tests >= alpha,
        "before": before,
        "after": after,
        "of_pairs": _of_pairs(after) if len(after) > LISTED else [],
        "smallest": smallest(before) if before else None,
    }


def _of_pairs(found: list[Facts]) -> list[Facts]:
    """Winner, loser, and in how many tests the first won and lost; the one that won more often stands first."""
    won = Counter((one["winner"], one["loser"]) for one in found)
    return [
        {"winner": winner, "loser": loser, "won": times, "lost": won[loser, winner]}
        for (winner, loser), times in won.items()
        if (times, loser) > (won[loser, winner], winner)
    ]


def volumes(scores: pd.DataFrame, alpha: float) -> Facts | None:
    """Bland-Altman's mean difference of predicted and reference volume in mL, averaged over the arms.

    Keys: regions, each with its region and biases by strategy; models, how many models and regions there are, and
    below and above, of how many the interval lies wholly below or above 0. None without volumes.
    """
    table = bland_altman(volume_pairs(scores), alpha)
    table = table[table["bias"].notna()]
    if table.empty:
        return None
    mean = table.groupby(["region", "strategy"])["bias"].mean()
    regions = [
        {
            "region": region,
            "biases": {side: mean[region][side] for side in COMPARED_STRATEGIES if side in mean[region].index},
        }
        for region in ordered(table["region"], REGION_ORDER)
    ]
    below, above = int((table["bias_high"] < 0).sum()), int((table["bias_low"] > 0).sum())
    return {"regions": regions, "models": len(table), "below": below, "above": above}


def lesions(by_size: pd.DataFrame) -> list[Facts]:
    """Found lesions of the tumour core by size, all arms together: size, and strategy, detected and n of each."""
    table = by_size[(by_size["region"] == LESION_REGION) & (by_size["n"] > 0)]
    counts = table.groupby(["bin", "strategy"], sort=False)[["detected", "n"]].sum()
    return [
        {
            "size": size,
            "found": [
                {"strategy": strategy, **counts.loc[(size, strategy)].to_dict()}
                for strategy in COMPARED_STRATEGIES
                if (size, strategy) in counts.index
            ],
        }
        for size in dict.fromkeys(table["bin"])
    ]


def found_lesions(by_size: pd.DataFrame, arms: Sequence[str]) -> list[Facts]:
    """Found lesions of the tumour core, all sizes and these arms together: strategy, detected and n of each."""
    table = by_size[(by_size["region"] == LESION_REGION) & by_size["arm"].isin(arms)]
    own = {side: table[table["strategy"] == side] for side in COMPARED_STRATEGIES}
    return [
        {"strategy": side, "detected": int(rows["detected"].sum()), "n": int(rows["n"].sum())}
        for side, rows in own.items()
        if rows["n"].sum()
    ]


# --- text --------------------------------------------------------------------------------------------------------


def render(template: str, known: Mapping[str, Any]) -> list[str]:
    """The paragraphs of a template: an empty line ends one, every other white space is a single space."""
    text = ENVIRONMENT.get_template(template).render(known)
    return [paragraph for block in text.split("\n\n") if (paragraph := " ".join(block.split()))]


def listed(names: Iterable[str]) -> str:
    """The names with commas and an "and".

    >>> listed(["ET", "TC", "WT"])
    'ET, TC and WT'
    """
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def counted(n: int, thing: str) -> str:
    """A number with its noun, in the plural where it is not one."""
    return f"{n} {thing}" + "s" * (n != 1)


def in_words(n: int) -> str:
    """A small number in words, "no" for none.

    >>> in_words(9), in_words(13)
    ('nine', '13')
    """
    return IN_WORDS[n] if n < len(IN_WORDS) else str(n)


def plainly(rows: Sequence[Mapping[str, Any]]) -> str:
    """Metric and region of each endpoint as a physician says them.

    >>> plainly([{"metric": "dice", "region": "ET"}, {"metric": "lesion_f1", "region": "TC"}])
    'overlap in the enhancing tumour and lesion_f1 in the tumour core'
    """
    return listed(f"{PLAIN.get(row['metric'], row['metric'])} in the {PLAIN[row['region']]}" for row in rows)


def amount(value: float, unit: str, sign: str = "") -> str:
    """A number with its unit; ``sign`` "+" writes a plus too.

    >>> amount(0.0493, "1", "+"), amount(1.25, "mm"), amount(2, "count")
    ('+0.049', '1.2 mm', '2')
    """
    if unit == "1":
        return format(value, f"{sign}.3f")
    return format(value, f"{sign}.1f") + " mm" if unit == "mm" else format(value, f"{sign}.3g")


def margin_of(row: Mapping[str, Any]) -> str:
    """The margin of a row as the rule has it, with its unit where it is a distance."""
    return f"{row['margin']:g}" + (" mm" if row["unit"] == "mm" else "")


def p_words(value: float) -> str:
    """A p-value with two digits.

    >>> p_words(0.0123), p_words(0.0004)
    ('p = 0.012', 'p < 0.001')
    """
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def measure(row: Mapping[str, Any]) -> str:
    """Region and metric of a row, such as "TC Dice"."""
    return f"{row['region']} {METRIC_TITLES.get(row['metric'], row['metric'])}"


def arm_and_measure(row: Mapping[str, Any]) -> str:
    """The same after the arm, where the row has one, such as "SegResNet TC Dice"."""
    return f"{arm_title(row['arm'])} {measure(row)}" if row["arm"] else measure(row)


ENVIRONMENT = Environment(  # of plain text: nothing is escaped
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters.update(
    listed=listed, counted=counted, in_words=in_words, p=p_words, measure=measure, arm_and_measure=arm_and_measure,
    plainly=plainly, shown=format, percent=percent, amount=amount, margin=margin_of,
)  # fmt: skip
ENVIRONMENT.globals.update(
    most_effects=MOST_EFFECTS, metric_titles=METRIC_TITLES, strategy_titles=STRATEGY_TITLES, plain=PLAIN
)
