"""Pseudonyms, given where a cohort's cases are found: no later step, file, picture or message has another name.

A case becomes ``target-00003-000`` (patient, scan), its patient ``target-00003``. Its files are reached through links
of that name, so that a path which any library prints is a pseudonym's too. Who is who stands in ``key.csv``, which is
the user's alone to read and which nothing reads but what stands here. Names that were given stay; new patients are
numbered after them in an order that only somebody who has their images could work out. Cases that notebook 00 prepared
were given such names there, by the key of the raw scans, and keep them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from brainmets.cohorts.cohort import Case, CohortError, find_cases
from brainmets.cohorts.key import Key, Scan
from brainmets.files import write_text
from brainmets.params import Cohort
from brainmets.paths import StudyPaths, project_root, resolve
from brainmets.provenance import sha256

KEY_COLUMNS = ("patient", "case", "pseudonym")


def cases_of(cohort: str, declaration: Cohort, sequences: Sequence[str], files: StudyPaths) -> list[Case]:
    """Every case of a cohort ("source" or "target") with its ``sequences``, by name.

    Each stands under its pseudonym where the declaration asks for it.
    Writes the key (``files.key``) and the links (``files.links``). Raises ``CohortError`` for a damaged key and as
    ``find_cases`` does; with pseudonyms the latter's message, which names cases, goes into ``files.unusable`` alone.
    """
    shutil.rmtree(files.links(cohort), ignore_errors=True)
    files.unusable(cohort).unlink(missing_ok=True)
    if not declaration.pseudonyms:
        return find_cases(declaration, sequences)
    files.private(cohort).mkdir(parents=True, exist_ok=True)
    files.private(cohort).chmod(0o700)
    try:
        found = find_cases(declaration, sequences)
    except CohortError as error:
        told = write_text(files.unusable(cohort), f"{error}\n").relative_to(files.work)
        raise CohortError(
            f"the {cohort} cohort cannot be read as it is declared. Why, with names, says {told} in the study's "
            "folder, which only you can read, and `brainmets study PARAMS -n`"
        ) from None
    prepared, unnamed = _sides(cohort, files, found)
    key = _key(cohort, declaration, files)
    images = {case.patient: case.reference for case in reversed(unnamed)}
    names = key.names(map(_scan, unnamed), order=lambda patient: sha256(images[patient]) + patient)
    linked = [_linked(_renamed(case, names[_scan(case)]), files.links(cohort)) for case in unnamed]
    return sorted([*prepared, *linked], key=lambda case: case.case)


def known_cases(cohort: str, declaration: Cohort, sequences: Sequence[str], files: StudyPaths) -> list[Case]:
    """The same cases with nothing written and no file opened: those that have no pseudonym yet keep their own name."""
    found = find_cases(declaration, sequences)
    if not declaration.pseudonyms:
        return found
    prepared, unnamed = _sides(cohort, files, found)
    names = _key(cohort, declaration, files).known()
    return [*prepared, *(_renamed(case, names.get(_scan(case), case.case)) for case in unnamed)]


def _key(cohort: str, declaration: Cohort, files: StudyPaths) -> Key:
    path, held_out = files.key(cohort), declaration.held_out
    listed = isinstance(held_out, list) and any(name.startswith(f"{cohort}-") for name in held_out)
    if listed and not path.is_file():
        raise CohortError(
            f"{cohort}.held_out lists pseudonyms, and the key that says whose they are, "
            f"{path.relative_to(files.work)} in the study's folder, is not there: restore it, or give a number"
        )
    try:
        return Key.open(path, resolve(declaration.folder), cohort, KEY_COLUMNS)
    except ValueError as error:
        raise CohortError(f"{cohort}: {error}") from None


def _sides(cohort: str, files: StudyPaths, cases: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """Cases that notebook 00 prepared, which have new names already, and the others."""
    new = {path.parent.name for path in files.preparation(cohort).cases.glob("*/prepared.json")}
    return [case for case in cases if case.case in new], [case for case in cases if case.case not in new]


def _scan(case: Case) -> Scan:
    return case.patient, case.case


def _renamed(case: Case, name: str) -> Case:
    patient = name.rpartition("-")[0] if name != case.case else case.patient
    return replace(case, case=name, patient=patient)


def _linked(case: Case, folder: Path) -> Case:
    """The case with its files reached through links in ``folder`` that bear its name."""
    folder.mkdir(exist_ok=True)

    def link(what: str, path: Path) -> Path:
        suffix = ".nii.gz" if path.name.endswith(".gz") else path.suffix
        made = folder / f"{case.case}_{what}{suffix}"
        made.symlink_to(_from(folder, path))
        return made

    images = {sequence: link(sequence, path) for sequence, path in case.images.items()}
    return replace(case, images=images, label=case.label and link("label", case.label))


def _from(folder: Path, path: Path) -> str:
    """What a link in ``folder`` to ``path`` holds: within one checkout, which may be moved, the way from there."""
    start, end, root = (Path(os.path.realpath(one)) for one in (folder, path, project_root()))
    inside = all(one.is_relative_to(root) for one in (start, end))
    return os.path.relpath(end, start) if inside else str(path.absolute())
