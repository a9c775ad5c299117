"""Pictures of ``explanation``, each with its words: uncertainty, an occlusion map, what withheld sequences cost."""

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
from brainmets.review.drawing import Entry, slug
from brainmets.review.explanation import NOTHING, REGION, Explanation, OcclusionSlice
from brainmets.review.occlusion import SEEN
from brainmets.review.panels import INVENTED, MISSED, brightness, draw_slice, outline, window_around, worst_slice
from brainmets.vocabulary import REGIONS, SEQUENCE_TITLES, SEQUENCES, STRATEGY_TITLES, Model, arm_title, region_mask

REFERENCE, PREDICTION = MISSED, INVENTED
HATCHES = {"ET": "", "TC": "///", "WT": "..."}


def draw_explanation(one: Explanation, folder: Path) -> list[Entry]:
    """Draw a case's uncertainty and, where it has one, its occlusion map into ``folder``/panels; an entry each."""
    name, model = one.shown.name, _title(one.model)
    z, _ = worst_slice(one.shown, REGION)
    file = f"panels/{slug(name)}_uncertainty.png"
    save(uncertainty_figure(one, z), folder / file)
    single = one.disagreement is None
    entries = [
        {
            "file": file,
            "alt": f"{name}: entropy of {REGION} of {model} on axial slice {z}",
            "shows": f"How undecided {model} is about {REGION} in {name}, voxel by voxel, on the slice where all "
            f"models differ most from the reference in it: the entropy of {_folds(one)}, "
            + (
                "with no disagreement, because one fold cannot disagree." if single else "and the folds' disagreement."
            ),
            "cannot_show": "Whether the model is right: it can be sure and wrong, and entropy tells a chance of error "
            "only where the probabilities are calibrated, which is not tested here.",
        }
    ]
    if one.occlusion is not None:
        file = f"panels/{slug(name)}_occlusion.png"
        save(occlusion_figure(one, one.occlusion), folder / file)
        entries.append(
            {
                "file": file,
                "alt": f"{name}: occlusion map of {_lesion(one.occlusion)} on axial slice {one.occlusion.z}",
                "shows": f"How far the mean {REGION} probability of {_lesion(one.occlusion)} in {name} "
                f"({one.occlusion.probability:.2f} with nothing hidden) falls where a cube of "
                f"{_cube(one.occlusion)} mm is hidden in all four sequences.",
                "cannot_show": "What in the cube mattered, what two places matter only together, and anything beyond "
                "one lesion, one slice and one size of cube: a hidden cube is no tissue a network was trained on.",
            }
        )
    return entries


def draw_withheld(table: pd.DataFrame, folder: Path) -> list[Entry]:
    """Draw what withheld sequences cost into ``folder``/panels; no entry for an empty table."""
    if table.empty:
        return []
    save(withheld_figure(table), folder / "panels" / "withheld_sequences.png")
    first, cases = table.iloc[0], table["case"].nunique()
    model = _title((first["arm"], first["strategy"]))
    return [
        {
            "file": "panels/withheld_sequences.png",
            "alt": f"Drop in Dice and detected lesions of {model} when each sequence is withheld",
            "shows": f"What {model}, the model with the highest mean Dice, loses in {cases} reviewed case(s) when one "
            "sequence is replaced by its own mean in the head (0 after nnU-Net's normalisation).",
            "cannot_show": "What a model trained without the sequence would reach: this one was never shown such an "
            f"image. And {cases} case(s), chosen because they are hard, say little of others.",
        }
    ]


def uncertainty_figure(one: Explanation, z: int) -> Figure:
    """Image, entropy and disagreement of ``REGION`` on axial slice ``z``.

    The entropy's scale runs from 0 to 1 bit, the disagreement's to its largest value in the picture.
    """
    case = one.shown
    reference = region_mask(case.reference[:, :, z], REGION)
    predicted = region_mask(case.predictions[one.model][:, :, z], REGION)
    undecided = one.entropy[:, :, z]
    window = window_around(reference | predicted, case.spacing_mm, reference.shape)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 3)
    for panel in panels:
        panel.set_axis_off()
    shown = brightness(case.images["t1c"])
    draw_slice(panels[0], case.images["t1c"][:, :, z][window], case.spacing_mm, shown)
    panels[0].set_title(SEQUENCE_TITLES["t1c"], fontsize=9)
    colours = _map(panels[1], undecided[window], case.spacing_mm, (0, 1), "gray")
    panels[1].set_title(f"entropy of {_folds(one)}", fontsize=9)
    if one.disagreement is None:
        panels[2].text(
            0.5, 0.5, "disagreement between folds:\nundefined with a single fold", ha="center", va="center",
            transform=panels[2].transAxes, fontsize=9,
        )  # fmt: skip
    else:
        parting = one.disagreement[:, :, z][window]
        parted = _map(panels[2], parting, case.spacing_mm, (0, float(parting.max()) or 1.0), "gray")
        figure.colorbar(parted, ax=panels[2], shrink=0.7, label="bits")
        panels[2].set_title(f"of it the disagreement of the {one.folds} folds", fontsize=9)
    for panel in panels[: 2 if one.disagreement is None else 3]:
        outline(panel, reference[window], case.spacing_mm, REFERENCE)
        outline(panel, predicted[window], case.spacing_mm, PREDICTION)
    figure.colorbar(colours, ax=panels[1], shrink=0.7, label="bits")
    _legend(figure)
    figure.suptitle(f"{case.name}, {REGION}, {_title(one.model)}: axial slice {z}", fontsize=10)
    return figure


def occlusion_figure(one: Explanation, found: OcclusionSlice) -> Figure:
    """The image with the lesion, and the drop in its probability where a cube was hidden; grey where none was."""
    case, z = one.shown, found.z
    tried = np.isfinite(found.drop)
    window = window_around(tried, case.spacing_mm, tried.shape, margin_mm=6)
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel in panels:
        panel.set_axis_off()
        panel.set_facecolor("grey")
    draw_slice(panels[0], case.images["t1c"][:, :, z][window], case.spacing_mm, brightness(case.images["t1c"]))
    panels[0].set_title(SEQUENCE_TITLES["t1c"], fontsize=9)
    limit = float(np.nanmax(np.abs(found.drop))) or 1.0
    colours = _map(panels[1], found.drop[window], case.spacing_mm, (-limit, limit), "PuOr_r")
    panels[1].set_title(f"a cube of {_cube(found)} mm hidden", fontsize=9)
    for panel in panels:
        outline(panel, found.lesion[window], case.spacing_mm, "black" if panel is panels[1] else REFERENCE)
    figure.colorbar(colours, ax=panels.tolist(), shrink=0.7, label="probability lost (negative: gained)")
    figure.suptitle(
        f"{case.name}, {_title(one.model)}: {_lesion(found)} (outlined),\n"
        f"axial slice {z}, mean probability {found.probability:.2f} with nothing hidden",
        fontsize=10,
    )
    return figure


def _lesion(found: OcclusionSlice) -> str:
    """Which lesion was occluded, in words."""
    if found.probability >= SEEN:
        return f"the largest {REGION} lesion that the model sees"
    return f"the {REGION} lesion with the highest probability (none reaches {SEEN})"


def withheld_figure(table: pd.DataFrame) -> Figure:
    """Drop in Dice per withheld sequence and region (bar: mean, points: cases), and lesions found in ``REGION``.

    ``table`` is that of ``explanation.table``. Bars of lesions are sums over the cases.
    """
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    palette = sns.color_palette("colorblind")
    places = np.arange(len(SEQUENCES))
    for number, region in enumerate(REGIONS):
        drops = table[table["region"] == region].pivot(index="case", columns="withheld", values="dice_drop")
        drops = drops[list(SEQUENCES)]
        at = places + (number - 1) * 0.27
        left.bar(at, drops.mean(), 0.25, color=palette[number], hatch=HATCHES[region], edgecolor="black", label=region)
        for _, values in drops.iterrows():
            left.plot(at, values, "o", color="black", markersize=3)
    left.axhline(0, color="black", linewidth=0.8)
    titles = [SEQUENCE_TITLES[sequence].replace("after ", "after\n") for sequence in SEQUENCES]
    left.set_xticks(places, titles, fontsize=8)
    left.set_xlabel("sequence withheld")
    left.set_ylabel("drop in Dice")
    left.set_title(f"Dice: mean and each of {table['case'].nunique()} case(s)", fontsize=10)
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3, frameon=False, fontsize=8)
    order = [NOTHING, *SEQUENCES]
    sums = table[table["region"] == REGION].groupby("withheld")[["detected", "lesions", "false_lesions"]].sum()
    sums = sums.loc[order]
    right.bar(np.arange(5) - 0.2, sums["detected"], 0.38, color=palette[2], edgecolor="black", label="detected")
    right.bar(
        np.arange(5) + 0.2, sums["false_lesions"], 0.38, color=palette[3], edgecolor="black", hatch="xx", label="false"
    )
    right.axhline(int(sums["lesions"].iloc[0]), color="black", linestyle="--", linewidth=1, label="in the reference")
    right.set_xticks(range(5), ["none", *titles], fontsize=8)
    right.set_xlabel("sequence withheld")
    right.set_ylabel(f"{REGION} lesions (count)")
    right.set_title(f"{REGION} lesions, all cases together", fontsize=10)
    right.yaxis.set_major_locator(MaxNLocator(integer=True))
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3, frameon=False, fontsize=8)
    first = table.iloc[0]
    figure.suptitle(f"{_title((first['arm'], first['strategy']))}: one sequence withheld", fontsize=10)
    return figure


def _map(
    panel: Axes,
    values: npt.NDArray[np.floating],
    spacing_mm: tuple[float, float, float],
    limits: tuple[float, float],
    colours: str,
) -> AxesImage:
    extent = (0, values.shape[0] * spacing_mm[0], 0, values.shape[1] * spacing_mm[1])
    draw_slice(panel, np.zeros(values.shape), spacing_mm, (-1.0, 1.0))
    drawn = panel.imshow(
        values.T, origin="lower", cmap=colours, vmin=limits[0], vmax=limits[1], extent=extent, interpolation="nearest"
    )
    panel.set_xlim(extent[1], 0)
    return drawn


def _legend(figure: Figure) -> None:
    outlines = {REFERENCE: "outline of the reference", PREDICTION: "outline of the evaluated prediction"}
    keys = [Line2D([], [], color=colour, label=title) for colour, title in outlines.items()]
    figure.legend(handles=keys, loc="outside lower center", ncols=2, frameon=False, fontsize=8)


def _title(model: Model) -> str:
    return f"{arm_title(model[0])}, {STRATEGY_TITLES[model[1]]}"


def _folds(one: Explanation) -> str:
    return "one fold's probability" if one.folds == 1 else f"the mean probability of {one.folds} folds"


def _cube(found: OcclusionSlice) -> str:
    return " x ".join(f"{edge:.0f}" for edge in found.cube_mm)
