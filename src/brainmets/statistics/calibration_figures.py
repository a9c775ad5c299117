"""The reliability diagram: how often a voxel is in the reference, against the probability that it was given."""

from __future__ import annotations

from typing import Literal

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from brainmets.figures import Drawing
from brainmets.scoring.calibration import BINS, NEAR_MM
from brainmets.statistics.tests import percent
from brainmets.vocabulary import (
    ARMS,
    COMPARED_STRATEGIES,
    REGION_ORDER,
    STRATEGIES,
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
PALETTE = sns.color_palette("colorblind")
COLOURS = {"finetune": PALETTE[0], "scratch": PALETTE[1]}
LINES: dict[str, Literal["-", "--"]] = {"finetune": "-", "scratch": "--"}
MARKERS = {"finetune": "o", "scratch": "s"}
HATCHES = {"finetune": None, "scratch": "////"}


def reliability(bins: pd.DataFrame, alpha: float = 0.05, zone: Zone = "near") -> Figure:
    """Reliability diagrams of ``calibration.reliability_bins``, made with the same ``alpha``.

    Two rows of panels per arm, of the shares and of the numbers of voxels, and a column per region. Models that were
    not trained on the target alike (``COMPARED_STRATEGIES``) are left out. A bin without a voxel has no point, one
    whose voxels are of one patient no band; a table without rows gives a figure that says so.
    """
    shown = bins[bins["strategy"].isin(COMPARED_STRATEGIES) & (bins["zone"] == zone)]
    arms, regions = ordered(shown["arm"], ARMS), ordered(shown["region"], REGION_ORDER)
    n_arms, n_regions = max(len(arms), 1), max(len(regions), 1)
    figure = Drawing(figsize=(2.9 * n_regions + 0.6, 3.9 * n_arms + 0.6), layout="constrained")
    panels = figure.subplots(2 * n_arms, n_regions, squeeze=False, sharex=True, height_ratios=[3, 1] * n_arms)
    for panel in panels.flat:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
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
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False)
    return figure


def _share(panel: Axes, own: pd.DataFrame, strategy: str) -> None:
    colour = COLOURS[strategy]
    panel.plot(
        own["mean_p"], own["observed_share"], color=colour, linestyle=LINES[strategy], marker=MARKERS[strategy],
        markersize=3.5, linewidth=1.2, markerfacecolor=colour if strategy == "finetune" else "white",
    )  # fmt: skip
    panel.fill_between(
        own["mean_p"], own["low"], own["high"], facecolor=(*colour, 0.2), edgecolor=(*colour, 0.5),
        hatch=HATCHES[strategy], linewidth=0.5, linestyle=LINES[strategy],
    )  # fmt: skip


def _count(panel: Axes, own: pd.DataFrame, strategy: str) -> None:
    """A step per bin of equal width; bin 0 stands for itself at the left edge."""
    colour, filled = COLOURS[strategy], strategy == "finetune"
    above = own[own["bin"] > 0]
    panel.plot(
        (above["bin"] - 0.5) / BINS, above["n"], color=colour, linestyle=LINES[strategy], drawstyle="steps-mid",
        linewidth=1.2,
    )  # fmt: skip
    zero = own[own["bin"] == 0]
    panel.plot(
        [0] * len(zero), zero["n"], color=colour, linestyle="", marker=MARKERS[strategy], markersize=4,
        markerfacecolor=colour if filled else "white",
    )  # fmt: skip


def _key(strategy: str) -> Line2D:
    colour = COLOURS[strategy]
    return Line2D(
        [], [], color=colour, linestyle=LINES[strategy], marker=MARKERS[strategy],
        markerfacecolor=colour if strategy == "finetune" else "white", label=STRATEGY_TITLES[strategy],
    )  # fmt: skip
