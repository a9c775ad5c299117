"""What a reader decides of each candidate of a screened scan: kept beside the result, never over it.

``reading.json`` is a history that only grows: each decision has its time, what was decided, and the hash of the record
(``screening.json``) that it refers to. The latest decision on a lesion counts. Decisions on another result, because
the scan was screened anew since, stay in the file and are not applied; ``Reading.sentence`` says so. The reader's name
is not asked for and not kept: the file says what was decided, not by whom.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Literal, get_args

from brainmets import nifti, provenance
from brainmets.files import read_json, write_json
from brainmets.paths import ScreeningPaths
from brainmets.processes import BusyError, locked
from brainmets.screening import extent, lesions
from brainmets.screening.extent import ReadingError as ReadingError  # what other modules import from here
from brainmets.screening.result import read as read_result

Verdict = Literal["accepted", "rejected", "corrected"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
Step = Literal["accepted", "rejected", "corrected", "added", "withdrawn"]
"""A line of the history: a verdict, a lesion that the model missed, or that an earlier decision is taken back."""
SCHEMA = 1
PATIENCE_SECONDS = 5.0
"""How long a decision waits for another process that is saving one."""


@dataclass(frozen=True)
class Decision:
    """One line of the history.

    ``lesion``: the number in ``lesions.csv``; of an added lesion the first that is free. ``result``: SHA-256 of the
    record. ``time``: UTC, ISO 8601. ``threshold``: the probability from which on the corrected lesion's voxels are
    its own, or None. ``mask``: name (in ``ScreeningPaths.reading_masks``) and SHA-256 of its outline, or None.
    ``place_mm``: of an added lesion, RAS+.
    """

    lesion: int
    verdict: Step
    time: str
    result: str
    threshold: float | None = None
    mask: tuple[str, str] | None = None
    place_mm: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Reading:
    """The decisions that count for the result as it stands.

    ``result``: SHA-256 of its record. ``accepted`` and ``below``: the numbers of its lesions and of its candidates
    below the operating point. ``history``: every line of ``reading.json``, of other results too.
    """

    result: str
    accepted: tuple[int, ...]
    below: tuple[int, ...]
    history: tuple[Decision, ...]

    @property
    def decisions(self) -> dict[int, Decision]:
        """The latest decision by lesion, in the order of their numbers; of added lesions too."""
        latest = {one.lesion: one for one in self.history if one.result == self.result}
        return {number: latest[number] for number in sorted(latest) if latest[number].verdict != "withdrawn"}

    @property
    def candidates(self) -> tuple[int, ...]:
        """The numbers of all that the model found, above the operating point and below."""
        return (*self.accepted, *self.below)

    @property
    def added(self) -> dict[int, Decision]:
        """The lesions that the reader added, by number."""
        return {number: one for number, one in self.decisions.items() if number not in self.candidates}

    @property
    def undecided(self) -> tuple[int, ...]:
        """The candidates without a decision."""
        decided = self.decisions
        return tuple(number for number in self.candidates if number not in decided)

    @property
    def complete(self) -> bool:
        """Whether every candidate is decided; also where there is none."""
        return not self.undecided

    @property
    def of_another_result(self) -> int:
        """How many lines of the history refer to another result: the scan was screened anew since."""
        return sum(one.result != self.result for one in self.history)

    @property
    def left(self) -> tuple[int, ...]:
        """What is a lesion after the reading: not rejected, and accepted by the reader or, undecided, by the model."""
        decided = self.decisions
        kept = [
            n for n in self.candidates if (decided[n].verdict != "rejected" if n in decided else n in self.accepted)
        ]
        return (*kept, *self.added)

    @property
    def sentence(self) -> str:
        """The state of the reading in words."""
        decided = [self.decisions[number].verdict for number in self.candidates if number in self.decisions]
        counted = ", ".join(f"{decided.count(verdict)} {verdict}" for verdict in VERDICTS)
        n = len(self.candidates)
        left = len(self.undecided)
        text = f"{n} candidate{'s' * (n != 1)}: {counted}, {left} not decided; {len(self.added)} added by the reader."
        if old := self.of_another_result:
            which, are = ("decision refers", "it is") if old == 1 else ("decisions refer", "they are")
            text += (
                f" {old} earlier {which} to another result, from before the scan was screened anew: {are} kept and "
                "not applied."
            )
        return text


# --- reading the file ------------------------------------------------------------------------------------------------


def read(files: ScreeningPaths) -> Reading:
    """The reading of a result; one without decisions where there is no ``reading.json``.

    Raises ``ReadingError`` for a ``reading.json`` that holds something else, ``FileNotFoundError`` where there is no
    result, ``TableError`` for a lesion table that is not as ``schemas.SCREENED`` says.
    """
    result = provenance.sha256(files.record)
    accepted: tuple[int, ...] = ()
    below: tuple[int, ...] = ()
    if files.table.is_file():
        table = lesions.read(files)
        accepted = tuple(map(int, table.loc[table["accepted"], "lesion"]))
        below = tuple(map(int, table.loc[~table["accepted"], "lesion"]))
    return Reading(result, accepted, below, _history(files))


def _history(files: ScreeningPaths) -> tuple[Decision, ...]:
    if not files.reading.is_file():
        return ()
    try:
        content = read_json(files.reading)
    except ValueError as error:
        raise ReadingError(f"{files.reading} cannot be read: move it away, or restore it from a backup") from error
    if content.get("schema") != SCHEMA:
        raise ReadingError(
            f"{files.reading}: schema {content.get('schema')!r} is not {SCHEMA}: it was written by another release, "
            "or not by BrainMets; read it with that release, or move it away"
        )
    if content.get("case") != files.case:
        raise ReadingError(
            f"{files.reading} is of case {content.get('case')!r}, not of {files.case!r}: put it back into that case's "
            "folder"
        )
    lines = content.get("history")
    if not isinstance(lines, list):
        raise ReadingError(f"{files.reading}: history is no list: move it away, or restore it from a backup")
    return tuple(_line(files.reading, number, line) for number, line in enumerate(lines, start=1))


def _line(path: Path, number: int, line: Any) -> Decision:
    """One line of the history, every value held to its type."""
    try:
        mask, place, threshold = line["mask"], line["place_mm"], line["threshold"]
        found = Decision(
            _whole(line["lesion"]),
            _one_of(line["verdict"], get_args(Step)),
            _text(line["time"]),
            _text(line["result"]),
            None if threshold is None else _finite(threshold),
            None if mask is None else (_file_name(mask["file"]), _text(mask["sha256"])),
            None if place is None else _place(place),
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ReadingError(
            f"{path}, decision {number} is not as it was written ({type(error).__name__}: {error}): move the file "
            "away, or restore it from a backup"
        ) from error
    return found


def _whole(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{value!r} is no lesion's number")
    return value


def _one_of(value: Any, known: Sequence[Any]) -> Any:
    if value not in known:
        raise ValueError(f"{value!r} is none of {', '.join(known)}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)


def _file_name(value: Any) -> str:
    """A name without a folder: a file from elsewhere must not point at others."""
    name = _text(value)
    if Path(name).name != name or name in ("", ".", ".."):
        raise ValueError(f"{name!r} is no file's name")
    return name


def _place(value: Any) -> tuple[float, float, float]:
    x, y, z = (_finite(part) for part in value)
    return x, y, z


# --- deciding --------------------------------------------------------------------------------------------------------


def decide(
    files: ScreeningPaths,
    lesion: int,
    verdict: Verdict,
    *,
    threshold: float | None = None,
    mask: Path | None = None,
    result: str | None = None,
) -> Reading:
    """Save what the reader decided of a candidate; gives the reading with it.

    "corrected" needs either ``threshold`` (a probability: the lesion is what is connected to the candidate from there
    on, see ``extent.at``) or ``mask`` (a label map that the reader saved, see ``extent.drawn``); an outline that has
    no voxel in common with the candidate is refused. ``result`` is the record's hash that the reader has seen: a scan
    that was screened anew since is refused. Raises ``ReadingError``, and ``BusyError`` where another process holds the
    reading for longer than ``PATIENCE_SECONDS``.
    """
    if verdict not in VERDICTS:
        raise ReadingError(f"verdict: {verdict!r} is none of {', '.join(VERDICTS)}")
    given = [name for name, value in (("threshold", threshold), ("mask", mask)) if value is not None]
    if verdict == "corrected" and len(given) != 1:
        raise ReadingError("corrected: give either threshold or mask, which says where the lesion is")
    if verdict != "corrected" and given:
        raise ReadingError(f"{verdict}: takes no {' and no '.join(given)}; a lesion with another extent is corrected")
    with _writing(files, result) as reading:
        if lesion not in reading.candidates:
            known = ", ".join(map(str, reading.candidates)) or "none"
            raise ReadingError(f"lesion: {lesion} is no candidate of {files.case}; candidates are {known}")
        kept = None
        if threshold is not None:
            extent.at(files, lesion, threshold)  # refused here, not later
        if mask is not None:
            kept = _kept(files, lesion, extent.drawn(files, mask, lesion))
        return _append(files, reading, Decision(lesion, verdict, _now(), reading.result, threshold, kept))


def add(
    files: ScreeningPaths,
    place_mm: Sequence[float],
    *,
    mask: Path | None = None,
    result: str | None = None,
) -> Reading:
    """Save a lesion that the model missed, at a place in mm (RAS+), with its outline or without.

    Its number is the first that neither the result nor an added lesion has. Raises ``ReadingError`` as ``decide``
    does, and for a place outside the image.
    """
    place = _place_in(files, place_mm)
    with _writing(files, result) as reading:
        taken = [0, *reading.candidates, *(one.lesion for one in reading.history if one.result == reading.result)]
        number = max(taken) + 1
        kept = None if mask is None else _kept(files, number, extent.drawn_at(files, mask, place))
        return _append(files, reading, Decision(number, "added", _now(), reading.result, None, kept, place))


def withdraw(files: ScreeningPaths, lesion: int, *, result: str | None = None) -> Reading:
    """Take the latest decision on a lesion back: a candidate is undecided again, an added lesion is none.

    Both stay in the history. Raises ``ReadingError`` for a lesion without a decision.
    """
    with _writing(files, result) as reading:
        if lesion not in reading.decisions:
            raise ReadingError(f"lesion: {lesion} has no decision that could be taken back")
        return _append(files, reading, Decision(lesion, "withdrawn", _now(), reading.result))


def _place_in(files: ScreeningPaths, place_mm: Sequence[float]) -> tuple[float, float, float]:
    try:
        place = _place(place_mm)
    except (TypeError, ValueError):
        raise ReadingError(f"place_mm: {place_mm!r} must be three numbers in mm (right, front, top)") from None
    grid = nifti.read_scan_grid(files.t1c)
    if not extent.inside(place, grid):
        shown = ", ".join(f"{part:g}" for part in place)
        raise ReadingError(f"place_mm: ({shown}) lies outside {files.t1c.name} (mm from right, front, top)")
    return place


@contextmanager
def held(files: ScreeningPaths) -> Iterator[None]:
    """Hold the reading for the length of the block; ``BusyError`` where another process does for too long."""
    end = time.monotonic() + PATIENCE_SECONDS
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(files.reading_lock, f"the reading of {files.case}"))
                break
            except BusyError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        yield


@contextmanager
def _writing(files: ScreeningPaths, result: str | None) -> Iterator[Reading]:
    """The reading as it stands, for one process at a time; the result must be whole."""
    with held(files):
        read_result(files.folder)
        reading = read(files)
        if result is not None and result != reading.result:
            raise ReadingError(
                f"{files.case} was screened anew since it was opened: nothing was saved; open the new result"
            )
        yield reading


def _append(files: ScreeningPaths, reading: Reading, decision: Decision) -> Reading:
    after = Reading(reading.result, reading.accepted, reading.below, (*reading.history, decision))
    content: Mapping[str, Any] = {
        "schema": SCHEMA,
        "case": files.case,
        "notice": "research use only; no reader's name is kept",
        "history": [
            {
                "time": one.time,
                "result": one.result,
                "lesion": one.lesion,
                "verdict": one.verdict,
                "threshold": one.threshold,
                "mask": None if one.mask is None else {"file": one.mask[0], "sha256": one.mask[1]},
                "place_mm": None if one.place_mm is None else list(one.place_mm),
            }
            for one in after.history
        ],
    }
    write_json(files.reading, content)
    for outdated in (files.reading_table, files.reading_labels, files.reading_numbers):
        outdated.unlink(missing_ok=True)  # they show the reading before; ``left.write`` makes them anew
    return after


def _kept(files: ScreeningPaths, lesion: int, drawn: extent.Outline) -> tuple[str, str]:
    """A file of its own for an outline, under a name that is free; gives its name and hash."""
    names = (files.reading_masks / f"lesion_{lesion:03d}-{n}.nii.gz" for n in count(1))
    path = next(free for free in names if not free.exists())
    nifti.write(path, drawn.labels, drawn.affine)
    return path.name, provenance.sha256(path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
