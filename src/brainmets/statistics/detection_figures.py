"""The FROC figure: one panel per arm, both strategies on a logarithmic axis of false positives, with bands."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from brainmets.figures import keys_below, panel_grid
from brainmets.statistics.froc import RATE_TITLES, RATES
from brainmets.statistics.tests import percent
from brainmets.vocabulary import (
    ARMS,
    COMPARED_STRATEGIES,
    STRATEGIES,
    STRATEGY_COLOURS,
    STRATEGY_LINES,
    STRATEGY_TITLES,
    arm_title,
    ordered,
)

CAPTION = {
    "file": "froc.png",
    "shows": "The share of reference lesions found against the false positives a case that a threshold lets through, "
    "for each arm fine-tuned (solid) and from scratch (dashed); bands are pointwise intervals that count patients.",
    "cannot_show": "It cannot show which threshold to choose: that is done on the training cases, before these are "
    "looked at.",
}
MOST_IN_A_ROW = 4
"""Panels; the arms beyond stand in further rows."""
LEFT = RATES[0] / 2
"""Where the axis starts: what is found without any false positive stands at its edge."""


def froc(curves: pd.DataFrame, alpha: float = 0.05) -> Figure:
    """The curves of ``froc.band`` of any models, with the columns arm, strategy and region beside, as a figure.

    One panel per arm, up to ``MOST_IN_A_ROW`` in a row; of one region. Models that were not trained on the target
    alike (``COMPARED_STRATEGIES``) are left out. A curve is a staircase: at each rate the largest sensitivity that is
    attained with so many false positives or fewer. A model without lesions has no curve, and a table without rows
    gives a figure that says so.
    """
    shown = curves[curves["strategy"].isin(COMPARED_STRATEGIES)]
    arms, regions = ordered(shown["arm"], ARMS), sorted(set(shown["region"]))
    if len(regions) > 1:
        raise ValueError(f"curves: of the regions {', '.join(regions)}; draw one")
    columns = min(len(arms), MOST_IN_A_ROW)
    figure, grid = panel_grid(math.ceil(len(arms) / MOST_IN_A_ROW), columns, width=3.4, height=3.4, sharey=True)
    panels = grid.ravel()
    for panel in panels[len(arms) or 1 :]:
        panel.remove()
    panels = panels[: len(arms) or 1]
    for panel, arm in zip(panels, arms, strict=False):
        for strategy in ordered(shown["strategy"], STRATEGIES):
            _staircase(panel, shown[(shown["arm"] == arm) & (shown["strategy"] == strategy)], strategy)
        panel.set_title(f"{arm_title(arm)}, {regions[0]}")
    for panel in panels:
        panel.set_xscale("log", base=2)
        panel.set_xlim(LEFT, RATES[-1])
        panel.set_ylim(-0.03, 1.03)
        panel.set_xticks(RATES, [RATE_TITLES.get(rate, f"{rate:g}") for rate in RATES])
        panel.set_xlabel("False positives a case, at most")
    for row in grid:
        row[0].set_ylabel(f"Share of lesions found, {percent(1 - alpha)} interval")
    if not arms:
        panels[0].text(0.5, 0.5, "no candidates", ha="center", transform=panels[0].transAxes)
        return figure
    keys = {line.get_label(): line for panel in panels for line in panel.get_lines()}
    keys_below(figure, list(keys.values()))
    return figure


def _staircase(panel: Axes, points: pd.DataFrame, strategy: str) -> None:
    corners = points.dropna(subset=["sensitivity"]).groupby("false_positives").max(numeric_only=True).reset_index()
    corners = corners[corners["false_positives"] <= RATES[-1]]
    if corners.empty:
        return
    # the last step runs on to the axis's end: beyond what any threshold reaches nothing more is found
    ends = pd.concat([corners, corners.iloc[[-1]].assign(false_positives=RATES[-1])])
    x = np.maximum(ends["false_positives"].to_numpy(float), LEFT)
    look: dict[str, Any] = {"color": STRATEGY_COLOURS[strategy], "linestyle": STRATEGY_LINES[strategy]}
    panel.plot(x, ends["sensitivity"], drawstyle="steps-post", label=STRATEGY_TITLES[strategy], linewidth=1.8, **look)
    low, high = (ends[name].to_numpy(float) for name in ("low", "high"))
    if not math.isnan(low[0]):
        panel.fill_between(x, low, high, step="post", alpha=0.18, linewidth=0.6, **look)
