"""Figures of the scores: the paper's bars, every case as a line, volume agreement, detection by lesion size.

Colours are seaborn's colour-blind safe palette, one per arm; the arm also has its own marker and the strategy its own
hatch or line style, so that nothing is lost in a grey print.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import AbstractPathEffect, withStroke

from brainmets.figures import keys_below, panel_grid
from brainmets.scoring.detection import SIZE_BINS
from brainmets.statistics.tables import of_trained, unit_of, values
from brainmets.statistics.tests import percent, rounded
from brainmets.vocabulary import (
    ARMS,
    METRIC_AXES,
    REGION_ORDER,
    STRATEGIES,
    STRATEGY_HATCHES,
    STRATEGY_LINES,
    STRATEGY_TITLES,
    LineStyle,
    arm_title,
    better,
    ordered,
)

CAPTIONS = {
    "decision.png": (
        "The difference of each declared endpoint, fine-tuned minus scratch and turned so that right of 0 is better, "
        "with the interval of its test; dashed lines are the margin that would matter in the primary endpoint.",
        "It cannot show what another training or another hospital would give, nor that a margin is the right one.",
    ),
    "mean_dice.png": (
        "The mean Dice of each model over the held-out cases whose reference has the region (their number n stands in "
        "the title; a missed region counts as 0), with its interval; higher is better.",
        "It cannot show which case each score belongs to: overlapping bars may hide a gain in every single case.",
    ),
    "mean_hd95.png": (
        "The mean HD95 of each model in mm over the held-out cases whose reference has the region (their number n "
        "stands in the title; a missed region counts as the image's diagonal), with its interval; lower is better.",
        "It cannot show whether one bad case makes the mean: a long whisker upwards hints at it.",
    ),
    "paired_dice.png": (
        "Every case's Dice from scratch and fine-tuned, joined by a line.",
        "It cannot show whether a retrained model would fall on the same side.",
    ),
    "paired_hd95.png": (
        "Every case's HD95 from scratch and fine-tuned, joined by a line, logarithmic above 1 mm.",
        "It cannot show where in the image the boundary is off.",
    ),
    "volume_agreement.png": (
        "Predicted minus reference volume of every case, with mean difference (thick) and limits of agreement (thin).",
        "It cannot show overlap: a prediction in the wrong place may have the right volume.",
    ),
    "detection_by_size.png": (
        "The share of reference lesions found by each model trained on the target, by size, with 95% intervals that "
        "count patients.",
        "It cannot show how well a found lesion is outlined: a tenth of overlap is enough to be found.",
    ),
}
"""What each figure of notebook 07 shows, and what it cannot show: one sentence each."""
OF_TWO_STRATEGIES = ("decision.png", "paired_dice.png", "paired_hd95.png")
"""Those that show nothing where no arm was both fine-tuned and trained from scratch."""

PALETTE = sns.color_palette("colorblind")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "h", "<", ">")
COLOURS = tuple(PALETTE[place] for place in (0, 1, 2, 3, 4, 9, 7, 5, 6, 8))
"""The palette, those first that stand out from white and from one another in a grey print too."""
SLOPES: dict[str, LineStyle] = {"better when fine-tuned": "-", "worse": "--", "level": ":"}
CASING: list[AbstractPathEffect] = [withStroke(linewidth=3, foreground="white")]
"""White under a black line, so that it is seen on dark and hatched bars, in grey too."""
BIAS_WIDTH, LIMIT_WIDTH = 2.0, 0.8


def captions(files: Iterable[str], texts: Mapping[str, tuple[str, str]] = CAPTIONS) -> list[dict[str, str]]:
    """What ``statistics.json`` says of each figure file, in the order given: file, shows and cannot_show."""
    return [{"file": file, "shows": texts[file][0], "cannot_show": texts[file][1]} for file in files]


def arm_colour(arm: str) -> tuple[float, float, float]:
    """The arm's colour, the same in every figure."""
    return COLOURS[_place(arm) % len(COLOURS)]


def arm_marker(arm: str) -> str:
    """The arm's marker, the same in every figure."""
    return MARKERS[_place(arm) % len(MARKERS)]


def _place(arm: str) -> int:
    return ARMS.index(arm) if arm in ARMS else len(ARMS) + sum(map(ord, arm)) % 4


def _axis(metric: str) -> str:
    """The metric's name and unit, and below them which way is better, where one is."""
    way = {"greater": "\n(higher is better)", "less": "\n(lower is better)"}.get(better(metric) or "", "")
    return METRIC_AXES.get(metric, metric) + way


def mean_with_interval(descriptive: pd.DataFrame, metric: str, alpha: float = 0.05) -> Figure:
    """The paper's figures 1 and 2: bars of the mean with its interval, by arm and strategy, one panel per region.

    ``descriptive`` is ``descriptive.describe``'s table, made with the same ``alpha``; whiskers are its interval, and
    the title has the number of cases, or the smallest and the largest where models differ. Where higher is better the
    axis runs from 0 to 1. A bar without an interval (one case) has no whisker, a model without a defined value no bar
    but the words "no value".
    """
    table = descriptive[descriptive["metric"] == metric]
    regions = ordered(table["region"], REGION_ORDER)
    arms, strategies = ordered(table["arm"], ARMS), ordered(table["strategy"], STRATEGIES)
    width = max(3.2, 0.25 * len(arms) * len(strategies))
    figure, panels = panel_grid(1, len(regions), width=width, height=3.4, sharey=True)
    for panel, region in zip(panels[0], regions, strict=False):
        own = table[table["region"] == region]
        _bars(panel, own, arms, strategies)
        panel.set_title(f"{region} (n = {' to '.join(str(n) for n in sorted({own['n'].min(), own['n'].max()}))})")
        panel.set_xticks(range(len(arms)), [arm_title(arm) for arm in arms], rotation=20)
    name, _, way = _axis(metric).partition("\n")
    panels[0, 0].set_ylabel(f"Mean {name}, {percent(1 - alpha)} interval\n{way}".rstrip())
    if better(metric) == "greater":
        panels[0, 0].set_ylim(0, 1)
    keys = [
        Patch(facecolor="lightgrey", edgecolor="black", hatch=STRATEGY_HATCHES[name], label=STRATEGY_TITLES[name])
        for name in strategies
    ]
    keys_below(figure, keys)
    return figure


def paired_slopes(scores: pd.DataFrame, metric: str) -> Figure:
    """Every held-out case as a line from its score from scratch to its score fine-tuned.

    Rows are arms, columns regions. A solid line is better when fine-tuned, a dashed one worse, a dotted one level (or
    of a metric without a direction). Distances stand on a scale that is linear up to 1 mm and logarithmic above, so
    that one bad case does not flatten the others; infinite ones are counted in the panel's corner. With one strategy
    there are points without lines. Models that are pretrained only are left out.
    """
    scores = of_trained(scores)
    arms = ordered(scores["arm"], ARMS)
    chosen = scores[scores["metric"] == metric]
    regions = ordered(chosen["region"], REGION_ORDER)
    figure, panels = panel_grid(len(arms), len(regions), width=2.6, height=2.3, sharey=True)
    for column, region in enumerate(regions):
        table = values(scores, metric, region)
        for row, arm in enumerate(arms):
            _slopes(panels[row, column], table, arm, metric, unit_of(scores, metric))
            panels[row, column].set_title(f"{arm_title(arm)}, {region}", fontsize=10)
            own = chosen[(chosen["arm"] == arm) & (chosen["region"] == region)]
            if lost := int(np.isinf(own["value"]).sum()):
                panel = panels[row, column]
                panel.text(0.03, 0.97, f"{lost} infinite, not drawn", va="top", fontsize=7, transform=panel.transAxes)
    for row in range(len(arms)):
        panels[row, 0].set_ylabel(_axis(metric))
    if len(chosen) and unit_of(scores, metric) == "mm":
        panels[0, 0].set_yscale("symlog", linthresh=1, linscale=0.5)
        panels[0, 0].set_ylim(bottom=0)
        largest = float(np.nanmax(chosen["value"].where(np.isfinite), initial=1))
        ticks = [tick for tick in (0, 1, 3, 10, 30, 100, 300) if tick <= max(3, 3.4 * largest)]
        panels[0, 0].set_yticks(ticks, [f"{tick}" for tick in ticks])
    keys = [Line2D([], [], color="black", linestyle=style, label=label) for label, style in SLOPES.items()]
    keys_below(figure, keys, columns=3)
    return figure


def volume_agreement(pairs: pd.DataFrame, limits: pd.DataFrame, alpha: float = 0.05) -> Figure:
    """Bland-Altman: predicted minus reference volume against their mean; rows are arms, columns regions.

    ``pairs`` is ``agreement.volume_pairs``'s table, ``limits`` ``agreement.bland_altman``'s at ``alpha``. Filled
    points and solid lines are fine-tuned, open points and dashed lines from scratch; the thicker line is the mean
    difference (bias), the thinner ones the limits of agreement. Models that are pretrained only are left out: their
    differences would set the scale.
    """
    pairs, limits = of_trained(pairs), of_trained(limits)
    arms, regions = ordered(pairs["arm"], ARMS), ordered(pairs["region"], REGION_ORDER)
    figure, panels = panel_grid(len(arms), len(regions), width=2.6, height=2.3, sharey="col")
    for row, arm in enumerate(arms):
        for column, region in enumerate(regions):
            panel = panels[row, column]
            panel.axhline(0, color="lightgrey", linewidth=0.8, zorder=0)
            for strategy in ordered(pairs["strategy"], STRATEGIES):
                points = pairs[_model(pairs, arm, strategy) & (pairs["region"] == region)]
                lines = limits[_model(limits, arm, strategy) & (limits["region"] == region)]
                _difference(panel, points, lines, arm, strategy)
            panel.set_title(f"{arm_title(arm)}, {region}", fontsize=10)
        panels[row, 0].set_ylabel("Predicted - reference (mL)")
    for panel in panels[-1]:
        panel.set_xlabel("Mean of both volumes (mL)")
    widths = [
        Line2D([], [], color="grey", linewidth=BIAS_WIDTH, label="thick: mean difference"),
        Line2D([], [], color="grey", linewidth=LIMIT_WIDTH, label=f"thin: {percent(1 - alpha)} limits of agreement"),
    ]
    keys = [*_strategy_keys(pairs), *widths]
    keys_below(figure, keys, columns=4, size=8)
    return figure


def detection_by_size(by_size: pd.DataFrame) -> Figure:
    """Detected share of reference lesions by size, with 95% intervals; one panel per region.

    ``by_size`` is ``scoring.detection.detection_by_size``'s table of one or several models. Filled markers are
    fine-tuned, open ones from scratch; volumes and the number of lesions stand under each size. A size without lesions
    has no marker; a table without rows gives a figure that says so. Models that are pretrained only are left out.
    """
    table = of_trained(by_size)
    regions = ordered(table["region"], REGION_ORDER)
    series = len(set(zip(table["arm"], table["strategy"], strict=True)))
    figure, panels = panel_grid(1, len(regions), width=max(3.4, 0.45 * series), height=3.4, sharey=True)
    for panel, region in zip(panels[0], regions, strict=False):
        _detection(panel, table[table["region"] == region])
        panel.set_title(region)
    panels[0, 0].set_ylabel("Detected share of lesions, 95% CI")
    if table.empty:
        panels[0, 0].text(0.5, 0.5, "no lesion table", ha="center", transform=panels[0, 0].transAxes)
        return figure
    arms = [
        Line2D([], [], color=arm_colour(arm), marker=arm_marker(arm), linestyle="", label=arm_title(arm))
        for arm in ordered(table["arm"], ARMS)
    ]
    keys = [*arms, *_strategy_keys(table)]
    keys_below(figure, keys, size=8)
    return figure


def decision(table: pd.DataFrame) -> Figure:
    """Each endpoint's difference with its interval, one panel below the other, the primary first.

    ``table`` is ``statistics.decision.decide``'s. The zero is a solid line; the margin, drawn for the primary endpoint
    alone, two dashed ones. The primary endpoint has a filled marker, the others open ones. An infinite end of an
    interval is an arrow; an endpoint without differences has a panel that says so.
    """
    rows = table.to_dict("records")
    figure, panels = panel_grid(len(rows), 1, width=6.4, height=1.05)
    for panel, row in zip(panels[:, 0], rows, strict=True):
        name = METRIC_AXES.get(row["metric"], row["metric"].replace("_", " ").capitalize()).partition(" (")[0]
        size = f", {row['size']}" if row["size"] else ""
        panel.set_title(f"{name}, {row['region']} ({row['role']}): {row['verdict']}{size}", loc="left", fontsize=9)
        panel.set_yticks([])
        panel.spines["left"].set_visible(False)
        if not row["n"]:
            panel.text(0.5, 0.5, "no differences", ha="center", va="center", fontsize=8, transform=panel.transAxes)
            panel.set_xticks([])
            continue
        _interval(panel, row)
        unit = " (mm)" if row["unit"] == "mm" else ""
        panel.set_xlabel(f"difference{unit}, right of 0 is better when fine-tuned; {row['n']} patients", fontsize=8)
    return figure


def _interval(panel: Axes, row: dict[Any, Any]) -> None:
    margin = 0.0 if np.isnan(row["margin"]) else float(row["margin"])
    ends = [float(row[name]) for name in ("effect", "effect_low", "effect_high")]
    finite = [abs(end) for end in ends if np.isfinite(end)]
    reach = 1.25 * max([*finite, margin]) or 1.0
    panel.axvline(0, color="black", linewidth=1, label="no difference")
    for side in (-margin, margin) if margin else ():
        panel.axvline(side, color=PALETTE[1], linewidth=1.4, linestyle="--", label="margin")
    effect, low, high = (float(np.clip(end, -reach, reach)) for end in ends)
    primary = row["role"] == "primary"
    if not np.isnan(low):
        panel.hlines(0, low, high, color=PALETTE[0], linewidth=2)
    for end, shown in zip(ends[1:], (low, high), strict=True):
        marker = "|" if np.isfinite(end) else "<" if end < 0 else ">"
        panel.plot(shown, 0, marker=marker, color=PALETTE[0], markersize=8)
    panel.plot(effect, 0, marker="o", color=PALETTE[0], markerfacecolor=PALETTE[0] if primary else "white")
    panel.set_xlim(-1.05 * reach, 1.05 * reach)
    panel.set_ylim(-1, 1)


def _bars(panel: Axes, table: pd.DataFrame, arms: Sequence[str], strategies: Sequence[str]) -> None:
    width = 0.8 / max(len(strategies), 1)
    for row in table.to_dict("records"):
        mean, low, high = row["mean"], row["ci_low"], row["ci_high"]
        x = arms.index(row["arm"]) + (strategies.index(row["strategy"]) - (len(strategies) - 1) / 2) * width
        if np.isnan(mean):
            panel.text(x, 0, "no value", rotation=90, ha="center", va="bottom", fontsize=7)
            continue
        panel.bar(
            x, mean, width, color=arm_colour(row["arm"]), edgecolor="black", hatch=STRATEGY_HATCHES[row["strategy"]]
        )
        if not np.isnan(low):
            error = [[mean - low], [high - mean]]
            whisker = panel.errorbar(x, mean, yerr=error, color="black", capsize=3, linewidth=1)
            for line in whisker.get_children():
                line.set_path_effects(CASING)


def _slopes(panel: Axes, table: pd.DataFrame, arm: str, metric: str, unit: str) -> None:
    sides = [name for name in reversed(STRATEGIES) if (arm, name) in table.columns]
    direction = {"greater": 1, "less": -1}.get(better(metric) or "", 0)
    for points in table[[(arm, side) for side in sides]].to_numpy(float):
        change = direction * float(rounded(np.diff(points), unit)[0]) if len(points) == 2 else 0
        style = SLOPES["better when fine-tuned" if change > 0 else "worse" if change < 0 else "level"]
        look: dict[str, Any] = {
            "color": arm_colour(arm),
            "marker": arm_marker(arm),
            "markersize": 4,
            "linewidth": 1,
            "alpha": 0.8,
        }
        panel.plot(range(len(points)), points, linestyle=style, **look)
    panel.set_xticks(range(len(sides)), [STRATEGY_TITLES[side] for side in sides])
    panel.set_xlim(-0.3, max(len(sides) - 0.7, 0.3))


def _difference(panel: Axes, points: pd.DataFrame, lines: pd.DataFrame, arm: str, strategy: str) -> None:
    fill = arm_colour(arm) if strategy == "finetune" else "white"
    panel.scatter(
        points["mean"], points["difference"], s=18, marker=arm_marker(arm), edgecolor=arm_colour(arm), facecolor=fill
    )
    for name, width in (("bias", BIAS_WIDTH), ("lower_limit", LIMIT_WIDTH), ("upper_limit", LIMIT_WIDTH)):
        for level in lines[name].dropna():
            panel.axhline(level, color=arm_colour(arm), linewidth=width, linestyle=STRATEGY_LINES[strategy], zorder=0)


def _detection(panel: Axes, table: pd.DataFrame) -> None:
    sizes = list(dict.fromkeys(table["bin"]))
    series = list(dict.fromkeys(zip(table["arm"], table["strategy"], strict=True)))
    for turn, (arm, strategy) in enumerate(series):
        own = table[_model(table, arm, strategy)].dropna(subset=["sensitivity"])
        x = np.array([sizes.index(name) for name in own["bin"]]) + 0.7 * ((turn + 0.5) / len(series) - 0.5)
        share = own["sensitivity"].to_numpy(float)
        error = [share - own["low"].to_numpy(float), own["high"].to_numpy(float) - share]
        fill = arm_colour(arm) if strategy == "finetune" else "white"
        look: dict[str, Any] = {
            "marker": arm_marker(arm),
            "markersize": 5,
            "color": arm_colour(arm),
            "markerfacecolor": fill,
        }
        panel.errorbar(x, share, yerr=error, linestyle="", linewidth=1, **look)
    count = table.groupby("bin")["n"].max()
    volume = {size.name: f"{size.low:g} to {size.high:g}" for size in SIZE_BINS}
    volume[SIZE_BINS[-1].name] = f"from {SIZE_BINS[-1].low:g}"
    panel.set_xticks(range(len(sizes)), [f"{name}\n{volume[name]}\n(n = {count[name]})" for name in sizes])
    panel.tick_params(axis="x", labelsize=7)
    panel.set_xlabel("Lesion volume (mm³)")
    panel.set_xlim(-0.5, len(sizes) - 0.5)
    panel.set_ylim(-0.05, 1.05)


def _strategy_keys(table: pd.DataFrame) -> list[Line2D]:
    """Grey legend entries of the table's strategies: filled and solid is fine-tuned, open and dashed from scratch."""
    keys = []
    for strategy in ordered(table["strategy"], STRATEGIES):
        fill = "grey" if strategy == "finetune" else "white"
        look: dict[str, Any] = {"color": "grey", "marker": "o", "markerfacecolor": fill}
        look["linestyle"] = STRATEGY_LINES[strategy]
        keys.append(Line2D([], [], label=STRATEGY_TITLES[strategy], **look))
    return keys


def _model(table: pd.DataFrame, arm: str, strategy: str) -> pd.Series:
    return (table["arm"] == arm) & (table["strategy"] == strategy)
