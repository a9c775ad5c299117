"""Sentences on the tests: where fine-tuning was better or worse, what the paper's test gives, which arms differ.

Better and worse meet one standard: the same paired test in either direction, counted before and after Holm's
correction in the same family.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from brainmets.statistics.comparisons import OVER_ARMS
from brainmets.statistics.directions import better
from brainmets.statistics.wording import Row, count, listed, measure, p_words, records
from brainmets.vocabulary import PAPER_METRICS, arm_title

SIDES = {"better": ("p_value", "p_holm"), "worse": ("p_worse", "p_worse_holm")}
MOST_EFFECTS = 6
"""Up to so many shifts are written with their numbers; a longer list stands in the table alone."""
BEFORE = "before Holm's correction for multiple testing, fine-tuning was better than training from scratch in"
BEFORE_AGAIN = "before correction it was better in"


def on_strategies(table: pd.DataFrame, alpha: float) -> list[str]:
    """Where fine-tuning was better or worse by the paired tests, with shifts and intervals.

    ``table`` is ``finetune_vs_scratch``'s. The mean over arms comes first, where there is one, then arm by arm.
    """
    main, single = _main_and_single(table)
    if main.empty:
        return []
    sentences = [f"{_subject(main, single)}, {_tally(main, alpha)}."]
    for side, (p_value, _) in SIDES.items():
        found = main[main[p_value] < alpha]
        if len(found):
            sentences.append(f"{side.capitalize()} before correction: {_effects(found, side)}.")
    if len(single):
        sentences.append(f"Arm by arm, {_tally(single, alpha, BEFORE_AGAIN)}.")
        for side, (_, p_holm) in SIDES.items():
            found = single[single[p_holm] < alpha]
            if len(found):
                sentences.append(f"{side.capitalize()} after correction: {_effects(found, side, arms=True)}.")
    n = int(main["n"].max())
    if any(" [" in sentence for sentence in sentences):
        interval = "interval" if 2 * 0.5**n > alpha else f"{1 - alpha:.0%} interval"
        sentences.append(
            "Here p is one-sided, for better and for worse each by itself; the brackets hold the shift's two-sided "
            f"{interval}, which may cover 0 although p is below {alpha:g}."
        )
    if 0.5**n >= alpha:
        sentences.append(f"With {count(n, 'pair')} no outcome could have reached p < {alpha:g}.")
    return sentences


def in_short(table: pd.DataFrame, alpha: float) -> list[str]:
    """The same in one sentence without numbers of shifts; an empty list where nothing is tested."""
    main, single = _main_and_single(table)
    if main.empty:
        return []
    sentence = f"{_subject(main, single)}, {_tally(main, alpha, named=True)}"
    if single.empty or single["smallest_p"].min() >= alpha:
        return [sentence + "."]
    survivors = {side: single[single[p_holm] < alpha] for side, (_, p_holm) in SIDES.items()}
    names = [
        f"{side}: {listed([f'{_arm(row)} {measure(row)}' for row in records(found)])}"
        for side, found in survivors.items()
        if len(found)
    ]
    kept = sum(map(len, survivors.values()))
    tests = count(_tests(single), "test")
    tally = f"{kept or 'none'} of {tests} survive{'s' * (kept < 2)} it"
    if _hopeless(single, alpha):
        tally = f"none of {tests} could have"
    where = f" ({'; '.join(names)})" if names else ""
    return [f"{sentence}; arm by arm, {tally}{where}."]


def on_the_papers_test(table: pd.DataFrame, alpha: float) -> list[str]:
    """The paper's own test beside the same in the right direction."""
    tested = table[table["metric"].isin(PAPER_METRICS) & table["p_value"].notna()]
    paper, directed = (tested[tested["comparison"] == kind] for kind in ("paper", "directed"))
    if paper.empty:
        return []
    found = [f"{measure(row)} ({p_words(row['p_value'])})" for row in records(directed) if row["p_value"] < alpha]
    sentence = (
        "The paper's own test (unpaired, arms pooled as if independent, alternative 'greater' even for HD95) gives "
        f"{(paper['p_value'] < alpha).sum()} of {len(paper)} p-values below {alpha:g}, "
        f"{_smallest(records(paper), [measure(row) for row in records(paper)])}; "
        f"with the alternative that means better it gives {len(found)}"
    )
    return [sentence + (f": {listed(found)}." if found else ".")]


def on_arms(table: pd.DataFrame, alpha: float) -> list[str]:
    """Which arms differ, by the paired tests on the mean of both strategies, or on the one that is there.

    ``table`` is ``arms_pairwise``'s.
    """
    if table.empty:
        return ["There is one arm: arms cannot be compared."]
    paired = table[table["comparison"].str.startswith("paired") & table["metric"].isin(PAPER_METRICS)]
    averaged = paired[paired["comparison"].str.contains(", mean of")]
    chosen = paired if averaged.empty else averaged
    rows = [row for row in records(chosen) if not np.isnan(row["p_value"])]
    tests = count(len(rows), "paired comparison")
    weak = [row for row in rows if row["p_value"] < alpha]
    strong = [f"{_pair(row)} ({p_words(row['p_value'])})" for row in weak if row["p_holm"] < alpha]
    if strong:
        return [f"Between arms, {listed(strong)} after Holm's correction for {tests}."]
    if chosen["smallest_p"].min() >= alpha:
        cases = count(int(chosen["n"].max()), "case")
        return [f"Between arms, no outcome of {tests} could have been told from chance with {cases}."]
    if not weak:
        return [f"Between arms, none of {tests} has p below {alpha:g}."]
    smallest = _smallest(weak, [_pair(row) for row in weak])
    if _hopeless(chosen, alpha):
        return [
            f"Between arms, {len(weak)} of {tests} have p below {alpha:g} before correction, {smallest}; "
            f"no outcome of {count(int(chosen['n'].max()), 'case')} could have survived Holm's correction for so "
            "many, so that these tests can neither show nor rule out that an arm is better."
        ]
    return [
        f"Between arms, {len(weak)} of {tests} have p below {alpha:g} and none survives Holm's correction, {smallest}."
    ]


def _main_and_single(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The paired rows of the mean over arms and those of single arms; of one arm alone, its rows and none."""
    paired = table[table["comparison"].str.startswith("paired") & table["metric"].isin(PAPER_METRICS)]
    averaged = paired["comparison"] == OVER_ARMS
    return (paired[averaged], paired[~averaged]) if averaged.any() else (paired, paired.iloc[:0])


def _subject(main: pd.DataFrame, single: pd.DataFrame) -> str:
    """Over which arms the main rows run."""
    rows = records(single if len(single) else main)
    arms = list(dict.fromkeys(_arm(row) for row in rows))
    return f"For {arms[0]}" if single.empty else f"Averaged over {listed(arms)}"


def _tally(table: pd.DataFrame, alpha: float, opening: str = BEFORE, named: bool = False) -> str:
    """In how many tests fine-tuning was better and worse, before and after Holm's correction."""
    tests = count(_tests(table), "paired test")
    if table["smallest_p"].min() >= alpha:
        return f"no outcome of {tests} could have been told from chance with {count(int(table['n'].max()), 'case')}"
    before, after = ({side: table[table[p[i]] < alpha] for side, p in SIDES.items()} for i in (0, 1))
    if all(found.empty for found in before.values()):
        return f"none of {tests} gives an improvement beyond chance, and none a worsening, even before correction"
    names = {
        side: f" ({listed([measure(row) for row in records(found)])})" if named and len(found) else ""
        for side, found in before.items()
    }
    sentence = (
        f"{opening} {len(before['better']) or 'none'} of {tests}{names['better']} and worse in "
        f"{len(before['worse']) or 'none'}{names['worse']}"
    )
    if _hopeless(table, alpha):
        return sentence + "; no outcome of so few cases could have survived it for so many tests"
    kept = {side: len(found) for side, found in after.items()}
    if not any(kept.values()):
        return sentence + "; none of these survives it"
    return sentence + f"; {kept['better']} of the better and {kept['worse']} of the worse survive it"


def _tests(table: pd.DataFrame) -> int:
    return int(table["p_value"].notna().sum())


def _hopeless(table: pd.DataFrame, alpha: float) -> bool:
    """Whether no outcome could survive Holm: already the smallest possible p, times the tests, reaches alpha."""
    return bool(table["smallest_p"].min() * _tests(table) >= alpha)


def _smallest(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Which row has the smallest p, or how many share it."""
    least = min(row["p_value"] for row in rows)
    tied = [name for row, name in zip(rows, names, strict=True) if np.isclose(row["p_value"], least, rtol=1e-9)]
    if len(tied) > 1:
        return f"the smallest ({p_words(least)}) shared by {len(tied)}"
    return f"the smallest for {tied[0]} ({p_words(least)})"


def _effects(rows: pd.DataFrame, side: str, arms: bool = False) -> str:
    """Shift, interval and both p-values of each row; of many rows the names alone."""
    if len(rows) > MOST_EFFECTS:
        return listed([f"{_arm(row)} {measure(row)}" if arms else measure(row) for row in records(rows)])
    found = []
    p_value, p_holm = SIDES[side]
    for row in records(rows):
        unit = " mm" if row["metric"] == "hd95" else ""
        name = f"{_arm(row)} {measure(row)}" if arms else measure(row)
        interval = f"[{row['effect_low']:.2g}, {row['effect_high']:.2g}]"
        found.append(
            f"{name} ({row['effect']:+.2g}{unit} {interval}, {p_words(row[p_value])}, Holm {p_words(row[p_holm])})"
        )
    return listed(found)


def _arm(row: Row) -> str:
    return arm_title(str(row["comparison"]).removeprefix("paired: "))


def _pair(row: Row) -> str:
    """Such as "Tversky + BCE better than Default in WT Dice"."""
    first, second = str(row["comparison"]).removeprefix("paired: ").split(",")[0].split(" vs ")
    if (row["effect"] < 0) == (better(row["metric"]) == "greater"):
        first, second = second, first
    return f"{arm_title(first)} better than {arm_title(second)} in {measure(row)}"
