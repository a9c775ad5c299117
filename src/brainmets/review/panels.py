"""2D panels of a case: one slice, the sequence underneath, the reference against every model's prediction.

Slices are axial and shown as radiologists read them, the patient's right on the left. Areas keep one colour each
(Okabe and Ito's colour-blind safe set) and lengths are in mm.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import cc3d
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from brainmets.figures import Drawing, wrapped
from brainmets.review.case import ReviewCase, stand_in
from brainmets.review.ranking import LESION_REGION
from brainmets.scoring.one_to_one import LEAST_IOU
from brainmets.vocabulary import (
    COMPARED_STRATEGIES,
    LABEL_COLOURS,
    LABELS,
    SEQUENCE_TITLES,
    STRATEGY_TITLES,
    Model,
    arm_title,
    region_mask,
)

Mask = npt.NDArray[np.bool_]

AGREED, MISSED, INVENTED, OUTLINE = "#009E73", "#D55E00", "#56B4E9", "#F0E442"
AREA_TITLES = {
    AGREED: "found (true positive)",
    MISSED: "missed (false negative)",
    INVENTED: "too much (false positive)",
}
BEST_SEQUENCE = {"ET": "t1c", "TC": "t1c", "WT": "t2f", "RC": "t1c"}
"""The sequence that shows a region best, where a case has it: see ``best_sequence``."""

Window = tuple[slice, slice]


def best_sequence(region: str, sequences: Collection[str]) -> str:
    """The sequence that shows a region best of those that are given: ``BEST_SEQUENCE``, or its ``stand_in``.

    >>> best_sequence("WT", ["t1c", "t2f"]), best_sequence("WT", ["t1n", "t1c"])
    ('t2f', 't1c')
    """
    return stand_in(BEST_SEQUENCE[region], sequences)


def disagreement_mm2(
    reference: Mask, predictions: Iterable[Mask], spacing_mm: Sequence[float]
) -> npt.NDArray[np.float64]:
    """Area in mm² where a prediction differs from the reference, per axial slice, summed over the predictions.

    Masks are (x, y, z); the result has one value per z. Without predictions it is zero throughout.
    """
    differing = np.zeros(reference.shape[2])
    for prediction in predictions:
        differing += np.count_nonzero(prediction != reference, axis=(0, 1))
    return np.asarray(differing * float(spacing_mm[0] * spacing_mm[1]))


def compared_models(case: ReviewCase) -> list[Model]:
    """The case's models that were trained on the target, which choose the slice to show; all where there is none."""
    return [model for model in case.predictions if model[1] in COMPARED_STRATEGIES] or list(case.predictions)


def worst_slice(case: ReviewCase, region: str) -> tuple[int, float]:
    """The axial slice with the largest disagreement over the ``compared_models``, and that disagreement in mm².

    Of equal slices the lowest; where they all agree with the reference, the slice with most of the region (0 mm²),
    and the middle slice where there is none of it.
    """
    reference = region_mask(case.reference, region)
    masks = (region_mask(case.predictions[model], region) for model in compared_models(case))
    areas = disagreement_mm2(reference, masks, case.spacing_mm)
    if areas.any():
        return int(areas.argmax()), float(areas.max())
    extent = np.count_nonzero(reference, axis=(0, 1))
    return (int(extent.argmax()) if extent.any() else reference.shape[2] // 2), 0.0


def case_panel(case: ReviewCase, region: str, dice: Mapping[Model, float] | None = None) -> Drawing:
    """All models of a case in one figure: rows are strategies, columns the arms; on the left the plain image.

    The slice is ``worst_slice``'s; models are shown in a window around what they and the reference mark on it.
    ``dice`` (whole volume, per model) is printed above each picture; where the reference lacks the region, the volume
    that the model predicts of it.
    """
    z, area = worst_slice(case, region)
    sequence = best_sequence(region, case.images)
    image = case.images[sequence][:, :, z]
    shown = brightness(case.images[sequence])
    reference = region_mask(case.reference[:, :, z], region)
    masks = {model: region_mask(labels[:, :, z], region) for model, labels in case.predictions.items()}
    window = window_around(np.any([reference, *masks.values()], axis=0), case.spacing_mm, image.shape)
    arms = list(dict.fromkeys(arm for arm, _ in masks))
    strategies = list(dict.fromkeys(strategy for _, strategy in masks))
    empty = not region_mask(case.reference, region).any()
    figure = Drawing(figsize=(2.6 * (1 + len(arms)), 2.9 * max(2, len(strategies)) + 0.9), layout="constrained")
    panels = figure.subplots(max(2, len(strategies)), 1 + len(arms), squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    draw_slice(panels[0, 0], image, case.spacing_mm, shown)
    _frame(panels[0, 0], window, case.spacing_mm)
    panels[0, 0].set_title("whole slice", fontsize=9)
    draw_slice(panels[1, 0], image[window], case.spacing_mm, shown)
    panels[1, 0].set_title("window, nothing drawn", fontsize=9)
    for (arm, strategy), mask in masks.items():
        panel = panels[strategies.index(strategy), 1 + arms.index(arm)]
        draw_slice(panel, image[window], case.spacing_mm, shown)
        compare(panel, reference[window], mask[window], case.spacing_mm)
        score = f"\nDice {dice[arm, strategy]:.2f}" if dice and (arm, strategy) in dice else ""
        if empty:
            invented = np.count_nonzero(region_mask(case.predictions[arm, strategy], region))
            score = f"\n{invented * np.prod(case.spacing_mm) / 1000:.2f} mL where there is none"
        panel.set_title(wrapped(f"{arm_title(arm)}, {STRATEGY_TITLES[strategy]}", 2.6, 9) + score, fontsize=9)
    height_mm = float(case.affine[2] @ [0, 0, z, 1])
    title = (
        f"{case.name}, {region}: {SEQUENCE_TITLES[sequence]}, axial slice {z} (S {height_mm:.0f} mm), "
        f"{area:.0f} mm² of disagreement over {len(compared_models(case))} models trained on the target"
    )
    figure.suptitle(wrapped(title, figure.get_figwidth(), 10), fontsize=10)
    keys: list[Patch | Line2D] = [Patch(color=colour, alpha=0.7, label=title) for colour, title in AREA_TITLES.items()]
    keys.append(Line2D([], [], color=OUTLINE, label="outline of the prediction"))
    columns = 4 if len(arms) > 1 else 2  # of one arm there is no room for four
    figure.legend(handles=keys, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
    return figure


def orthogonal_slices(case: ReviewCase, labels: npt.NDArray[np.uint8], title: str, sequence: str) -> Drawing:
    """Axial, coronal and sagittal slice through the middle of the largest piece of ``labels``, its areas coloured.

    Without any label the slices go through the middle of the volume.
    """
    at = np.rint(middle(labels)).astype(int)
    image, shown = case.images[sequence], brightness(case.images[sequence])
    figure = Drawing(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
    for panel, axis, letters in zip(panels, (2, 1, 0), ("RLAP", "RLSI", "PASI"), strict=True):
        spacing = [edge for i, edge in enumerate(case.spacing_mm) if i != axis]
        cut, drawn = image.take(at[axis], axis), labels.take(at[axis], axis)
        extent = _extent(cut.shape, spacing)
        panel.imshow(cut.T, origin="lower", cmap="gray", vmin=shown[0], vmax=shown[1], extent=extent)
        areas = [(drawn == LABELS[name], colour, 0.55) for name, colour in LABEL_COLOURS.items()]
        _paint(panel, areas, spacing)
        _letters(panel, letters)
        panel.set_xlim((extent[1], 0) if axis else (0, extent[1]))
        panel.set_axis_off()
    keys = [Patch(color=colour, label=name.upper()) for name, colour in LABEL_COLOURS.items() if name != "rc"]
    figure.legend(handles=keys, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.suptitle(f"{title}, on {SEQUENCE_TITLES[sequence]}", fontsize=10)
    return figure


def middle(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The mean voxel of the largest 26-connected piece of ``labels``; without one the middle of the volume."""
    pieces = cc3d.statistics(cc3d.connected_components((labels > 0).view(np.uint8), connectivity=26))
    if len(pieces["voxel_counts"]) < 2:
        return (np.array(labels.shape) - 1) / 2
    return np.asarray(pieces["centroids"][1 + pieces["voxel_counts"][1:].argmax()], dtype=np.float64)


class LesionPicture(NamedTuple):
    """A window of an axial slice around a lesion: image and reference (x, y), its grey levels, and a title."""

    image: npt.NDArray[np.float32]
    mask: Mask
    spacing_mm: tuple[float, float, float]
    shown: tuple[float, float]
    title: str


def lesion_pictures(case: ReviewCase, missed: pd.DataFrame) -> list[LesionPicture]:
    """Contrast-enhanced T1 (or its ``stand_in``) through each of the case's lesions in ``ranking.missed_lesions``."""
    image, pictures = case.images[best_sequence(LESION_REGION, case.images)], []
    shown = brightness(image)
    for lesion in missed.to_dict("records"):
        x, y, z = case.voxel((lesion["x_mm"], lesion["y_mm"], lesion["z_mm"]))
        mask = region_mask(case.reference[:, :, z], LESION_REGION)
        spot = np.zeros(mask.shape, bool)
        spot[x, y] = True
        window = window_around(spot, case.spacing_mm, mask.shape, margin_mm=20)
        title = f"{case.name}, {lesion['volume_mm3']:.0f} mm³\nmissed by {lesion['missed_by']} of {lesion['models']}"
        pictures.append(
            LesionPicture(image[:, :, z][window].copy(), mask[window].copy(), case.spacing_mm, shown, title)
        )
    return pictures


def missed_montage(pictures: Sequence[LesionPicture], columns: int = 5) -> Drawing:
    """Missed lesions, one picture each and outlined, in the order given. Raises ``ValueError`` without any."""
    if not pictures:
        raise ValueError("no lesion was missed: there is no montage to draw")
    rows = -(-len(pictures) // columns)
    figure = Drawing(figsize=(2.1 * columns, 2.5 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for panel, one in zip(panels.flat, pictures, strict=False):
        draw_slice(panel, one.image, one.spacing_mm, one.shown, bar_mm=10)
        outline(panel, one.mask, one.spacing_mm, MISSED)
        panel.set_title(one.title, fontsize=8)
    figure.suptitle(
        f"Missed {LESION_REGION} lesions (no lesion predicted there with IoU {LEAST_IOU:g} or more), smallest first",
        fontsize=10,
    )
    return figure


def draw_slice(
    panel: Axes,
    image: npt.NDArray[np.floating],
    spacing_mm: Sequence[float],
    shown: tuple[float, float],
    bar_mm: float = 20,
) -> None:
    """The image in mm with orientation letters and a scale bar; x runs to the left (the patient's right is left)."""
    extent = _extent(image.shape, spacing_mm)
    _, width, _, height = extent
    panel.imshow(image.T, origin="lower", cmap="gray", vmin=shown[0], vmax=shown[1], extent=extent)
    panel.set_xlim(width, 0)
    panel.set_ylim(0, height)
    _letters(panel, "RLAP")
    start = 0.95 * width
    panel.plot([start, start - bar_mm], [0.05 * height] * 2, color="white", linewidth=2, solid_capstyle="butt")
    panel.text(start, 0.07 * height, f"{bar_mm:g} mm", color="white", fontsize=6, ha="left", va="bottom")


def _extent(shape: Sequence[int], spacing_mm: Sequence[float]) -> tuple[float, float, float, float]:
    """Left, right, bottom and top edge of a slice in mm."""
    return 0, shape[0] * spacing_mm[0], 0, shape[1] * spacing_mm[1]


def _letters(panel: Axes, letters: str) -> None:
    """Orientation at the left, right, top and bottom edge."""
    for text, (x, y) in zip(letters, ((0.03, 0.5), (0.97, 0.5), (0.5, 0.96), (0.5, 0.04)), strict=True):
        panel.text(x, y, text, color="white", fontsize=7, ha="center", va="center", transform=panel.transAxes)


def compare(panel: Axes, reference: Mask, prediction: Mask, spacing_mm: Sequence[float]) -> None:
    """Colour what is found, missed and too much on a slice (``AREA_TITLES``), and outline the prediction."""
    areas = [
        (reference & prediction, AGREED, 0.35),
        (reference & ~prediction, MISSED, 0.75),
        (~reference & prediction, INVENTED, 0.65),
    ]
    _paint(panel, areas, spacing_mm)
    outline(panel, prediction, spacing_mm, OUTLINE)


def _paint(panel: Axes, areas: Sequence[tuple[Mask, str, float]], spacing_mm: Sequence[float]) -> None:
    """Masks of one slice, each in its colour and opacity, over the image."""
    colours = np.zeros((*areas[0][0].shape, 4))
    for mask, colour, opacity in areas:
        colours[mask] = to_rgba(colour, opacity)
    extent = _extent(colours.shape, spacing_mm)
    panel.imshow(colours.transpose(1, 0, 2), origin="lower", extent=extent, interpolation="nearest")


def outline(panel: Axes, mask: Mask, spacing_mm: Sequence[float], colour: str) -> None:
    """The mask's border along voxel edges, so that one voxel is drawn as one voxel."""
    padded = np.pad(mask, 1)
    x, y = [], []
    for axis, back_x, back_y in ((0, 0, 1), (1, 1, 0)):
        i, j = np.nonzero(np.diff(padded, axis=axis))
        gap = np.full(len(i), np.nan)
        x.append(np.column_stack([i - back_x, i, gap]).ravel() * spacing_mm[0])
        y.append(np.column_stack([j - back_y, j, gap]).ravel() * spacing_mm[1])
    panel.plot(np.concatenate(x), np.concatenate(y), color=colour, linewidth=1.1)


def _frame(panel: Axes, window: Window, spacing_mm: Sequence[float]) -> None:
    (x, y), (dx, dy) = window, (spacing_mm[0], spacing_mm[1])
    corner = (x.start * dx, y.start * dy)
    panel.add_patch(
        Rectangle(corner, (x.stop - x.start) * dx, (y.stop - y.start) * dy, fill=False, edgecolor="white", linewidth=1)
    )


def window_around(marked: Mask, spacing_mm: Sequence[float], shape: Sequence[int], margin_mm: float = 12) -> Window:
    """A square of at least 50 mm (or twice the margin) around what is marked; the whole slice where nothing is."""
    if not marked.any():
        return slice(0, shape[0]), slice(0, shape[1])
    places = np.argwhere(marked)
    low, high = places.min(0) * spacing_mm[:2], (places.max(0) + 1) * spacing_mm[:2]
    side = max(float((high - low).max()) + 2 * margin_mm, 2 * margin_mm if margin_mm > 12 else 50.0)
    middle = (low + high) / 2
    first = np.clip(np.floor((middle - side / 2) / spacing_mm[:2]), 0, None).astype(int)
    last = np.clip(np.ceil((middle + side / 2) / spacing_mm[:2]), first + 1, shape[:2]).astype(int)
    return slice(int(first[0]), int(last[0])), slice(int(first[1]), int(last[1]))


def brightness(image: npt.NDArray[np.floating]) -> tuple[float, float]:
    """What is drawn black and white: 0 and the 99.7th percentile of what is not background, which is 0.

    An image whose tissue is partly below 0, such as a z-scored one, is black at the darkest half percent of it.
    """
    inside = image[image != 0]
    if not inside.size:
        return 0.0, 1.0
    dark, white = np.percentile(inside, (0.5, 99.7))
    return min(0.0, float(dark)), float(white)
