"""The key file: which patient and which scan a case's new name stands for.

It alone holds patients' identifiers. It belongs to the user (mode 0600) and lies outside the cohort. No message speaks
of an identifier or a date; rows are named by their number.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from brainmets.cohorts import spreadsheet
from brainmets.processes import BusyError, locked

COLUMNS = ("patient", "date", "case")
"""Of a key to raw scans: the patient's identifier, the scan's date, the case's new name."""
Scan = tuple[str, str]
"""A patient's identifier, and what tells the patient's scans apart: a raw scan's date, a prepared one's name."""

RESTORE = "restore it from a backup (a new key would give the patients other names)"


class Key:
    """The new names of cases, ``<prefix>-00001-000``: five digits for the patient, three for the time point.

    Make one with ``open``.
    """

    def __init__(self, path: Path, prefix: str, columns: tuple[str, str, str] = COLUMNS) -> None:
        self._path = path
        self._prefix = prefix
        self._columns = columns

    @classmethod
    def open(cls, path: Path, folder_of_cohort: Path, prefix: str, columns: tuple[str, str, str] = COLUMNS) -> Key:
        """The key at ``path``, which need not exist yet; a file that is there is checked.

        ``columns`` are the names of its columns: of the patient, of the scan, and of the case's new name.

        Raises ``ValueError`` where it lies in the cohort's folder, is a link or no file, belongs to another user, can
        be read by others, or is damaged; and for a prefix that is no part of a name.
        """
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", prefix):
            raise ValueError(
                f"prefix: {prefix!r} does not begin with a letter and go on with letters, digits, - and _"
            )
        # of a link the place where it stands counts, not the file that it points to
        place = path.parent.resolve() / path.name
        if place.is_relative_to(folder_of_cohort.resolve()):
            raise ValueError(
                f"the key file {path.name} lies in the cohort's folder, which is handed on: "
                "give it a place outside, in a folder of your own"
            )
        key = cls(path, prefix, columns)
        key._read()
        return key

    def names(self, scans: Iterable[Scan], order: Callable[[str], str] | None = None) -> dict[Scan, str]:
        """The case of each scan, new ones added to the key file.

        Known scans keep their names. New patients are numbered after the highest number, in the order of what
        ``order`` makes of their identifiers (None: a hash of them), which tells neither alphabet nor date; the scans
        of a new patient by date from 000, a new one of a known patient after that patient's highest, whenever it was.
        The same scans without a key file give the same names. Raises ``ValueError`` for a damaged key or a scan
        without identifier, ``BusyError`` where another process uses the key.
        """
        wanted = _wanted(scans)
        try:
            with locked(self._path.with_name(f".{self._path.name}.lock"), "the key file"):
                known = self._read()
                named = self._named(known, wanted, order or _hash)
                if named != known:
                    cells = sorted(((*scan, case) for scan, case in named.items()), key=lambda row: row[-1])
                    rows = [dict(zip(self._columns, row, strict=True)) for row in cells]
                    spreadsheet.write(self._path, self._columns, rows)
        except BusyError:
            raise BusyError(
                f"the key file {self._path.name} is in use by another process: wait until it ends, then run again"
            ) from None
        return {scan: named[scan] for scan in wanted}

    def proposed(self, scans: Iterable[Scan]) -> dict[Scan, str]:
        """The names that ``names`` would give, with nothing written."""
        wanted = _wanted(scans)
        named = self._named(self._read(), wanted, _hash)
        return {scan: named[scan] for scan in wanted}

    def known(self) -> dict[Scan, str]:
        """The case of each scan that has one already; empty without a key file."""
        return self._read()

    def _named(self, known: dict[Scan, str], wanted: list[Scan], order: Callable[[str], str]) -> dict[Scan, str]:
        _require_no_lost_zeros(self._path.name, known, wanted)
        return self._extended(known, wanted, order)

    def _extended(self, known: dict[Scan, str], wanted: list[Scan], order: Callable[[str], str]) -> dict[Scan, str]:
        named = dict(known)
        numbers = {patient: self._numbers(case)[0] for (patient, _), case in known.items()}
        highest = max(numbers.values(), default=0)
        new = {patient for patient, _ in wanted} - set(numbers)
        numbers |= {patient: highest + place for place, patient in enumerate(sorted(new, key=order), start=1)}
        time_points: dict[str, int] = {}
        for (patient, _), case in known.items():
            time_points[patient] = max(time_points.get(patient, -1), self._numbers(case)[1])
        for patient, date in wanted:
            if (patient, date) not in named:
                time_points[patient] = time_points.get(patient, -1) + 1
                named[patient, date] = f"{self._prefix}-{numbers[patient]:05d}-{time_points[patient]:03d}"
        return named

    def _numbers(self, case: str) -> tuple[int, int]:
        """Patient and time point of a case's name."""
        patient, time_point = case.removeprefix(f"{self._prefix}-").split("-")
        return int(patient), int(time_point)

    def _read(self) -> dict[Scan, str]:
        name = self._path.name
        text = _private_text(self._path)
        if text is None:
            return {}
        if text.startswith("\ufeff") or "\r\n" in text.partition("\n")[0] + "\n" or ";" in text.partition("\n")[0]:
            raise ValueError(
                f"the key file {name} has been saved by a spreadsheet, which drops leading zeros and rewrites dates: "
                f"{RESTORE}"
            )
        try:
            rows = spreadsheet.rows_of(text, self._columns, f"the key file {name}")
        except csv.Error:
            raise ValueError(f"the key file {name} is no table: {RESTORE}") from None
        except ValueError:
            raise ValueError(
                f"the key file {name} lacks one of the columns {', '.join(self._columns)}: {RESTORE}"
            ) from None
        known: dict[Scan, str] = {}
        patients: dict[str, tuple[int, str]] = {}
        for number, row in rows:
            patient, which, case = (row[column] for column in self._columns)
            scan = (patient, which)
            if (found := re.fullmatch(r"(.+)-\d{5,}-\d{3,}", case)) and found[1] != self._prefix:
                raise ValueError(
                    f"the key file {name} was made with the prefix {found[1]!r}, not {self._prefix!r}: keep the "
                    "prefix, or name another key file (its cases get other names)"
                )
            if fault := self._fault(scan, case, known, patients):
                raise ValueError(f"the key file {name}, row {number}: {fault}; it has been changed by hand: {RESTORE}")
            known[scan] = case
        return known

    def _fault(self, scan: Scan, case: str, known: dict[Scan, str], patients: dict[str, tuple[int, str]]) -> str:
        """What is wrong with a row, "" nothing; ``patients`` (number and identifier) is filled on the way."""
        form = rf"{re.escape(self._prefix)}-(\d{{5,}})-\d{{3,}}"
        found = re.fullmatch(form, case)
        if not scan[0].strip():
            return "the patient's identifier is missing"
        if not found:
            return f"the case's name does not have the form {self._prefix}-00001-000"
        if case in known.values():
            return "the case's name stands in another row too"
        if scan in known:
            return "its scan stands in another row too"
        number = int(found[1])
        if patients.setdefault(f"number {number}", (number, scan[0]))[1] != scan[0]:
            return "its patient's number is that of another patient"
        if patients.setdefault(f"patient {scan[0]}", (number, scan[0]))[0] != number:
            return "its patient has another number in another row"
        return ""


def _wanted(scans: Iterable[Scan]) -> list[Scan]:
    """Each scan once, by date; ``ValueError`` where one has no patient."""
    wanted = sorted(set(scans), key=lambda scan: _natural(scan[1]))
    if nameless := sum(not patient.strip() for patient, _ in wanted):
        raise ValueError(
            f"{nameless} scan(s) have no patient identifier, so that two patients could become one: "
            "write PatientID into their headers, or leave them out of the raw folder"
        )
    return wanted


def _private_text(path: Path) -> str | None:
    """The text of a file that is the user's own and nobody else's to read; None where there is none."""
    name = path.name
    try:
        # a link is not followed, and a pipe does not block
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError:
        raise ValueError(
            f"the key file {name} cannot be opened, or is a link: name the file itself, one that you may read"
        ) from None
    try:
        _require_own(os.fstat(handle), name)
        with open(handle, "rb", closefd=False) as file:
            return file.read().decode("utf-8", errors="surrogateescape")
    finally:
        os.close(handle)


def _require_own(state: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise ValueError(f"the key file {name} is no file: give the key another name")
    if state.st_uid != os.getuid():
        raise ValueError(f"the key file {name} belongs to another user: use one of your own")
    if state.st_mode & 0o077:
        raise ValueError(
            f"the key file {name} can be used by others than you (mode {stat.S_IMODE(state.st_mode):04o}): "
            f"run `chmod 600 {name}` in its folder, and ask who may have read it"
        )


def _require_no_lost_zeros(name: str, known: Iterable[Scan], wanted: Iterable[Scan]) -> None:
    """A spreadsheet makes 7 of the identifier 007: the patient would get a second name."""
    patients = {patient for patient, _ in known}
    bare = {patient.lstrip("0") for patient in patients}
    if any(patient not in patients and patient.lstrip("0") in bare for patient, _ in wanted):
        raise ValueError(
            f"the key file {name}: an identifier of the raw data differs from one in the key by leading zeros alone, "
            f"which a spreadsheet may have dropped: {RESTORE}; if they are two patients, change PatientID of one"
        )


def _hash(patient: str) -> str:
    return hashlib.sha256(patient.encode("utf-8", errors="surrogateescape")).hexdigest()


def _natural(date: str) -> list[tuple[int, int, str]]:
    """Numbers in a date or a folder's name by value: "visit 2" comes before "visit 10"."""
    parts = re.findall(r"\d+|\D+", date)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]
