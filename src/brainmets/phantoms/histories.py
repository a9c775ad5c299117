"""Phantoms scanned at several dates whose lesions have known histories: what a follow-up should find.

Each date is a session of ``phantoms.scanner`` with another place of the head and other noise; between dates nothing
but the lesions differs. Three histories of ``KINDS`` in turn come to each patient, so that eight patients have all of
them three times, and one stable lesion beside them. ``docs/follow_up.md`` says what these phantoms cannot show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brainmets.files import write_json
from brainmets.phantoms import scanner
from brainmets.phantoms.head import Head, make_head
from brainmets.phantoms.lesions import OEDEMA, Lesion, draw, paint
from brainmets.phantoms.protocols import thick_slices
from brainmets.phantoms.scanner import MULTIFRAME_PATIENT, Session, patient_id
from brainmets.phantoms.sites import MANIFEST, already_made, folder_aside

Kind = Literal["stable", "growth", "shrinkage", "treatment", "birth", "vanishing", "merge", "split"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PER_PATIENT = 3
"""Histories of a patient beside the stable lesion."""
GENERATOR = 1
"""Raised whenever the same arguments would give other bytes."""
DEFAULT_SEED = 2026
"""Of ``brainmets phantoms``: no study of this repository trains on phantoms of this seed."""
DAYS = 60
"""Between two dates."""
RADIUS_MM = (5.0, 8.0)
FACTORS: dict[Kind, float] = {"growth": 1.35, "shrinkage": 0.75, "treatment": 0.8}
"""Of the radius from one date to the next; volumes go with the third power."""
LEAST_RADIUS_MM = 4.0
CLEAR_MM = 14.0
"""Between the rims of two histories, so that a birth beside a vanishing is no riddle."""
TREATED_RIM = 0.1
WIDENED = 1.06
"""A step by which two lesions grow until they touch."""


class PlannedEvent(NamedTuple):
    """What happens at a date (its place in the list): a birth, vanishing, merge or split of bodies."""

    date: int
    kind: Kind
    bodies: tuple[int, ...]


@dataclass(frozen=True)
class History:
    """One history: its kind and, by body's number and date, the lesion as it is there, or None where there is none.

    Two bodies where lesions merge or split, else one.
    """

    kind: Kind
    bodies: dict[int, list[Lesion | None]]
    event: PlannedEvent | None


@dataclass(frozen=True)
class Visits:
    """A patient's sessions by date, the date of each (YYYYMMDD), and the histories of the lesions."""

    sessions: list[Session]
    dates: list[str]
    histories: list[History]

    def bodies(self, place: int) -> dict[int, Lesion]:
        """The bodies that are there at a date."""
        found = {number: at[place] for one in self.histories for number, at in one.bodies.items()}
        return {number: lesion for number, lesion in found.items() if lesion is not None}

    def events(self) -> list[PlannedEvent]:
        """In order of date."""
        return sorted(one.event for one in self.histories if one.event is not None)


def make_visits(
    patient: int, dates: int, spacing_mm: float, seed: int, kinds: tuple[Kind, ...] | None = None
) -> Visits:
    """The sessions of phantom ``patient`` (a number from 1) at ``dates`` dates.

    ``kinds``: the histories, in place of those whose turn it is. ``()`` gives the stable lesion alone. Raises
    ``ValueError`` for fewer than two dates and for a spacing that ``scanner`` does not take.
    """
    if dates < 2:
        raise ValueError(f"dates: {dates} must be 2 or more; one date has no history")
    if not scanner.LEAST_SPACING_MM <= spacing_mm <= scanner.MOST_SPACING_MM:
        raise ValueError(
            f"spacing_mm: {spacing_mm} must lie between {scanner.LEAST_SPACING_MM} and {scanner.MOST_SPACING_MM} mm"
        )
    rng = np.random.default_rng([seed, 3, patient])
    head = make_head(rng, max(1.0, spacing_mm / 2))
    turns = tuple(KINDS[(PER_PATIENT * (patient - 1) + turn) % len(KINDS)] for turn in range(PER_PATIENT))
    histories = _histories(rng, head, ("stable", *(turns if kinds is None else kinds)), dates, spacing_mm)
    study = scanner.make_study(seed, patient)
    sessions, days = [], []
    for place in range(dates):
        day = (datetime.strptime(study.date, "%Y%m%d") + timedelta(days=DAYS * place)).strftime("%Y%m%d")
        lesions = [at[place] for one in histories for at in one.bodies.values()]
        visit = replace(study, seed=(seed, patient, 1 + place), date=day)
        here = [lesion for lesion in lesions if lesion is not None]
        sessions.append(scanner.scan(head, here, patient, spacing_mm, (seed, 3, patient, 1 + place), visit))
        days.append(day)
    return Visits(sessions, days, histories)


def make_history_cohort(
    folder: Path,
    patients: int,
    spacing_mm: float,
    seed: int,
    dates: int,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write the sessions of phantoms with known histories to ``folder``, whole or not at all, and return ``folder``.

    ``dicom/`` as ``make_scanner_cohort`` writes it; ``labels/<PatientID>-<date>.nii.gz`` and ``brain_masks/`` of the
    same names (patterns ``{patient}-{date}.nii.gz``). ``truth.json``: by patient "visits" (each "date" and what
    ``scanner.truth`` says of the session; the lesions have "body", their number, besides), "histories" (each "kind"
    and "bodies") and "events" (each "date", "kind", "bodies"). The same arguments give the same bytes.
    """
    if patients < 1:
        raise ValueError(f"patients: {patients} must be 1 or more")
    arguments: dict[str, Any] = {
        "generator": GENERATOR, "site": "scanner", "patients": patients, "spacing_mm": spacing_mm, "seed": seed,
        "dates": dates,
    }  # fmt: skip
    if already_made(folder, arguments):
        return folder
    truths = {}
    with folder_aside(folder) as aside:
        for number in range(1, patients + 1):
            visits = make_visits(number, dates, spacing_mm, seed)
            for session, day in zip(visits.sessions, visits.dates, strict=True):
                scanner.write_session(aside / "dicom", session, multiframe=number == MULTIFRAME_PATIENT)
                scanner.write_drawn(aside, session, f"{patient_id(number)}-{day}")
            truths[patient_id(number)] = {"thick_slices": thick_slices(number), **truth(visits)}
            if progress is not None:
                progress(f"phantom {number} of {patients}, {dates} dates")
        write_json(aside / "truth.json", {"coordinates": scanner.COORDINATES, "patients": truths})
        write_json(aside / MANIFEST, {**arguments, "cases": sorted(truths)})
    return folder


def truth(visits: Visits) -> dict[str, Any]:
    """What a follow-up should find, for JSON: see ``make_history_cohort``."""
    shown = []
    for place, (session, day) in enumerate(zip(visits.sessions, visits.dates, strict=True)):
        content = scanner.truth(session)
        for lesion, body in zip(content["lesions"], visits.bodies(place), strict=True):
            lesion["body"] = body
        shown.append({"date": f"{day[:4]}-{day[4:6]}-{day[6:]}", **content})
    return {
        "visits": shown,
        "histories": [{"kind": one.kind, "bodies": sorted(one.bodies)} for one in visits.histories],
        "events": [{"date": date, "kind": kind, "bodies": list(bodies)} for date, kind, bodies in visits.events()],
    }


# --- the plan of the lesions ---------------------------------------------------------------------------------------


def _histories(
    rng: np.random.Generator, head: Head, kinds: tuple[Kind, ...], dates: int, spacing_mm: float
) -> list[History]:
    """Histories far from each other, those that need most room placed first, in the order of ``kinds``."""
    grid = head.grid.crop(head.box)
    depth = ndimage.distance_transform_edt(head.anatomy.brain, grid.spacing_mm)
    voxels = np.argwhere((head.anatomy.grey > 0.2) & (head.anatomy.white > 0.2) & (depth > 8))
    centres = np.asarray(grid.origin_mm) + voxels * np.asarray(grid.spacing_mm)
    taken: list[tuple[npt.NDArray[np.float64], float]] = []
    found: dict[int, History] = {}
    number = 1
    for place in sorted(range(len(kinds)), key=lambda i: (kinds[i] not in ("merge", "split"), i)):
        kind = kinds[place]
        radius = max(float(rng.uniform(*RADIUS_MM)), LEAST_RADIUS_MM, 1.7 * spacing_mm)
        event = int(rng.integers(1, dates))
        for _ in range(200):
            centre = centres[rng.integers(len(centres))]
            axis = rng.normal(size=3)
            bodies = _bodies(rng, head, kind, centre, axis / np.linalg.norm(axis), radius, event, dates, spacing_mm)
            if bodies is None:
                continue
            reach = max(
                float(np.linalg.norm(np.subtract(lesion.centre_mm, centre))) + 1.3 * lesion.radius_mm
                for at in bodies
                for lesion in at
                if lesion is not None
            )
            if all(np.linalg.norm(centre - other) > reach + far + CLEAR_MM for other, far in taken):
                break
        else:
            raise ValueError(f"the brain has no room for a {kind} beside {len(taken)} other histories; draw fewer")
        taken.append((centre, reach))
        numbered = {number + i: at for i, at in enumerate(bodies)}
        number += len(bodies)
        planned = (
            PlannedEvent(event, kind, tuple(numbered)) if kind in ("birth", "vanishing", "merge", "split") else None
        )
        found[place] = History(kind, numbered, planned)
    return [found[place] for place in sorted(found)]


def _bodies(
    rng: np.random.Generator,
    head: Head,
    kind: Kind,
    centre: npt.NDArray[np.float64],
    axis: npt.NDArray[np.float64],
    radius: float,
    event: int,
    dates: int,
    spacing_mm: float,
) -> list[list[Lesion | None]] | None:
    """The lesion of each body by date; None where two of them do not fit there."""
    one = replace(draw(rng, centre, radius), oedema_mm=0.0 if kind in ("merge", "split") else radius / 2)
    if kind in ("stable", "growth", "shrinkage", "treatment"):
        rim = TREATED_RIM if kind == "treatment" else one.rim
        grown = [
            max(radius * FACTORS.get(kind, 1.0) ** place, LEAST_RADIUS_MM, 1.5 * spacing_mm) for place in range(dates)
        ]
        return [[replace(one, radius_mm=r, rim=rim if i else one.rim) for i, r in enumerate(grown)]]
    if kind in ("birth", "vanishing"):
        return [[one if (place >= event) == (kind == "birth") else None for place in range(dates)]]
    way = axis * (1.35 * radius + max(2.0 * spacing_mm, 4.0) / 2)
    pair = [replace(draw(rng, centre + side * way, radius), oedema_mm=0.0) for side in (-1, 1)]
    joined = _joined(head, pair, spacing_mm)
    if joined is None:
        return None
    return [[whole if (place >= event) == (kind == "merge") else part for place in range(dates)]
            for part, whole in zip(pair, joined, strict=True)]  # fmt: skip


def _joined(head: Head, pair: list[Lesion], spacing_mm: float) -> list[Lesion] | None:
    """Two lesions that lie apart by two voxels, grown until they are one piece for any grid; None where that fails."""
    grid = head.grid.crop(head.box)
    core = ndimage.binary_erosion(head.anatomy.brain, iterations=round(LEAST_RADIUS_MM / grid.mean_spacing_mm))
    voxels = [np.rint((np.array(one.centre_mm) - grid.origin_mm) / grid.spacing_mm).astype(int) for one in pair]
    if any((voxel < 0).any() or (voxel >= core.shape).any() or not core[tuple(voxel)] for voxel in voxels):
        return None
    apart = _masks(head, pair)
    away = ndimage.distance_transform_edt(~apart[0], head.grid.spacing_mm)
    if not away[apart[1]].min() > 2 * spacing_mm:
        return None
    wide = pair
    for _ in range(16):
        wide = [lesion.grown(WIDENED) for lesion in wide]
        masks = _masks(head, wide)
        common = masks[0] & masks[1]
        if common.sum() * np.prod(head.grid.spacing_mm) >= 2 * (2 * spacing_mm) ** 3:
            return wide
    return None


def _masks(head: Head, lesions: list[Lesion]) -> list[npt.NDArray[np.bool_]]:
    """Each lesion's tumour, painted alone on the brain's grid."""
    grid = head.grid.crop(head.box)
    return [paint(grid, head.anatomy, [lesion])[0] > OEDEMA for lesion in lesions]
