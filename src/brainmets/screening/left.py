"""What a reader left of a screened scan: a label map, the lesions' numbers and their table, beside the model's.

A lesion that was accepted, or that is not decided and that the model accepted, keeps its voxels and its number; one
that was rejected has none any more; a corrected one has those of its new extent; an added one gets a number of its
own. A voxel that the reader drew is that lesion's, whichever had it before. Where a lesion that the reader accepted or
corrected has a voxel without a label of the operating point's region (a candidate of a probability below 0.5, or a
lower threshold), it gets the label of the region that is likeliest there. Oedema around a lesion stays as the model
painted it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from brainmets import nifti
from brainmets.files import read_json
from brainmets.nifti import Affine
from brainmets.paths import ScreeningPaths
from brainmets.preparation import pipeline, registration
from brainmets.schemas import READ
from brainmets.scoring import probabilities
from brainmets.screening import extent, lesions, reading, result
from brainmets.screening.lesions import MidPlane
from brainmets.screening.reading import Decision, Reading, ReadingError
from brainmets.tables import write as write_table
from brainmets.vocabulary import LABELS, REGIONS

Numbers = npt.NDArray[np.uint16]
Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Left:
    """``labels`` (BraTS) and ``numbers`` (x, y, z) on the source t1c's grid; ``table`` with ``schemas.READ``."""

    labels: Labels
    numbers: Numbers
    table: pd.DataFrame
    affine: Affine


def write(files: ScreeningPaths) -> Path:
    """Write label map, numbers and table of what the reader left; gives the table's path, which is written last.

    Another process that decides meanwhile makes the three files outdated and deletes them. Raises as ``of`` does.
    """
    with reading.held(files):
        left = of(files)
        nifti.write(files.reading_labels, left.labels, left.affine)
        nifti.write(files.reading_numbers, left.numbers, left.affine)
        return write_table(files.reading_table, left.table)


def of(files: ScreeningPaths) -> Left:
    """What the reader left, by the rules of this module.

    The table has a row for every lesion that is left, by number; one that was added at a place and not outlined has
    its place and no measures (``outlined`` is false). Raises ``ResultError`` for a result that is not whole and one
    that the guard refused, and ``ReadingError`` for an outline that is missing, or a lesion whose every voxel the
    reader drew as another one's.
    """
    found = result.read(files.folder)
    if not files.numbers.is_file():
        raise ReadingError(f"{files.case} was refused before anything was predicted: there is nothing to read")
    read = reading.read(files)
    numbers, grid = extent.read_numbers(files)
    predicted, _ = probabilities.read(files.probabilities)
    region = extent.region_of(files)
    labels = nifti.as_labels(nifti.read_scan(files.labels)[0], files.labels)
    placed, painted = _drawn(files, read, numbers, labels, predicted, region)
    outlined = [number for number in read.left if _is_outlined(read.decisions.get(number))]
    table = _table(files, found, read, outlined, placed, painted, grid.affine)
    return Left(painted, placed, table, grid.affine)


def _drawn(
    files: ScreeningPaths,
    read: Reading,
    numbers: Numbers,
    labels: Labels,
    predicted: dict[str, npt.NDArray[np.float32]],
    region: str,
) -> tuple[Numbers, Labels]:
    """Numbers and labels after the reading: thresholds first, then what the reader drew."""
    decided, inside = read.decisions, np.isin(labels, REGIONS[region])
    changed = [n for n in read.candidates if n in decided and decided[n].verdict in ("rejected", "corrected")]
    painted, placed = labels.copy(), np.zeros_like(numbers)
    painted[np.isin(numbers, changed) & inside] = 0
    likeliest = _likeliest(predicted, region)
    drawn = {}
    for number in read.left:
        decision = decided.get(number)
        if decision is not None and decision.mask is not None:
            drawn[number] = extent.kept(files, decision.mask)
            continue
        if not _is_outlined(decision):
            continue
        own = numbers == number
        if decision is not None and decision.threshold is not None:
            own = extent.grown(predicted[region], numbers, number, decision.threshold)
        placed[own] = number
        if decision is not None:
            bare = own & ~np.isin(painted, REGIONS[region])
            # a corrected lesion keeps the labels that the model painted in it
            painted[bare] = np.where(inside[bare], labels[bare], likeliest[bare])
    for number, outline in drawn.items():
        own = outline > 0
        painted[own] = outline[own]
        placed[own] = number
    for number in read.left:
        if _is_outlined(decided.get(number)) and not (placed == number).any():
            raise ReadingError(
                f"lesion {number} of {files.case} has no voxel left: all were drawn as another lesion's; reject it, "
                "or draw it apart"
            )
    return placed, painted


def _is_outlined(decision: Decision | None) -> bool:
    return decision is None or decision.verdict != "added" or decision.mask is not None


def _likeliest(predicted: dict[str, npt.NDArray[np.float32]], region: str) -> Labels:
    """The label of the region that is likeliest in each voxel: nested regions' probabilities differ by a label's."""
    of_label = {
        LABELS["et"]: predicted["ET"],
        LABELS["netc"]: predicted["TC"] - predicted["ET"],
        LABELS["snfh"]: predicted["WT"] - predicted["TC"],
    }
    values = [value for value in of_label if value in REGIONS[region]]
    return np.array(values, np.uint8)[np.argmax([of_label[value] for value in values], axis=0)]


def _table(
    files: ScreeningPaths,
    found: result.Result,
    read: Reading,
    outlined: list[int],
    numbers: Numbers,
    labels: Labels,
    affine: Affine,
) -> pd.DataFrame:
    uncertainty = nifti.read_scan(files.uncertainty)[0].astype(np.float32)
    # scores are the model's, taken from its table below: what a reader drew has none
    measured = lesions.measure(
        numbers, labels, uncertainty, affine, dict.fromkeys(outlined, 1.0), outlined, _middle(files)
    )
    scores = found.table.set_index("lesion")["score"]
    rows = []
    for row in measured.to_dict("records"):
        number = int(row["lesion"])
        rows.append({**row, "score": float(scores.get(number, math.nan)), "outlined": True})
    for number in set(read.left) - set(outlined):
        place = read.decisions[number].place_mm
        assert place is not None  # of every added lesion
        middle = _middle(files)
        side = middle.side(np.array(place)) if middle else "unknown"
        rows.append(
            {"lesion": number, **dict(zip(("x_mm", "y_mm", "z_mm"), place, strict=True)), "side": side,
             "why": "not outlined", "outlined": False}
        )  # fmt: skip
    table = pd.DataFrame(rows, columns=["lesion", *(name for name in READ.columns if name != "lesion")])
    decided = {number: one.verdict for number, one in read.decisions.items()}
    table["verdict"] = [decided.get(int(number), "not decided") for number in table["lesion"]]
    whole = dict.fromkeys(("lesion", "slices", "slice"), "Int64")
    return table.astype(whole).sort_values("lesion", ignore_index=True)[list(READ.columns)]


def _middle(files: ScreeningPaths) -> MidPlane | None:
    """The mid-sagittal plane of a scan that was registered to the template; None where it was not."""
    if not list(files.prepared.glob("*.tfm")):
        return None
    template = registration.read_transforms(files.prepared).get(pipeline.TEMPLATE)
    if template is None:
        return None
    if read_json(files.record)["input"].get("grid") == "prepared":
        return MidPlane((0.0, 0.0, 0.0), (1.0, 0.0, 0.0))
    return MidPlane.of_template(template)
