"""Figures of one model's candidates: how sure it is of those that hit and of the false ones, and its FROC."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from brainmets.figures import keys_below, panel_grid
from brainmets.scoring.candidates import Detections, hits
from brainmets.statistics import froc
from brainmets.vocabulary import HIT_RULE_TITLES, HIT_RULES, REGION_ORDER, REGIONS, HitRule, ordered

LOOKS: dict[str, dict[str, Any]] = {
    "hit": {"marker": "o", "color": "#0072B2", "markerfacecolor": "none"},
    "false": {"marker": "x", "color": "#D55E00"},
    "lesion not found": {"marker": "v", "color": "black"},
}
"""Of Okabe and Ito's colour-blind safe set; each has its own marker, so that nothing is lost in a grey print."""

RULE_LOOKS: dict[HitRule, dict[str, Any]] = {
    "one_to_one": {"color": "#0072B2", "linestyle": "-"},
    "overlap": {"color": "#D55E00", "linestyle": "--"},
    "centroid": {"color": "#009E73", "linestyle": ":"},
}


def froc_by_rule(detections: Detections) -> Figure:
    """The share of lesions found against the false positives a case, by each rule of a hit; one panel per region.

    A staircase: at each rate the largest share that is attained with so many false positives or fewer. What is found
    without a false positive stands at the left edge. A region without lesions has an empty panel that says so.
    """
    edge = froc.RATES[0] / 2
    figure, grid = panel_grid(1, len(REGIONS), width=3.2, height=3.2, sharey=True)
    panels = grid[0]
    for panel, region in zip(panels, REGIONS, strict=True):
        for rule in HIT_RULES:
            points = froc.curve(hits(detections, rule), region, [froc.ALL_SIZES])
            if points["lesions"].iloc[0] == 0:
                panel.text(0.5, 0.5, "no lesions", ha="center", transform=panel.transAxes)
                break
            rate, share = points["false_positives"].to_numpy(float), points["sensitivity"].to_numpy(float)
            # the last threshold's share holds for every rate beyond its own
            rate, share = np.append(np.maximum(rate, edge), max(rate[-1], froc.RATES[-1])), np.append(share, share[-1])
            panel.step(rate, share, where="post", linewidth=1.8, **RULE_LOOKS[rule])
        panel.set_title(region, fontsize=9)
        panel.set_xscale("log", base=2)
        panel.set_xlim(edge, froc.RATES[-1])
        panel.set_ylim(-0.03, 1.03)
        panel.set_xticks(froc.RATES, [froc.RATE_TITLES.get(at, f"{at:g}") for at in froc.RATES])
        panel.set_xlabel("False positives a case, at most")
    panels[0].set_ylabel("Share of lesions found")
    keys = [Line2D([], [], linewidth=1.8, label=HIT_RULE_TITLES[rule], **RULE_LOOKS[rule]) for rule in HIT_RULES]
    keys_below(figure, keys, size=8)
    return figure


def candidates_by_size(detections: Detections, rule: HitRule, threshold: float) -> Figure:
    """Score against volume of one model's candidates, and its missed lesions; one panel per region.

    ``threshold``: that of the candidates, drawn as a line. A region without candidates and lesions has an empty panel.
    """
    outcome = hits(detections, rule)
    regions = ordered([*REGIONS, *detections.candidates["region"]], REGION_ORDER)
    figure, grid = panel_grid(1, len(regions), width=3.2, height=3.2, sharex=True, sharey=True)
    panels = grid[0]
    for panel, region in zip(panels, regions, strict=True):
        own = detections.candidates[detections.candidates["region"] == region]
        hit = own[f"hit_{rule}"].to_numpy(bool)
        lesions = outcome.lesions[outcome.lesions["region"] == region]
        missed = lesions[~np.isfinite(lesions["score"])]
        for name, x, y in (
            ("false", own["volume_mm3"][~hit], own["score"][~hit]),
            ("hit", own["volume_mm3"][hit], own["score"][hit]),
            ("lesion not found", missed["volume_mm3"], np.zeros(len(missed))),
        ):
            panel.plot(x, y, linestyle="", markersize=5, **LOOKS[name])
        panel.axhline(threshold, color="grey", linewidth=0.8, linestyle=":")
        found = len(lesions) - len(missed)
        panel.set_title(f"{region}: {found} of {len(lesions)} found, {int((~hit).sum())} false", fontsize=9)
        panel.set_xlabel("Volume (mm³)")
    volumes = np.concatenate([detections.candidates["volume_mm3"], detections.targets["volume_mm3"]])
    panels[0].set_xscale("log")  # of all panels, which share it
    for panel in panels:
        panel.minorticks_off()  # they take half of the time that drawing takes
    panels[0].set_xlim(volumes.min(initial=10) / 1.5, volumes.max(initial=1000) * 1.5)
    panels[0].set_ylim(-0.03, 1.03)
    panels[0].set_ylabel("Score: highest probability")
    keys = [Line2D([], [], linestyle="", label=name, **look) for name, look in LOOKS.items()]
    keys.append(Line2D([], [], color="grey", linewidth=0.8, linestyle=":", label="threshold of candidates"))
    keys_below(figure, keys, size=8)
    figure.suptitle(f"A hit: {HIT_RULE_TITLES[rule]}", fontsize=9)
    return figure
