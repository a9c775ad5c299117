"""Which lesion of one date is which of the next: tracks over dates, births, vanishing, splits and merges.

It knows voxels on one common lattice, no image: ``followup`` carries every date's lesions there. Two lesions of two
dates may be one where they overlap, where their centroids lie within ``CENTROID_MM`` of each other, or their surfaces
within ``SURFACE_MM`` (the distances of the study whose analysis is repeated here: optimal assignment, centroid within
10 mm or surface within 5 mm). Of all one-to-one assignments the one with the largest sum of ``worth`` is taken
(``scipy.optimize.linear_sum_assignment``): overlap, as Dice, outweighs nearness by ``OVERLAP_WORTH``; nearness, from 1
down to 0, decides among lesions that do not overlap. A lesion that lies by ``PART`` in a lesion of the other date is
explained by it, and is matched with no lesion that is merely near: so that a part is not taken for a neighbour.

What stays over is a split where a later lesion lies by ``PART`` of its volume in an earlier one that goes on in
another, a merge where an earlier one lies so in a later one, else a birth or a vanishing. A lesion is compared with
where it was last seen, so that one that was missed at a date keeps its number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from brainmets.screening.rano import Joined, State

Voxels = npt.NDArray[np.int64]

CENTROID_MM, SURFACE_MM = 10.0, 5.0
PART = 0.25
"""Share of a lesion's voxels in another one from which it is part of it; registrations may be off by a voxel."""
OVERLAP_WORTH = 1000.0
REACHED = 0.5
"""Share of a lesion's voxels that a scan must cover for its absence to mean anything."""

Kind = Literal["birth", "pointed at", "first reached", "vanishing", "below", "return", "split", "merge"]
EVENT_WORDS: dict[Kind, str] = {
    "birth": "new",
    "pointed at": "above the operating point for the first time; already pointed at before",
    "first reached": "seen for the first time: no earlier scan reaches this place",
    "vanishing": "gone",
    "below": "a candidate below the operating point is left",
    "return": "above the operating point again",
    "split": "split off",
    "merge": "merged into another",
}


class Event(NamedTuple):
    """What happened to a track at a date (its place in the list); ``other``: where it split from or merged into."""

    date: int
    kind: Kind
    track: int
    other: int | None = None


class Place(NamedTuple):
    """A track at one date: its ``state`` and the number of the lesion or candidate there, if any."""

    state: State
    lesion: int | None = None


@dataclass(frozen=True)
class Scan:
    """One date. ``voxels``: of each lesion and candidate, by its number, (n, 3) whole places on the common lattice.

    ``accepted``: the numbers above the operating point. ``reach``: a mask over the lattice's box from ``origin`` on,
    True where the scan has voxels; None where it reaches all.
    """

    voxels: Mapping[int, Voxels]
    accepted: frozenset[int]
    reach: npt.NDArray[np.bool_] | None = None
    origin: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class Tracks:
    """Every lesion over the dates: ``places`` by track (1, 2, ...), one per date; events by date, then track.

    ``new``: per date the tracks that are new there and count as such.
    """

    places: dict[int, list[Place]]
    events: list[Event]
    joined: Joined
    new: list[list[int]]


@dataclass(frozen=True)
class Pair:
    """How two lesions lie to each other: the share of each that the other covers, distances in mm.

    ``gap_mm`` is that between the nearest voxels' centres, infinite where it was not needed.
    """

    dice: float
    of_earlier: float
    of_later: float
    distance_mm: float
    gap_mm: float

    @property
    def may_match(self) -> bool:
        """Whether they may be one lesion."""
        return self.dice > 0 or self.distance_mm <= CENTROID_MM or self.gap_mm <= SURFACE_MM

    @property
    def worth(self) -> float:
        """What assigning them to each other is worth."""
        return OVERLAP_WORTH * self.dice + CENTROID_MM / (CENTROID_MM + self.distance_mm)


Pairs = dict[tuple[int, int], Pair]


def compare(earlier: Mapping[int, Voxels], later: Mapping[int, Voxels], side_mm: float) -> Pairs:
    """Every pair that may match, by (earlier, later) number; ``side_mm`` is the lattice's."""
    found = {}
    boxes = {
        place: {number: (voxels.min(0), voxels.max(0)) for number, voxels in bodies.items()}
        for place, bodies in enumerate((earlier, later))
    }
    for one, first in earlier.items():
        for other, second in later.items():
            (low, high), (under, over) = boxes[0][one], boxes[1][other]
            apart = side_mm * float(np.linalg.norm(np.maximum(0, np.maximum(under - high, low - over))))
            distance = side_mm * float(np.linalg.norm(first.mean(0) - second.mean(0)))
            if apart > SURFACE_MM and distance > CENTROID_MM:
                continue
            shared = len({*map(tuple, first.tolist())} & {*map(tuple, second.tolist())}) if apart == 0 else 0
            gap = 0.0 if shared else side_mm * float(np.min(cKDTree(first).query(second)[0]))
            pair = Pair(
                2 * shared / (len(first) + len(second)), shared / len(first), shared / len(second), distance, gap
            )
            if pair.may_match:
                found[one, other] = pair
    return found


def assign(pairs: Pairs) -> dict[int, int]:
    """The later number of each earlier one, one to one, with the largest sum of ``worth``."""
    explained = (
        {one for (one, _), pair in pairs.items() if pair.of_earlier >= PART},
        {other for (_, other), pair in pairs.items() if pair.of_later >= PART},
    )
    allowed = {
        (one, other): pair.worth
        for (one, other), pair in pairs.items()
        if pair.dice > 0 or (one not in explained[0] and other not in explained[1])
    }
    rows, columns = sorted({one for one, _ in allowed}), sorted({other for _, other in allowed})
    worth = np.zeros((len(rows), len(columns)))
    for (one, other), value in allowed.items():
        worth[rows.index(one), columns.index(other)] = value
    chosen = zip(*linear_sum_assignment(worth, maximize=True), strict=True)
    return {rows[row]: columns[column] for row, column in chosen if worth[row, column] > 0}


@dataclass
class _Track:
    places: list[Place]
    voxels: Voxels
    split_from: int | None = None
    merged_into: int | None = None


@dataclass
class _Following:
    """The tracks as they grow, date by date."""

    side_mm: float
    scans: Sequence[Scan | None]
    tracks: dict[int, _Track] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    new: list[list[int]] = field(default_factory=list)

    def step(self, date: int) -> None:
        scan = self.scans[date]
        self.new.append([])
        if scan is None:
            for track in self.tracks.values():
                track.places.append(Place("not evaluable"))
            return
        accepted = {number: scan.voxels[number] for number in sorted(scan.accepted)}
        others = {number: voxels for number, voxels in sorted(scan.voxels.items()) if number not in scan.accepted}
        going = {number: track.voxels for number, track in self.tracks.items() if track.merged_into is None}
        pairs = compare(going, accepted, self.side_mm)
        matched = assign(pairs)
        track_of = {lesion: track for track, lesion in matched.items()}
        left = {}
        for number, track in sorted(self.tracks.items()):
            if track.merged_into is not None:
                track.places.append(Place("merged"))
            elif number in matched:
                self._seen(number, date, matched[number], scan)
            elif whole := _largest(
                {other: pair for (one, other), pair in pairs.items() if one == number}, "of_earlier"
            ):
                track.merged_into = track_of[whole]
                track.places.append(Place("merged"))
                self.events.append(Event(date, "merge", number, track.merged_into))
            else:
                left[number] = track.voxels
        below = assign(compare(left, others, self.side_mm))
        for number in left:
            self._unseen(number, date, below.get(number), scan)
        self._begin(date, scan, pairs, track_of)

    def _seen(self, number: int, date: int, lesion: int, scan: Scan) -> None:
        track = self.tracks[number]
        if self._last(track) in ("absent", "below"):
            self.events.append(Event(date, "return", number))
        track.places.append(Place("measured", lesion))
        track.voxels = scan.voxels[lesion]

    def _unseen(self, number: int, date: int, candidate: int | None, scan: Scan) -> None:
        track = self.tracks[number]
        if candidate is not None:
            place = Place("below", candidate)
        else:
            place = Place("absent" if _reaches(scan, track.voxels) else "not evaluable")
        kinds: dict[State, Kind] = {"below": "below", "absent": "vanishing"}
        if place.state in kinds and self._last(track) != place.state:
            self.events.append(Event(date, kinds[place.state], number))
        track.places.append(place)

    def _last(self, track: _Track) -> State | None:
        """The state at the last date at which it was evaluable."""
        return next((place.state for place in reversed(track.places) if place.state != "not evaluable"), None)

    def _begin(self, date: int, scan: Scan, pairs: Pairs, track_of: Mapping[int, int]) -> None:
        """Tracks of the lesions that no earlier one goes on in."""
        unmatched = {number: scan.voxels[number] for number in sorted(scan.accepted) if number not in track_of}
        wholes = {
            number: _largest({one: pair for (one, other), pair in pairs.items() if other == number}, "of_later")
            for number in unmatched
        }
        born = {number: voxels for number, voxels in unmatched.items() if wholes[number] is None}
        before = self._pointed_at(date, born)
        first = all(earlier is None for earlier in self.scans[:date])
        for number, voxels in unmatched.items():
            track = len(self.tracks) + 1
            places = [
                Place("below", before[number][earlier])
                if earlier in before.get(number, {})
                else Place("absent" if _reaches(self.scans[earlier], voxels) else "not evaluable")
                for earlier in range(date)
            ]
            self.tracks[track] = _Track([*places, Place("measured", number)], voxels, wholes[number])
            if first:
                continue
            if wholes[number] is not None:
                self.events.append(Event(date, "split", track, wholes[number]))
            elif before[number]:
                self.events.append(Event(date, "pointed at", track))
            elif all(place.state == "not evaluable" for place in places):
                self.events.append(Event(date, "first reached", track))
            else:
                self.events.append(Event(date, "birth", track))
                self.new[date].append(track)

    def _pointed_at(self, date: int, born: Mapping[int, Voxels]) -> dict[int, dict[int, int]]:
        """By lesion of ``born``, by earlier date, the candidate below the operating point that lay there."""
        found: dict[int, dict[int, int]] = {number: {} for number in born}
        for earlier, scan in enumerate(self.scans[:date]):
            if scan is None:
                continue
            taken = {track.places[earlier].lesion for track in self.tracks.values()}
            free = {
                number: voxels
                for number, voxels in sorted(scan.voxels.items())
                if number not in scan.accepted and number not in taken
            }
            for candidate, number in assign(compare(free, born, self.side_mm)).items():
                found[number][earlier] = candidate
        return found


def follow(scans: Sequence[Scan | None], side_mm: float) -> Tracks:
    """The tracks over ``scans``, one per date in their order; None stands for a date without a usable scan.

    Tracks are numbered by the date at which they begin, and within it by the lesions' numbers: the order in which a
    date's lesions are given does not matter. A track is one accepted lesion at one date at least; candidates that stay
    below the operating point at all dates are in none. No lesion at any date gives no track.
    """
    following = _Following(side_mm, scans)
    for date in range(len(scans)):
        following.step(date)
    tracks = following.tracks
    joined = Joined(
        {number: track.split_from for number, track in tracks.items() if track.split_from is not None},
        {number: track.merged_into for number, track in tracks.items() if track.merged_into is not None},
    )
    places = {number: track.places for number, track in tracks.items()}
    return Tracks(places, sorted(following.events, key=lambda event: (event.date, event.track)), joined, following.new)


def _largest(pairs: Mapping[int, Pair], share: Literal["of_earlier", "of_later"]) -> int | None:
    """The number whose pair has the largest share, if that is ``PART`` or more; of equal ones the lowest."""
    shares = {number: getattr(pair, share) for number, pair in pairs.items()}
    best = max(shares, key=lambda number: (shares[number], -number), default=None)
    return best if best is not None and shares[best] >= PART else None


def _reaches(scan: Scan | None, voxels: Voxels) -> bool:
    if scan is None:
        return False
    if scan.reach is None:
        return True
    places = voxels - np.asarray(scan.origin)
    inside = ((places >= 0) & (places < scan.reach.shape)).all(axis=1)
    return float(scan.reach[tuple(places[inside].T)].sum()) >= REACHED * len(voxels)
