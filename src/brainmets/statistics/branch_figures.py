"""Figures of what is trained beside the main models: every repeat as a point, and the learning curve.

Colours, markers and line styles are those of ``statistics.figures``: filled and solid is fine-tuned, open and dashed
from scratch, so that both are told apart in a grey print.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from brainmets.figures import keys_below, panel_grid
from brainmets.statistics.branches import REPEAT, TRAINING_CASES, blocks
from brainmets.statistics.comparisons import MEAN_OVER_ARMS
from brainmets.statistics.figures import arm_colour, arm_marker
from brainmets.vocabulary import (
    COMPARED_STRATEGIES,
    METRIC_AXES,
    REGION_ORDER,
    STRATEGY_LINES,
    STRATEGY_TITLES,
    arm_title,
    ordered,
)

CAPTIONS = {
    "repeats.png": (
        "The mean Dice of every training of every model, a point each, over the held-out patients whose reference has "
        "the region; the line joins the means of both strategies.",
        "It cannot show how other settings would do: the repeats differ in their seeds alone.",
    ),
    "learning_curve.png": (
        "The mean Dice of both strategies by the number of the target's training cases, on the same held-out "
        "patients, with their intervals.",
        "It cannot show the luck of training: every point of a curve is one training.",
    ),
}
"""What each figure shows, and what it cannot show: one sentence each."""


def repeats(scores: pd.DataFrame, metric: str, patients: Mapping[str, str]) -> Figure:
    """Every training's mean as a point, from scratch on the left and fine-tuned on the right; one panel per region.

    ``scores`` is ``branches.together``'s table with the column ``repeat``. Without values of both strategies the panel
    says so.
    """
    found = [block for block in blocks(scores, REPEAT, patients) if block.metric == metric]
    regions = ordered({block.region for block in found}, REGION_ORDER)
    figure, panels = _panels(regions, width=max(3.2, 0.6 * len({block.arm for block in found})))
    for panel, region in zip(panels, regions, strict=False):
        own = [block for block in found if block.region == region and block.arm != MEAN_OVER_ARMS]
        for turn, block in enumerate(own):
            shift = 0.5 * ((turn + 0.5) / len(own) - 0.5)
            means = block.values.mean(axis=0)
            colour, marker = arm_colour(block.arm), arm_marker(block.arm)
            panel.plot(np.arange(2) + shift, means.mean(axis=1)[::-1], color=colour, linewidth=1, zorder=0)
            for x, (of_side, fill) in enumerate(zip(means[::-1], ("white", colour), strict=True)):
                along = np.full(len(of_side), x + shift)
                panel.scatter(along, of_side, s=24, marker=marker, edgecolor=colour, facecolor=fill)
        panel.set_xticks(range(2), [STRATEGY_TITLES[name] for name in reversed(COMPARED_STRATEGIES)])
        panel.set_xlim(-0.5, 1.5)
    panels[0].set_ylabel(f"Mean {METRIC_AXES.get(metric, metric)}")
    _arm_keys(figure, [block.arm for block in found if block.arm != MEAN_OVER_ARMS])
    return figure


def learning_curve(curve: pd.DataFrame, metric: str) -> Figure:
    """Both strategies' means by the number of training cases, on a logarithmic axis; one panel per region.

    ``curve`` is ``learning_curve.curve``'s table. Bars are its intervals. Without rows the figure says so.
    """
    table = curve[(curve["metric"] == metric) & (curve["arm"] != MEAN_OVER_ARMS)]
    regions = ordered(table["region"], REGION_ORDER)
    figure, panels = _panels(regions, width=max(3.2, 0.6 * table["arm"].nunique()))
    for panel, region in zip(panels, regions, strict=False):
        own = table[table["region"] == region]
        lines = [(arm, side) for arm in dict.fromkeys(own["arm"]) for side in COMPARED_STRATEGIES]
        for turn, (arm, strategy) in enumerate(lines):
            rows = own[own["arm"] == arm].sort_values(TRAINING_CASES)
            nudge = 1 + 0.04 * (turn - (len(lines) - 1) / 2)  # apart on the logarithmic axis, so that bars do not hide
            _line(panel, rows, arm, strategy, nudge)
        panel.set_xscale("log")
        sizes = sorted(set(own[TRAINING_CASES]))
        panel.set_xticks(sizes, [f"{size}" for size in sizes])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xlabel("Training cases of the target")
    panels[0].set_ylabel(f"Mean {METRIC_AXES.get(metric, metric)}")
    keys = [
        Line2D([], [], color="grey", marker="o", linestyle=STRATEGY_LINES[name], label=STRATEGY_TITLES[name],
               markerfacecolor="grey" if name == COMPARED_STRATEGIES[0] else "white")
        for name in COMPARED_STRATEGIES
    ]  # fmt: skip
    _arm_keys(figure, list(table["arm"]), keys)
    return figure


def _line(panel: Axes, rows: pd.DataFrame, arm: str, strategy: str, nudge: float) -> None:
    x, mean = rows[TRAINING_CASES].to_numpy(float) * nudge, rows[strategy].to_numpy(float)
    low, high = (rows[f"{strategy}_{end}"].to_numpy(float) for end in ("low", "high"))
    error = [np.nan_to_num(mean - low).clip(0), np.nan_to_num(high - mean).clip(0)]
    fill = arm_colour(arm) if strategy == COMPARED_STRATEGIES[0] else "white"
    panel.errorbar(
        x, mean, yerr=error, color=arm_colour(arm), marker=arm_marker(arm), markerfacecolor=fill, markersize=5,
        linestyle=STRATEGY_LINES[strategy], linewidth=1.2, elinewidth=0.8, capsize=2,
    )  # fmt: skip


def _panels(regions: list[str], width: float) -> tuple[Figure, np.ndarray]:
    """A row of panels with the regions as titles; one that says that there is nothing where there is no region."""
    figure, grid = panel_grid(1, len(regions), width=width, height=3.4, sharey=True)
    panels = grid[0]
    for panel, region in zip(panels, regions, strict=False):
        panel.set_title(region)
    if not regions:
        panels[0].text(0.5, 0.5, "no model of both strategies", ha="center", transform=panels[0].transAxes)
    return figure, panels


def _arm_keys(figure: Figure, arms: list[str], further: list[Line2D] | None = None) -> None:
    keys = [
        Line2D([], [], color=arm_colour(arm), marker=arm_marker(arm), linestyle="", label=arm_title(arm))
        for arm in dict.fromkeys(arms)
    ]
    keys += further or []
    if keys:
        keys_below(figure, keys, size=8)
