"""Figures of the scores: the paper's bars, and every case as a line from scratch to fine-tuned.

Colours are seaborn's colour-blind safe palette, one per arm; the arm also has its own marker and the strategy its own
hatch or line style, so that nothing is lost in a grey print. Each function returns a figure; ``save`` writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from brainmets.atomic import replacing
from brainmets.score_tables import ARMS, REGION_ORDER, STRATEGIES, ordered, values

PALETTE = sns.color_palette("colorblind")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
ARM_TITLES = {"default": "Default", "tversky_bce": "Tversky + BCE", "segresnet": "SegResNet"}
STRATEGY_TITLES = {"finetune": "fine-tuned", "scratch": "from scratch"}
METRIC_TITLES = {"dice": "Dice", "hd95": "HD95 (mm)", "sensitivity": "Sensitivity", "specificity": "Specificity"}
HATCHES = {"finetune": "", "scratch": "///"}
PRINT_DPI = 200


def save(figure: Figure, path: Path) -> Path:
    """Write a figure whole or not at all; the format is the path's suffix."""
    with replacing(path) as aside:
        figure.savefig(aside, dpi=PRINT_DPI)
    return path


def arm_colour(arm: str) -> tuple[float, float, float]:
    """The arm's colour, the same in every figure."""
    return PALETTE[_place(arm) % len(PALETTE)]


def arm_marker(arm: str) -> str:
    """The arm's marker, the same in every figure."""
    return MARKERS[_place(arm) % len(MARKERS)]


def arm_title(arm: str) -> str:
    """The arm's name as a reader sees it."""
    return ARM_TITLES.get(arm, arm)


def metric_title(metric: str) -> str:
    """The metric's name and unit as an axis shows them."""
    return METRIC_TITLES.get(metric, metric)


def mean_with_interval(descriptive: pd.DataFrame, metric: str) -> Figure:
    """The paper's figures 1 and 2: bars of the mean with its t interval, by arm and strategy, one panel per region.

    ``descriptive`` is ``descriptive.describe``'s table. A bar without an interval (one case) has no error bar, a
    model without a defined value no bar but the words "no value".
    """
    table = descriptive[descriptive["metric"] == metric]
    regions = ordered(table["region"], REGION_ORDER)
    arms, strategies = ordered(table["arm"], ARMS), ordered(table["strategy"], STRATEGIES)
    figure, panels = _panels(1, max(len(regions), 1), width=3.2, height=3.4)
    for panel, region in zip(panels[0], regions, strict=False):
        _bars(panel, table[table["region"] == region], arms, strategies)
        panel.set_title(region)
        panel.set_xticks(range(len(arms)), [arm_title(arm) for arm in arms], rotation=20)
    panels[0, 0].set_ylabel(f"Mean {metric_title(metric)}, 95% CI" if metric in METRIC_TITLES else f"Mean {metric}")
    keys = [
        Patch(facecolor="lightgrey", edgecolor="black", hatch=HATCHES[name], label=STRATEGY_TITLES[name])
        for name in strategies
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys) or 1, frameon=False)
    return figure


def paired_slopes(scores: pd.DataFrame, metric: str) -> Figure:
    """Every held-out case as a line from its score from scratch to its score fine-tuned.

    Rows are arms, columns regions. A solid line ends higher than it begins, a dashed one lower or level. Distances
    stand on a scale that is linear up to 1 mm and logarithmic above, so that one bad case does not flatten the
    others. With one strategy there are points without lines.
    """
    arms = ordered(scores["arm"], ARMS)
    regions = ordered(scores.loc[scores["metric"] == metric, "region"], REGION_ORDER)
    figure, panels = _panels(max(len(arms), 1), max(len(regions), 1), width=2.6, height=2.5, sharey=True)
    for column, region in enumerate(regions):
        table = values(scores, metric, region)
        for row, arm in enumerate(arms):
            _slopes(panels[row, column], table, arm)
            panels[row, column].set_title(f"{arm_title(arm)}, {region}", fontsize=10)
    for row in range(len(arms)):
        panels[row, 0].set_ylabel(metric_title(metric))
    if metric in ("hd95", "hd", "lesion_hd95"):
        panels[0, 0].set_yscale("symlog", linthresh=1)
        panels[0, 0].set_ylim(bottom=0)
        panels[0, 0].set_yticks([0, 1, 3, 10, 30, 100], ["0", "1", "3", "10", "30", "100"])
    keys = [
        Line2D([], [], color="black", linestyle="-", label="higher when fine-tuned"),
        Line2D([], [], color="black", linestyle="--", label="lower or level"),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _bars(panel: Axes, table: pd.DataFrame, arms: Sequence[str], strategies: Sequence[str]) -> None:
    width = 0.8 / max(len(strategies), 1)
    for arm, strategy, mean, low, high in zip(
        *(table[name] for name in ("arm", "strategy", "mean", "ci_low", "ci_high")), strict=True
    ):
        x = arms.index(arm) + (strategies.index(strategy) - (len(strategies) - 1) / 2) * width
        if np.isnan(mean):
            panel.text(x, 0, "no value", rotation=90, ha="center", va="bottom", fontsize=7)
            continue
        panel.bar(x, mean, width, color=arm_colour(arm), edgecolor="black", hatch=HATCHES[strategy])
        if not np.isnan(low):
            panel.errorbar(x, mean, yerr=[[mean - low], [high - mean]], color="black", capsize=3, linewidth=1)


def _slopes(panel: Axes, table: pd.DataFrame, arm: str) -> None:
    sides = [name for name in reversed(STRATEGIES) if (arm, name) in table.columns]
    for _, row in table.iterrows():
        points = [row[(arm, side)] for side in sides]
        rises = len(points) == 2 and points[1] > points[0]
        panel.plot(
            range(len(points)),
            points,
            linestyle="-" if rises else "--",
            color=arm_colour(arm),
            marker=arm_marker(arm),
            markersize=4,
            linewidth=1,
            alpha=0.8,
        )
    panel.set_xticks(range(len(sides)), [STRATEGY_TITLES[side] for side in sides])
    panel.set_xlim(-0.3, max(len(sides) - 0.7, 0.3))


def _panels(rows: int, columns: int, width: float, height: float, sharey: bool = False) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width * columns + 0.6, height * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    for panel in panels.flat:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    return figure, panels


def _place(arm: str) -> int:
    return ARMS.index(arm) if arm in ARMS else len(ARMS) + sum(map(ord, arm)) % 4
