"""Watching a training in a notebook: its first batch, a line per epoch, and its curves while it runs and after."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from IPython.display import HTML, DisplayHandle, display
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from brainmets.figures import Drawing
from brainmets.statistics.froc import SMALL_MM
from brainmets.training.patch_shares import PLACES, Shares
from brainmets.training.session import TrainingSession
from brainmets.vocabulary import NETWORK_REGIONS, REGION_COLOURS, REGION_LINES, SEQUENCE_TITLES

DRAWING_SHARE = 0.01
"""Share of the training's time that may go into drawing."""
REGION_MARKERS = {"WT": "s", "TC": "^", "ET": "o"}
"""A marker for each region, so that curves differ without colours."""

RULE_STYLES: dict[str, dict[str, Any]] = {
    "voxels": {"color": "#0173b2"},
    "lesions": {"color": "#de8f05", "hatch": "///", "edgecolor": "black"},
    "small_lesions": {"color": "#029e73", "hatch": "...", "edgecolor": "black"},
}
"""A colour and a hatch for each rule of drawing patches."""


class LiveCurves:
    """Prints each line of a training and keeps one figure of the curves so far above the lines.

    Hand it to ``TrainingSession.run``. The figure is drawn after the first epoch and then as often as
    ``DRAWING_SHARE`` of the time allows; after the last epoch it is taken away, since the notebook shows the whole
    curves then. A training that stops earlier leaves it where it stood.
    """

    def __init__(self, session: TrainingSession) -> None:
        self.session = session
        self._handle: DisplayHandle | None = None
        self._due = 0.0

    def __call__(self, line: str) -> None:
        """Print ``line``, and draw where it is time to."""
        started = time.monotonic()
        if line.startswith("epoch ") and started >= self._due:
            self._draw()
            drawn = time.monotonic()
            self._due = drawn + (drawn - started) / DRAWING_SHARE
        print(line)
        if self._handle is not None and line.startswith(f"epoch {self.session.trainer.num_epochs} of "):
            self._handle.update(HTML(""))

    def _draw(self) -> None:
        figure = learning_curves(self.session.curves(), f"{self.session.name}, so far")
        if self._handle is None:
            self._handle = display(figure, display_id=True)
        else:
            self._handle.update(figure)


def learning_curves(curves: pd.DataFrame, title: str) -> Drawing:
    """Loss, pseudo-Dice per region, and learning rate against the epoch.

    ``curves`` is what ``TrainingSession.curves`` gives. An epoch whose validation patches neither held nor predicted
    a region leaves a gap in that region's line.
    """
    figure = Drawing(figsize=(11, 3.2), layout="constrained")
    loss, dice, rate = figure.subplots(1, 3)
    loss.plot(curves.epoch, curves.training_loss, color="black", label="training")
    loss.plot(curves.epoch, curves.validation_loss, color="#0173b2", linestyle="--", label="validation")
    every = max(1, len(curves) // 10)
    for region in NETWORK_REGIONS:
        dice.plot(
            curves.epoch, curves[f"dice_{region}"], color=REGION_COLOURS[region], linestyle=REGION_LINES[region],
            marker=REGION_MARKERS[region], markevery=every, label=region,
        )  # fmt: skip
    dice.set_ylim(0, 1)
    rate.plot(curves.epoch, curves.learning_rate, color="black")
    for panel, quantity in ((loss, "loss"), (dice, "pseudo-Dice"), (rate, "learning rate")):
        panel.set(xlabel="epoch", ylabel=quantity)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.spines[["top", "right"]].set_visible(False)
    for panel in (loss, dice):
        panel.legend(frameon=False)
    figure.suptitle(title)
    return figure


def batch_figure(
    images: npt.NDArray[np.float32], regions: npt.NDArray[np.bool_], sequences: Sequence[str], title: str
) -> Drawing:
    """The first two patches of a batch, a row each: its ``sequences`` with the outlines of its regions.

    ``images`` (patch, sequence, z, y, x) and ``regions`` (patch, region, z, y, x) are what
    ``TrainingSession.first_batch`` gives. Shown is the axial slice with most of the whole tumour; the middle one where
    the patch holds none. Grey goes from a sequence's 1st to its 99th percentile in the patch; an inner region has
    the thinner line, so that none hides another of the same shape. A sequence that is 0 throughout, as one is that the
    case lacks or that sequence dropout takes, is marked.
    """
    shown = list(zip(images[:2], regions[:2], strict=True))
    figure = Drawing(figsize=(max(5, 2.75 * len(sequences)), 0.7 + 2.7 * len(shown)), layout="constrained")
    for number, (row, (patch, masks)) in enumerate(
        zip(figure.subplots(len(shown), len(sequences), squeeze=False), shown, strict=True), 1
    ):
        tumour = masks[NETWORK_REGIONS.index("WT")].sum((1, 2))
        z = int(tumour.argmax()) if tumour.any() else len(tumour) // 2
        for axes, sequence, volume in zip(row, sequences, patch, strict=True):
            if not volume.any():
                axes.text(0.5, 0.5, "absent: 0", color="white", ha="center", va="center", transform=axes.transAxes)
            low, high = np.percentile(volume, (1, 99))
            axes.imshow(volume[z], cmap="gray", vmin=low, vmax=high)
            for width, region, mask in zip((3, 2, 1), NETWORK_REGIONS, masks[:, z], strict=True):
                if mask.any():
                    style = {"colors": REGION_COLOURS[region], "linestyles": REGION_LINES[region]}
                    axes.contour(mask, [0.5], linewidths=width, **style)
            axes.set(xticks=[], yticks=[], title=SEQUENCE_TITLES[sequence] if number == 1 else "")
        row[0].set_ylabel(f"patch {number}, slice {z + 1} of {len(tumour)}")
    lines = [Line2D([], [], color=REGION_COLOURS[name], linestyle=REGION_LINES[name]) for name in NETWORK_REGIONS]
    figure.legend(lines, NETWORK_REGIONS, loc="outside lower center", ncols=len(lines), frameon=False)
    figure.suptitle(title)
    return figure


def patch_figure(shares: Shares, title: str) -> Drawing:
    """Where the centres of patches with foreground lie, and the share of patches that hold a small lesion at all.

    A bar for each rule of ``TrainingSession.patch_shares``; below a size stands the number of its lesions.
    """
    figure = Drawing(figsize=(11, 3.6), layout="constrained")
    centres, small = figure.subplots(1, 2, width_ratios=(2, 1))
    names = [
        f"{place}\n{lesions} lesion{'' if lesions == 1 else 's'}" if "mm" in place else place.replace(" ", "\n", 1)
        for place, lesions in zip(PLACES, shares.centres.number, strict=True)
    ]
    _bars(centres, shares.centres.drop(columns="number"), names)
    centres.set(xlabel="centre of a patch that must hold foreground", ylabel="share of these patches")
    _bars(small, shares.small.T, list(shares.small.columns))
    small.set(xlabel="patches", ylabel=f"share with a lesion below {SMALL_MM:g} mm", ylim=(0, 1))
    centres.legend(frameon=False, title="drawn by")
    figure.suptitle(title)
    return figure


def _bars(panel: Axes, table: pd.DataFrame, names: list[str]) -> None:
    """A group of bars for each row of ``table``, a bar for each of its columns, the rules."""
    width = 0.8 / len(table.columns)
    for number, rule in enumerate(table.columns):
        at = np.arange(len(table)) + (number - (len(table.columns) - 1) / 2) * width
        bars = panel.bar(at, table[rule], width, label=rule, **RULE_STYLES[rule])
        panel.bar_label(bars, [f"{share:.0%}" for share in table[rule]], fontsize=8)
    panel.set_xticks(range(len(table)), names, fontsize=8)
    panel.spines[["top", "right"]].set_visible(False)
