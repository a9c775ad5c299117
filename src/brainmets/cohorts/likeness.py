"""Whether the two cohorts look alike to a network: what a shared plan does not make equal.

Measured on the preprocessed training cases, so after the common crop and normalisation: where the head's grey values
lie, how they spread, how tumour stands out in every sequence, and how large the head is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage

from brainmets.cohorts.background import background, head
from brainmets.cohorts.cohort import CohortError
from brainmets.vocabulary import LABELS, SEQUENCES, reference_sequence

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
TUMOUR = ("et", "snfh")
"""Labels whose level tells sequences apart: ET is bright on t1c alone of the two T1, SNFH on t2f."""
COARSE_MM = 3.0
FAINT = 0.2
"""Standard deviations from the background that resampling may leave around a head."""

SKULL_LITRES = 2.8
"""Between a brain (1.1 to 1.7 L in three real stripped scans and in phantoms, 2.1 L once
resampled from 3 mm voxels) and a head with its skull (5.0 L in a real one)."""
LEVEL = 0.5
"""Difference of the heads' median grey value, in standard deviations of the normalisation, that is worth a warning."""
SWAPPED = 0.5
"""Crossed distance of two sequences, as a share of the one as declared, below which they count as swapped: phantom
cohorts whose two T1 or whose t2w and t2f were swapped have 0.40 and 0.29; unswapped pairs among phantoms and four real
scans 0.76 and more. Two T1 without any ET in the labels are not told apart."""


def appearance(
    case: str,
    images: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    spacing: Sequence[float],
    sequences: Sequence[str],
) -> list[dict[str, Any]]:
    """One row per sequence that a preprocessed case has.

    ``images``: (sequence, z, y, x), one for each of ``sequences``; ``labels``: (z, y, x) in BraTS labels; ``spacing``
    in mm in the order of the axes. Keys: case, sequence, ``head_L`` (volume of the head in litres, holes filled),
    ``p1`` to ``p99`` (percentiles within it), ``et`` and ``snfh`` (medians there, NaN where there is none).
    """
    step = tuple(slice(None, None, max(1, round(COARSE_MM / side))) for side in spacing)
    litres = float(np.prod([part.step * side for part, side in zip(step, spacing, strict=True)])) / 1e6
    coarse, parts = images[:, *step].astype(np.float32), labels[step]
    inside = _head(coarse, sequences.index(reference_sequence(sequences)))
    rows = []
    for sequence, image in zip(sequences, coarse, strict=True):
        row: dict[str, Any] = {"case": case, "sequence": sequence, "head_L": np.count_nonzero(inside) * litres}
        values = np.percentile(image[inside], PERCENTILES) if inside.any() else np.full(len(PERCENTILES), np.nan)
        row |= {f"p{percentile}": float(value) for percentile, value in zip(PERCENTILES, values, strict=True)}
        for name in TUMOUR:
            there = image[parts == LABELS[name]]
            row[name] = float(np.median(there)) if there.size else float("nan")
        rows.append(row)
    return rows


def _head(images: npt.NDArray[np.float32], reference: int) -> npt.NDArray[np.bool_]:
    """The largest piece of what differs from a constant background in any sequence.

    Where air is noise in all of them it is the head on the image at the place ``reference``.
    """
    levels = [background(image.round(1)) for image in images]  # resampling leaves ripples around a constant
    apart = [np.abs(image - level) > FAINT for image, level in zip(images, levels, strict=True) if level is not None]
    mask = (
        ndimage.binary_fill_holes(ndimage.binary_opening(np.any(apart, axis=0))) if apart else head(images[reference])
    )
    components, count = ndimage.label(mask)
    return components == 1 + np.argmax(np.bincount(components.ravel())[1:]) if count else mask


def summary(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Per sequence that both cohorts have: medians over their cases, and the ``distance`` of the grey values in shape.

    ``<cohort>_level``: the median within the head, ``<cohort>_spread``: the interquartile range; ``distance`` is 0
    where the cohorts are alike.
    """
    rows = {}
    distances = _distances(tables)
    for number, sequence in enumerate(shared(tables)):
        row = {}
        for cohort, table in tables.items():
            of_sequence = table[table.sequence == sequence]
            row[f"{cohort}_level"] = of_sequence.p50.median()
            row[f"{cohort}_spread"] = (of_sequence.p75 - of_sequence.p25).median()
        rows[sequence] = row | {"distance": distances[number, number]}
    columns = [*(f"{cohort}_{what}" for cohort in tables for what in ("level", "spread")), "distance"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("sequence")


def shared(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """The sequences that cases of every cohort have, in channel order."""
    return [name for name in SEQUENCES if all(name in set(table.sequence) for table in tables.values())]


def findings(tables: Mapping[str, pd.DataFrame], own_choice: Mapping[str, Sequence[bool]]) -> list[tuple[str, str]]:
    """(severity, finding) for everything in which the cohorts differ and a transfer may suffer.

    ``tables`` are each cohort's rows of ``appearance``; ``own_choice`` is the ``use_mask_for_norm`` that nnU-Net would
    choose for each cohort alone. An error voids a transfer: sequences in another order.
    """
    found = []
    source, target = (bool(own_choice[cohort][0]) for cohort in ("source", "target"))
    if source != target:
        means = {True: "the head alone", False: "the whole box with its air"}
        found.append((
            "warning",
            f"alone, nnU-Net would normalise the source over {means[source]} and the target over {means[target]} "
            f"(use_mask_for_norm {source} and {target}); the target's choice is used for both",
        ))  # fmt: skip
    litres = {cohort: table.head_L.median() for cohort, table in tables.items()}
    with_skull = [cohort for cohort, volume in litres.items() if volume > SKULL_LITRES]
    if len(with_skull) == 1:
        volumes = ", ".join(f"{cohort} {volume:.1f} L" for cohort, volume in litres.items())
        found.append((
            "warning",
            f"the {with_skull[0]} seems to keep the skull and the other cohort not (median volume of the head: "
            f"{volumes}): strip both or neither",
        ))  # fmt: skip
    for sequence, row in summary(tables).iterrows():
        if abs(row.source_level - row.target_level) > LEVEL:
            found.append((
                "warning",
                f"{sequence}: the head's median lies at {row.source_level:.2f} in the source and "
                f"{row.target_level:.2f} in the target after normalisation: "
                "the fields of view differ, or how much air and skull they hold",
            ))  # fmt: skip
    return [*found, *(("error", text) for text in _swapped(tables))]


def _swapped(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Pairs of sequences of which each looks like the other cohort's other one."""
    apart = _distances(tables)
    found = []
    names = shared(tables)
    for one, other in combinations(range(len(names)), 2):
        declared = apart[one, one] + apart[other, other]
        crossed = apart[one, other] + apart[other, one]
        if crossed < SWAPPED * declared:
            first, second = names[one], names[other]
            found.append(
                f"the target's {first} looks like the source's {second}, and its {second} like the source's {first} "
                f"(distance {crossed:.2f} crossed, {declared:.2f} as declared): one cohort's `layout` or files swap "
                "them; correct it and run notebook 01 again"
            )
    return found


def _distances(tables: Mapping[str, pd.DataFrame]) -> npt.NDArray[np.float64]:
    """How the grey values of every shared source sequence (rows) differ from every target sequence (columns).

    Each sequence has a profile: its percentiles and tumour levels less the median, over the interquartile range,
    medians over cases; the distance is the mean absolute difference of what both cohorts have.
    """
    source, target = (_profiles(tables[cohort], shared(tables)) for cohort in ("source", "target"))
    apart = np.abs(source[:, None] - target[None])
    return np.asarray(np.nan_to_num(np.nanmean(apart, axis=2)))


def _profiles(table: pd.DataFrame, sequences: Sequence[str]) -> npt.NDArray[np.float64]:
    columns = [f"p{percentile}" for percentile in PERCENTILES] + list(TUMOUR)
    spread = (table.p75 - table.p25).replace(0, np.nan)
    scaled = table[columns].sub(table.p50, axis=0).div(spread, axis=0)
    return scaled.groupby(table.sequence).median().loc[list(sequences)].to_numpy()


def require_no_errors(found: Sequence[tuple[str, str]]) -> None:
    """Raise ``CohortError`` with every finding of severity "error"."""
    if errors := [text for severity, text in found if severity == "error"]:
        raise CohortError("the cohorts cannot share weights: " + "; ".join(errors))
