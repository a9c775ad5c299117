"""Pictures of the data audit: one slice of each case, and how large the lesions are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn as sns
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from brainmets import nifti
from brainmets.cohorts.cohort import Case, read_mapped_labels, sequences_of
from brainmets.figures import Drawing
from brainmets.params import Cohort
from brainmets.vocabulary import REGION_COLOURS, REGION_LINES, REGIONS, SEQUENCES, region_mask

COHORT_STYLE = {"source": ("#0173b2", "o"), "target": ("#de8f05", "s")}
"""Colour and marker of each cohort, from seaborn's colour-blind palette."""


def montage(cases: Sequence[Case], declaration: Cohort, title: str) -> Drawing:
    """One row per case, one column per sequence that any has: the axial slice with most tumour, regions outlined.

    A sequence that a case lacks is an empty field that says so. An empty label map shows the middle slice.
    Each image is windowed to its own 1st to 99.5th percentile.
    """
    sequences = sequences_of(cases)
    figure = Drawing(figsize=(max(4, 2 * len(sequences)), 2.1 * len(cases)), layout="constrained")
    axes = figure.subplots(len(cases), len(sequences), squeeze=False)
    for row, case in zip(axes, cases, strict=True):
        labels, grid = read_mapped_labels(case, declaration)
        index, spacing = busiest_slice(labels), grid.spacing
        for axis, sequence in zip(row, sequences, strict=True):
            axis.set(xticks=[], yticks=[])
            if sequence not in case.images:
                axis.text(0.5, 0.5, f"no {sequence}", ha="center", va="center", transform=axis.transAxes)
                continue
            image = nifti.read_volume(case.images[sequence])[0]
            low, high = np.percentile(image, (1, 99.5))
            axis.imshow(
                image[:, :, index].T, cmap="gray", origin="lower", vmin=low, vmax=max(high, low + 1),
                aspect=spacing[1] / spacing[0],
            )  # fmt: skip
            for region, line in REGION_LINES.items():
                mask = region_mask(labels[:, :, index].T, region)
                if mask.any():
                    axis.contour(mask, [0.5], colors=REGION_COLOURS[region], linestyles=line, linewidths=0.9)
        row[0].set_ylabel(case.case, fontsize=7)
    for axis, sequence in zip(axes[0], sequences, strict=True):
        axis.set_title(sequence)
    lines = [Line2D([], [], color=REGION_COLOURS[name], linestyle=line) for name, line in REGION_LINES.items()]
    figure.legend(lines, list(REGION_LINES), loc="outside lower center", ncols=len(REGIONS), frameon=False)
    figure.suptitle(title)
    return figure


def busiest_slice(labels: npt.NDArray[np.uint8]) -> int:
    """Index along the third axis of the slice with most labelled voxels; the middle one of an empty map."""
    counts = np.count_nonzero(labels, axis=(0, 1))
    return int(counts.argmax()) if counts.any() else labels.shape[2] // 2


def head_levels(tables: Mapping[str, pd.DataFrame]) -> Drawing:
    """Per sequence of either cohort, the grey values within each case's head after normalisation.

    ``tables`` maps "source" and "target" to the rows of ``likeness.appearance``. One line per case from the 5th to the
    95th percentile, with a mark at the median. A sequence that one cohort lacks shows the other's lines alone.
    """
    read = {sequence for table in tables.values() for sequence in table.sequence}
    sequences = [name for name in SEQUENCES if name in read]
    figure = Drawing(figsize=(max(4, 1.9 * len(sequences)), 3.2), layout="constrained")
    axes = figure.subplots(1, len(sequences), sharey=True, squeeze=False)[0]
    for axis, sequence in zip(axes, sequences, strict=True):
        start = 0
        for cohort, table in tables.items():
            colour, marker = COHORT_STYLE[cohort]
            rows = table[table.sequence == sequence].sort_values("p50")
            places = range(start, start + len(rows))
            axis.vlines(places, rows.p5, rows.p95, color=colour, alpha=0.5, linewidth=1)
            axis.scatter(places, rows.p50, color=colour, marker=marker, s=12, label=cohort)
            start += len(rows) + 1
        axis.set(title=sequence, xticks=[], xlabel="case")
    axes[0].set_ylabel("grey value in the head,\nstandard deviations")
    axes[0].legend(frameon=False)
    sns.despine(figure)
    return figure


def tumour_volumes(tables: Mapping[str, pd.DataFrame]) -> Drawing:
    """Whole-tumour volume against the number of lesions, one mark per case, one style per cohort.

    ``tables`` maps "source" and "target" to the audit's ``cases``. Volumes are on a logarithmic axis; cases without
    a lesion are left out of the axis and counted in the legend.
    """
    figure = Drawing(figsize=(6.5, 4), layout="constrained")
    axis = figure.subplots()
    for cohort, table in tables.items():
        colour, marker = COHORT_STYLE[cohort]
        shown = table[table.WT_mL > 0]
        without = f", {len(table) - len(shown)} without lesion" if len(shown) < len(table) else ""
        label = f"{cohort} (n = {len(table)}{without})"
        axis.scatter(shown.WT_mL, shown.lesions, color=colour, marker=marker, label=label, alpha=0.8)
    axis.set(xscale="log", xlabel="whole tumour (WT) volume, mL", ylabel="lesions (26-connected), count")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(frameon=False)
    sns.despine(figure)
    return figure
