"""Pictures of ``explain``, each with its words: uncertainty, an occlusion map, what withheld sequences cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from brainmets.figures import save
from brainmets.review.case import ReviewCase
from brainmets.review.explain import NOTHING, REGION, SEEN, Explanation, Occlusion
from brainmets.review.panels import INVENTED, MISSED, best_sequence, brightness, draw_slice, outline, window_around
from brainmets.vocabulary import REGION_COLOURS, REGIONS, SEQUENCE_TITLES, SEQUENCES, model_title, region_mask

REFERENCE, PREDICTION = MISSED, INVENTED
HATCHES = {"ET": "", "TC": "///", "WT": "..."}


def draw_explanation(one: Explanation, case: ReviewCase, folder: Path) -> list[dict[str, str]]:
    """Draw a case's uncertainty and, where it has one, its occlusion map into ``folder``/panels.

    ``case`` holds its contrast-enhanced T1, or what stands for it, and the evaluated prediction of the model. Returns
    an entry per picture: file (below ``folder``), alt, shows, cannot_show.
    """
    name, model, z = one.case, model_title(*one.model), one.z
    file = f"panels/{name}_uncertainty.png"
    save(uncertainty_figure(one, case), folder / file)
    disagreement = (
        "with no disagreement, because one fold cannot disagree."
        if one.disagreement is None
        else "and the folds' disagreement."
    )
    entries = [
        {
            "file": file,
            "alt": f"{name}: entropy of {REGION} of {model} on axial slice {z}",
            "shows": f"How undecided {model} is about {REGION} in {name}, voxel by voxel, on the slice where all "
            f"models differ most from the reference in it: the entropy of {_probability(one)}, {disagreement}",
            "cannot_show": "Whether the model is right: it can be sure and wrong, and entropy tells a chance of error "
            "only where the probabilities are calibrated, which is not tested here.",
        }
    ]
    if found := one.occlusion:
        file = f"panels/{name}_occlusion.png"
        save(occlusion_figure(one, found, case), folder / file)
        entries.append(
            {
                "file": file,
                "alt": f"{name}: occlusion map of {_lesion(found)} on axial slice {found.z}",
                "shows": f"How far the mean {REGION} probability of {_lesion(found)} in {name} "
                f"({found.probability:.2f} with nothing hidden) falls where a cube of {_cube(found)} mm is hidden in "
                "all sequences by their means in the head.",
                "cannot_show": "What in the cube mattered, what two places matter only together, and anything beyond "
                "one lesion, one slice and one size of cube: a hidden cube is no tissue a network was trained on.",
            }
        )
    return entries


def draw_withheld(table: pd.DataFrame, folder: Path) -> list[dict[str, str]]:
    """Draw what withheld sequences cost into ``folder``/panels; an entry, or none for an empty table."""
    if table.empty:
        return []
    save(withheld_figure(table), folder / "panels" / "withheld_sequences.png")
    model, cases = model_title(*table.loc[0, ["arm", "strategy"]]), table["case"].nunique()
    return [
        {
            "file": "panels/withheld_sequences.png",
            "alt": f"Drop in Dice and detected lesions of {model} when each sequence is withheld",
            "shows": f"What {model}, the model with the highest mean Dice, loses in {cases} reviewed case(s) when one "
            "sequence is replaced, in every voxel of the head, by its own mean in the head.",
            "cannot_show": "What a model trained without the sequence would reach: this one was never shown such an "
            f"image. And {cases} case(s), chosen because they are hard, say little of others.",
        }
    ]


def uncertainty_figure(one: Explanation, case: ReviewCase) -> Figure:
    """Image, entropy and disagreement of ``REGION`` on the explanation's axial slice.

    The entropy's scale runs from 0 to 1 bit, the disagreement's to its largest value in the picture.
    """
    z = one.z
    reference = region_mask(case.reference[:, :, z], REGION)
    predicted = region_mask(case.predictions[one.model][:, :, z], REGION)
    window = window_around(reference | predicted, case.spacing_mm, reference.shape)
    figure, panels = _panels_with_image(case, z, window, (11, 4.2), 3)
    entropy = _map(panels[1], one.entropy[window], case.spacing_mm, (0, 1), "gray")
    panels[1].set_title(f"entropy of {_probability(one)}", fontsize=9)
    if one.disagreement is None:
        panels[2].text(
            0.5, 0.5, "disagreement between folds:\nundefined with a single fold", ha="center", va="center",
            transform=panels[2].transAxes, fontsize=9,
        )  # fmt: skip
    else:
        values = one.disagreement[window]
        disagreement = _map(panels[2], values, case.spacing_mm, (0, float(values.max()) or 1.0), "gray")
        figure.colorbar(disagreement, ax=panels[2], shrink=0.7, label="bits")
        panels[2].set_title(f"of it the disagreement of the {one.folds} folds", fontsize=9)
    for panel in panels[: 2 if one.disagreement is None else 3]:
        outline(panel, reference[window], case.spacing_mm, REFERENCE)
        outline(panel, predicted[window], case.spacing_mm, PREDICTION)
    figure.colorbar(entropy, ax=panels[1], shrink=0.7, label="bits")
    outlines = {REFERENCE: "outline of the reference", PREDICTION: "outline of the evaluated prediction"}
    keys = [Line2D([], [], color=colour, label=title) for colour, title in outlines.items()]
    figure.legend(handles=keys, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    figure.suptitle(f"{case.name}, {REGION}, {model_title(*one.model)}: axial slice {z}", fontsize=10)
    return figure


def occlusion_figure(one: Explanation, found: Occlusion, case: ReviewCase) -> Figure:
    """The image with the lesion, and the drop in its probability where a cube was hidden; grey where none was."""
    tried = np.isfinite(found.drop)
    window = window_around(tried, case.spacing_mm, tried.shape, margin_mm=6)
    figure, panels = _panels_with_image(case, found.z, window, (8, 4.4), 2)
    limit = float(np.nanmax(np.abs(found.drop))) or 1.0
    drop = _map(panels[1], found.drop[window], case.spacing_mm, (-limit, limit), "PuOr_r")
    panels[1].set_title(f"a cube of {_cube(found)} mm hidden", fontsize=9)
    for panel, colour in zip(panels, (REFERENCE, "black"), strict=True):
        outline(panel, found.lesion[window], case.spacing_mm, colour)
    figure.colorbar(drop, ax=panels, shrink=0.7, label="probability lost (negative: gained)")
    figure.suptitle(
        f"{case.name}, {model_title(*one.model)}: {_lesion(found)} (outlined),\n"
        f"axial slice {found.z}, mean probability {found.probability:.2f} with nothing hidden",
        fontsize=10,
    )
    return figure


def withheld_figure(table: pd.DataFrame) -> Figure:
    """Drop in Dice per withheld sequence and region (bar: mean, points: cases), and lesions found in ``REGION``.

    ``table`` is that of ``explain.table``. Bars of lesions are sums over the cases; under a sequence that not
    every case has stands how many have it.
    """
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    palette = sns.color_palette("colorblind")
    cases = table.groupby("withheld")["case"].nunique()
    sequences = [name for name in SEQUENCES if name in cases.index]
    titles = [
        SEQUENCE_TITLES[name].replace("after ", "after\n")
        + (f"\n({cases[name]} of {cases.max()} cases)" if cases[name] < cases.max() else "")
        for name in sequences
    ]
    for number, region in enumerate(REGIONS):
        drops = table[table["region"] == region].pivot(index="case", columns="withheld", values="dice_drop")
        drops = drops[sequences]
        at = np.arange(len(sequences)) + (number - 1) * 0.27
        left.bar(
            at,
            drops.mean(),
            0.25,
            color=REGION_COLOURS[region],
            hatch=HATCHES[region],
            edgecolor="black",
            label=region,
        )
        left.plot(at, drops.T, "o", color="black", markersize=3)
    left.axhline(0, color="black", linewidth=0.8)
    left.set_xticks(range(len(sequences)), titles, fontsize=8)
    left.set_ylabel("drop in Dice")
    left.set_title(f"Dice: mean and each of {table['case'].nunique()} case(s)", fontsize=10)
    sums = table[table["region"] == REGION].groupby("withheld")[["detected", "lesions", "false_lesions"]].sum()
    sums = sums.loc[[NOTHING, *sequences]]
    bars = np.arange(1 + len(sequences))
    right.bar(bars - 0.2, sums["detected"], 0.38, color=palette[2], edgecolor="black", label="detected")
    right.bar(bars + 0.2, sums["false_lesions"], 0.38, color=palette[3], edgecolor="black", hatch="xx", label="false")
    right.axhline(int(sums["lesions"].iloc[0]), color="black", linestyle="--", linewidth=1, label="in the reference")
    right.set_xticks(bars, ["none", *titles], fontsize=8)
    right.set_ylabel(f"{REGION} lesions (count)")
    right.set_title(f"{REGION} lesions, all cases together", fontsize=10)
    right.yaxis.set_major_locator(MaxNLocator(integer=True))
    for panel in (left, right):
        panel.set_xlabel("sequence withheld")
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3, frameon=False, fontsize=8)
    figure.suptitle(f"{model_title(*table.loc[0, ['arm', 'strategy']])}: one sequence withheld", fontsize=10)
    return figure


def _panels_with_image(
    case: ReviewCase, z: int, window: tuple[slice, slice], size: tuple[float, float], count: int
) -> tuple[Figure, list[Axes]]:
    """``count`` panels without axes, the first with the contrast-enhanced T1 (or its ``stand_in``) on slice ``z``."""
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(1, count))
    for panel in panels:
        panel.set_axis_off()
    sequence = best_sequence(REGION, case.images)
    image = case.images[sequence]
    draw_slice(panels[0], image[:, :, z][window], case.spacing_mm, brightness(image))
    panels[0].set_title(SEQUENCE_TITLES[sequence], fontsize=9)
    return figure, panels


def _map(
    panel: Axes,
    values: npt.NDArray[np.floating],
    spacing_mm: tuple[float, float, float],
    limits: tuple[float, float],
    colours: str,
) -> AxesImage:
    """Draw values (x, y) as ``draw_slice`` draws an image; gives what a colour bar needs."""
    draw_slice(panel, np.zeros(values.shape), spacing_mm, (-1.0, 1.0))
    extent = (0, values.shape[0] * spacing_mm[0], 0, values.shape[1] * spacing_mm[1])
    drawn = panel.imshow(
        values.T, origin="lower", cmap=colours, vmin=limits[0], vmax=limits[1], extent=extent, interpolation="nearest"
    )
    panel.set_xlim(extent[1], 0)
    return drawn


def _lesion(found: Occlusion) -> str:
    if found.probability >= SEEN:
        return f"the largest {REGION} lesion that the model sees"
    return f"the {REGION} lesion with the highest probability (none reaches {SEEN})"


def _probability(one: Explanation) -> str:
    return "one fold's probability" if one.folds == 1 else f"the mean probability of {one.folds} folds"


def _cube(found: Occlusion) -> str:
    return " x ".join(f"{edge:.0f}" for edge in found.cube_mm)
