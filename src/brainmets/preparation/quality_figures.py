"""Pictures of the preparation: each patient before and after, and every measure over the cohort.

Slices are axial unless said otherwise and shown as radiologists read them, the patient's right on the left. The
pictures before show a head with its skull: they are patient data and stay where the raw scans may be. None shows the
face in profile, and after the preparation no more than ``AROUND_MM`` around the brain is shown.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn as sns
import SimpleITK as sitk
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy import ndimage

from brainmets import nifti
from brainmets.cohorts.background import air_level
from brainmets.figures import Drawing
from brainmets.preparation.flags import rule_of
from brainmets.preparation.quality import COMPARED, QUALITY_COLUMNS, REFERENCE
from brainmets.vocabulary import SEQUENCE_TITLES, SEQUENCES

Voxels = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Plane = tuple[slice | int, slice | int, slice | int]

BRAIN, LABEL, LOOK = "#E69F00", "#56B4E9", "#D55E00"
"""Okabe and Ito's orange, sky blue and vermilion: the brain's outline, the label's, and what is flagged."""
AROUND_MM = 10.0
TILE_MM = 24.0
"""Side of a checkerboard's tiles."""
BELOW_TOP_MM = 70.0
"""From the top of a head to the slice through the middle of its brain."""
BESIDE_MM = 25.0
"""From the brain's middle to the sagittal slice: beside the gap between the hemispheres."""
LEFT, RIGHT, GAP = 0.045, 0.995, 0.03
"""Where the columns of both pictures lie, as shares of their width; the gap as a share of a column's."""
PANELS = 3
"""Beside each other in ``cohort_strips``."""
STRIP_ORDER = (REFERENCE, *COMPARED)


def patient_figure(
    case: str,
    before: Mapping[str, sitk.Image],
    images: Mapping[str, Voxels],
    mask: Voxels,
    affine: nifti.Affine,
    label: Voxels | None = None,
) -> Drawing:
    """Before and after in four rows, a column for each of ``images`` in the order of ``SEQUENCES``.

    Rows: the native scans (an axial slice through the middle of the head); the prepared ones with the outlines of the
    brain mask and the label; checkerboards with the t1c, axial; the same, sagittal. Under the t1c, in place of a
    checkerboard with itself, stand its coronal and sagittal slice with the mask's outline. ``before``: native images
    in LPS, missing ones are left empty; ``images``, ``mask`` and ``label``: 3D, on the grid of ``affine``.
    """
    shown, brain, lesions, sides = _upright(images, mask, affine, label)
    x, y, z = _middle(brain, lesions)
    beside = min(shown[REFERENCE].shape[0] - 1, x + round(BESIDE_MM / sides[0]))
    cut: dict[str, Plane] = {
        "axial": (slice(None), slice(None), z),
        "coronal": (slice(None), y, slice(None)),
        "sagittal": (beside, slice(None), slice(None)),
    }
    part, left, right = _margins(len(shown))
    figure = Drawing(figsize=(8 * part, 9.2), facecolor="white")
    axes = figure.subplots(4, len(shown), height_ratios=(1.15, 1.25, 1.25, 1), squeeze=False)
    figure.subplots_adjust(left=left, right=right, bottom=0.035, top=0.94, wspace=GAP, hspace=GAP)
    for column, sequence in zip(axes.T, shown, strict=True):
        if sequence in before:
            _show(column[0], *_native(before[sequence]))
        whole = shown[sequence]
        _outlined(column[1], whole, brain, lesions, cut["axial"], sides)
        if sequence == REFERENCE:
            _outlined(column[2], whole, brain, lesions, cut["coronal"], sides)
            _outlined(column[3], whole, brain, lesions, cut["sagittal"], sides)
        else:
            _compared(column[2], shown[REFERENCE], whole, cut["axial"], sides)
            _compared(column[3], shown[REFERENCE], whole, cut["sagittal"], sides)
        column[0].set_title(SEQUENCE_TITLES[sequence], fontsize=9)
    rows = ("before: native", "after: on one grid", "against contrast T1, axial", "against it, sagittal")
    for axis, name in zip(axes[:, 0], rows, strict=True):
        low, high = axis.get_position().intervaly
        figure.text(left / 2, (low + high) / 2, name, fontsize=9, rotation=90, ha="center", va="center")
    _bare(axes.flat)
    keys = [Line2D([], [], color=BRAIN, label="brain mask"), Line2D([], [], color=LABEL, label="label")]
    shown_keys = keys if lesions.any() else keys[:1]
    figure.legend(handles=shown_keys, loc="lower center", ncols=2, frameon=False, fontsize=9, borderaxespad=0.1)
    figure.suptitle(case, fontsize=11, fontweight="bold", y=0.995)
    return figure


def patient_strip(
    images: Mapping[str, Voxels], mask: Voxels, affine: nifti.Affine, label: Voxels | None = None
) -> Drawing:
    """One row for an overview: the t1c with its outlines, then the others there are against it, in ``STRIP_ORDER``."""
    shown, brain, lesions, sides = _upright(images, mask, affine, label)
    axial: Plane = (slice(None), slice(None), _middle(brain, lesions)[2])
    order = [name for name in STRIP_ORDER if name in shown]
    part, left, right = _margins(len(order))
    figure = Drawing(figsize=(6 * part, 2.0), facecolor="white")
    axes = figure.subplots(1, len(order), squeeze=False)[0]
    figure.subplots_adjust(left=left, right=right, bottom=0.01, top=0.9, wspace=GAP)
    _outlined(axes[0], shown[REFERENCE], brain, lesions, axial, sides)
    for axis, sequence in zip(axes[1:], order[1:], strict=True):
        _compared(axis, shown[REFERENCE], shown[sequence], axial, sides)
    for axis, sequence in zip(axes, order, strict=True):
        axis.set_title(SEQUENCE_TITLES[sequence], fontsize=9, pad=3)
    _bare(axes)
    return figure


def column_of(place: int, count: int = len(SEQUENCES)) -> tuple[float, float]:
    """Left edge and width of a column of either picture of ``count`` sequences, as shares of the picture's width."""
    _, left, right = _margins(count)
    width = (right - left) / (count + (count - 1) * GAP)
    return left + place * width * (1 + GAP), width


def _margins(count: int) -> tuple[float, float, float]:
    """A picture's width as a share of one of four columns, and where its first column begins and its last ends.

    The last two are shares of its own width; a column is as wide as one of four.
    """
    if count == len(SEQUENCES):
        return 1.0, LEFT, RIGHT
    width = (RIGHT - LEFT) / (len(SEQUENCES) + (len(SEQUENCES) - 1) * GAP)
    part = LEFT + width * (count + (count - 1) * GAP) + 1 - RIGHT
    return part, LEFT / part, 1 - (1 - RIGHT) / part


def cohort_strips(table: pd.DataFrame, flags: pd.DataFrame) -> Drawing:
    """Every judged measure over the cohort, one dot per patient; flagged ones are diamonds, the furthest is named.

    ``table`` as ``quality.csv``, ``flags`` as ``flags.flag`` gives them. A kind of measure shares one panel: a row per
    sequence or pair. Values that are absent have no dot; a measure that nobody has, or all have alike, is left out.
    """
    kinds: dict[str, list[str]] = {}
    for measure in QUALITY_COLUMNS:
        if (found := rule_of(measure)) is not None and measure in table and table[measure].nunique() > 1:
            kinds.setdefault(found[0].title, []).append(measure)
    panels = sorted(kinds.items(), key=lambda kind: -len(kind[1]))
    lines = [panels[start : start + PANELS] for start in range(0, len(panels), PANELS)]
    heights = [1 + 0.5 * len(line[0][1]) for line in lines] or [1]
    figure = Drawing(figsize=(10.5, 0.65 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), PANELS, squeeze=False, height_ratios=heights).ravel()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis, (title, measures) in zip(axes, panels, strict=False):
        _strips(axis, table, flags, measures)
        rule = rule_of(measures[0])
        unit = f" ({rule[0].unit})" if rule is not None and rule[0].unit else ""
        axis.set_title(textwrap.fill(title + unit, 52), fontsize=8)
    sns.despine(figure)
    return figure


def checkerboard(one: Voxels, other: Voxels, sides_mm: Sequence[float]) -> Voxels:
    """Two slices (2D, one shape) in alternate tiles of ``TILE_MM``; ``one`` in the first."""
    tiles = [(np.arange(size) * side // TILE_MM).astype(int) for size, side in zip(one.shape, sides_mm, strict=True)]
    first = (tiles[0][:, None] + tiles[1][None, :]) % 2 == 0
    return np.where(first, one, other)


def _upright(
    images: Mapping[str, Voxels], mask: Voxels, affine: nifti.Affine, label: Voxels | None
) -> tuple[dict[str, Voxels], Mask, Mask, npt.NDArray[np.float64]]:
    """Everything along L, A, S and cut to the brain's box: images from 0 to 1, brain, label, voxel sides in mm."""
    brain, along = nifti.to_ras(np.asarray(mask) > 0, affine)
    lesions = np.zeros_like(brain) if label is None else nifti.to_ras(np.asarray(label) > 0, affine)[0]
    sides = np.linalg.norm(along[:3, :3], axis=0)
    near = ndimage.distance_transform_edt(~brain, sampling=sides) <= AROUND_MM if brain.any() else ~brain
    box = ndimage.find_objects(near.astype(np.uint8))[0]
    shown = {}
    for name in (name for name in SEQUENCES if name in images):
        image = nifti.to_ras(np.asarray(images[name], np.float32), affine)[0]
        within = image[brain] if brain.any() else image.ravel()
        low, high = np.percentile(within, (1, 99.5))
        shown[name] = np.where(near, np.clip((image - low) / max(high - low, 1e-6), 0, 1), 0)[box][::-1]
    return shown, brain[box][::-1], lesions[box][::-1], sides


def _middle(brain: Mask, lesions: Mask) -> tuple[int, int, int]:
    """Where the slices go: the brain's middle, axially the slice with most label within its middle half."""
    x, y, z = (
        (int(np.median(np.flatnonzero(brain.any(tuple({0, 1, 2} - {axis}))))) if brain.any() else size // 2)
        for axis, size in enumerate(brain.shape)
    )
    counts = np.count_nonzero(lesions, axis=(0, 1)).astype(float)
    quarter = brain.shape[2] // 4
    counts[:quarter] = counts[brain.shape[2] - quarter :] = 0
    return x, y, int(counts.argmax()) if counts.any() else z


def _native(image: sitk.Image) -> tuple[Voxels, tuple[float, float]]:
    """The axial slice through the middle of the brain, along L and A, from 0 to 1, and its sides in mm."""
    voxels = sitk.GetArrayViewFromImage(image).transpose(2, 1, 0)[:, ::-1]  # x, y, z: from L, P, S to L, A, S
    sides = image.GetSpacing()
    part = tuple(slice(None, None, max(1, round(2 / side))) for side in sides)
    filled = np.mean(voxels[part] > air_level(voxels[part]), axis=(0, 1)) > 0.05
    top = (np.flatnonzero(filled)[-1] + 1) * (part[2].step or 1) if filled.any() else voxels.shape[2]
    z = int(np.clip(top - round(BELOW_TOP_MM / sides[2]), 0, voxels.shape[2] - 1))
    if z < voxels.shape[2] // 4 and top * sides[2] < 1.6 * BELOW_TOP_MM:
        z = voxels.shape[2] // 2  # the top of the head is not in the image
    plane = voxels[:, :, z].astype(np.float32)
    plane = plane[_around(plane > air_level(voxels[part]))]
    low, high = np.percentile(plane, (1, 99.5))
    return np.clip((plane - low) / max(high - low, 1e-6), 0, 1), (sides[0], sides[1])


def _around(head: Mask) -> tuple[slice, slice]:
    """The rows and columns of a slice that the head takes up, with a little around it; all of an empty slice."""
    lines = [np.flatnonzero(head.mean(axis=1 - along) > 0.03) for along in (0, 1)]
    x, y = (slice(max(0, there[0] - 3), there[-1] + 4) if len(there) else slice(None) for there in lines)
    return x, y


def _show(axis: Axes, plane: Voxels, sides: Sequence[float]) -> None:
    axis.imshow(plane.T, cmap="gray", origin="lower", vmin=0, vmax=1, aspect=sides[1] / sides[0])


def _outlined(
    axis: Axes, image: Voxels, brain: Mask, lesions: Mask, plane: Plane, sides: npt.NDArray[np.float64]
) -> None:
    _show(axis, image[plane], _sides_of(plane, sides))
    _outline(axis, brain[plane], BRAIN)
    _outline(axis, lesions[plane], LABEL)


def _compared(axis: Axes, one: Voxels, other: Voxels, plane: Plane, sides: npt.NDArray[np.float64]) -> None:
    within = _sides_of(plane, sides)
    _show(axis, checkerboard(one[plane], other[plane], within), within)


def _sides_of(plane: Plane, sides: npt.NDArray[np.float64]) -> tuple[float, float]:
    first, second = (float(side) for part, side in zip(plane, sides, strict=True) if isinstance(part, slice))
    return first, second


def _outline(axis: Axes, mask: Mask, colour: str) -> None:
    if mask.any() and not mask.all():
        axis.contour(mask.T, [0.5], colors=colour, linewidths=1.0)


def _bare(axes: Iterable[Axes]) -> None:
    for axis in axes:
        axis.set(xticks=[], yticks=[], facecolor="black")
        axis.spines[:].set_visible(False)


def _strips(axis: Axes, table: pd.DataFrame, flags: pd.DataFrame, measures: Sequence[str]) -> None:
    rng = np.random.default_rng(0)
    names = []
    for row, measure in enumerate(reversed(measures)):
        found = rule_of(measure)
        names.append("-".join(found[1]) if found is not None and found[1] else "")
        flagged = set(flags.case[flags.measure == measure])
        is_flagged = table.case.isin(flagged)
        heights = row + rng.uniform(-0.18, 0.18, len(table))
        values = table[measure].to_numpy(float)
        axis.scatter(values[~is_flagged], heights[~is_flagged], s=7, color="#0072B2", alpha=0.6, linewidths=0)
        axis.scatter(values[is_flagged], heights[is_flagged], s=26, color=LOOK, marker="D", linewidths=0)
        if len(there := np.flatnonzero(is_flagged & np.isfinite(values))):
            furthest = there[np.argmax(np.abs(values[there] - np.nanmedian(values)))]
            axis.annotate(
                table.case.iloc[furthest], (values[furthest], heights[furthest]), xytext=(0, 5),
                textcoords="offset points", fontsize=6, ha="center", annotation_clip=False,
            )  # fmt: skip
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.set_ylim(-0.5, len(names) - 0.3)
    axis.margins(x=0.12)
    axis.tick_params(axis="x", labelsize=7)
