"""The reliability diagram: how often a voxel is in the reference, against the probability that it was given."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from brainmets.figures import keys_below, panel_grid
from brainmets.scoring.calibration import BINS, NEAR_MM
from brainmets.statistics.tests import percent
from brainmets.vocabulary import (
    ARMS,
    COMPARED_STRATEGIES,
    REGION_ORDER,
    STRATEGIES,
    STRATEGY_COLOURS,
    STRATEGY_HATCHES,
    STRATEGY_LINES,
    STRATEGY_MARKERS,
    STRATEGY_TITLES,
    Zone,
    arm_title,
    ordered,
)

CAPTION = {
    "file": "reliability.png",
    "shows": f"Of the voxels within {NEAR_MM:g} mm of a lesion or a candidate, the share that the reference labels "
    "against the probability that they were given, fine-tuned (solid) and from scratch (dashed), with pointwise bands "
    "that count patients; below, how many voxels a bin holds. On the diagonal a probability means what it says; below "
    "it the model is too sure.",
    "cannot_show": "It cannot show whether a single patient's probabilities are right: large lesions have most of the "
    "voxels.",
}


def reliability(bins: pd.DataFrame, alpha: float = 0.05, zone: Zone = "near") -> Figure:
    """Reliability diagrams of ``calibration.reliability_bins``, made with the same ``alpha``.

    Two rows of panels per arm, of the shares and of the numbers of voxels, and a column per region. Models that were
    not trained on the target alike (``COMPARED_STRATEGIES``) are left out. A bin without a voxel has no point, one
    whose voxels are of one patient no band; a table without rows gives a figure that says so.
    """
    shown = bins[bins["strategy"].isin(COMPARED_STRATEGIES) & (bins["zone"] == zone)]
    arms, regions = ordered(shown["arm"], ARMS), ordered(shown["region"], REGION_ORDER)
    rows = 2 * max(len(arms), 1)
    heights = [3, 1] * (rows // 2)
    figure, panels = panel_grid(rows, len(regions), width=2.9, height=1.95, sharex=True, height_ratios=heights)
    if not arms:
        panels[0, 0].text(0.5, 0.5, "no kept probabilities", ha="center", transform=panels[0, 0].transAxes)
        return figure
    for row, arm in enumerate(arms):
        for column, region in enumerate(regions):
            share, count = panels[2 * row, column], panels[2 * row + 1, column]
            share.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
            for strategy in ordered(shown["strategy"], STRATEGIES):
                own = shown[(shown["arm"] == arm) & (shown["strategy"] == strategy) & (shown["region"] == region)]
                own = own[own["n"] > 0].sort_values("bin")
                _share(share, own, strategy)
                _count(count, own, strategy)
            share.set_title(f"{arm_title(arm)}, {region}", fontsize=10)
            share.set_xlim(-0.02, 1.02)
            share.set_ylim(-0.02, 1.02)
            count.set_yscale("log")
            count.set_ylim(0.8, 4 * float(shown["n"].max()))
            count.yaxis.set_major_locator(LogLocator(numticks=4))
            count.yaxis.set_minor_formatter(NullFormatter())
            count.tick_params(labelbottom=True)
            count.set_xlabel("Mean probability of the bin", fontsize=9)
        panels[2 * row, 0].set_ylabel(f"Share in the reference,\n{percent(1 - alpha)} band", fontsize=9)
        panels[2 * row + 1, 0].set_ylabel("Voxels", fontsize=9)
    keys = [_key(strategy) for strategy in ordered(shown["strategy"], STRATEGIES)]
    keys.append(Line2D([], [], color="grey", linewidth=0.8, linestyle=":", label="as it says"))
    keys_below(figure, keys)
    return figure


def _share(panel: Axes, own: pd.DataFrame, strategy: str) -> None:
    colour = STRATEGY_COLOURS[strategy]
    fill = colour if strategy == "finetune" else "white"
    panel.plot(
        own["mean_p"], own["observed_share"], color=colour, linestyle=STRATEGY_LINES[strategy], linewidth=1.2,
        marker=STRATEGY_MARKERS[strategy], markersize=3.5, markerfacecolor=fill,
    )  # fmt: skip
    panel.fill_between(
        own["mean_p"], own["low"], own["high"], facecolor=to_rgba(colour, 0.2), edgecolor=to_rgba(colour, 0.5),
        hatch=STRATEGY_HATCHES[strategy], linewidth=0.5, linestyle=STRATEGY_LINES[strategy],
    )  # fmt: skip


def _count(panel: Axes, own: pd.DataFrame, strategy: str) -> None:
    """A step per bin of equal width; bin 0 stands for itself at the left edge."""
    colour, filled = STRATEGY_COLOURS[strategy], strategy == "finetune"
    above = own[own["bin"] > 0]
    panel.plot(
        (above["bin"] - 0.5) / BINS, above["n"], color=colour, linestyle=STRATEGY_LINES[strategy], linewidth=1.2,
        drawstyle="steps-mid",
    )  # fmt: skip
    zero = own[own["bin"] == 0]
    panel.plot(
        [0] * len(zero), zero["n"], color=colour, linestyle="", marker=STRATEGY_MARKERS[strategy], markersize=4,
        markerfacecolor=colour if filled else "white",
    )  # fmt: skip


def _key(strategy: str) -> Line2D:
    colour = STRATEGY_COLOURS[strategy]
    return Line2D(
        [], [], color=colour, linestyle=STRATEGY_LINES[strategy], marker=STRATEGY_MARKERS[strategy],
        markerfacecolor=colour if strategy == "finetune" else "white", label=STRATEGY_TITLES[strategy],
    )  # fmt: skip
