"""The operating point: chosen on cross-validated predictions alone, frozen, and only then applied to held-out cases.

A threshold that is chosen on the cases that it is judged by flatters the model. The order is therefore kept by code:
``choose`` refuses held-out cases, ``freeze`` writes what was chosen with a hash of itself, of the tables that it rests
on and of the cases it has seen, and ``apply`` takes no threshold: it reads the file, and refuses where there is none,
where it was edited, where the tables have changed since, and where a case, or another scan of its patient, was among
those that chose.

``RULE`` says how a point is chosen. Cross-validated cases are predicted by the model of one fold each, held-out ones
by all folds together, whose probabilities are less extreme: the rate on held-out cases is not the target's, and is
reported beside it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brainmets.files import read_json, shaped, write_json
from brainmets.paths import StudyPaths
from brainmets.provenance import sha256
from brainmets.scoring.candidates import FILES, Detections, Hits, hits, read_detections
from brainmets.scoring.intervals import NO_INTERVAL, patients_of, rate_interval, share_interval, sums_by
from brainmets.statistics.froc import ALL_SIZES, SIZES, SLACK, Size, of_region
from brainmets.statistics.tables import read_score_files
from brainmets.statistics.tests import percent
from brainmets.vocabulary import HitRule, Model, model_phrase

VOLUMES_MM3: tuple[float, ...] = (0.0, 5.0, 10.0, 20.0, 40.0, 80.0)
"""The smallest volumes of a candidate that are tried; a ball of 80 mm^3 is 5.3 mm wide."""
RULE = (
    "Of all pairs of a threshold (a score that a candidate of the training cases has) and of a smallest volume "
    f"({', '.join(f'{volume:g}' for volume in VOLUMES_MM3)} mm^3) whose false positives a case are at most the "
    "target: the pair that finds most lesions; of equals the one with fewer false positives, then the higher "
    "threshold, then the smaller volume. Where no pair meets the target: the one with the fewest false positives, by "
    "the same order."
)


NOT_MET = "the target cannot be met: the fewest false positives that there are"


class OperatingPointError(ValueError):
    """An operating point that is not there, was not chosen before, or is not what was frozen."""


@dataclass(frozen=True)
class Aim:
    """What every point is chosen for: at most ``false_positives`` a case, in ``region``, hits by the rule ``hit``."""

    region: str
    hit: HitRule
    false_positives: float


@dataclass(frozen=True)
class Point:
    """One model's operating point, and what it gives on the training cases that chose it.

    A candidate of ``smallest_mm3`` or more is accepted where its score is ``threshold`` or more; infinite: none is,
    because the model had no candidate to choose from. ``met``: whether the false positives keep to the target.
    """

    arm: str
    strategy: str
    threshold: float
    smallest_mm3: float
    cases: int
    lesions: int
    found: int
    false: int
    met: bool

    @property
    def false_positives(self) -> float:
        """A case, on the training cases."""
        return self.false / self.cases

    @property
    def sensitivity(self) -> float:
        """On the training cases; NaN without a lesion."""
        return self.found / self.lesions if self.lesions else math.nan

    @property
    def note(self) -> str:
        """What a reader must know; empty where there is nothing."""
        if math.isinf(self.threshold):
            return "no candidate in cross-validation: nothing is accepted"
        return "" if self.met else NOT_MET


@dataclass(frozen=True)
class Applied:
    """A frozen point on held-out cases.

    ``lesions``: those of ``Hits.lesions`` in the region, with ``found`` (boolean) beside. ``false``: accepted
    candidates that hit nothing. ``cases``: all, those without either included.
    """

    aim: Aim
    point: Point
    cases: tuple[str, ...]
    lesions: pd.DataFrame
    false: pd.DataFrame


def choose(detections: Detections, model: Model, aim: Aim, held_out: Collection[str]) -> Point:
    """The operating point of ``model`` by ``RULE``, from its cross-validated ``detections``.

    Raises ``OperatingPointError`` where a case of ``held_out`` is among the cases, or rows are another model's.
    """
    if stray := sorted(set(detections.cases) & set(held_out)):
        raise OperatingPointError(
            f"{', '.join(stray)}: held out, and must not choose the operating point; give cross-validated cases alone"
        )
    require_model(detections, model)
    tried = [_best(of_region(hits(detections, aim.hit, volume), aim.region), volume, aim) for volume in VOLUMES_MM3]
    found = [one for one in tried if one is not None]
    counts = (len(detections.cases), int((detections.targets["region"] == aim.region).sum()))
    if not found:
        return Point(*model, math.inf, VOLUMES_MM3[0], *counts, 0, 0, met=True)
    place, (threshold, volume, hit, false) = min(found)
    return Point(*model, threshold, volume, *counts, hit, false, met=place[0] == 0)


def read_cross_validated(files: StudyPaths, models: Iterable[Model]) -> dict[Model, Detections]:
    """The candidates of the target's training cases by model, of every case that its cross-validation has scored."""
    folders = {model: files.cross_validation_folder(*model) for model in models}
    return {
        model: read_detections(folder, sorted(set(read_score_files([folder / "scores.csv"])["case"])))
        for model, folder in folders.items()
    }


def cross_validated_tables(files: StudyPaths, models: Iterable[Model]) -> list[Path]:
    """The files that ``read_cross_validated`` reads the candidates from: what a choice rests on."""
    return [files.cross_validation_folder(*model) / name for model in models for name in FILES]


def _best(own: Hits, volume: float, aim: Aim) -> tuple[tuple[float, ...], tuple[float, float, int, int]] | None:
    """The first in the rule's order of the thresholds at this volume: its place, and what it is; None without any."""
    found = own.lesions["score"].to_numpy(float)
    false = own.false["score"].to_numpy(float)
    thresholds = np.unique(np.concatenate([found[np.isfinite(found)], false]))
    if not len(thresholds):
        return None
    n_found, n_false = (len(scores) - np.searchsorted(np.sort(scores), thresholds) for scores in (found, false))
    most = aim.false_positives * len(own.cases) + SLACK
    places = []
    for threshold, hit, wrong in zip(thresholds.tolist(), n_found.tolist(), n_false.tolist(), strict=True):
        order = (0, -hit, wrong) if wrong <= most else (1, wrong, -hit)
        places.append(((*order, -threshold, volume), (threshold, volume, hit, wrong)))
    return min(places)


def require_model(detections: Detections, model: Model) -> None:
    """Raise ``OperatingPointError`` where a row is of another model: its folder holds what is not its own."""
    for table in (detections.candidates, detections.targets):
        if others := sorted(set(zip(table["arm"], table["strategy"], strict=True)) - {model}):
            raise OperatingPointError(
                f"rows of {' '.join(others[0])} among those of {' '.join(model)}: run notebook 06 again"
            )


# --- the file ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frozen:
    """What ``operating_point.json`` holds: the aim, one point per model, and the cases that chose."""

    aim: Aim
    points: dict[Model, Point]
    cases: dict[Model, tuple[str, ...]]


def freeze(
    path: Path,
    aim: Aim,
    points: Sequence[Point],
    cases: Mapping[Model, Sequence[str]],
    inputs: Iterable[Path],
    root: Path,
) -> Path:
    """Write the points with the SHA-256 of the content and of ``inputs``, the tables that chose, all below ``root``.

    ``cases``: those that chose, by model. An infinite threshold is written as null. Raises ``ValueError`` where they
    are not as many as the point was chosen on.
    """
    rows = []
    for point in points:
        if len(set(cases[point.arm, point.strategy])) != point.cases:
            named = len(set(cases[point.arm, point.strategy]))
            raise ValueError(
                f"cases: {named} are named for {point.arm} {point.strategy}, {point.cases} chose its point"
            )
        values = asdict(point) | {"threshold": point.threshold if math.isfinite(point.threshold) else None}
        rows.append(values | {"note": point.note, "chosen_on": sorted(cases[point.arm, point.strategy])})
    hashes = {file.relative_to(root).as_posix(): sha256(file) for file in sorted(inputs)}
    content = {"rule": RULE, "aim": asdict(aim), "points": rows, "inputs": hashes}
    return write_json(path, {**content, "sha256": _digest(content)})


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def thaw(path: Path, root: Path) -> Frozen:
    """What ``freeze`` wrote, if it still is that and the tables below ``root`` still are those that chose.

    Raises ``OperatingPointError`` where there is no such file, its hash does not fit its content, or a table has
    changed or gone since.
    """
    if not path.is_file():
        raise OperatingPointError(
            f"{path.name} is not there: choose the operating point on the cross-validated cases (operating_point."
            "choose, freeze; notebook 07) before any held-out case is looked at"
        )
    frozen, content, digest = _read(path)
    if digest != _digest(content):
        raise OperatingPointError(f"{path.name} is not what was frozen (its hash differs): run notebook 07 again")
    for name, before in content["inputs"].items():
        table = root / name
        if not table.is_file() or sha256(table) != before:
            what = "has changed since" if table.is_file() else "is missing"
            raise OperatingPointError(
                f"{name}, on which {path.name} was chosen, {what}: choose anew before any held-out case is looked at"
            )
    return frozen


@shaped
def _read(path: Path) -> tuple[Frozen, dict[str, Any], Any]:
    content = read_json(path)
    digest = content.pop("sha256")
    points, cases = {}, {}
    for row in content["points"]:
        values = {name: row[name] for name in Point.__dataclass_fields__}
        values["threshold"] = math.inf if row["threshold"] is None else float(row["threshold"])
        point = Point(**values)
        points[point.arm, point.strategy] = point
        cases[point.arm, point.strategy] = tuple(row["chosen_on"])
    content["inputs"].items()
    return Frozen(Aim(**content["aim"]), points, cases), content, digest


def apply(
    path: Path, root: Path, detections: Detections, model: Model, patients: Mapping[str, str] | None = None
) -> Applied:
    """The frozen point of ``model`` on its held-out ``detections``; ``patients`` maps every case to its patient.

    Raises ``OperatingPointError`` as ``thaw`` does, for a model without a frozen point, and where a case, or another
    scan of its patient, was among those that chose any model's point.
    """
    frozen = thaw(path, root)
    if model not in frozen.points:
        raise OperatingPointError(f"{path.name} holds no point of {' '.join(model)}: choose one before it is applied")
    require_model(detections, model)
    chose = {case for cases in frozen.cases.values() for case in cases}
    known = patients or {}
    whose = {known.get(case, case) for case in chose}
    if seen := sorted(case for case in detections.cases if case in chose or known.get(case, case) in whose):
        raise OperatingPointError(
            f"{', '.join(seen)}: held-out, and it or another scan of its patient chose the operating point; choose "
            "it on other cases"
        )
    point = frozen.points[model]
    own = of_region(hits(detections, frozen.aim.hit, point.smallest_mm3), frozen.aim.region)
    lesions = own.lesions.assign(found=own.lesions["score"] >= point.threshold)
    # -inf reaches nothing, and infinity nothing reaches
    lesions["found"] = lesions["found"].astype(bool) & np.isfinite(lesions["score"].to_numpy(float))
    false = own.false[own.false["score"] >= point.threshold]
    return Applied(frozen.aim, point, own.cases, lesions.reset_index(drop=True), false.reset_index(drop=True))


# --- what it gives -------------------------------------------------------------------------------------------------

COLUMNS = [
    "arm", "strategy", "region", "hit", "threshold", "smallest_mm3", "size", "cases", "patients", "lesions", "found",
    "sensitivity", "low", "high", "false", "false_positives", "false_positives_low", "false_positives_high", "target",
    "sensitivity_in_choice", "false_positives_in_choice", "note",
]  # fmt: skip


def detection(
    applied: Mapping[Model, Applied], alpha: float, patients: Mapping[str, str], sizes: Sequence[Size] = SIZES
) -> pd.DataFrame:
    """Sensitivity by size and false positives a case of models at their operating points, intervals at 1 - ``alpha``.

    One row per model and size, columns ``COLUMNS``. False positives are all of the region's and stand in the row of
    all sizes alone. Intervals are ``intervals.share_interval`` and ``rate_interval``, which count patients
    (``patients``: case to patient; empty: each case is one); without a lesion sensitivity and its interval are
    missing.
    """
    rows = [_detected(one, size, alpha, patients) for one in applied.values() for size in sizes]
    return pd.DataFrame(rows, columns=COLUMNS)


def _detected(applied: Applied, size: Size, alpha: float, patients: Mapping[str, str]) -> dict[str, object]:
    point, whose = applied.point, patients_of(applied.cases, patients)
    diameter = applied.lesions["diameter_mm"]
    own = applied.lesions[(diameter >= size.low) & (diameter < size.high)]
    of_patient = own["case"].map(dict(zip(applied.cases, whose, strict=True))).tolist()
    n, found = len(own), int(own["found"].sum())
    interval = NO_INTERVAL
    if n:
        interval = share_interval(sums_by(of_patient, own["found"]), sums_by(of_patient, [1] * n), 1 - alpha)
    notes = [note for note in (point.note, "" if n else "no such lesion: no sensitivity") if note]
    row: dict[str, object] = {
        **{name: getattr(point, name) for name in ("arm", "strategy", "threshold", "smallest_mm3")},
        "region": applied.aim.region, "hit": applied.aim.hit, "target": applied.aim.false_positives,
        "size": size.name, "cases": len(applied.cases), "patients": len(set(of_patient)), "lesions": n, "found": found,
        "sensitivity": found / n if n else math.nan, "low": interval[0], "high": interval[1], "note": "; ".join(notes),
    }  # fmt: skip
    if size != ALL_SIZES:
        return row
    counts = applied.false["case"].value_counts().reindex(list(applied.cases), fill_value=0)
    rate = rate_interval(sums_by(whose, counts), sums_by(whose, [1] * len(whose)), 1 - alpha)
    row |= {"false": len(applied.false), "false_positives": len(applied.false) / len(applied.cases)}
    row |= {"false_positives_low": rate[0], "false_positives_high": rate[1]}
    return row | {"sensitivity_in_choice": point.sensitivity, "false_positives_in_choice": point.false_positives}


def words(table: pd.DataFrame, alpha: float) -> list[str]:
    """A sentence for each model of ``detection``'s table: what it finds, at how many false positives, and where."""
    return [_sentence(row, alpha) for row in table[table["size"] == ALL_SIZES.name].to_dict("records")]


def _sentence(row: Mapping[Hashable, Any], alpha: float) -> str:
    model = model_phrase(row["arm"], row["strategy"])
    rate = (
        f"{row['false_positives']:.2f} false positives a case ({row['false_positives_low']:.2f} to "
        f"{row['false_positives_high']:.2f}; {row['target']:g} was aimed at)"
    )
    found = f"no lesion of {row['region']} was there to be found"
    if row["lesions"]:
        found = (
            f"{row['found']} of {row['lesions']} lesions of {row['region']} found ({row['sensitivity']:.0%}, "
            f"{percent(1 - alpha)} interval {row['low']:.0%} to {row['high']:.0%})"
        )
    point = f"threshold {row['threshold']:.2f}, {row['smallest_mm3']:g} mm^3 at least; both chosen on training cases"
    if math.isinf(row["threshold"]):
        point = "nothing is accepted, since no training case had a candidate to choose from"
    note = "; there the target could not be met" if row["note"] == NOT_MET else ""
    return f"{model}: {found} at {rate}; {point}{note}."
