"""A figure of one model's candidates: how sure the network is of those that hit, and of those that do not."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from brainmets.figures import Drawing
from brainmets.scoring.candidates import Detections, hits
from brainmets.vocabulary import HIT_RULE_TITLES, REGION_ORDER, REGIONS, HitRule, ordered

LOOKS: dict[str, dict[str, Any]] = {
    "hit": {"marker": "o", "color": "#0072B2", "markerfacecolor": "none"},
    "false": {"marker": "x", "color": "#D55E00"},
    "lesion not found": {"marker": "v", "color": "black"},
}
"""Of Okabe and Ito's colour-blind safe set; each has its own marker, so that nothing is lost in a grey print."""


def candidates_by_size(detections: Detections, rule: HitRule, threshold: float) -> Figure:
    """Score against volume of one model's candidates, and its missed lesions; one panel per region.

    ``threshold``: that of the candidates, drawn as a line. A region without candidates and lesions has an empty panel.
    """
    outcome = hits(detections, rule)
    regions = ordered([*REGIONS, *detections.candidates["region"]], REGION_ORDER)
    figure = Drawing(figsize=(3.2 * len(regions) + 0.6, 3.8), layout="constrained")
    panels = figure.subplots(1, len(regions), squeeze=False, sharex=True, sharey=True)[0]
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
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    volumes = np.concatenate([detections.candidates["volume_mm3"], detections.targets["volume_mm3"]])
    panels[0].set_xscale("log")  # of all panels, which share it
    panels[0].set_xlim(volumes.min(initial=10) / 1.5, volumes.max(initial=1000) * 1.5)
    panels[0].set_ylim(-0.03, 1.03)
    panels[0].set_ylabel("Score: highest probability")
    keys = [Line2D([], [], linestyle="", label=name, **look) for name, look in LOOKS.items()]
    keys.append(Line2D([], [], color="grey", linewidth=0.8, linestyle=":", label="threshold of candidates"))
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False, fontsize=8)
    figure.suptitle(f"A hit: {HIT_RULE_TITLES[rule]}", fontsize=9)
    return figure
