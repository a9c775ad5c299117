"""A phantom's session as if a faultless model had screened it, and what a follow-up should find in it.

The truth's label map stands for the prediction, so that the follow-up is tested and no network. The t1c's own grid is
the source and the prepared grid at once: the head lies and is noisy another way at every date.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from brainmets import nifti, provenance
from brainmets.files import write_json
from brainmets.paths import ScreeningPaths
from brainmets.phantoms.histories import Visits
from brainmets.phantoms.lesions import ENHANCING, NECROSIS, NON_ENHANCING, OEDEMA
from brainmets.phantoms.scanner import SITE, Session
from brainmets.schemas import SCREENED
from brainmets.screening import lesions
from brainmets.screening.followup import FollowUp
from brainmets.tables import write as write_table
from brainmets.vocabulary import LABELS

TO_BRATS = {
    SITE.labels[OEDEMA]: LABELS["snfh"], SITE.labels[NON_ENHANCING]: LABELS["netc"],
    SITE.labels[ENHANCING]: LABELS["et"], SITE.labels[NECROSIS]: LABELS["netc"],
}  # fmt: skip
Found = set[tuple[str, int, frozenset[int]]]
"""Events: kind, date, and the bodies concerned."""


def components(session: Session) -> np.ndarray:
    """The tumours' 26-connected components, numbered by falling size."""
    core = np.isin(session.labels, [value for value, label in TO_BRATS.items() if label != LABELS["snfh"]])
    numbers, count = ndimage.label(core, np.ones((3, 3, 3)))
    sizes = np.bincount(numbers.ravel(), minlength=count + 1)
    order = [int(number) for number in np.argsort(-sizes[1:], kind="stable") + 1]
    ranks = np.zeros(count + 1, np.uint16)
    ranks[order] = np.arange(1, count + 1)
    return ranks[numbers]


def bodies_by_number(visits: Visits, place: int, numbers: np.ndarray) -> dict[int, frozenset[int]]:
    """Which bodies each component holds, by where their centres lie."""
    t1c = visits.sessions[place].sequences["t1c"]
    to_voxel = np.linalg.inv(t1c.slab.affine) @ t1c.pose
    found: dict[int, set[int]] = {}
    for body, lesion in visits.bodies(place).items():
        voxel = np.rint(to_voxel[:3, :3] @ np.array(lesion.centre_mm) + to_voxel[:3, 3]).astype(int)
        number = int(numbers[tuple(voxel)])
        assert number, f"body {body} has no voxel at its centre"
        found.setdefault(number, set()).add(body)
    return {number: frozenset(bodies) for number, bodies in found.items()}


def screened_truth(folder: Path, session: Session, day: str, model: str = "truth") -> ScreeningPaths:
    """The session's t1c and label map as a screened scan of ``day`` (YYYYMMDD)."""
    files = ScreeningPaths(folder)
    folder.mkdir(parents=True)
    t1c = session.sequences["t1c"]
    affine, brain = t1c.slab.affine, session.brain > 0
    labels = np.zeros(session.labels.shape, np.uint8)
    for value, label in TO_BRATS.items():
        labels[session.labels == value] = label
    numbers = components(session)
    count = int(numbers.max())
    table = lesions.measure(
        numbers, labels, np.zeros(numbers.shape, np.float32), affine,
        dict.fromkeys(range(1, count + 1), 1.0), range(1, count + 1), None,
    )  # fmt: skip
    write_table(files.table, table[list(SCREENED.columns)])
    image = t1c.voxels.astype(np.float32)
    nifti.write(files.t1c, image, affine)
    nifti.write(files.numbers, numbers, affine)
    nifti.write(files.labels, labels, affine)
    nifti.write(files.prepared / "t1c.nii.gz", image * brain, affine)
    nifti.write(files.prepared / "brain_mask.nii.gz", brain.astype(np.uint8), affine)
    content = {
        "schema": 1, "case": files.case, "date": f"{day[:4]}-{day[4:6]}-{day[6:]}", "input": {"kind": "dicom"},
        "model": {"name": model, "sha256": (model.encode().hex() * 32)[:64], "region": "TC"},
        "guard": {"decision": "pass", "cases": 40, "remarks": []},
        "files": {
            str(path.relative_to(folder)): provenance.sha256(path)
            for path in sorted(folder.rglob("*")) if path.is_file()
        },
    }  # fmt: skip
    write_json(files.record, content)
    return files


def screened_visits(folder: Path, visits: Visits) -> list[Path]:
    """Every date's folder, named as a key names them."""
    return [
        screened_truth(folder / f"scan-00001-{place:03d}", session, day).folder
        for place, (session, day) in enumerate(zip(visits.sessions, visits.dates, strict=True))
    ]


def planted(visits: Visits) -> Found:
    """The events that a follow-up should find."""
    return {(event.kind, event.date, frozenset(event.bodies)) for event in visits.events()}


def found_events(found: FollowUp, visits: Visits) -> Found:
    """The events that it found, by the bodies concerned; a wrong match shows as an event "swap"."""
    bodies = [bodies_by_number(visits, place, components(session)) for place, session in enumerate(visits.sessions)]
    places = found.tracks.places

    def at(track: int, date: int) -> frozenset[int]:
        number = places[track][date].lesion
        return frozenset() if number is None else bodies[date].get(number, frozenset({-1}))

    events: Found = set()
    for event in found.tracks.events:
        here, before = at(event.track, event.date), at(event.track, event.date - 1)
        if event.kind == "merge" and event.other is not None:
            here = at(event.other, event.date)
        if event.kind == "split" and event.other is not None:
            here = at(event.other, event.date - 1)
        events.add((event.kind, event.date, here or before))
    for track, states in places.items():
        for date in range(1, len(states)):
            one, other = at(track, date - 1), at(track, date)
            if one and other and not one & other:
                events.add(("swap", date, one | other))
    return events
