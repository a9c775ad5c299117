"""One patient's screened scans of several dates, followed: laid upon each other, lesion by lesion, with RANO-BM.

Each later date's prepared t1c is registered to the first usable date's, rigidly, inside the brain. All lesions are
carried to the first date's space for matching only: volumes and diameters are those of each date's own grid.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import SimpleITK as sitk
from scipy import ndimage

from brainmets import nifti
from brainmets.files import keep_out_of_git, plain
from brainmets.paths import FollowUpPaths, ScreeningPaths
from brainmets.places import require_apart
from brainmets.preparation.grids import image_of, isotropic_grid
from brainmets.preparation.pipeline import TEMPLATE
from brainmets.preparation.registration import chain, inverse, one_thread, read_transforms, register
from brainmets.preparation.scans import ScanError
from brainmets.provenance import Provenance, sha256
from brainmets.schemas import FOLLOWED
from brainmets.screening import extent, lesion_tracks, rano, words
from brainmets.screening import result as screened
from brainmets.screening.lesion_tracks import Place, Scan, Tracks
from brainmets.screening.rano import Assessment, Measured
from brainmets.screening.repeatability import DECLARED, Repeatability
from brainmets.screening.result import Result
from brainmets.tables import write as write_table

SCHEMA = 1
"""Of ``follow.json``."""
LATTICE_MM = 1.0
"""Side of the lattice on which lesions of different dates are compared."""
SEED = 1
MOST_SPREAD_MM = 2.0
"""Between the registration and that of the swapped pair: nothing to trust beyond it, see ``Registration``."""
LEAST_MIRRORED = 0.01
"""By how much the brains must fit better than one of them mirrored, see ``Registration``: two patients' do not."""
LEAST_DETAIL = 0.7
"""Least correlation of both brains' detail; benchmarks/results/follow_up.md has that of one and of two phantoms."""
LEAST_OVERLAP = 0.8
"""Least Dice of both brain masks where the registration lays them."""
DETAIL_MM, OUTLINE_MM = 2.0, 8.0
"""Detail is what a blur of the first width leaves and one of the second does not."""
THICK = 2.0
"""Times the longest voxel side of another date from which diameters are said to be hard to compare."""
_CASE = re.compile(r"(?P<patient>.+-\d+)-\d{3,}")
Say = Callable[[str], None]


class FollowUpError(ValueError):
    """Scans that cannot be followed; the message names them and says what to do."""


@dataclass(frozen=True)
class Laid:
    """How one date's brain was laid upon the first's, and the numbers by which that was accepted.

    ``spread_mm``: to the registration of the swapped pair; ``detail``: correlation of both brains' detail;
    ``overlap``: Dice of both brain masks.
    """

    transform: sitk.Euler3DTransform
    rotation_deg: float
    translation_mm: float
    spread_mm: float
    similarity: float
    detail: float
    overlap: float

    def as_json(self) -> dict[str, float]:
        """The numbers, without the transform."""
        names = ("rotation_deg", "translation_mm", "spread_mm", "similarity", "detail", "overlap")
        return {name: round(float(getattr(self, name)), 4) for name in names}


@dataclass(frozen=True)
class Visit:
    """One date. ``refused``: the guard's reasons, where it refused; then there are no images and no lesions.

    ``to_source`` takes points of the common space (the first usable date's prepared t1c; mm, LPS) to the date's source
    t1c; ``laid`` is None for the first usable date.
    """

    result: Result
    day: date
    refused: str
    laid: Laid | None = None
    to_source: sitk.Euler3DTransform | None = None

    @property
    def usable(self) -> bool:
        """Whether there is a scan to read."""
        return not self.refused

    @property
    def model(self) -> dict[str, Any]:
        """The record's model."""
        model: dict[str, Any] = self.result.record["model"]
        return model


@dataclass(frozen=True)
class FollowUp:
    """One patient's follow-up, in memory. ``table`` has the columns of ``schemas.FOLLOWED``.

    ``space``: the lattice's grid, in the common space; ``assessments``: one per date; ``warnings``: in words.
    """

    visits: list[Visit]
    tracks: Tracks
    targets: list[int]
    table: pd.DataFrame
    assessments: list[Assessment]
    warnings: list[str]
    repeatability: Repeatability
    immunotherapy: bool
    space: sitk.Image


# --- the run ---------------------------------------------------------------------------------------------------------


def run(
    folders: Sequence[Path],
    out: Path,
    dates: Sequence[str] | None = None,
    repeatability: Repeatability = DECLARED,
    *,
    immunotherapy: bool = False,
    say: Say = lambda line: None,
) -> FollowUp:
    """Follow the lesions of screened folders of one patient, and write page, table and record to ``out``.

    ``folders``: as ``brainmets screen`` wrote them, in any order; ``dates`` (YYYY-MM-DD), one per folder in their
    order, rule over those of the records. Raises ``FollowUpError`` for folders that cannot be followed together,
    ``ResultError`` for one that holds no whole result; nothing is written then.
    """
    from brainmets.screening import follow_page

    require_apart({"--out": out}, {str(folder): folder for folder in folders})
    files = FollowUpPaths(out)
    visits = read_visits(folders, dates)
    provenance = Provenance(
        "follow",
        {
            "dates": [visit.day.isoformat() for visit in visits], "immunotherapy": immunotherapy,
            "repeatability": repeatability.source,
        },
        root=out,
        folders={visit.day.isoformat(): visit.result.files.folder for visit in visits},
    )  # fmt: skip
    found = follow(visits, repeatability, immunotherapy=immunotherapy, say=say)
    say("writing the page")
    files.record.unlink(missing_ok=True)
    write_table(files.table, found.table)
    keep_out_of_git(out)
    follow_page.write(files, found)
    inputs = [path for visit in visits for path in _inputs(visit)]
    provenance.write(files.record, inputs, [files.table, files.page], **as_json(found))
    return found


def read_visits(folders: Sequence[Path], dates: Sequence[str] | None) -> list[Visit]:
    """The screened folders as visits, in the order of their dates.

    Raises ``FollowUpError`` for fewer than two folders, one given twice, a date that is missing, cannot be read or
    occurs twice, and cases of one key that are of different patients.
    """
    if len(folders) < 2:
        raise FollowUpError(
            f"{len(folders)} folder given: a follow-up needs the screened folders of two dates or more"
        )
    if dates is not None and len(dates) != len(folders):
        raise FollowUpError(f"--dates: {len(dates)} for {len(folders)} folders; give one for each, in their order")
    results = [screened.read(folder) for folder in folders]
    seen: dict[str, Path] = {}
    for result in results:
        digest = sha256(result.files.record)
        if digest in seen:
            raise FollowUpError(f"{result.files.folder} is the same result as {seen[digest]}: give each date once")
        seen[digest] = result.files.folder
    _require_one_patient(results)
    days = [_day(result, dates[place] if dates else None) for place, result in enumerate(results)]
    visits = sorted(
        (Visit(result, day, _refusal(result)) for result, day in zip(results, days, strict=True)),
        key=lambda visit: visit.day,
    )
    for one, other in pairwise(visits):
        if one.day == other.day:
            raise FollowUpError(
                f"{one.result.files.folder} and {other.result.files.folder} are both of {one.day}: leave one out, or "
                "give their dates with --dates"
            )
    if not any(visit.usable for visit in visits):
        raise FollowUpError("the guard refused the scans of all dates: there is nothing to follow; see their pages")
    return visits


def follow(
    visits: Sequence[Visit],
    repeatability: Repeatability = DECLARED,
    *,
    immunotherapy: bool = False,
    say: Say = lambda line: None,
) -> FollowUp:
    """Lay the dates upon each other and follow every lesion; ``visits`` are those of ``read_visits``.

    Raises ``FollowUpError`` where two dates' brains cannot be laid upon each other.
    """
    laid = lay(visits, say)
    first = next(visit for visit in laid if visit.usable)
    space = isotropic_grid(_prepared(first.result.files)[0], LATTICE_MM)
    tracks = lesion_tracks.follow([_scan(visit, space) if visit.usable else None for visit in laid], LATTICE_MM)
    rows = [visit.result.table.set_index("lesion") for visit in laid]
    measured = {
        track: [_measured(place, rows[at]) for at, place in enumerate(places)]
        for track, places in tracks.places.items()
    }
    targets = _targets(tracks, laid, rows)
    usable = [visit.usable for visit in laid]
    assessments = rano.assess(measured, targets, tracks.joined, tracks.new, usable, immunotherapy=immunotherapy)
    table = _table(laid, tracks, targets, rows, repeatability)
    return FollowUp(laid, tracks, targets, table, assessments, _warnings(laid), repeatability, immunotherapy, space)


def as_json(found: FollowUp) -> dict[str, Any]:
    """The content of ``follow.json`` but for its provenance."""
    days = [visit.day.isoformat() for visit in found.visits]
    first = next(place for place, visit in enumerate(found.visits) if visit.usable)
    cells = [name for name in found.table.columns if name not in ("lesion", "target")]
    return {
        "schema": SCHEMA,
        "notice": f"Research use only. {rano.IMAGING_ONLY}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "dates": [
            {
                "date": day, "case": visit.result.files.case, "usable": visit.usable, "refused": visit.refused,
                "model": {name: visit.model.get(name) for name in ("name", "sha256", "region")},
                "registration": None if visit.laid is None else visit.laid.as_json(),
            }
            for day, visit in zip(days, found.visits, strict=True)
        ],
        "baseline": days[first],
        "lesions": [
            {
                "lesion": track, "target": track in found.targets,
                "split_from": found.tracks.joined.split_from.get(track),
                "merged_into": found.tracks.joined.merged_into.get(track),
                "at": [
                    {name: None if row[name] is pd.NA else plain(row[name]) for name in cells}
                    for row in found.table[found.table["lesion"] == track].to_dict("records")
                ],
            }
            for track in found.tracks.places
        ],
        "events": [
            {"date": days[event.date], "kind": event.kind, "lesion": event.track, "other": event.other}
            for event in found.tracks.events
        ],
        "assessments": [
            {
                "date": days[place], "category": one.category, "why": one.why, "sum_mm": one.sum_mm,
                "baseline_mm": one.baseline_mm, "nadir_mm": one.nadir_mm,
                "nadir_date": None if one.nadir_date is None else days[one.nadir_date],
                "from_baseline_percent": one.from_baseline_percent, "from_nadir_percent": one.from_nadir_percent,
                "largest_increase_mm": one.largest_increase_mm, "largest_increase": one.largest_increase,
                "new": list(one.new),
            }
            for place, one in enumerate(found.assessments)
        ],
        "immunotherapy": found.immunotherapy,
        "rules": list(rano.RULES),
        "repeatability": {
            "source": found.repeatability.source,
            "limits": [
                {"up_to_mm3": None if np.isinf(most) else most, "factor": factor}
                for most, factor in found.repeatability.limits
            ],
        },
        "warnings": found.warnings,
    }  # fmt: skip


# --- who and when ----------------------------------------------------------------------------------------------------


def _require_one_patient(results: Sequence[Result]) -> None:
    """Cases that one key named (their folders lie side by side) tell their patients."""
    patients: dict[Path, tuple[str, str]] = {}
    for result in results:
        folder = result.files.folder.resolve()
        if not (named := _CASE.fullmatch(folder.name)):
            continue
        patient = named["patient"]
        before, case = patients.setdefault(folder.parent, (patient, folder.name))
        if before != patient:
            raise FollowUpError(f"{case} and {folder.name} are of two patients: give the screened folders of one")


def _day(result: Result, given: str | None) -> date:
    text = given if given is not None else result.record.get("date")
    if not text:
        raise FollowUpError(
            f"{result.files.folder} does not say when it was scanned (prepared cases do not): give the dates of all "
            "folders with --dates, such as --dates 2026-01-05 2026-03-07"
        )
    try:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", str(text)):
            raise ValueError
        return date.fromisoformat(str(text))
    except ValueError:
        place = "--dates" if given is not None else str(result.files.record)
        raise FollowUpError(f"{place}: {text!r} is no date; write it as 2026-01-05") from None


def _refusal(result: Result) -> str:
    guard = result.record["guard"]
    if guard["decision"] != "refuse":
        return ""
    reasons = [str(remark["text"]) for remark in guard["remarks"] if remark["severity"] == "refuse"]
    return "; ".join(reasons) or "the guard refused this scan"


# --- laying the dates upon each other --------------------------------------------------------------------------------


def lay(visits: Sequence[Visit], say: Say) -> list[Visit]:
    """The visits with their way from the common space, every registration checked."""
    first = next(visit for visit in visits if visit.usable)
    fixed, fixed_mask = _prepared(first.result.files)
    laid: list[Visit] = []
    for visit in visits:
        if not visit.usable:
            laid.append(visit)
            continue
        onto_source = _onto_source(visit.result)
        if visit is first:
            laid.append(Visit(visit.result, visit.day, "", None, onto_source))
            continue
        say(f"laying {visit.day} upon {first.day}")
        found = lay_upon(fixed, fixed_mask, *_prepared(visit.result.files), f"{first.day} and {visit.day}")
        laid.append(Visit(visit.result, visit.day, "", found, chain(found.transform, onto_source)))
    return laid


def lay_upon(
    fixed: sitk.Image, fixed_mask: sitk.Image, moving: sitk.Image, moving_mask: sitk.Image, which: str
) -> Laid:
    """Register two brains (float32, 0 outside the mask; masks uint8 on their grids) and refuse a bad match.

    ``which`` names the dates in the message. Raises ``FollowUpError``.
    """
    ask = "are both of one patient, and of the head? Look at both pages, and leave out the one that is not"
    try:
        found = register(fixed, moving, SEED, fixed_mask)
    except ScanError as error:
        raise FollowUpError(f"the scans of {which} cannot be laid upon each other ({error}): {ask}") from error
    detail, overlap = likeness(fixed, fixed_mask, moving, moving_mask, found.transform)
    faults = []
    if not found.spread_mm <= MOST_SPREAD_MM:
        faults.append(f"laid either way they differ by {found.spread_mm:.1f} mm, {MOST_SPREAD_MM:g} mm may be")
    if not found.mirrored < -LEAST_MIRRORED:
        faults.append(
            f"they fit no better than with one mirrored (by {-found.mirrored:.3f}, {LEAST_MIRRORED:g} must be)"
        )
    if not overlap >= LEAST_OVERLAP:
        faults.append(f"the brains overlap with a Dice of {overlap:.2f}, {LEAST_OVERLAP:g} must be")
    if not detail >= LEAST_DETAIL:
        faults.append(f"the brains' detail correlates with {detail:.2f}, {LEAST_DETAIL:g} must be")
    if faults:
        raise FollowUpError(f"the scans of {which} do not fit each other: {'; '.join(faults)}; {ask}")
    return Laid(
        found.transform, found.rotation_deg, found.translation_mm, found.spread_mm, found.metric, detail, overlap
    )


def likeness(
    fixed: sitk.Image,
    fixed_mask: sitk.Image,
    moving: sitk.Image,
    moving_mask: sitk.Image,
    transform: sitk.Euler3DTransform,
) -> tuple[float, float]:
    """Correlation of both brains' detail inside both masks, and Dice of the masks, on the fixed grid."""
    with one_thread():
        moved = sitk.Resample(moving, fixed, transform, sitk.sitkLinear, 0.0, sitk.sitkFloat32)
        mask = sitk.Resample(moving_mask, fixed, transform, sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)
    inside = [sitk.GetArrayFromImage(one) > 0 for one in (fixed_mask, mask)]
    both = inside[0] & inside[1]
    overlap = 2 * both.sum() / max(1, inside[0].sum() + inside[1].sum())
    sides = np.asarray(fixed.GetSpacing())[::-1]
    core = ndimage.binary_erosion(both, iterations=2)
    if not core.any():
        return 0.0, float(overlap)
    one, other = (_evened(_detail(sitk.GetArrayFromImage(image), both, sides)[core]) for image in (fixed, moved))
    one, other = one - one.mean(), other - other.mean()
    spread = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return (float((one * other).sum()) / spread if spread else 0.0), float(overlap)


def _evened(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Cut at the percentiles 5 and 95: bright lesions, which change, must not outweigh the brain, which does not."""
    return np.clip(values, *np.percentile(values, (5, 95)))


def _detail(
    image: npt.NDArray[Any], inside: npt.NDArray[np.bool_], sides: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    weight = inside.astype(np.float32)

    def blurred(width_mm: float) -> npt.NDArray[np.float32]:
        amount = ndimage.gaussian_filter(weight, width_mm / sides)
        return np.asarray(ndimage.gaussian_filter(image * weight, width_mm / sides) / np.maximum(amount, 1e-3))

    return np.asarray(blurred(DETAIL_MM) - blurred(OUTLINE_MM), np.float32)


def _prepared(files: ScreeningPaths) -> tuple[sitk.Image, sitk.Image]:
    """The prepared t1c's brain (float32, 0 outside) and its mask (uint8); without one, what is not 0 is the brain."""
    voxels, grid = nifti.read_volume(files.prepared / "t1c.nii.gz")
    path = files.prepared / "brain_mask.nii.gz"
    inside = nifti.read_volume(path)[0] > 0 if path.is_file() else voxels != 0
    brain = np.where(inside, voxels, 0).astype(np.float32)
    return image_of(brain, grid.affine), image_of(inside.astype(np.uint8), grid.affine)


def _onto_source(result: Result) -> sitk.Euler3DTransform:
    """Points of the prepared grid to the source t1c: the template's transform, or none where both lie alike."""
    if result.record["input"].get("grid") == "prepared":
        return sitk.Euler3DTransform()
    return read_transforms(result.files.prepared).get(TEMPLATE, sitk.Euler3DTransform())


# --- lesions ---------------------------------------------------------------------------------------------------------


def _scan(visit: Visit, space: sitk.Image) -> Scan:
    """Every lesion and candidate of a date on the common lattice; one too small for it has its nearest place."""
    files, table = visit.result.files, visit.result.table
    voxels, grid = extent.read_numbers(files)
    numbers = image_of(voxels, grid.affine)
    assert visit.to_source is not None
    with one_thread():
        there = sitk.Resample(numbers, space, visit.to_source, sitk.sitkNearestNeighbor, 0, sitk.sitkUInt16)
        ones = sitk.Image(numbers.GetSize(), sitk.sitkUInt8) + 1
        ones.CopyInformation(numbers)
        reach = sitk.Resample(ones, space, visit.to_source, sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)
    lattice = sitk.GetArrayFromImage(there)
    boxes = ndimage.find_objects(lattice.astype(np.int32))
    back = inverse(visit.to_source)
    found = {}
    for number in map(int, table["lesion"]):
        box = boxes[number - 1] if number <= len(boxes) else None
        if box is not None:
            found[number] = np.argwhere(lattice[box] == number) + [side.start for side in box]
            continue
        places = np.argwhere(voxels == number)
        if not len(places):
            raise FollowUpError(
                f"{files.numbers} has no voxel of lesion {number} of {files.table.name}: screen the scan again"
            )
        middle = numbers.TransformContinuousIndexToPhysicalPoint([float(part) for part in places.mean(0)])
        index = space.TransformPhysicalPointToIndex(back.TransformPoint(middle))
        found[number] = np.array([index[::-1]])
    accepted = frozenset(int(number) for number in table.loc[table["accepted"], "lesion"])
    return Scan(found, accepted, sitk.GetArrayFromImage(reach) > 0)


def _measured(place: Place, rows: pd.DataFrame) -> Measured:
    return Measured(place.state, 0.0 if place.lesion is None else _number(rows, place.lesion, "longest_mm"))


def _number(rows: pd.DataFrame, lesion: int, column: str) -> float:
    return float(rows[column].astype(float)[lesion])


def _targets(tracks: Tracks, visits: Sequence[Visit], rows: Sequence[pd.DataFrame]) -> list[int]:
    first = next(place for place, visit in enumerate(visits) if visit.usable)
    at_baseline = {}
    for track, places in tracks.places.items():
        if places[first].state == "measured":
            there, number = rows[first], places[first].lesion
            assert number is not None
            at_baseline[track] = (
                _number(there, number, "longest_mm"), _number(there, number, "volume_mm3"),
                bool(there.loc[number, "measurable"]),
            )  # fmt: skip
    return rano.target_lesions(at_baseline)


def _table(
    visits: Sequence[Visit],
    tracks: Tracks,
    targets: Sequence[int],
    rows: Sequence[pd.DataFrame],
    repeatability: Repeatability,
) -> pd.DataFrame:
    """``follow.csv``: the baseline of a lesion is its first date with a size, its nadir the smallest size so far."""
    lines = []
    for track, places in tracks.places.items():
        sizes: list[dict[str, float | None]] = [_size(place, rows[at]) for at, place in enumerate(places)]
        begun = next(at for at, place in enumerate(places) if place.lesion is not None)
        for at, place in enumerate(places):
            size = sizes[at]
            earlier = [one for one in range(begun, at + 1) if sizes[one]["volume_mm3"] is not None]
            lowest = min(earlier, key=lambda one: (sizes[one]["volume_mm3"], -one), default=None)
            line: dict[str, Any] = {
                "lesion": track, "date": visits[at].day.isoformat(), "case": visits[at].result.files.case,
                "state": place.state, "number": place.lesion, "target": track in targets, **size,
                "nadir": lowest == at and at > begun,
            }  # fmt: skip
            for name, reference in (
                ("baseline", begun if at > begun else None),
                ("nadir", lowest if at > begun else None),
            ):
                line |= _changes(name, size, None if reference is None else sizes[reference], repeatability)
            lines.append(line)
    table = pd.DataFrame(lines, columns=list(FOLLOWED.columns))
    table["number"] = table["number"].astype("Int64")
    return table


def _size(place: Place, rows: pd.DataFrame) -> dict[str, float | None]:
    names = ("volume_mm3", "longest_mm", "perpendicular_mm")
    if place.lesion is not None:
        return {name: _number(rows, place.lesion, name) for name in names}
    return dict.fromkeys(names, 0.0 if place.state == "absent" else None)


def _changes(
    name: str, size: Mapping[str, float | None], reference: Mapping[str, float | None] | None, known: Repeatability
) -> dict[str, Any]:
    """Change of volume (percent, mm3) and longest diameter (mm), and whether it is more than measurement error."""
    keys = (f"from_{name}_percent", f"from_{name}_mm3", f"from_{name}_mm", f"against_{name}")
    now, then = size["volume_mm3"], None if reference is None else reference["volume_mm3"]
    if now is None or then is None or reference is None:
        return dict.fromkeys(keys)
    percent = 100 * (now - then) / then if then else None
    word = "within the measurement error" if known.within(then, now) else "larger" if now > then else "smaller"
    longest, before = size["longest_mm"] or 0.0, reference["longest_mm"] or 0.0
    return dict(zip(keys, (percent, now - then, longest - before, word), strict=True))


# --- what else to say ------------------------------------------------------------------------------------------------


def _warnings(visits: Sequence[Visit]) -> list[str]:
    found = []
    usable = [visit for visit in visits if visit.usable]
    models = {str(visit.model["sha256"]): visit for visit in usable}
    if len(models) > 1:
        names = "; ".join(
            f"{visit.day}: {visit.model['name']} ({str(visit.model['sha256'])[:12]})" for visit in usable
        )
        found.append(
            "The dates were screened with different models, so that numbers are not comparable: what looks changed "
            f"may be the models' difference. Screen all dates with one model. {names}."
        )
    found += sorted({text for visit in usable if (text := words.diameters_of(str(visit.model.get("region"))))})
    for visit in visits:
        if visit.refused:
            found.append(f"{visit.day}: the guard refused this scan ({visit.refused}); this date says nothing.")
        elif visit.result.record["guard"]["decision"] == "warn":
            texts = "; ".join(str(remark["text"]) for remark in visit.result.record["guard"]["remarks"])
            found.append(f"{visit.day}: the guard warns of this scan ({texts}).")
        if visit.usable and visit.result.files.reading.is_file():
            found.append(
                f"{visit.day}: a reader's decisions lie beside this result; here the model's alone are shown."
            )
    longest = {visit.day: max(nifti.read_scan_grid(visit.result.files.t1c).spacing) for visit in usable}
    finest, coarsest = min(longest, key=lambda day: longest[day]), max(longest, key=lambda day: longest[day])
    if longest[coarsest] >= THICK * longest[finest]:
        found.append(
            f"Slices differ: {longest[coarsest]:.1f} mm on {coarsest}, {longest[finest]:.1f} mm on {finest}; small "
            "lesions may be missing, and diameters differ, for that alone."
        )
    return found


def _inputs(visit: Visit) -> list[Path]:
    files = visit.result.files
    named = [files.record, files.table]
    if visit.usable:
        named += [files.numbers, files.t1c, files.prepared / "t1c.nii.gz"]
    return named
