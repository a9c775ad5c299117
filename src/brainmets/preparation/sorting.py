"""Whose scans a raw folder holds, what the cases are called from now on, and which files each is made from.

The sorting reads headers alone, and writes the key file, ``series.csv`` (what each series was taken for, for a person
to correct), ``findings.csv`` and, last, ``plan.json`` into the preparation's folder, which is the user's own (0700).
Started again it reads the folder anew only where something in it, the key, a role or the parameters have changed.
"""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from brainmets import tables
from brainmets.cohorts.cohort import listed_lesion_free
from brainmets.cohorts.key import Key
from brainmets.files import read_json, shaped, write_json
from brainmets.params import Cohort, Raw
from brainmets.paths import PreparationPaths, resolve
from brainmets.phantoms import sites
from brainmets.phantoms.scanner import make_scanner_cohort
from brainmets.preparation import raw as scans_on_disk
from brainmets.preparation import series as series_table
from brainmets.preparation import tree
from brainmets.preparation.quality import REFERENCE
from brainmets.preparation.scans import Finding, Series
from brainmets.processes import locked
from brainmets.vocabulary import SEQUENCES

SAID = 12
"""Problems that a message repeats; the tables have them all."""
Say = Callable[[str], None]


class SortingError(ValueError):
    """Raw scans that cannot be prepared as they are; the message says which and what to do."""


@dataclass(frozen=True)
class Planned:
    """One case to prepare: its series by sequence, label map and brain mask if there are, a hash of their state."""

    case: str
    images: dict[str, Series]
    label: Path | None
    brain_mask: Path | None
    digest: str


@dataclass(frozen=True)
class Sorted:
    """What a look at a raw folder gives; nothing is written yet.

    ``scans`` are those that were found, by patient and date; ``table`` is ``series.csv``; ``problems`` are what stops
    the preparation, in words; ``undecided`` holds those of them that are one case's alone.
    """

    scans: list[tuple[str, str]]
    plan: dict[str, Planned]
    table: pd.DataFrame
    findings: list[Finding]
    problems: list[str]
    undecided: dict[str, str]

    def require_no_problems(self, files: PreparationPaths) -> None:
        """Raise ``SortingError`` that lists the problems, and where a person decides them."""
        if self.problems:
            shown = "\n".join(f"  {problem}" for problem in self.problems[:SAID])
            more = f"\n  and {len(self.problems) - SAID} more" if len(self.problems) > SAID else ""
            raise SortingError(
                f"{len(self.problems)} scan(s) or file(s) to decide on before these can be prepared:\n{shown}{more}\n"
                "Correct the column `role` of series.csv, mend the files, or leave the case out (raw.left_out, on the "
                f"command line --left-out). {_where(files)}"
            )


def make_phantoms(declaration: Cohort, say: Say) -> None:
    """Make what a cohort of phantoms asks for: the prepared ones first, which claim the folder, then the raw."""
    sites.make_declared(declaration, progress=say)
    if declaration.raw and declaration.raw.phantoms:
        folder = resolve(declaration.raw.folder)
        make_scanner_cohort(folder, **declaration.raw.phantoms.model_dump(), progress=say)


def sort(declaration: Cohort, files: PreparationPaths, say: Say) -> dict[str, Planned]:
    """The cases of a cohort's raw folder, by name; what is needed for it is written.

    Phantoms are made first. ``say`` is told of progress. Raises ``SortingError`` where a person must decide, and
    ``BusyError`` where another process sorts.
    """
    make_phantoms(declaration, say)
    raw = raw_of(declaration)
    listing = _listing(raw)  # before the look: what comes while it lasts calls for another
    if files.plan.is_file() and read_json(files.plan).get("state") == _state(declaration, files, listing):
        return read_plan(files)
    own_folder(files.folder)
    with locked(files.folder / ".sorting.lock", "the sorting of these raw scans"):
        found = look(declaration, files, say)
        _key(declaration, raw, files).names(found.scans)
        _write(found, files)
        found.require_no_problems(files)
        _write_plan(found, files, _state(declaration, files, listing))
    return found.plan


def sort_each(declaration: Cohort, files: PreparationPaths, say: Say) -> tuple[dict[str, Planned], dict[str, str]]:
    """The cases that can be prepared, by name, and the others with what a person must decide or mend.

    As ``sort``, for scans that have nothing to do with one another: an undecided one does not stop the rest. Raises
    ``SortingError`` for a problem that is not one case's alone, and ``BusyError`` where another process sorts.
    """
    raw = raw_of(declaration)
    listing = _listing(raw)
    if files.plan.is_file() and read_json(files.plan).get("state") == _state(declaration, files, listing):
        return read_plan(files), {}
    own_folder(files.folder)
    with locked(files.folder / ".sorting.lock", "the sorting of these raw scans"):
        found = look(declaration, files, say)
        _key(declaration, raw, files).names(found.scans)
        _write(found, files)
        if set(found.problems) - set(found.undecided.values()):
            found.require_no_problems(files)
        _write_plan(found, files, "undecided" if found.undecided else _state(declaration, files, listing))
    return found.plan, found.undecided


def planned(declaration: Cohort, files: PreparationPaths, case: str, say: Say) -> Planned:
    """One case; the raw folder is sorted only where this case, or its roles in ``series.csv``, are not as planned.

    Raises as ``sort``, and ``SortingError`` where there is no such case.
    """
    if files.plan.is_file() and (known := read_plan(files).get(case)) is not None:
        with suppress(ValueError, OSError):
            sequences, may_lack = wanted(declaration)
            chosen = series_table.choose(series_table.read(files.series), case, sequences, may_lack)
            if known.digest == _digest(chosen, known):
                return known
    plan = sort(declaration, files, say)
    if case not in plan:
        raise SortingError(f"case: {case!r} is none of the raw scans' ({', '.join(sorted(plan))})")
    return plan[case]


def look(declaration: Cohort, files: PreparationPaths, say: Say) -> Sorted:
    """Read the raw folder's headers, without writing anything; what ``series.csv`` says by hand rules."""
    raw = raw_of(declaration)
    folder = resolve(raw.folder)
    if not folder.is_dir():
        raise SortingError(f"raw.folder: {raw.folder!r} is no folder; put the folder of the raw scans there")
    _refuse_overlap(declaration, raw, files)
    sequences, may_lack = wanted(declaration)
    found, findings = scans_on_disk.find(folder, say)
    set_apart = {path for pattern in (raw.labels, raw.brain_masks) for path in _matching(folder, pattern)}
    found = [one for one in found if not set_apart & set(one.files)]
    scans = _by_scan(found)
    names = _key(declaration, raw, files).proposed(scans)
    tables = [series_table.guess(scan, sequences).assign(case=names[who]) for who, scan in scans.items()]
    table = pd.concat(tables, ignore_index=True) if tables else series_table.empty()
    if files.series.is_file():
        table, changed = series_table.merge(series_table.read(files.series), table, sequences)
        findings = [*findings, *changed]
    by_case = {names[who]: (who, scan) for who, scan in scans.items()}
    lesion_free = listed_lesion_free(declaration)
    undecided: dict[str, str] = {}
    plan, problems = {}, [finding.text for finding in findings if finding.severity == "error"]
    if not by_case and not problems:
        problems.append(f"raw.folder: {raw.folder!r} holds no scan of the head that can be read")
    prepared = {path.name for path in files.cases.glob("*")}
    if unknown := sorted({*raw.left_out, *raw.accepted} - set(by_case) - prepared):
        problems.append(f"left_out, accepted (--left-out, --accepted): {', '.join(unknown)}: there is no such case")
    for case in sorted(set(by_case) - set(raw.left_out)):
        who, scan = by_case[case]
        try:
            plan[case] = _planned(case, scan, table, folder, declaration, who, case in lesion_free)
        except ValueError as error:
            undecided[case] = str(error)
            continue
        findings += [
            Finding("warning", case, 0, f"case {case}: {series_table.lacking_in_words(name, candidates)}")
            for name, candidates in series_table.lacking(table, case, may_lack).items()
        ]
    problems += undecided.values()
    problems += [*_shared_files(plan), *_split_patients(declaration, names)]
    problems += _in_the_way(plan, declaration, prepared)
    return Sorted(list(scans), plan, table, findings, problems, undecided)


def read_plan(files: PreparationPaths) -> dict[str, Planned]:
    """The cases as the last sorting wrote them. Raises ``FileNotFoundError`` where there was none."""
    return _planned_cases(files.plan)


@shaped
def _planned_cases(plan: Path) -> dict[str, Planned]:
    return {
        case: Planned(
            case=case,
            images={sequence: _series(entry) for sequence, entry in planned["images"].items()},
            label=Path(planned["label"]) if planned["label"] else None,
            brain_mask=Path(planned["brain_mask"]) if planned["brain_mask"] else None,
            digest=planned["digest"],
        )
        for case, planned in read_json(plan)["cases"].items()
    }


def _where(files: PreparationPaths) -> str:
    if not files.series.is_file():
        return "series.csv is written by a run that is not dry"
    return f"Every series is in {files.series}, every finding in {files.findings}"


def _refuse_overlap(declaration: Cohort, raw: Raw, files: PreparationPaths) -> None:
    """Raw scans are read and never changed, and what is private lies neither among them nor in the cohort."""
    places = {"raw.folder": resolve(raw.folder), "the cohort's folder": resolve(declaration.folder)}
    places["the private folder"] = files.folder
    named = [(name, path.resolve()) for name, path in places.items()]
    for number, (name, path) in enumerate(named):
        for other, place in named[:number]:
            if path.is_relative_to(place) or place.is_relative_to(path):
                raise SortingError(f"{other} and {name} lie one within the other: give each a place of its own")


# --- one case ----------------------------------------------------------------------------------------------------


def _planned(
    case: str,
    scan: list[Series],
    table: pd.DataFrame,
    folder: Path,
    declaration: Cohort,
    who: tuple[str, str],
    lesion_free: bool,
) -> Planned:
    """Raises ``ValueError`` where the roles are undecided or a file is missing (a lesion-free case needs no label)."""
    raw, (sequences, may_lack) = raw_of(declaration), wanted(declaration)
    try:
        chosen = series_table.choose(table, case, sequences, may_lack)
    except series_table.UncertainError as error:
        raise SortingError(f"{error}{_why_none_fits(scan, table[table.case == case])}") from None
    by_number = {one.number: one for one in scan}
    images = {sequence: by_number[number] for sequence, number in chosen.items()}
    for sequence, one in images.items():
        if not one.usable:
            without = f"; empty its role, since {sequence} may be lacking" if sequence in may_lack else ""
            why = "; ".join(one.problems)
            raise SortingError(f"case {case}: series {one.number}, chosen as {sequence}: {why}{without}")
    label = None
    with suppress(SortingError) if lesion_free else nullcontext():
        why = "no label map (list a patient without lesions in the table of `lesion_free`)"
        label = file_of(folder, raw.labels, who, f"case {case}: {why}: raw.labels")
    mask = file_of(folder, raw.brain_masks, who, f"case {case}: no brain mask: raw.brain_masks")
    found = Planned(case, images, label, mask, "")
    return replace(found, digest=_digest(chosen, found))


def _digest(chosen: Mapping[str, int], planned: Planned) -> str:
    """A hash of the roles and of the state of the files that a case is made from."""
    used = [path for one in planned.images.values() for path in one.files]
    used += [path for path in (planned.label, planned.brain_mask) if path]
    state = json.dumps([dict(chosen), [_stat(path) for path in used]], sort_keys=True)
    return hashlib.sha256(state.encode()).hexdigest()


def file_of(folder: Path, pattern: str | None, who: tuple[str, str], problem: str) -> Path | None:
    """The label map or mask of a patient's scan by its pattern; none without a pattern.

    A slash in an identifier or date is "_" in the file's name. Raises ``SortingError`` where there is no such file.
    """
    if pattern is None:
        return None
    patient, date = (re.sub(r"[/\\\0]", "_", text) for text in who)
    path = folder / pattern.replace("{patient}", patient).replace("{date}", date)
    if not path.is_file():
        raise SortingError(f"{problem} {pattern!r} finds no file for it; add the file or correct the pattern")
    return path


def _why_none_fits(scan: list[Series], rows: pd.DataFrame) -> str:
    """What a message adds on series that cannot be used, and on a folder in which nothing looks like a sequence."""
    broken = [f"\n  series {one.number} cannot be used: {'; '.join(one.problems)}" for one in scan if not one.usable]
    if not broken and (rows.guess == "").all() and all(one.kind == "volume" for one in scan):
        return (
            "\n  no file of this folder is named like a sequence: if it holds label maps or masks, name them with "
            "raw.labels or raw.brain_masks, or move the folder out"
        )
    return "".join(broken)


def _shared_files(plan: Mapping[str, Planned]) -> list[str]:
    """A label map or mask that two scans would share: it was drawn on one of them."""
    users: dict[Path, list[str]] = {}
    for case, planned in plan.items():
        for path in {planned.label, planned.brain_mask} - {None}:
            users.setdefault(path, []).append(case)  # type: ignore[arg-type]
    return [
        f"cases {', '.join(sorted(cases))} would share one label map or brain mask: write {{date}} into the pattern, "
        "and name every file with its scan's date"
        for cases in users.values()
        if len(cases) > 1
    ]


def _in_the_way(plan: Iterable[str], declaration: Cohort, prepared: Collection[str]) -> list[str]:
    """Files in the cohort's folder that another preparation, or a person, made under a new case's name."""
    from brainmets.cohorts.cohort import files_of  # scikit-learn takes a second

    return [
        f"case {case}: the cohort's folder holds files of this name that were not made from this scan: choose another "
        "raw.prefix, or another folder"
        for case in plan
        if case not in prepared and any(path.exists() for path in files_of(declaration, case).values())
    ]


def _split_patients(declaration: Cohort, names: Mapping[tuple[str, str], str]) -> list[str]:
    """Two scans of one patient that ``layout.patient`` would take for two patients."""
    from brainmets.cohorts.cohort import patient_of  # scikit-learn takes a second

    scans: dict[str, list[str]] = {}
    for (patient, _), case in names.items():
        scans.setdefault(patient, []).append(case)
    return [
        f"cases {', '.join(sorted(cases))} are scans of one patient, yet layout.patient takes them for several, who "
        r"could be trained and tested on; write patient: '(.+)-\d{3}$' into the layout"
        for cases in scans.values()
        if len({patient_of(case, declaration) for case in cases}) > 1
    ]


def _by_scan(found: Iterable[Series]) -> dict[tuple[str, str], list[Series]]:
    scans: dict[tuple[str, str], list[Series]] = {}
    for one in found:
        scans.setdefault((one.patient, one.date), []).append(one)
    return scans


# --- files -------------------------------------------------------------------------------------------------------


def raw_of(declaration: Cohort) -> Raw:
    """The cohort's raw scans; ``SortingError`` where it declares none."""
    if declaration.raw is None:
        raise SortingError("the cohort declares no raw scans: there is nothing to sort")
    return declaration.raw


def wanted(declaration: Cohort) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The sequences that are looked for in a cohort's raw scans, and those of them that a scan may lack.

    All four where the declaration names none. Raises ``SortingError`` where the t1c is not among them or may be
    lacking: every other image is laid onto it.
    """
    sequences, may_lack = tuple(declaration.sequences or SEQUENCES), tuple(declaration.may_lack)
    if REFERENCE not in {*sequences} - {*may_lack}:
        raise SortingError(
            f"sequences: {', '.join(sequences)}, of which may be lacking (may_lack): {', '.join(may_lack) or 'none'}; "
            f"every raw scan is laid onto its {REFERENCE}: declare {REFERENCE}, and leave it out of may_lack"
        )
    return sequences, may_lack


def _key(declaration: Cohort, raw: Raw, files: PreparationPaths) -> Key:
    return Key.open(_key_file(raw, files), resolve(declaration.folder), raw.prefix)


def _key_file(raw: Raw, files: PreparationPaths) -> Path:
    return resolve(raw.key_file) if raw.key_file else files.key


def _matching(folder: Path, pattern: str | None) -> list[Path]:
    if pattern is None:
        return []
    wild = glob.escape(pattern).replace("{patient}", "*").replace("{date}", "*")
    start = Path(pattern).anchor
    return [*(Path(start) if start else folder).glob(wild.removeprefix(start))]


def own_folder(folder: Path) -> None:
    """Make a folder that is the user's own (0700); ``SortingError`` for one that others may enter."""
    if not folder.is_dir():
        folder.mkdir(parents=True, mode=0o700)
    if folder.stat().st_mode & 0o077:
        raise SortingError(
            f"{folder}, which is to hold who is who and pictures of heads, can be entered by others: name another "
            "folder, or: chmod 700"
        )


def _stat(path: Path) -> tuple[str, int, int]:
    state = path.stat()
    return path.name, state.st_size, state.st_mtime_ns


def _listing(raw: Raw) -> str:
    """A hash of names, sizes and times of all files that the sorting looks at, wherever links lead."""
    folder = resolve(raw.folder)
    digest = hashlib.sha256()
    apart = [path for pattern in (raw.labels, raw.brain_masks) for path in _matching(folder, pattern)]
    for path in sorted({*tree.files(folder)[0], *apart}) if folder.is_dir() else []:
        stat = path.stat()
        digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _state(declaration: Cohort, files: PreparationPaths, listing: str) -> str:
    """A hash of everything that the sorting depends on."""
    raw = raw_of(declaration)
    digest = hashlib.sha256(raw.model_dump_json(exclude={"accepted"}).encode())
    digest.update(f"{declaration.files.patient} {listing}".encode())
    if (looked_for := wanted(declaration)) != (SEQUENCES, ()):
        digest.update(repr(looked_for).encode())
    listed = [resolve(declaration.lesion_free_list)] if declaration.lesion_free_list else []
    for path in (files.series, _key_file(raw, files), *listed):
        digest.update(path.read_bytes() if path.is_file() else b"absent")
    return digest.hexdigest()


def _write(found: Sorted, files: PreparationPaths) -> None:
    series_table.write(files.series, found.table)
    tables.write(files.findings, pd.DataFrame(found.findings, columns=Finding._fields))


def _write_plan(found: Sorted, files: PreparationPaths, state: str) -> None:
    cases = {
        case: {
            "images": {sequence: _entry(one) for sequence, one in planned.images.items()},
            "label": str(planned.label) if planned.label else None,
            "brain_mask": str(planned.brain_mask) if planned.brain_mask else None,
            "digest": planned.digest,
        }
        for case, planned in found.plan.items()
    }
    write_json(files.plan, {"state": state, "cases": cases})
    files.plan.chmod(0o600)


def _entry(one: Series) -> dict[str, Any]:
    """A series as JSON, by what it takes to read it again: no person's name, no text of a header."""
    return {"key": one.key, "number": one.number, "kind": one.kind, "files": [str(path) for path in one.files]}


def _series(entry: Mapping[str, Any]) -> Series:
    files = tuple(map(Path, entry["files"]))
    return Series(patient="", date="", key=entry["key"], number=entry["number"], files=files, kind=entry["kind"])
