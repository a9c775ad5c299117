"""The paragraph that says what can and cannot be concluded, written from the tables.

Nothing here is typed in advance but the grammar: which metric improved, which got worse, whether the p-value survives
Holm, which printed numbers hold, how many cases would be needed, all follow the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from brainmets.statistics.comparison_rows import Settings
from brainmets.statistics.directions import PAPER_METRICS, better
from brainmets.statistics.printed import support
from brainmets.statistics.score_tables import ARMS, REGION_ORDER, STRATEGIES, models, ordered, undefined

LESION_REGION = "TC"
STRATEGY_WORDS = {"finetune": "fine-tuned", "scratch": "from scratch"}
NAMES = {"dice": "Dice", "hd95": "HD95"}
ARM_NAMES = {"default": "Default", "tversky_bce": "TverskyBCE", "segresnet": "SegResNet"}
OVER_ARMS = "paired: mean over arms"
FEWEST_FOR_HARM = 6
"""Pairs from which a Hodges-Lehmann interval can reach 95%; below it no harm is read from one."""

LIMIT = (
    "A p-value above the limit is no evidence of equality; each model was trained once on one cohort, so that "
    "training luck and other hospitals are outside these intervals; and scores of whole regions say little about "
    "missed small metastases, for which see detection by lesion size."
)

Row = dict[str, Any]


def conclude(
    scores: pd.DataFrame,
    strategies: pd.DataFrame,
    arms: pd.DataFrame,
    power: pd.DataFrame,
    printed: pd.DataFrame,
    by_size: pd.DataFrame,
    settings: Settings,
) -> str:
    """One paragraph from the tables of ``comparisons``, ``power``, ``printed`` and ``lesions``.

    ``strategies`` is ``finetune_vs_scratch``'s table, ``arms`` ``arms_pairwise``'s, ``by_size``
    ``detection_by_size``'s. It says what was compared, where fine-tuning helped (after Holm, or only before), where
    it harmed, what the paper's own test gives, which arms differ, which lesions were found, what was printed and is
    not supported, and what these numbers cannot show. A comparison that could not be made is named as such.
    """
    alpha = settings.alpha
    sentences = [_material(scores)]
    if strategies.empty:
        sentences.append(_not_compared(scores))
    else:
        sentences += [*_means(scores), *_strategies(strategies, alpha), *_paper_test(strategies, alpha)]
    sentences += [*_arms(arms, alpha), *_lesions(by_size), *_printed(printed), *_power(scores, power, alpha)]
    return " ".join([*sentences, LIMIT])


def answer(scores: pd.DataFrame, strategies: pd.DataFrame, settings: Settings) -> list[str]:
    """The same in at most three sentences: the mean Dice of both strategies, what the paired tests say, and the limit.

    ``strategies`` is ``finetune_vs_scratch``'s table; without rows the one sentence says that nothing was compared.
    """
    if strategies.empty:
        return [_not_compared(scores)]
    tested = _strategies(strategies, settings.alpha)
    return [*_means(scores)[:1], *tested[:1], LIMIT]


def _not_compared(scores: pd.DataFrame) -> str:
    only = dict.fromkeys(strategy for _, strategy in models(scores))
    return (
        "Fine-tuning and training from scratch cannot be compared: "
        f"no arm was scored with both ({', '.join(only)} only)."
    )


def _material(scores: pd.DataFrame) -> str:
    arms = [ARM_NAMES.get(arm, arm) for arm in ordered(scores["arm"], ARMS)]
    missing = len(undefined(scores))
    left_out = f"; {_count(missing, 'undefined value')} left out and named in the tables" if missing else ""
    return f"{_count(scores['case'].nunique(), 'held-out case')} scored by {_listed(arms)}{left_out}."


def _means(scores: pd.DataFrame) -> list[str]:
    sentences = []
    for metric, digits in (("dice", 3), ("hd95", 2)):
        table = scores[(scores["metric"] == metric) & np.isfinite(scores["value"])]
        mean = table.groupby(["region", "arm", "strategy"])["value"].mean().unstack().dropna()
        parts = []
        for region in ordered(mean.index.get_level_values("region"), REGION_ORDER):
            both = mean.loc[region].mean()
            parts.append(f"{region} {both[STRATEGIES[0]]:.{digits}f} against {both[STRATEGIES[1]]:.{digits}f}")
        if parts:
            unit = " in mm" if metric == "hd95" else ""
            sentences.append(f"Mean {NAMES[metric]}{unit}, fine-tuned against scratch: {_listed(parts)}.")
    return sentences


def _strategies(table: pd.DataFrame, alpha: float) -> list[str]:
    """Where fine-tuning helped or harmed, by the paired tests."""
    paired = table[table["comparison"].str.startswith("paired") & table["metric"].isin(PAPER_METRICS)]
    if paired.empty:
        return []
    averaged = paired[paired["comparison"] == OVER_ARMS]
    main = paired if averaged.empty else averaged
    subject = f"For {_arm(main['comparison'].iloc[0])}" if averaged.empty else "Averaged over the arms"
    strong = main[main["p_holm"] < alpha]
    weak = main[(main["p_value"] < alpha) & (main["p_holm"] >= alpha)]
    tests = _count(int(main["p_value"].notna().sum()), "paired test")
    sentences = []
    if len(strong):
        sentences.append(f"{subject}, fine-tuning improved {_effects(strong)} after Holm's correction for {tests}.")
    if len(weak):
        sentences.append(
            f"{subject}, {_effects(weak)} improved only before Holm's correction for {tests}: suggestive, no proof."
        )
    if strong.empty and weak.empty:
        sentences.append(f"{subject}, none of {tests} gives an improvement beyond chance, even before correction.")
    single = paired[(paired["comparison"] != OVER_ARMS) & (paired["p_holm"] < alpha)]
    if len(averaged) and len(single):
        sentences.append(f"Arm by arm, the gain survives Holm's correction for {_effects(single, arms=True)}.")
    harmed = paired[[_harms(row) for row in _records(paired)]]
    if len(harmed):
        sentences.append(
            "The interval of the shift (not corrected for their number) lies wholly on the bad side, so that "
            f"fine-tuning harmed, for {_effects(harmed, arms=True)}."
        )
    n = int(main["n"].max())
    if 0.5**n >= alpha:
        sentences.append(f"With {_count(n, 'pair')} no outcome could have reached p < {alpha:g}.")
    return sentences


def _paper_test(table: pd.DataFrame, alpha: float) -> list[str]:
    """The paper's own test beside the same in the right direction."""
    tested = table[table["metric"].isin(PAPER_METRICS) & table["p_value"].notna()]
    paper, directed = (tested[tested["comparison"] == kind] for kind in ("paper", "directed"))
    if paper.empty:
        return []
    smallest = min(_records(paper), key=lambda row: row["p_value"])
    found = [f"{_name(row)} ({_p(row['p_value'])})" for row in _records(directed) if row["p_value"] < alpha]
    sentence = (
        "The paper's own test (unpaired, arms pooled as if independent, alternative 'greater' even for HD95) gives "
        f"{(paper['p_value'] < alpha).sum()} of {len(paper)} p-values below {alpha:g}, the smallest for "
        f"{_name(smallest)} ({_p(smallest['p_value'])}); with the alternative that means better it gives {len(found)}"
    )
    return [sentence + (f": {_listed(found)}." if found else ".")]


def _arms(table: pd.DataFrame, alpha: float) -> list[str]:
    """Which arms differ, by the paired tests on the mean of both strategies, or on the one that is there."""
    if table.empty:
        return ["There is one arm: arms cannot be compared."]
    paired = table[table["comparison"].str.startswith("paired") & table["metric"].isin(PAPER_METRICS)]
    averaged = paired[paired["comparison"].str.contains(", mean of")]
    chosen = _records(paired if averaged.empty else averaged)
    strong = [row for row in chosen if row["p_holm"] < alpha]
    weak = [row for row in chosen if row["p_value"] < alpha]
    tests = _count(sum(not np.isnan(row["p_value"]) for row in chosen), "paired comparison")
    if strong:
        return [f"Between arms, {_listed([_pair(row) for row in strong])} after Holm's correction for {tests}."]
    if weak:
        smallest = min(weak, key=lambda row: row["p_value"])
        return [
            f"Between arms, {len(weak)} of {tests} have p below {alpha:g} and none survives Holm's correction; "
            f"the smallest is {_pair(smallest)}."
        ]
    return [f"Between arms, none of {tests} has p below {alpha:g}."]


def _lesions(by_size: pd.DataFrame) -> list[str]:
    """Found lesions of the tumour core by size, all arms together, for each strategy that is there."""
    table = by_size[(by_size["region"] == LESION_REGION) & (by_size["n"] > 0)]
    if table.empty:
        return []
    counts = table.groupby(["bin", "strategy"], sort=False)[["detected", "n"]].sum()
    parts = []
    for size in dict.fromkeys(table["bin"]):
        present = counts.loc[size]
        shares = [
            f"{present.loc[strategy, 'detected']} of {present.loc[strategy, 'n']} {STRATEGY_WORDS[strategy]}"
            for strategy in STRATEGIES
            if strategy in present.index
        ]
        parts.append(f"{size} {' and '.join(shares)}")
    return [f"Of the tumour core's lesions, counted once per arm, were found: {'; '.join(parts)}."]


def _printed(table: pd.DataFrame) -> list[str]:
    """How many printed numbers the released scores support, and which printed means they do not."""
    checked = support(table)
    if checked.empty:
        return []
    counts = checked["status"].value_counts()
    means = _records(checked[(checked["quantity"] == "mean") & (checked["status"] != "supported")])
    named = [f"{_name(row)} {row['model']} {row['printed']:g}" for row in means]
    sentence = (
        f"Of {len(checked)} numbers printed in the paper the released scores support {counts.get('supported', 0)}; "
        f"{counts.get('unsupported', 0)} follow from no reading of them and {counts.get('other reading', 0)} only "
        "from another reading than their neighbours"
    )
    return [sentence + (f"; among the means these are {_listed(named)}." if named else ".")]


def _power(scores: pd.DataFrame, power: pd.DataFrame, alpha: float) -> list[str]:
    averaged = power[power["comparison"] == OVER_ARMS]
    main = power if averaged.empty else averaged
    known = main["cases_needed"].dropna()
    if main.empty:
        return []
    if known.empty:
        return ["No number of cases that would show an improvement can be given from these differences."]
    few, many = int(known.min()), int(known.max())
    needs = f"{few}" if few == many else f"{few} to {many}"
    return [
        f"Were the shifts seen in these {_count(scores['case'].nunique(), 'case')} real, 80% power at p < {alpha:g} "
        f"before correction would need {needs} cases for {len(known)} of {len(main)} metrics and regions; for the "
        "others no number of cases could be given."
    ]


def _harms(row: Row) -> bool:
    if row["n"] < FEWEST_FOR_HARM or np.isnan(row["effect_low"]):
        return False
    return bool(row["effect_high"] < 0 if better(row["metric"]) == "greater" else row["effect_low"] > 0)


def _effects(rows: pd.DataFrame, arms: bool = False) -> str:
    found = []
    for row in _records(rows):
        unit = " mm" if row["metric"] == "hd95" else ""
        name = f"{_arm(row['comparison'])} {_name(row)}" if arms else _name(row)
        interval = f"[{row['effect_low']:.2g}, {row['effect_high']:.2g}]"
        p_values = "" if _harms(row) else f", {_p(row['p_value'])}, Holm {_p(row['p_holm'])}"
        found.append(f"{name} ({row['effect']:+.2g}{unit} {interval}{p_values})")
    return _listed(found)


def _arm(comparison: str) -> str:
    name = comparison.removeprefix("paired: ")
    return ARM_NAMES.get(name, name)


def _name(row: Row) -> str:
    return f"{row['region']} {NAMES.get(row['metric'], row['metric'])}"


def _pair(row: Row) -> str:
    """Such as "TverskyBCE above Default in WT Dice (p = 0.002)"."""
    first, second = row["comparison"].removeprefix("paired: ").split(",")[0].split(" vs ")
    if row["effect"] < 0:
        first, second = second, first
    names = f"{ARM_NAMES.get(first, first)} above {ARM_NAMES.get(second, second)}"
    return f"{names} in {_name(row)} ({_p(row['p_value'])})"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def _records(table: pd.DataFrame) -> list[Row]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}" + "s" * (n != 1)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
