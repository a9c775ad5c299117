"""The paragraphs that say what can and cannot be concluded, written from the tables.

Nothing here is typed in advance but the grammar: which metric was better, which worse, whether that survives Holm,
which printed numbers hold, how many cases would be needed, all follow the numbers.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from brainmets.statistics import printed as paper
from brainmets.statistics.agreement import bland_altman, volume_pairs
from brainmets.statistics.comparison_rows import Settings
from brainmets.statistics.comparisons import OVER_ARMS
from brainmets.statistics.power import NO_IMPROVEMENT
from brainmets.statistics.tables import models, undefined, values
from brainmets.statistics.verdicts import in_short, on_arms, on_strategies, on_the_papers_test
from brainmets.statistics.wording import count, listed, measure, records
from brainmets.vocabulary import ARMS, METRIC_TITLES, REGION_ORDER, STRATEGIES, STRATEGY_TITLES, arm_title, ordered

LESION_REGION = "TC"
MEANS = {"dice": (3, ""), "hd95": (2, " in mm (lower is better)")}
"""Metrics whose means are written: decimals and unit."""


def conclude(
    scores: pd.DataFrame,
    strategies: pd.DataFrame,
    arms: pd.DataFrame,
    power: pd.DataFrame,
    printed: pd.DataFrame,
    by_size: pd.DataFrame,
    settings: Settings,
) -> str:
    """Short paragraphs, an empty line between them, from the tables of ``comparisons``, ``power`` and the others.

    ``strategies`` is ``finetune_vs_scratch``'s table, ``arms`` ``arms_pairwise``'s, ``by_size``
    ``detection_by_size``'s. They say what was compared, where fine-tuning was better and where worse (before and after
    Holm), what the paper's own test gives, which arms differ, how far volumes are off, which lesions were found, what
    was printed and is not supported, and what these numbers cannot show. A comparison that could not be made, and an
    arm that is left out, are named as such.
    """
    alpha = settings.alpha
    if strategies.empty:
        compared = [[_not_compared(scores)]]
    else:
        means = [*(f"{mean}." for mean in _means(scores)), *_infinite(scores), *_overturned(scores)]
        compared = [means, on_strategies(strategies, alpha), on_the_papers_test(strategies, alpha)]
    paragraphs = [
        [*_material(scores), *compared[0]],
        *compared[1:],
        on_arms(arms, alpha),
        _volumes(scores, alpha),
        _lesions(by_size),
        _printed(printed),
        _power(scores, power, alpha),
        [_limit(alpha, len(by_size) > 0)],
    ]
    return "\n\n".join(" ".join(sentences) for sentences in paragraphs if sentences)


def answer(scores: pd.DataFrame, strategies: pd.DataFrame, settings: Settings) -> list[str]:
    """The same in at most three sentences: the mean Dice of both strategies, what the paired tests say, and the limit.

    ``strategies`` is ``finetune_vs_scratch``'s table; without rows the one sentence says that nothing was compared.
    """
    if strategies.empty:
        return [_not_compared(scores)]
    left_out = "".join(f"; {remark}" for remark in _left_out(scores))
    means = [f"{mean}{left_out}." for mean in _means(scores)[:1]]
    return [*means, *in_short(strategies, settings.alpha), _limit(settings.alpha, lesions=False)]


def _not_compared(scores: pd.DataFrame) -> str:
    only = dict.fromkeys(strategy for _, strategy in models(scores))
    return (
        "Fine-tuning and training from scratch cannot be compared: "
        f"no arm was scored with both ({', '.join(only)} only)."
    )


def _limit(alpha: float, lesions: bool) -> str:
    where = ", for which see detection by lesion size" if lesions else ""
    return (
        f"A p-value above {alpha:g} is no evidence of equality; each model was trained once on one cohort, so that "
        "training luck and other hospitals are outside these intervals; and scores of whole regions say little about "
        f"missed small metastases{where}."
    )


def _material(scores: pd.DataFrame) -> list[str]:
    arms = [arm_title(arm) for arm in ordered(scores["arm"], ARMS)]
    missing = int(undefined(scores)["value"].isna().sum())
    left_out = f"; {count(missing, 'undefined value')} left out and named in the tables" if missing else ""
    sentence = f"{count(scores['case'].nunique(), 'held-out case')} scored by {listed(arms)}{left_out}."
    return [sentence, *(f"{remark[0].upper()}{remark[1:]}." for remark in _left_out(scores))]


def _left_out(scores: pd.DataFrame) -> list[str]:
    """The arms that lack a strategy where others have both; an empty list where no arm has both."""
    present = models(scores)
    arms = ordered(scores["arm"], ARMS)
    if not any(all((arm, side) in present for side in STRATEGIES) for arm in arms):
        return []
    remarks = []
    for side in STRATEGIES:
        lacking = [arm_title(arm) for arm in arms if (arm, side) not in present]
        if lacking:
            verb = "is" if len(lacking) == 1 else "are"
            remarks.append(
                f"{listed(lacking)} {verb} left out wherever strategies are compared, having no scores "
                f"{_as_trained(side)}"
            )
    return remarks


def _as_trained(strategy: str) -> str:
    return {"finetune": "of a fine-tuned model", "scratch": "of a model trained from scratch"}[strategy]


def _differences(scores: pd.DataFrame, metric: str, region: str) -> pd.DataFrame:
    """Both strategies' values of the pairs with two finite ones; columns ``STRATEGIES``, index arm and case."""
    table = values(scores, metric, region)
    arms = [arm for arm in ordered(scores["arm"], ARMS) if all((arm, side) in table.columns for side in STRATEGIES)]
    parts = {arm: table[arm][list(STRATEGIES)].dropna() for arm in arms}
    return pd.concat(parts, names=["arm", "case"]) if parts else pd.DataFrame(columns=list(STRATEGIES))


def _pairs(scores: pd.DataFrame, metric: str) -> dict[str, pd.DataFrame]:
    regions = ordered(scores.loc[scores["metric"] == metric, "region"], REGION_ORDER)
    pairs = {region: _differences(scores, metric, region) for region in regions}
    return {region: table for region, table in pairs.items() if len(table)}


def _means(scores: pd.DataFrame) -> list[str]:
    """Means over cases, then over arms, without a full stop."""
    sentences = []
    for metric, (digits, unit) in MEANS.items():
        parts = []
        for region, pairs in _pairs(scores, metric).items():
            mean = pairs.groupby("arm").mean().mean()
            parts.append(f"{region} {mean[STRATEGIES[0]]:.{digits}f} against {mean[STRATEGIES[1]]:.{digits}f}")
        if parts:
            sentences.append(f"Mean {METRIC_TITLES[metric]}{unit}, fine-tuned against scratch: {listed(parts)}")
    return sentences


def _infinite(scores: pd.DataFrame) -> list[str]:
    """Infinite distances, which no mean can hold, and whom that favours."""
    found = scores.loc[np.isinf(scores["value"]), "strategy"].value_counts()
    if found.empty:
        return []
    ours, theirs = (int(found.get(side, 0)) for side in STRATEGIES)
    favoured = "neither strategy" if ours == theirs else "fine-tuning" if ours > theirs else "training from scratch"
    return [
        f"{count(ours, 'distance')} fine-tuned and {theirs} from scratch are infinite: they rank as the worst, but no "
        f"mean holds their pairs, which favours {favoured}."
    ]


def _overturned(scores: pd.DataFrame) -> list[str]:
    """The mean differences, over the arms and of each arm, whose sign one case alone decides."""
    found = []
    for metric in MEANS:
        for region, pairs in _pairs(scores, metric).items():
            name = measure({"metric": metric, "region": region})
            table = (pairs[STRATEGIES[0]] - pairs[STRATEGIES[1]]).unstack("arm")
            single = {f"{arm_title(arm)} {name}": table[arm] for arm in ordered(table.columns, ARMS)}
            every = {name: table.dropna().mean(axis=1), **single} if len(single) > 1 else {name: table.iloc[:, 0]}
            for title, differences in every.items():
                cases = _deciding(differences.dropna())
                if len(cases) == 1:
                    found.append(f"{title} (case {cases[0]})")
    return [f"Leaving out one case reverses the sign of the mean difference in {listed(found)}."] if found else []


def _deciding(differences: pd.Series) -> list[str]:
    """The cases without which the mean of at least three differences has the opposite sign."""
    if len(differences) < 3:
        return []
    without = (differences.sum() - differences) / (len(differences) - 1)
    return [str(case) for case in differences.index[np.sign(without) * np.sign(differences.mean()) < 0]]


def _volumes(scores: pd.DataFrame, alpha: float) -> list[str]:
    """Bland-Altman's mean difference of predicted and reference volume, averaged over the arms."""
    table = bland_altman(volume_pairs(scores), alpha)
    table = table[table["bias"].notna()]
    if table.empty:
        return []
    mean = table.groupby(["region", "strategy"])["bias"].mean()
    parts = []
    for region in ordered(table["region"], REGION_ORDER):
        sides = [side for side in STRATEGIES if side in mean[region].index]
        parts.append(f"{region} {listed([f'{mean[region][side]:+.1f} mL {STRATEGY_TITLES[side]}' for side in sides])}")
    small, large = int((table["bias_high"] < 0).sum()), int((table["bias_low"] > 0).sum())
    return [
        f"Predicted minus reference volume (Bland-Altman's mean difference, over the arms): {'; '.join(parts)}; "
        f"its {1 - alpha:.0%} interval lies wholly below 0 for {small} and wholly above for {large} of {len(table)} "
        "models and regions."
    ]


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
            f"{present.loc[strategy, 'detected']} of {present.loc[strategy, 'n']} {STRATEGY_TITLES[strategy]}"
            for strategy in STRATEGIES
            if strategy in present.index
        ]
        parts.append(f"{size} {' and '.join(shares)}")
    return [f"Of the tumour core's lesions, counted once per arm, were found: {'; '.join(parts)}."]


def _printed(table: pd.DataFrame) -> list[str]:
    """How many printed numbers the released scores support, under which reading, and which they do not."""
    checked = paper.support(table)
    if checked.empty:
        return []
    held = checked["status"] == "supported"
    means, p_values = (checked["quantity"] == kind for kind in ("mean", "p-value"))
    others = ~means & ~p_values
    over_all = int(checked.loc[means, "agreeing"].str.split("; ").map(lambda names: paper.THREE_ARMS in names).sum())
    lost = records(checked[means & ~held])
    named = [f"{measure(row)} {row['model']} {paper.as_printed(row)}" for row in lost]
    lost_p = [paper.as_printed(row) for row in records(checked[p_values & ~held])]
    reading = str(checked.loc[means, "usual"].iloc[0]).removesuffix(" arm")
    reading = f"the {arm_title(reading)} arm's" if reading in ARMS else reading or "no one thing"
    parts = [
        f"{int((means & held).sum())} of {int(means.sum())} means, read as {reading} throughout "
        f"(as the {paper.THREE_ARMS}: {over_all})",
        f"{int((p_values & held).sum())} of {int(p_values.sum())} p-values",
        *([f"{int((others & held).sum())} of {int(others.sum())} ends of case 728's ranges"] if others.any() else []),
    ]
    missing = [f"the means {listed(named)}"] * bool(named) + [f"the p-values {listed(lost_p)}"] * bool(lost_p)
    total = f"Of {len(checked)} numbers printed in the paper the released scores support {int(held.sum())}"
    return [f"{total}: {listed(parts)}."] + [f"Not supported are {listed(missing)}."] * bool(missing)


def _power(scores: pd.DataFrame, power: pd.DataFrame, alpha: float) -> list[str]:
    """Cases for 80% power by metric and region, apart from those where none can be given."""
    averaged = power[power["comparison"] == OVER_ARMS]
    main = power if averaged.empty else averaged
    if main.empty:
        return []
    known = main.dropna(subset=["cases_needed"]).sort_values("cases_needed", kind="stable")
    parts = [f"{row['cases_needed']:.0f} for {measure(row)}" for row in records(known)]
    for note, rows in main[main["cases_needed"].isna()].groupby("note", sort=False):
        if str(note).startswith("more than"):
            parts.append(f"{str(note).removesuffix(' cases')} for {listed([measure(row) for row in records(rows)])}")
    none = [measure(row) for row in records(main[main["note"] == NO_IMPROVEMENT])]
    sentences = []
    if parts:
        sentences.append(
            f"Were the shifts seen in these {count(scores['case'].nunique(), 'case')} real, 80% power at "
            f"p < {alpha:g} before correction would need this many cases: {listed(parts)}."
        )
    else:
        sentences.append("No number of cases that would show an improvement can be given from these differences.")
    if none:
        sentences.append(f"There is no improvement to detect in {listed(none)}.")
    return sentences
