"""The figure of small lesions: every arm's curve with the rate marked, and each one's difference to the baseline."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from brainmets.figures import keys_below, panel_grid
from brainmets.params import SmallLesions
from brainmets.statistics.figures import arm_colour, arm_marker
from brainmets.statistics.froc import RATE_TITLES, RATES
from brainmets.statistics.small_lesions import AT_RATE, BASELINE, FINE_TUNED, NOT_SHOWN, small_size
from brainmets.statistics.tests import percent
from brainmets.vocabulary import ARMS, arm_title, ordered

CAPTION = {
    "file": "small_lesions.png",
    "shows": "Left: the share of small lesions that each fine-tuned arm finds against the false positives a patient "
    "that are allowed, mean over repeats, with the declared rate dotted. Right: each arm's difference to the baseline "
    "there, with its simultaneous intervals (thick: of these trainings; thin: of trainings anew); small open circles "
    "are single repeats, a filled marker is a difference that is shown.",
    "cannot_show": "It cannot show what other settings of an arm, another training schedule or patients would give.",
}


def small_lesions(curves: pd.DataFrame, table: pd.DataFrame, repeats: pd.DataFrame, rule: SmallLesions) -> Figure:
    """Curves below the limit (left) and differences to the baseline (right), of fine-tuned arms.

    ``curves``, ``table`` and ``repeats`` are those of ``small_lesions.curves``, ``compare`` and ``by_repeat``. Without
    such a lesion both panels say so.
    """
    below = small_size(rule).name
    figure, panels = panel_grid(1, 2, width=4.6, height=3.8)
    of_arms = curves[(curves["strategy"] == FINE_TUNED) & (curves["size"] == below)].dropna(subset=["sensitivity"])
    rows = table[(table["strategy"] == FINE_TUNED) & (table["size"] == below) & (table["at"] == AT_RATE)]
    rows = rows[rows["verdict"] != BASELINE].dropna(subset=["difference"])
    if of_arms.empty:
        for panel in panels[0]:
            panel.text(0.5, 0.5, f"no lesion {below}", ha="center", transform=panel.transAxes)
        return figure
    arms = ordered(of_arms["arm"], ARMS)
    _curves(panels[0, 0], of_arms, arms, rule)
    _differences(panels[0, 1], rows, repeats[(repeats["size"] == below) & (repeats["strategy"] == FINE_TUNED)], rule)
    keys = [
        Line2D([], [], color=arm_colour(arm), marker=arm_marker(arm), linewidth=2.6 if arm == rule.baseline else 1.3,
               label=arm_title(arm))
        for arm in arms
    ]  # fmt: skip
    keys_below(figure, keys, columns=4, size=8)
    return figure


def _curves(panel: Axes, curves: pd.DataFrame, arms: list[str], rule: SmallLesions) -> None:
    panel.axvline(rule.false_positives, color="black", linestyle=":", linewidth=1.2)
    for turn, arm in enumerate(arms):
        own = curves[curves["arm"] == arm]
        panel.plot(
            own["false_positives"], own["sensitivity"], color=arm_colour(arm), marker=arm_marker(arm), markersize=5,
            linewidth=2.6 if arm == rule.baseline else 1.3, drawstyle="steps-post", markevery=(turn % 4, 4),
        )  # fmt: skip
    panel.set_xscale("log", base=2)
    panel.set_xticks(RATES, [RATE_TITLES.get(rate, f"{rate:g}") for rate in RATES])
    panel.set_ylim(-0.03, 1.03)
    panel.set_xlabel("False positives a patient, at most")
    panel.set_ylabel(f"Share of lesions {small_size(rule).name} found")


def _differences(panel: Axes, rows: pd.DataFrame, repeats: pd.DataFrame, rule: SmallLesions) -> None:
    panel.axvline(0, color="black", linewidth=1)
    for place, row in enumerate(rows.to_dict("records")):
        colour, shown = arm_colour(row["arm"]), row["verdict"] != NOT_SHOWN
        singles = repeats.loc[repeats["arm"] == row["arm"], "difference"]
        panel.hlines(place, row["low"], row["high"], color=colour, linewidth=3)
        panel.hlines(place, row["retrained_low"], row["retrained_high"], color=colour, linewidth=1)
        panel.scatter(singles, [place + 0.22] * len(singles), s=14, facecolor="white", edgecolor=colour, zorder=3)
        panel.plot(
            row["difference"], place, marker=arm_marker(row["arm"]), color=colour, markersize=8,
            markerfacecolor=colour if shown else "white",
        )  # fmt: skip
    panel.set_yticks(range(len(rows)), [f"{arm_title(arm)}\n({verdict})" for arm, verdict
                                        in zip(rows["arm"], rows["verdict"], strict=True)])  # fmt: skip
    panel.set_ylim(len(rows) - 0.5, -0.5)
    held = percent(1 - rule.alpha)
    panel.set_xlabel(f"Difference to {arm_title(rule.baseline)} at {rule.false_positives:g} a patient\n"
                     f"(all intervals together: {held})")  # fmt: skip
