"""What can and cannot be concluded: the facts, taken from the tables, and the text that a template makes of them.

``templates/conclusion.txt.j2`` and ``answer.txt.j2`` hold the sentences; nothing in them is fixed in advance but the
grammar. Which metric was better, which worse, whether that survives Holm's correction, how many cases would be needed:
all of it is a number, a list or a yes or no in ``facts``. Better and worse meet one standard: the same paired test in
either direction, counted before and after Holm's correction in the same family.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from brainmets.statistics import power
from brainmets.statistics.agreement import bland_altman, volume_pairs
from brainmets.statistics.comparisons import BOTH_STRATEGIES, MEAN_OVER_ARMS, Settings
from brainmets.statistics.tables import models, undefined, values
from brainmets.vocabulary import (
    ARMS,
    COMPARED_STRATEGIES,
    METRIC_TITLES,
    PAPER_METRICS,
    REGION_ORDER,
    STRATEGY_TITLES,
    arm_title,
    better,
    ordered,
)

Facts = dict[str, Any]

SIDES = {"better": ("p_value", "p_holm"), "worse": ("p_worse", "p_worse_holm")}
LESION_REGION = "TC"
MEAN_METRICS = ("dice", "hd95")
MOST_EFFECTS = 6
"""Up to so many shifts are written with their numbers; of a longer list the names alone."""


def facts(
    scores: pd.DataFrame,
    strategies: pd.DataFrame,
    arms: pd.DataFrame,
    needed: pd.DataFrame,
    by_size: pd.DataFrame,
    settings: Settings,
) -> Facts:
    """Everything that the conclusion says, from the tables of ``comparisons``, ``power`` and ``scoring.detection``.

    ``strategies`` is ``finetune_vs_scratch``'s table, ``arms`` ``arms_pairwise``'s, ``needed`` ``cases_needed``'s,
    ``by_size`` ``detection_by_size``'s. Keys: alpha, n_cases, arms, n_undefined and left_out (what was compared);
    only (the strategies that are there, where nothing could be compared, else an empty list); means, infinite and
    overturned; main and single (the paired tests over all arms and arm by arm, see ``tally``), shifts_written (whether
    any of their shifts is given as a number); papers_test, pairs (between arms), volumes, detection (whether there are
    lesion tables), lesions, power. A comparison that could not be made is None or an empty list.
    """
    alpha = settings.alpha
    compared = not strategies.empty
    paired = strategies[(strategies["kind"] == "paired") & strategies["metric"].isin(PAPER_METRICS)]
    averaged = paired["first"] == MEAN_OVER_ARMS
    main, single = (paired[averaged], paired[~averaged]) if averaged.any() else (paired, paired.iloc[:0])
    over_arms, by_arm = (None if tests.empty else tally(tests, alpha) for tests in (main, single))
    return {
        "alpha": alpha,
        "n_cases": int(scores["case"].nunique()),
        "arms": [arm_title(arm) for arm in ordered(scores["arm"], ARMS)],
        "n_undefined": int(undefined(scores)["value"].isna().sum()),
        "left_out": arms_left_out(scores),
        "only": [] if compared else list(dict.fromkeys(strategy for _, strategy in models(scores))),
        "means": means(scores) if compared else [],
        "infinite": infinite(scores) if compared else None,
        "overturned": overturned(scores) if compared else [],
        "main": over_arms,
        "single": by_arm,
        "shifts_written": _shifts_written(over_arms, by_arm),
        "papers_test": papers_test(strategies, alpha),
        "pairs": between_arms(arms, alpha),
        "volumes": volumes(scores, alpha),
        "detection": len(by_size) > 0,
        "lesions": lesions(by_size),
        "power": cases_for_power(needed),
    }


def conclusion(known: Facts) -> str:
    """The conclusion of ``facts``: short paragraphs with an empty line between them."""
    return "\n\n".join(render("conclusion.txt.j2", known))


def answer(known: Facts) -> list[str]:
    """The same in at most three sentences: the mean Dice of both strategies, what the paired tests say, the limit."""
    return render("answer.txt.j2", known)


# --- facts -------------------------------------------------------------------------------------------------------


def arms_left_out(scores: pd.DataFrame) -> list[Facts]:
    """Each strategy with the arms that lack it where others have both; an empty list where no arm has both."""
    present, arms = models(scores), ordered(scores["arm"], ARMS)
    if not any(all((arm, side) in present for side in COMPARED_STRATEGIES) for arm in arms):
        return []
    lacking = {side: [arm_title(arm) for arm in arms if (arm, side) not in present] for side in COMPARED_STRATEGIES}
    return [{"strategy": side, "arms": titles} for side, titles in lacking.items() if titles]


def _pairs(scores: pd.DataFrame, metric: str) -> dict[str, pd.DataFrame]:
    """By region, both strategies' values of the pairs with two finite ones; index arm and case, columns strategies."""
    pairs = {}
    for region in ordered(scores.loc[scores["metric"] == metric, "region"], REGION_ORDER):
        table = values(scores, metric, region)
        both = [
            arm for arm in ordered(scores["arm"], ARMS) if all((arm, side) in table for side in COMPARED_STRATEGIES)
        ]
        parts = {arm: table[arm][list(COMPARED_STRATEGIES)].dropna() for arm in both}
        if any(len(part) for part in parts.values()):
            pairs[region] = pd.concat(parts, names=["arm", "case"])
    return pairs


def means(scores: pd.DataFrame) -> list[Facts]:
    """Dice and HD95 of both strategies: means over cases, then over arms."""
    found = []
    for metric in MEAN_METRICS:
        regions = [
            {"region": region, **pairs.groupby("arm").mean().mean().to_dict()}
            for region, pairs in _pairs(scores, metric).items()
        ]
        if regions:
            found.append({"metric": metric, "regions": regions})
    return found


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
    after Holm's correction, with winner, loser, metric, region and p; smallest, of these. None for one arm.
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
        "smallest": smallest(before) if before else None,
    }


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


def cases_for_power(needed: pd.DataFrame) -> Facts | None:
    """Cases for 80% power by metric and region, apart from those where none can be given.

    Keys: needed, by rising number of cases ("more" marks those that the most cases tried do not reach), each with its
    rows; none, the rows with no improvement to detect. None where nothing was compared.
    """
    averaged = needed[needed["first"] == MEAN_OVER_ARMS]
    main = needed if averaged.empty else averaged
    if main.empty:
        return None
    key = ["metric", "region"]
    known = main.dropna(subset=["cases_needed"]).sort_values("cases_needed", kind="stable")
    entries: list[Facts] = [
        {"cases": int(row["cases_needed"]), "more": False, "rows": [{name: row[name] for name in key}]}
        for row in known.to_dict("records")
    ]
    level = main["note"] == power.NO_IMPROVEMENT
    beyond = main[main["cases_needed"].isna() & main["power_at_n_observed"].notna() & ~level]
    if len(beyond):
        entries.append({"cases": power.MOST_CASES, "more": True, "rows": beyond[key].to_dict("records")})
    return {"needed": entries, "none": main.loc[level, key].to_dict("records")}


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
    listed=listed, counted=counted, p=p_words, measure=measure, arm_and_measure=arm_and_measure, shown=format
)
ENVIRONMENT.globals.update(most_effects=MOST_EFFECTS, metric_titles=METRIC_TITLES, strategy_titles=STRATEGY_TITLES)
