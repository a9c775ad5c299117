"""What an ensemble points at, however unsure: candidates, the lesions they hit, and by which rule.

Candidates are 26-connected components of the voxels whose probability reaches a low threshold, region by region.
Where one holds voxels above 0.5, which a label map paints, the components of these are the candidates in its place: a
network that is a little unsure of a whole brain still points at the lesions in it. A candidate's score is its highest
probability. A target is a 26-connected component of the reference region as it is: nothing is dilated, united or left
out for its size. Three rules say when a candidate hits a target (``hits``):

* ``one_to_one``: the candidates take a lesion each, by falling score, of the free lesions the one with the largest
  intersection over union (IoU) that is ``LEAST_IOU`` or more. A candidate without one is false. Among candidates of
  equal score the pair with the largest IoU goes first, then the lower candidate's. Since no candidate waits for one of
  a lower score, leaving those out changes nothing for the others: a curve over thresholds is one matching.
* ``overlap``: a candidate hits every lesion that it shares a voxel with.
* ``centroid``: a candidate hits the lesion that its centroid lies in (its mean voxel; a border between two voxels
  belongs to both, which are then of one lesion).

Under the last two several candidates may hit one lesion, and none of them is false.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import cc3d
import numpy as np
import numpy.typing as npt
import pandas as pd

from brainmets import schemas, tables
from brainmets.nifti import Affine, Spacing, around, labelled
from brainmets.schemas import CANDIDATES, OVERLAPS, TARGETS, Schema
from brainmets.scoring.boxes import Labels, Mask
from brainmets.scoring.lesions import equivalent_mm
from brainmets.scoring.metrics import check_spacing
from brainmets.scoring.one_to_one import LEAST_IOU
from brainmets.scoring.probabilities import entropy_bits
from brainmets.scoring.surface import Floats, Ints, Numbers
from brainmets.vocabulary import HIT_RULES, REGIONS, HitRule, region_mask

Probability = npt.NDArray[np.float32]

CANDIDATES_FILE, TARGETS_FILE, OVERLAPS_FILE = "candidates.csv", "targets.csv", "overlaps.csv"
FILES = {CANDIDATES_FILE: CANDIDATES, TARGETS_FILE: TARGETS, OVERLAPS_FILE: OVERLAPS}

PAINTED = 0.5
"""A label map's voxels are those of a higher probability."""

_OF = ["arm", "strategy", "case", "region"]


@dataclass(frozen=True)
class CaseDetections:
    """One case's rows, without arm, strategy, case and what a candidate hits.

    ``candidates``: region, candidate (from 1, by falling score), score, mean, volume_mm3, x_mm, y_mm, z_mm,
    uncertainty. ``targets``: region, lesion (from 1, the largest first), volume_mm3, diameter_mm (of a ball of that
    volume), x_mm, y_mm, z_mm. ``overlaps``: region, candidate, lesion, shared_mm3, iou, centroid_inside, for each
    pair that shares a voxel or where the candidate's centroid lies in the lesion. Places are RAS.
    """

    candidates: pd.DataFrame
    targets: pd.DataFrame
    overlaps: pd.DataFrame


@dataclass(frozen=True)
class Detections:
    """Candidates and reference lesions of any number of cases, as CANDIDATES, TARGETS and OVERLAPS of ``schemas``.

    ``cases``: every case that was looked at, with lesions and candidates or without. ``uncertainty`` is the mean
    binary entropy in bits of the candidate's voxels. ``hit_one_to_one``, ``hit_overlap`` and ``hit_centroid`` say
    whether ``hits`` calls the candidate a hit where no size is left out. Raises ``ValueError`` where a row is of no
    case of the list, a pair names what the other tables lack, or a name occurs twice.
    """

    cases: tuple[str, ...]
    candidates: pd.DataFrame
    targets: pd.DataFrame
    overlaps: pd.DataFrame

    def __post_init__(self) -> None:
        if len(set(self.cases)) != len(self.cases):
            raise ValueError(f"cases: {', '.join(self.cases)} must each be named once")
        named = {"candidates": self.candidates, "targets": self.targets, "overlaps": self.overlaps}
        for (name, table), schema in zip(named.items(), FILES.values(), strict=True):
            if stray := sorted(set(table["case"]) - set(self.cases)):
                raise ValueError(f"{name}: {', '.join(stray)} is not among the cases; find the candidates anew")
            if table.duplicated(list(schema.key)).any():
                twice = " ".join(map(str, table.loc[table.duplicated(list(schema.key)), list(schema.key)].iloc[0]))
                raise ValueError(f"{name}: {twice} occurs twice; find the candidates anew")
        for name, number in (("candidates", "candidate"), ("targets", "lesion")):
            key = [*_OF, number]
            known = set(named[name][key].itertuples(index=False, name=None))
            if lost := sorted(set(self.overlaps[key].itertuples(index=False, name=None)) - known):
                raise ValueError(f"overlaps: {' '.join(map(str, lost[0]))} is not in {name}; find the candidates anew")


@dataclass(frozen=True)
class Hits:
    """What a rule makes of detections.

    ``lesions``: arm, strategy, case, region, lesion, volume_mm3, diameter_mm, score: that of the best candidate which
    finds the lesion, -inf where none does. ``false``: arm, strategy, case, region, candidate, score, volume_mm3 of the
    candidates that hit nothing.
    """

    cases: tuple[str, ...]
    lesions: pd.DataFrame
    false: pd.DataFrame


# --- one case ------------------------------------------------------------------------------------------------------


def find(
    probabilities: Mapping[str, Probability],
    reference: Labels,
    spacing: Spacing,
    affine: Affine,
    threshold: float,
) -> CaseDetections:
    """Candidates, reference lesions and their overlaps in one case.

    ``probabilities``: region to (x, y, z), 0 to 1, on the grid of ``reference``, a BraTS label map (x, y, z);
    ``spacing``: mm per axis; ``affine``: voxel index to RAS mm; ``threshold``: the probability from which a voxel
    may belong to a candidate. A region without candidates or lesions has no rows. Raises ``ValueError`` for another
    shape than the reference's, a region that is not ET, TC or WT, and a threshold not above 0.
    """
    check_spacing(spacing)
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold: {threshold:g} must be above 0 and 1 at most")
    if unknown := [region for region in probabilities if region not in REGIONS]:
        raise ValueError(f"probabilities: {', '.join(unknown)} is none of {', '.join(REGIONS)}")
    occupied = reference > 0
    for region, probability in probabilities.items():
        if probability.shape != reference.shape:
            raise ValueError(
                f"probabilities of {region} have shape {probability.shape}, the reference {reference.shape}"
            )
        occupied |= probability >= np.float32(threshold)
    box = around(labelled(occupied.view(np.uint8)))
    origin = np.array([side.start for side in box])
    found: tuple[list[pd.DataFrame], list[pd.DataFrame], list[pd.DataFrame]] = ([], [], [])
    for region, probability in probabilities.items():
        own = probability[box]
        candidate, lesion = _pointed_at(own, threshold), region_mask(reference[box], region)
        rows = _region(own, candidate, lesion, origin, spacing, affine)
        for table, part in zip(found, rows, strict=True):
            part.insert(0, "region", region)
            table.append(part)
    without = (*_OF[:3], *(f"hit_{rule}" for rule in HIT_RULES))
    return CaseDetections(
        *(_table(parts, schema, without) for parts, schema in zip(found, FILES.values(), strict=True))
    )


def numbered(probability: Probability, affine: Affine, threshold: float) -> npt.NDArray[np.int64]:
    """One region's candidates as a volume (x, y, z): each voxel the number that ``find`` gives its candidate, else 0.

    Arguments as ``find`` takes them. Without a candidate all is 0.
    """
    result = np.zeros(probability.shape, np.int64)
    box = around(labelled((probability >= np.float32(threshold)).view(np.uint8)))
    origin = np.array([side.start for side in box])
    own = probability[box]
    predicted = _numbered(_pointed_at(own, threshold), origin, affine)
    predicted = predicted.sorted(-_highest(predicted, own[predicted.where].astype(np.float64)))
    result[box][predicted.where] = predicted.number + 1
    return result


def _pointed_at(probability: Probability, threshold: float) -> Mask:
    """The voxels of the candidates: what is painted, and components from ``threshold`` on without a painted voxel.

    No two of these touch, so that each of the mask's components is one candidate.
    """
    reached = probability >= np.float32(threshold)
    painted = reached & (probability > np.float32(PAINTED))
    numbers, n = cc3d.connected_components(reached.view(np.uint8), connectivity=26, return_N=True)
    unsure = np.ones(n + 1, bool)
    unsure[0] = False
    unsure[np.unique(numbers[painted])] = False
    return np.asarray(painted | unsure[numbers])


def _region(
    probability: Probability, candidate: Mask, lesion: Mask, origin: Ints, spacing: Spacing, affine: Affine
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    voxel_mm3 = float(np.prod(spacing))
    predicted, drawn = _numbered(candidate, origin, affine), _numbered(lesion, origin, affine)
    values = probability[predicted.where].astype(np.float64)
    predicted, drawn = predicted.sorted(-_highest(predicted, values)), drawn.sorted(np.zeros(drawn.n))
    candidates = pd.DataFrame(
        {
            "candidate": np.arange(1, predicted.n + 1),
            "score": _highest(predicted, values),
            "mean": np.bincount(predicted.number, values, predicted.n) / predicted.voxels,
            "volume_mm3": predicted.voxels * voxel_mm3,
            **dict(zip(("x_mm", "y_mm", "z_mm"), predicted.mm.T, strict=True)),
            "uncertainty": np.bincount(predicted.number, entropy_bits(values), predicted.n) / predicted.voxels,
        }
    )
    mm3 = drawn.voxels * voxel_mm3
    targets = pd.DataFrame(
        {
            "lesion": np.arange(1, drawn.n + 1),
            "volume_mm3": mm3,
            "diameter_mm": equivalent_mm(mm3),
            **dict(zip(("x_mm", "y_mm", "z_mm"), drawn.mm.T, strict=True)),
        }
    )
    return candidates, targets, _overlaps(predicted, drawn, candidate.shape, voxel_mm3)


@dataclass(frozen=True)
class _Components:
    """Components of a mask: ``where`` (three index arrays) and ``number`` (from 0) of each voxel, in memory order.

    ``voxels`` (n), ``centroid`` (n, 3; in voxels of the mask) and ``mm`` (n, 3; RAS) by number.
    """

    where: tuple[Ints, ...]
    number: Ints
    voxels: Ints
    centroid: Floats
    mm: Floats

    @property
    def n(self) -> int:
        return len(self.voxels)

    def sorted(self, first_by: Floats) -> _Components:
        """Numbered anew by ``first_by``, then from the largest down, then by place."""
        x, y, z = np.round(self.mm.T, 6)  # so that rounding puts none before its equal
        order = np.lexsort((z, y, x, -self.voxels, first_by))
        place = np.empty(self.n, np.int64)
        place[order] = np.arange(self.n)
        return _Components(self.where, place[self.number], self.voxels[order], self.centroid[order], self.mm[order])


def _numbered(mask: Mask, origin: Ints, affine: Affine) -> _Components:
    # as uint8: cc3d 4.1.1 fails on boolean arrays that are one voxel wide on two axes
    numbers: Numbers = np.asarray(cc3d.connected_components(mask.view(np.uint8), connectivity=26))
    where = labelled(mask.view(np.uint8))
    number = numbers[where].astype(np.int64) - 1
    n = int(number.max(initial=-1)) + 1
    voxels = np.bincount(number, minlength=n)
    # sums of whole numbers: a centroid on the border between two voxels is exactly there
    centroid = np.column_stack([np.bincount(number, axis, n) / np.maximum(voxels, 1) for axis in where])
    return _Components(where, number, voxels, centroid, (centroid + origin) @ affine[:3, :3].T + affine[:3, 3])


def _highest(components: _Components, values: Floats) -> Floats:
    """The largest of the voxels' values by component."""
    highest = np.zeros(components.n)
    np.maximum.at(highest, components.number, values)
    return highest


def _overlaps(predicted: _Components, drawn: _Components, shape: tuple[int, ...], voxel_mm3: float) -> pd.DataFrame:
    lesion_at = np.zeros(shape, np.int64)
    lesion_at[drawn.where] = drawn.number + 1
    lesion = lesion_at[predicted.where]
    keys = predicted.number[lesion > 0] * (drawn.n + 1) + lesion[lesion > 0]
    shared = dict(zip(*(found.tolist() for found in np.unique(keys, return_counts=True)), strict=True))
    inside = set()
    for number, centroid in enumerate(predicted.centroid):
        # the voxels that the centroid touches lie within two by two by two, so that they are of one lesion
        touched = product(*({math.ceil(c - 0.5), math.floor(c + 0.5)} for c in centroid.tolist()))
        inside |= {number * (drawn.n + 1) + one for place in touched if (one := int(lesion_at[place]))}
    rows = []
    for key in sorted(shared.keys() | inside):
        candidate, one = divmod(key, drawn.n + 1)
        both = shared.get(key, 0)
        either = int(predicted.voxels[candidate] + drawn.voxels[one - 1]) - both
        rows.append((candidate + 1, one, both * voxel_mm3, both / either, key in inside))
    return pd.DataFrame(rows, columns=["candidate", "lesion", "shared_mm3", "iou", "centroid_inside"])


# --- many cases ----------------------------------------------------------------------------------------------------


def collect(found: Mapping[str, CaseDetections], arm: str, strategy: str) -> Detections:
    """The cases' rows as three tables, with what each candidate hits; a case without rows is among the cases."""
    names = [str(case) for case in found]
    parts: tuple[list[pd.DataFrame], list[pd.DataFrame], list[pd.DataFrame]] = ([], [], [])
    for case, rows in found.items():
        for table, part in zip(parts, (rows.candidates, rows.targets, rows.overlaps), strict=True):
            table.append(part.assign(arm=arm, strategy=strategy, case=str(case)))
    rules = [f"hit_{rule}" for rule in HIT_RULES]
    candidates = _table(parts[0], CANDIDATES, rules)
    targets, overlaps = _table(parts[1], TARGETS), _table(parts[2], OVERLAPS)
    bare = Detections(tuple(names), candidates, targets, overlaps)
    return Detections(bare.cases, candidates.assign(**_hit_columns(bare)), targets, overlaps)


def hits(detections: Detections, rule: HitRule, smallest_mm3: float = 0.0) -> Hits:
    """Which lesions are found, from which score on, and which candidates hit nothing, by a rule of this module.

    Candidates smaller than ``smallest_mm3`` are left out before the matching; no lesion ever is. Without candidates
    every lesion has the score -inf; without lesions every candidate is false.
    """
    if rule not in HIT_RULES:
        raise ValueError(f"rule: {rule!r} must be one of {', '.join(HIT_RULES)}")
    if not 0 <= smallest_mm3 < math.inf:
        raise ValueError(f"smallest_mm3: {smallest_mm3} must be 0 or more, in mm^3")
    candidates = detections.candidates[detections.candidates["volume_mm3"] >= smallest_mm3]
    pairs = _matched(detections.overlaps, candidates, rule)
    best = pairs.groupby([*_OF, "lesion"], as_index=False)["score"].max()
    lesions = detections.targets[[*_OF, "lesion", "volume_mm3", "diameter_mm"]].merge(
        best, how="left", on=[*_OF, "lesion"], validate="one_to_one"
    )
    lesions["score"] = lesions["score"].astype(float).fillna(-math.inf)
    false = candidates.loc[~_among(candidates, pairs), [*_OF, "candidate", "score", "volume_mm3"]]
    return Hits(detections.cases, lesions, false.reset_index(drop=True))


def counts(detections: Detections) -> pd.DataFrame:
    """How many candidates, lesions and hits there are at the threshold of the candidates, by region and rule.

    One row per arm, strategy, region (ET, TC, WT; those without rows too) and rule. Columns: arm, strategy, region,
    rule, cases, lesions, found, sensitivity (missing without lesions), candidates, false, false_per_case (missing
    without cases). Detections without any row give none: they name no model.
    """
    models = pd.concat([detections.candidates, detections.targets])[["arm", "strategy"]].drop_duplicates()
    n = len(detections.cases)
    rows = []
    for (arm, strategy), rule in product(models.itertuples(index=False, name=None), HIT_RULES):
        outcome = hits(detections, rule)
        for region in REGIONS:
            lesions, false, candidates = (
                table[(table["arm"] == arm) & (table["strategy"] == strategy) & (table["region"] == region)]
                for table in (outcome.lesions, outcome.false, detections.candidates)
            )
            found = int(np.isfinite(lesions["score"]).sum())
            share = found / len(lesions) if len(lesions) else math.nan
            rate = len(false) / n if n else math.nan
            rows.append(
                (arm, strategy, region, rule, n, len(lesions), found, share, len(candidates), len(false), rate)
            )
    columns = ["arm", "strategy", "region", "rule", "cases", "lesions", "found", "sensitivity", "candidates"]
    table = pd.DataFrame(rows, columns=[*columns, "false", "false_per_case"])
    return table.sort_values(["arm", "strategy", "region"], kind="stable", ignore_index=True)


def _matched(overlaps: pd.DataFrame, candidates: pd.DataFrame, rule: HitRule) -> pd.DataFrame:
    """The pairs of candidate and lesion that are hits, with the candidate's score."""
    pairs = overlaps.merge(candidates[[*_OF, "candidate", "score"]], on=[*_OF, "candidate"], validate="many_to_one")
    if rule == "overlap":
        return pairs[pairs["shared_mm3"] > 0]
    if rule == "centroid":
        return pairs[pairs["centroid_inside"].astype(bool)]
    pairs = pairs[pairs["iou"] >= LEAST_IOU]
    pairs = pairs.sort_values(["score", "iou", "candidate", "lesion"], ascending=[False, False, True, True])
    taken: set[tuple[object, ...]] = set()
    chosen = []
    for arm, strategy, case, region, candidate, lesion in pairs[[*_OF, "candidate", "lesion"]].itertuples(
        index=False, name=None
    ):
        both = {(arm, strategy, case, region, side, number) for side, number in enumerate((candidate, lesion))}
        chosen.append(not both & taken)
        taken |= both if chosen[-1] else set()
    return pairs[np.array(chosen, bool)]


def _among(candidates: pd.DataFrame, pairs: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Whether each candidate is in a pair."""
    key = [*_OF, "candidate"]
    paired = set(pairs[key].itertuples(index=False, name=None))
    return np.array([one in paired for one in candidates[key].itertuples(index=False, name=None)], bool)


def _hit_columns(detections: Detections) -> dict[str, npt.NDArray[np.bool_]]:
    return {
        f"hit_{rule}": _among(detections.candidates, _matched(detections.overlaps, detections.candidates, rule))
        for rule in HIT_RULES
    }


# --- files ---------------------------------------------------------------------------------------------------------


def write_detections(folder: Path, detections: Detections) -> list[Path]:
    """Write candidates.csv, targets.csv and overlaps.csv into ``folder``; gives their paths."""
    written = (detections.candidates, detections.targets, detections.overlaps)
    return [tables.write(folder / name, table) for name, table in zip(FILES, written, strict=True)]


def read_detections(folder: Path, cases: Sequence[str]) -> Detections:
    """What ``write_detections`` wrote into an evaluation's or a cross-validation's folder.

    ``cases``: all that the model predicted, with or without rows. Raises ``TableError`` for tables that are not as
    ``schemas`` says, hold other cases, or do not fit one another; ``FileNotFoundError`` for one that is not there.
    """
    candidates, targets, overlaps = (
        schemas.read(folder / name, schema).reset_index(drop=True) for name, schema in FILES.items()
    )
    try:
        detections = Detections(tuple(map(str, cases)), candidates, targets, overlaps)
    except ValueError as error:
        raise tables.TableError(f"{folder}: {error}") from error
    for name, hit in _hit_columns(detections).items():
        if len(wrong := np.flatnonzero(candidates[name].to_numpy(bool) != hit)):
            row = " ".join(map(str, candidates.loc[wrong[0], list(CANDIDATES.key)]))
            raise tables.TableError(
                f"{folder / CANDIDATES_FILE}: {name} of {row} is not what {OVERLAPS_FILE} says; {CANDIDATES.again}"
            )
    return detections


def _table(parts: Sequence[pd.DataFrame], schema: Schema, without: Sequence[str] = ()) -> pd.DataFrame:
    """The parts as one table with the schema's columns and types, but for the columns ``without``."""
    types = {"text": "str", "number": "float", "whole": "int64", "truth": "bool"}
    columns = {name: types[column.kind] for name, column in schema.columns.items() if name not in without}
    filled = [part for part in parts if len(part)]
    whole = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(columns))
    return whole[list(columns)].astype(columns)
