"""Which rules of post-processing to take: those that do best on cross-validated predictions, and on no other.

Every combination of the declared rules and volumes is tried, none of them included. Its value is the mean over regions
of the lesion-wise Dice, which is what BraTS ranks by: within a region the mean over patients of each patient's mean
over scans. By brats_2023 every case counts: where the reference has no lesion, predicting none is worth 1 and any
other prediction 0, so that a false lesion costs what it should. By brats_2026 only cases with a lesion that it calls
large have a value.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import ndimage

from brainmets.nifti import read_grid, read_labels
from brainmets.parallel import results
from brainmets.scoring.boxes import Labels
from brainmets.scoring.case import lesion_dice_of_case
from brainmets.scoring.intervals import patients_of
from brainmets.scoring.post_processing import ORDER, Combination, applied
from brainmets.vocabulary import REGIONS, LesionDefinition, PostRule

RULE = (
    "The combination of rules with the highest mean lesion-wise Dice over ET, TC and WT (patients alike) on "
    "cross-validated cases; of equals the one with the fewest rules, then the smallest volume."
)
FEW_PATIENTS, FEW_LESIONS = 10, 30
"""Below either of these the choice is made and said to be weak."""
SAME = 1e-9
"""Values that differ by less are equal: sums in another order differ in their last digits."""


class PostProcessingError(ValueError):
    """Cases that must not choose, or that cannot; the message names them."""


@dataclass(frozen=True)
class Choice:
    """The chosen ``combination`` and what it rests on.

    ``table``: one row per combination, the preferred first among equals: rules, smallest_mm3, value, a column for each
    region, chosen. ``cases``: those that chose; ``patients`` and ``lesions`` (of the whole tumour): how many.
    """

    combination: Combination
    table: pd.DataFrame
    cases: tuple[str, ...]
    patients: int
    lesions: int

    @property
    def weak(self) -> bool:
        """Whether too few patients or lesions chose."""
        return self.patients < FEW_PATIENTS or self.lesions < FEW_LESIONS

    @property
    def words(self) -> str:
        """What was chosen, and whether that is weak, for tables."""
        if not self.weak:
            return self.combination.words
        patients = f"{self.patients} patient{'s' * (self.patients != 1)}"
        lesions = f"{self.lesions} lesion{'s' * (self.lesions != 1)}"
        return f"{self.combination.words} (weak: chosen on {patients} with {lesions})"

    @property
    def sentence(self) -> str:
        """What was chosen, by what, and how much that is worth, in words."""
        if not self.cases:
            return "No cross-validated case is there to choose by: no rule is applied."
        values = self.table["value"].to_numpy(float)
        best, none = float(values[self.table["chosen"].to_numpy(bool)][0]), float(values[0])
        told = (
            f"{self.combination.words[0].upper()}{self.combination.words[1:]}: chosen on {len(self.cases)} "
            f"cross-validated case{'s' * (len(self.cases) != 1)} of {self.patients} "
            f"patient{'s' * (self.patients != 1)} with {self.lesions} lesion{'s' * (self.lesions != 1)}, where the "
            f"mean lesion-wise Dice is {best:.3f}, without any rule {none:.3f}."
        )
        if self.weak:
            told += (
                f" With fewer than {FEW_PATIENTS} patients or {FEW_LESIONS} lesions this choice is weak: it may be "
                "chance."
            )
        return told

    def record(self) -> dict[str, Any]:
        """What ``post_processing.json`` holds."""
        return {
            "rule": RULE,
            "order": list(ORDER),
            "rules": list(self.combination.rules),
            "smallest_mm3": self.combination.smallest_mm3,
            "words": self.combination.words,
            "chosen_on": list(self.cases),
            "patients": self.patients,
            "lesions": self.lesions,
            "weak": self.weak,
            "sentence": self.sentence,
        }


def combinations(rules: Collection[PostRule], smallest_mm3: Sequence[float]) -> list[Combination]:
    """Every combination of ``rules`` with every volume, none first: by the number of rules, then the volume.

    Four rules and three volumes give 8 combinations without ``smallest_volume`` and 24 with it.
    """
    chosen = [rule for rule in ORDER if rule in rules]
    sets = [some for n in range(len(chosen) + 1) for some in itertools.combinations(chosen, n)]
    found = [
        Combination(some, volume)
        for some in sets
        for volume in (smallest_mm3 if "smallest_volume" in some else (0.0,))
    ]
    return sorted(found, key=lambda one: (len(one.rules), one.smallest_mm3, [ORDER.index(rule) for rule in one.rules]))


def choose(
    predictions: Path,
    references: Path,
    cases: Collection[str],
    held_out: Collection[str],
    tried: Sequence[Combination],
    *,
    patients: Mapping[str, str],
    lesion_definition: LesionDefinition,
    workers: int = 1,
    progress: Callable[[str], None] | None = None,
) -> Choice:
    """The best of ``tried`` by ``RULE`` on the cross-validated ``cases``: ``<case>.nii.gz`` in both folders.

    ``patients`` maps a case to its patient. ``progress`` gets one line per case, with the time left. No case gives
    the first of ``tried``, and no values. Raises ``PostProcessingError`` where a case of ``held_out`` is among
    ``cases``: what the test is made of must not choose.
    """
    if stray := sorted(set(cases) & set(held_out)):
        raise PostProcessingError(
            f"{', '.join(stray)}: held out, and must not choose the post-processing; give cross-validated cases alone"
        )
    jobs = [
        _Job(case, references / f"{case}.nii.gz", predictions / f"{case}.nii.gz", lesion_definition, tuple(tried))
        for case in sorted(cases)
    ]
    found: dict[str, _Tried] = {}
    started = time.monotonic()
    for job, result in results(_try, jobs, workers):
        found[job.case] = result
        if progress is not None:
            elapsed = time.monotonic() - started
            left = elapsed / len(found) * (len(jobs) - len(found))
            progress(f"{len(tried)} combinations on case {len(found)} of {len(jobs)}: {job.case}, {left:.0f} s left")
    names = sorted(found)
    whose = patients_of(names, patients)
    rows = []
    for place, one in enumerate(tried):
        by_region = {region: _mean([found[case].dice[place][region] for case in names], whose) for region in REGIONS}
        defined = [value for value in by_region.values() if not math.isnan(value)]
        value = float(np.mean(defined)) if defined else math.nan
        rows.append({"rules": " ".join(one.rules), "smallest_mm3": one.smallest_mm3, "value": value, **by_region})
    table = pd.DataFrame(rows)
    best = best_of(table["value"].tolist())
    table["chosen"] = table.index == best
    lesions = sum(one.lesions for one in found.values())
    return Choice(tried[best], table, tuple(names), len(set(whose)), lesions)


def best_of(values: Sequence[float]) -> int:
    """The place of the highest value, the first of equals; 0 where there is no value."""
    highest = max((value for value in values if not math.isnan(value)), default=math.nan)
    return next((place for place, value in enumerate(values) if value >= highest - SAME), 0)


def _mean(values: Sequence[float | None], whose: Sequence[str]) -> float:
    """The mean over patients of each one's mean over the scans that have a value; NaN where none has."""
    own: dict[str, list[float]] = {}
    for value, patient in zip(values, whose, strict=True):
        if value is not None:
            own.setdefault(patient, []).append(value)
    return float(np.mean([np.mean(scans) for scans in own.values()])) if own else math.nan


class _Job(NamedTuple):
    case: str
    reference: Path
    prediction: Path
    definition: LesionDefinition
    tried: tuple[Combination, ...]


class _Tried(NamedTuple):
    """By combination and region the lesion-wise Dice; and the case's reference lesions of the whole tumour."""

    dice: list[dict[str, float | None]]
    lesions: int


def _try(job: _Job) -> _Tried:
    grid = read_grid(job.reference)
    read_grid(job.prediction).require_same(grid, "resample the prediction to the reference first")
    reference, prediction = _cropped(read_labels(job.reference), read_labels(job.prediction))
    known: dict[bytes, dict[str, tuple[float | None, int]]] = {}
    dice: list[dict[str, float | None]] = []
    made = dict(_processed(prediction, float(np.prod(grid.spacing)), job.tried))
    for one in job.tried:
        labels = np.ascontiguousarray(made[one])
        key = labels.tobytes()
        if key not in known:  # many combinations give one label map
            known[key] = lesion_dice_of_case(reference, labels, grid.spacing, job.definition)
        dice.append({region: value for region, (value, _) in known[key].items()})
    return _Tried(dice, next(iter(known.values()))["WT"][1])


def _processed(labels: Labels, voxel_mm3: float, tried: Sequence[Combination]) -> Iterator[tuple[Combination, Labels]]:
    """Each combination's label map; one that begins as another does goes on from there."""
    done: dict[tuple[tuple[PostRule, ...], float], Labels] = {((), 0.0): labels}
    for one in tried:
        for n in range(1, len(one.rules) + 1):
            volume = one.smallest_mm3 if one.rules[n - 1] == "smallest_volume" else 0.0
            if (key := (one.rules[:n], volume)) not in done:
                done[key] = applied(done[one.rules[: n - 1], 0.0], one.rules[n - 1], voxel_mm3, volume)
        yield one, done[one.rules, one.smallest_mm3]


def _cropped(reference: Labels, prediction: Labels) -> tuple[Labels, Labels]:
    """Both, cut to what they hold together and C-contiguous: no component or hole reaches beyond it."""
    box = ndimage.find_objects(((reference > 0) | (prediction > 0)).astype(np.uint8))
    window = box[0] if box else (slice(0, 1),) * 3
    return np.ascontiguousarray(reference[window]), np.ascontiguousarray(prediction[window])
