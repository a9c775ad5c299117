"""Twenty transplants for the eye: each place before, after, and after with the outlines of its regions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from brainmets.figures import Drawing, keys_below
from brainmets.training.seeds import RandomStream, derived_seed
from brainmets.training.trainer import StudyTrainer
from brainmets.training.transplant import Transplants
from brainmets.vocabulary import (
    NETWORK_REGIONS,
    REGION_COLOURS,
    REGION_LINES,
    SEQUENCE_TITLES,
    reference_sequence,
    region_mask,
)

SHOWN = 20
WINDOW_MM = 36.0
"""Side of what is shown around a lesion."""
COLUMNS = 4
GAP = 1
"""White pixels between the pictures of one transplant."""


class Example(NamedTuple):
    """One transplant on one sequence, in the axial slice with most of it: (y, x) before and after, and its labels."""

    case: str
    donor: str
    diameter_mm: float
    before: npt.NDArray[np.floating]
    after: npt.NDArray[np.floating]
    labels: npt.NDArray[np.integer]
    aspect: float


def examples(transplants: Transplants, channel: int, order: Sequence[int], seed: int) -> Iterator[Example]:
    """Transplants such as the training's, one after the other over its cases, as long as any case has room.

    ``channel`` is the sequence shown, ``order`` the arrays' axes as z, y, x (nnU-Net's ``transpose_backward``). They
    are drawn from a stream of ``seed``, take no number from the training and are not counted in its record.
    """
    stream, spacing = RandomStream(seed), np.asarray(transplants.spacing_mm)[list(order)]
    fruitless = 0
    while fruitless < len(transplants.identifiers):
        for case in sorted(transplants.identifiers):
            with stream.drawn_from():
                example = _example(transplants, case, channel, order, spacing)
            fruitless = 0 if example else fruitless + 1
            if example:
                yield example


def _example(
    transplants: Transplants, case: str, channel: int, order: Sequence[int], spacing: npt.NDArray[np.floating]
) -> Example | None:
    places = transplants.places[case].voxels
    if not len(places) or not transplants.present[case][channel]:
        return None
    lower = places[np.random.randint(len(places))] - transplants.final_patch // 2  # noqa: NPY002 - the stream's
    upper = lower + transplants.final_patch
    if (graft := transplants.draw(case, lower, upper)) is None:
        return None
    images, labels, _, _ = transplants.dataset.load_case(case)
    box = [[int(start), int(stop)] for start, stop in zip(lower, upper, strict=True)]
    before = np.asarray(crop_and_pad_nd(images, box, 0))[channel]
    known = np.asarray(crop_and_pad_nd(labels, box, -1))[0]
    after, joined = before.copy(), known.copy()
    at = tuple((graft.voxels - lower).T)
    after[at], joined[at] = graft.images[channel], graft.labels
    lesion = np.zeros(known.shape, bool)
    lesion[tuple((graft.voxels[graft.lesion] - lower).T)] = True
    before, after, joined, lesion = (volume.transpose(order) for volume in (before, after, joined, lesion))
    z = int(lesion.sum((1, 2)).argmax())
    middle = np.argwhere(lesion[z]).mean(0).round().astype(int)
    half = np.maximum(np.round(WINDOW_MM / 2 / spacing[1:]).astype(int), 1)
    rows, columns = (slice(max(0, at - wide), at + wide + 1) for at, wide in zip(middle, half, strict=True))
    return Example(
        case,
        graft.donor.case,
        graft.donor.diameter_mm,
        before[z, rows, columns],
        after[z, rows, columns],
        joined[z, rows, columns],
        float(spacing[1] / spacing[2]),
    )


def transplant_figure(trainer: StudyTrainer, title: str) -> Drawing:
    """``SHOWN`` transplants such as those of a training whose arm has the setting, on the reference sequence.

    The training has made its loaders before (``TrainingSession.first_batch``). Raises ``ValueError`` where it has no
    transplants.
    """
    if trainer.transplants is None:
        raise ValueError(f"{trainer.arm} has no transplants: set its lesion_transplant, and draw a batch first")
    sequences = trainer.dropout.sequences
    sequence = reference_sequence(sequences)
    seed = derived_seed(trainer.batches_seed, "transplants", "shown")
    order = trainer.plans_manager.transpose_backward
    shown = examples(trainer.transplants, sequences.index(sequence), order, seed)
    return drawn([*islice(shown, SHOWN)], sequence, title)


def drawn(shown: Sequence[Example], sequence: str, title: str) -> Drawing:
    """A picture of three parts for each of ``shown``: before, after, after with the outlines of its regions.

    Grey goes from the 1st to the 99.5th percentile of both states; an inner region has the thinner line, so that none
    hides another. Anterior is up. An empty ``shown`` gives a figure that says so.
    """
    rows = max(1, -(-len(shown) // COLUMNS))
    figure = Drawing(figsize=(13, 1 + 1.5 * rows), layout="constrained")
    figure.suptitle(f"{title}: {SEQUENCE_TITLES[sequence]} before | after | after with outlines")
    if not shown:
        figure.text(0.5, 0.5, "no donor has room in any case", ha="center", va="center")
        return figure
    panels = figure.subplots(rows, COLUMNS, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for number, (panel, example) in enumerate(zip(panels.flat, shown, strict=False), 1):
        _strip(panel, example)
        panel.set_title(f"{number}: {example.diameter_mm:.1f} mm", fontsize=8)
    keys_below(
        figure,
        [Line2D([], [], color=REGION_COLOURS[one], linestyle=REGION_LINES[one], label=one) for one in NETWORK_REGIONS],
    )
    return figure


def _strip(panel: Axes, example: Example) -> None:
    low, high = np.percentile([example.before, example.after], (1, 99.5))
    gap = np.full((len(example.before), GAP), high)
    strip = np.hstack([example.before, gap, example.after, gap, example.after])
    panel.imshow(strip, cmap="gray", vmin=low, vmax=high, origin="lower", aspect=example.aspect)
    start = 2 * (example.before.shape[1] + GAP)
    for width, region in zip((1.8, 1.2, 0.7), NETWORK_REGIONS, strict=True):
        if (mask := region_mask(example.labels, region)).any():
            x, y = np.arange(mask.shape[1]) + start, np.arange(mask.shape[0])
            panel.contour(
                x, y, mask, [0.5], colors=REGION_COLOURS[region], linestyles=REGION_LINES[region], linewidths=width
            )
