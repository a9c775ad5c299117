"""The figure of what a model loses without a sequence: a dot for every model and set of sequences."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from brainmets.figures import keys_below, panel_grid
from brainmets.statistics.figures import arm_colour, arm_marker
from brainmets.statistics.subsets import OUTSIDE, title_of
from brainmets.statistics.tables import models
from brainmets.vocabulary import (
    METRIC_AXES,
    REGION_ORDER,
    STRATEGIES,
    STRATEGY_TITLES,
    arm_title,
    ordered,
)

CAPTION = {
    "file": "sequence_subsets.png",
    "shows": "The mean Dice of each model by the set of sequences that it was given, over the held-out cases that "
    "have them, with 95% intervals over patients; crosses mark sets that the model had never seen in training.",
    "cannot_show": "It cannot show how a model would do that was trained on such a set alone; and cases that lack a "
    "sequence may differ in more than that.",
}
FILLS: tuple[Literal["full", "none", "left", "top"], ...] = ("full", "none", "left", "top")
"""How a marker is filled by strategy, in the order of ``STRATEGIES``: they differ in print."""


def dice_by_subset(table: pd.DataFrame) -> Figure:
    """One panel per region, one line of dots per set of sequences; ``table``: ``subsets.csv`` of any models.

    Where a set both occurs and was made, the made one is drawn. Without rows the panel says so.
    """
    shown = table[table["measure"] == "dice"].drop_duplicates(["arm", "strategy", "subset", "region"], keep="last")
    regions, sets = ordered(shown["region"], REGION_ORDER), list(dict.fromkeys(shown["subset"]))
    sets.sort(key=lambda name: (-len(name.split("+")), name))
    drawn = models(shown)
    height = max(1.6, len(sets) * max(0.35, 0.11 * len(drawn)))
    figure, grid = panel_grid(1, len(regions), width=2.9, height=height, sharey=True)
    for panel, region in zip(grid[0], regions, strict=False):
        own = {
            (row["arm"], row["strategy"], row["subset"]): row
            for row in shown[shown["region"] == region].to_dict("records")
        }
        for turn, model in enumerate(drawn):
            shift = 0.8 * ((turn + 0.5) / len(drawn) - 0.5)
            for place, subset in enumerate(sets):
                if row := own.get((*model, subset)):
                    _dot(panel, row, place + shift, *model)
        for line in range(1, len(sets)):
            panel.axhline(line - 0.5, color="0.85", linewidth=0.6, zorder=0)
        panel.set_title(region, fontsize=9)
        panel.set_xlim(-0.02, 1.02)
        panel.set_xlabel(METRIC_AXES["dice"], fontsize=8)
        panel.set_yticks(range(len(sets)), [title_of(name) for name in sets])
        panel.set_ylim(len(sets) - 0.5, -0.5)
    if not regions:
        grid[0, 0].text(0.5, 0.5, "no sets of sequences", ha="center", transform=grid[0, 0].transAxes)
    keys = [
        Line2D([], [], color=arm_colour(arm), marker=arm_marker(arm), fillstyle=_fill(strategy), linestyle="",
               markersize=5, label=f"{arm_title(arm)}, {STRATEGY_TITLES[strategy]}")
        for arm, strategy in drawn
    ]  # fmt: skip
    if (shown["note"] == OUTSIDE).any():
        keys.append(
            Line2D([], [], color="black", marker="x", linestyle="", markersize=4, label="never seen in training")
        )
    if keys:
        keys_below(figure, keys, columns=min(3, len(keys)), size=7)
    return figure


def _fill(strategy: str) -> Literal["full", "none", "left", "top"]:
    return FILLS[list[str](STRATEGIES).index(strategy)]


def _dot(panel: Axes, row: Mapping[Hashable, Any], y: float, arm: str, strategy: str) -> None:
    colour = arm_colour(arm)
    panel.plot([row["value_low"], row["value_high"]], [y, y], color=colour, linewidth=0.8)
    panel.plot(
        row["value"], y, color=colour, marker=arm_marker(arm), fillstyle=_fill(strategy), markersize=5, linestyle="",
        markerfacecoloralt="white",
    )  # fmt: skip
    if row["note"] == OUTSIDE:
        panel.plot(row["value"], y, color="black", marker="x", markersize=4, linestyle="")
