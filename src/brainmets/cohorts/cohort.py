"""Cohorts on disk: which cases a declared folder holds, and the label maps in BraTS labels.

A cohort is read, never changed. What is found is written once, by notebook 01, as the cohort's manifest; every later
step reads the manifest and nothing else.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainmets import nifti
from brainmets.cohorts import spreadsheet
from brainmets.files import read_json, write_json
from brainmets.params import Cohort
from brainmets.paths import project_root, resolve
from brainmets.provenance import sha256
from brainmets.vocabulary import CONVERT, OTHER_FORMATS, SEQUENCES, reference_sequence

CASE_NAME = re.compile(r"[^\W_][\w.-]{0,99}")
"""What a case without a pseudonym may be called; a disk's 255 bytes leave room for what later steps append. Nor may it
end with _seg, which nnU-Net appends for label maps, or be ``WHOLE_COHORT``."""

WHOLE_COHORT = "all"
"""What stands for a case where a finding of the audit is about the cohort as a whole."""

LOOKED_AT = 10_000
"""Files of a folder whose names are looked at for other formats, once its patterns find nothing."""


RERUN = "run notebook 01 of this study again"


class CohortError(ValueError):
    """A cohort that cannot be used as it is declared; the message names the folder, file or case and what to do."""


@dataclass(frozen=True)
class Case:
    """One scan session of one patient.

    ``images`` maps each sequence that the case has (of t1n, t1c, t2w, t2f) to its file; ``label`` is the cohort's own
    label map.
    ``lesion_free``: the cohort declares that there is no lesion; such a case alone may be without a label map.
    ``own_name`` is what the files call the case where it has a pseudonym: known where cases are found, written
    nowhere.
    """

    case: str
    patient: str
    images: dict[str, Path]
    label: Path | None
    lesion_free: bool = False
    own_name: str = field(default="", repr=False, compare=False)

    @property
    def sequences(self) -> tuple[str, ...]:
        """Those that the case has, in channel order."""
        return tuple(sequence for sequence in SEQUENCES if sequence in self.images)

    def channels(self, sequences: Iterable[str]) -> list[Path | None]:
        """The images that a network of these ``sequences`` reads; ``None`` where the case lacks one."""
        return [self.images.get(sequence) for sequence in sequences]

    @property
    def reference(self) -> Path:
        """The image whose grid stands for the case's: the t1c (``vocabulary.reference_sequence``)."""
        return self.images[reference_sequence(self.images)]

    @property
    def paths(self) -> list[Path]:
        """Every file of the case: its images in channel order, and the label map where there is one."""
        images = [self.images[sequence] for sequence in self.sequences]
        return images if self.label is None else [*images, self.label]


def sequences_of(cases: Iterable[Case]) -> tuple[str, ...]:
    """The sequences that any of the cases has, in channel order."""
    have = {name for case in cases for name in case.images}
    return tuple(name for name in SEQUENCES if name in have)


def find_cases(declaration: Cohort, sequences: Iterable[str]) -> list[Case]:
    """Every case of a declared cohort, sorted by name, with those of ``sequences`` that it has.

    Nothing else is looked for: a case is a name for which at least one of their patterns, or the label map's, finds a
    file; those in ``raw.left_out`` are passed over. A case may lack the sequences that ``may_lack`` names, but not all
    images. Raises ``CohortError`` where the folder is missing or holds no case, where a pattern is not given or finds
    no file or a case lacks another one (a case that is declared lesion-free may be without its label map), where
    ``lesion_free`` lists a case that there is not, where a name does not give a patient or cannot be part of a file's
    name, or where two files are one. Only names are read, but where nothing fits: then the message names the other
    formats of images that the folder holds.
    """
    folder = resolve(declaration.folder)
    if not folder.is_dir():
        raise CohortError(f"the cohort's folder {declaration.folder} is not there; correct `folder` in the parameters")
    wanted = [name for name in SEQUENCES if name in set(sequences)]
    patterns = _patterns(declaration, wanted)
    found = {name: _names(folder, pattern) for name, pattern in patterns.items()}
    left_out = set(declaration.raw.left_out) if declaration.raw else set()
    names = sorted({case for cases in found.values() for case in cases} - left_out)
    if not names:
        raise CohortError(
            f"{declaration.folder} holds no case: no file matches {patterns[reference_sequence(wanted)]!r}; "
            f"correct `folder` or `layout` in the parameters{_other_formats(folder)}"
        )
    if unmatched := [f"layout.{name}: {patterns[name]!r}" for name, cases in found.items() if not cases]:
        raise CohortError(
            f"{declaration.folder}: no file matches {', '.join(unmatched)}, where other patterns find {len(names)} "
            f"case(s), such as {names[0]!r}; correct the pattern ({{case}} alone stands for anything) or add the files"
            f"{_other_formats(folder)}"
        )
    _refuse_names(names, declaration)
    lesion_free = listed_lesion_free(declaration)
    awaited = f"{declaration.raw.prefix}-" if declaration.raw else None  # of cases that are not prepared yet
    stray = sorted(lesion_free - set(names) - left_out)
    if stray := [name for name in stray if awaited is None or not name.startswith(awaited)]:
        raise CohortError(
            f"{declaration.lesion_free_list} lists {len(stray)} case(s) that {declaration.folder} does not hold, "
            f"such as {stray[0]!r}: correct the list (names as the files have them)"
        )
    needed = [name for name in wanted if name not in declaration.may_lack]
    missing = [
        pattern.format(case=case)
        for case in names
        for name, pattern in patterns.items()
        if name in needed or (name == "label" and case not in lesion_free)
        if not (folder / pattern.format(case=case)).is_file()
    ]
    if missing:
        raise CohortError(
            f"{declaration.folder}: {len(missing)} file(s) missing: {', '.join(missing[:10])}"
            f"{' ...' if len(missing) > 10 else ''}; every case needs {', '.join([*needed, 'a label map'])}: "
            "add the files or move the case out of the folder (a patient without lesions needs no label map where "
            f"`lesion_free` lists the case, and a sequence may be absent where `may_lack` names it)"
            f"{_other_formats(folder)}"
        )
    cases = []
    for name in names:
        files = {what: path for what, path in files_of(declaration, name).items() if path.is_file()}
        images = {sequence: files[sequence] for sequence in wanted if sequence in files}
        if not images:
            raise CohortError(
                f"{declaration.folder}: case {name!r} has none of {', '.join(wanted)}: add the files or move the case "
                "out of the folder"
            )
        cases.append(
            Case(name, patient_of(name, declaration), images, files.get("label"), name in lesion_free, own_name=name)
        )
    _refuse_one_file_twice(cases, declaration)
    return cases


def _patterns(declaration: Cohort, sequences: Iterable[str]) -> dict[str, str]:
    """The patterns of ``sequences`` and of the label map; ``CohortError`` where one is not given."""
    given = declaration.files.patterns
    if absent := [name for name in sequences if name not in given]:
        raise CohortError(
            f"{declaration.folder}: layout.{absent[0]} is missing: give the pattern of its files, or leave it out of "
            "`sequences`"
        )
    return {name: given[name] for name in (*sequences, "label")}


def listed_lesion_free(declaration: Cohort) -> set[str]:
    """The cases of the table that ``lesion_free`` names; none where it names none.

    The table has a column ``case`` with names as the files have them. They stand in a file of their own, which stays
    where it is, because parameters are part of every record and of the report; and they are listed, because a label
    map that is absent or empty by oversight would else make a patient with lesions a healthy one.
    Raises ``CohortError`` where the file cannot be read as such a table, or lists nothing.
    """
    if (listed := declaration.lesion_free_list) is None:
        return set()
    try:
        rows = spreadsheet.read(resolve(listed), ("case",))
    except OSError as error:
        raise CohortError(
            f"lesion_free: {listed!r} cannot be read ({error.strerror}); give the path of a table (CSV) with the "
            "column case"
        ) from None
    except (csv.Error, ValueError):
        raise CohortError(
            f"lesion_free: {listed!r} is no table (CSV) with one column case: write that word into its first row, and "
            "below it a case's name in each row"
        ) from None
    if not rows:
        raise CohortError(f"lesion_free: {listed!r} lists no case; fill it in, or leave it out")
    return {row.cells["case"].strip() for row in rows}


def _refuse_names(names: Iterable[str], declaration: Cohort) -> None:
    """Raise ``CohortError`` for hidden cases, and for names that could not be kept apart as names of files."""
    names = list(names)
    if hidden := [name for name in names if name.startswith(".")]:
        raise CohortError(
            f"{declaration.folder}: {len(hidden)} case(s) with a name that starts with a dot, such as {hidden[0]!r}: "
            "a system's hidden files, or cases? Delete them, or rename them without the dot"
        )
    if declaration.pseudonyms:
        return
    allowed = (
        "at most 100 letters, digits, '.', '_' and '-', a letter or digit first, and neither end with _seg nor be "
        f"{WHOLE_COHORT!r}, which findings call a whole cohort"
    )
    if wrong := [
        name for name in names if not CASE_NAME.fullmatch(name) or name.endswith("_seg") or name == WHOLE_COHORT
    ]:
        raise CohortError(
            f"{declaration.folder}: {len(wrong)} case(s) with a name such as {wrong[0]!r}, which becomes part of "
            f"files' names and may hold {allowed}: rename the files, or set pseudonyms: true for the cohort"
        )
    alike: dict[str, str] = {}
    for name in names:
        if (other := alike.setdefault(name.casefold(), name)) != name:
            raise CohortError(
                f"{declaration.folder}: cases {other!r} and {name!r} differ in capital letters alone, which some "
                "disks take for one name: rename the files of one, or set pseudonyms: true for the cohort"
            )


def _refuse_one_file_twice(cases: Iterable[Case], declaration: Cohort) -> None:
    """Raise ``CohortError`` where two files of the declaration are one on disk: a link, or a path written two ways."""
    names: dict[Path, str] = {}
    for case in cases:
        for what, path in zip((*case.sequences, "label"), case.paths, strict=False):
            name = f"{what} of case {case.case}"
            other = names.setdefault(path.resolve(), name)
            if other != name:
                raise CohortError(
                    f"{declaration.folder}: {other} and {name} are one file ({path.resolve().name}); "
                    "correct `layout` or the link"
                )


def _other_formats(folder: Path) -> str:
    """What a message adds where the folder holds images that are no NIfTI files, by their names or DICOM's mark."""
    found: dict[str, list[Path]] = {}
    for path in islice((path for path in sorted(folder.rglob("*")) if path.is_file()), LOOKED_AT):
        form = OTHER_FORMATS.get(path.suffix.lower())
        if form is None and (path.suffix == "" or path.suffix[1:].isdigit()) and _has_dicom_mark(path):
            form = "DICOM"
        if form:
            found.setdefault(form, []).append(path)
    if not found:
        return ""
    kinds = " and ".join(f"{form} files such as {paths[0].relative_to(folder)}" for form, paths in found.items())
    return f". The folder holds {kinds}: {CONVERT}"


def _has_dicom_mark(path: Path) -> bool:
    """Scanners and archives name DICOM files without a suffix, or with digits and dots."""
    try:
        with path.open("rb") as handle:
            return handle.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _names(folder: Path, pattern: str) -> list[str]:
    wild = "*".join(map(glob.escape, pattern.split("{case}")))
    first, *rest = pattern.split("{case}")
    matcher = re.compile(re.escape(first) + r"(?P<case>[^/]+)" + "(?P=case)".join(map(re.escape, rest)))
    found = (matcher.fullmatch(path.relative_to(folder).as_posix()) for path in folder.glob(wild))
    return [match["case"] for match in found if match]


def files_of(declaration: Cohort, case: str) -> dict[str, Path]:
    """Where a case's files lie or would lie, by every sequence of the layout and "label"; nothing is looked for."""
    folder = resolve(declaration.folder)
    return {name: folder / pattern.format(case=case) for name, pattern in declaration.files.patterns.items()}


def patient_of(case: str, declaration: Cohort) -> str:
    """The patient that a case's name gives by ``layout.patient``; ``CohortError`` where it gives none."""
    match = re.match(declaration.files.patient, case)
    if match is None or not match.group(1):
        raise CohortError(
            f"case {case!r} of {declaration.folder}: the pattern {declaration.files.patient!r} finds no patient in "
            "its name; correct `layout.patient` in the parameters"
        )
    return match.group(1)


def read_mapped_labels(case: Case, declaration: Cohort) -> tuple[npt.NDArray[np.uint8], nifti.Grid]:
    """A case's label map (x, y, z) in BraTS labels, and its grid.

    Where it has none: zeros on the grid of its reference sequence.
    """
    if case.label is None:
        grid = nifti.read_grid(case.reference)
        return np.zeros(grid.shape, np.uint8), grid
    return nifti.read_labels(case.label, declaration.values), nifti.read_grid(case.label)


def write_mapped_labels(case: Case, declaration: Cohort, folder: Path) -> Path:
    """Write ``<case>.nii.gz`` in BraTS labels with the original's grid and affine to ``folder``.

    A lesion-free case without a label map gets an empty one, on the grid of its reference sequence.
    """
    labels, grid = read_mapped_labels(case, declaration)
    return nifti.write(folder / f"{case.case}.nii.gz", labels, grid.affine)


def write_label_maps(cases: Iterable[Case], declaration: Cohort, folder: Path) -> None:
    """Write every case's label map in BraTS labels to ``folder``, which is emptied of those of an earlier split."""
    shutil.rmtree(folder, ignore_errors=True)
    for case in cases:
        write_mapped_labels(case, declaration, folder)


# --- the manifest --------------------------------------------------------------------------------------------------


def write_manifest(path: Path, cases: list[Case], sequences: Iterable[str]) -> Path:
    """Write where each case's files lie, for the steps that follow, and the cohort's ``sequences`` in channel order.

    A path is written from the manifest's own folder where the file lies in the same checkout or the same study's
    folder, which may then be moved; any other is absolute. ``path`` ends with study, "audit", cohort and name; the
    first and third are noted, and a digest of patients and label maps. ``label`` is null where a case has none.
    """
    entries = {
        case.case: {
            "patient": case.patient,
            "images": {sequence: _stored(image, path.parent) for sequence, image in case.images.items()},
            "label": None if case.label is None else _stored(case.label, path.parent),
            "lesion_free": case.lesion_free,
        }
        for case in cases
    }
    content = {case.case: [case.patient, "" if case.label is None else sha256(case.label)] for case in cases}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    channels = [name for name in SEQUENCES if name in set(sequences)]
    return write_json(path, {**_place(path), "sequences": channels, "digest": digest, "cases": entries})


def read_manifest(path: Path) -> dict[str, Case]:
    """The cases by name, as ``write_manifest`` wrote them; the images of each in channel order.

    Raises ``CohortError`` for the manifest of another study and for one that was changed since.
    """
    content, channels = _manifest(path), read_sequences(path)
    try:
        cases = {
            name: Case(
                case=name,
                patient=entry["patient"],
                images={
                    sequence: _found(entry["images"][sequence], path.parent)
                    for sequence in channels
                    if sequence in entry["images"]
                },
                label=None if entry["label"] is None else _found(entry["label"], path.parent),
                lesion_free=bool(entry["lesion_free"]),
            )
            for name, entry in content["cases"].items()
        }
        if any(not case.images or len(case.images) < len(content["cases"][name]["images"])
               for name, case in cases.items()):  # fmt: skip
            raise KeyError("images")
        return cases
    except (AttributeError, KeyError, TypeError):
        raise CohortError(
            f"{path.name} of the {path.parent.name} cohort does not hold patient, images and label of each case: "
            f"{RERUN}"
        ) from None


def read_sequences(path: Path) -> tuple[str, ...]:
    """The channels of the networks that are trained on the cohort of a manifest; a case may lack some of them.

    Raises ``CohortError`` as ``read_manifest`` does.
    """
    stated = _manifest(path)["sequences"]
    channels = tuple(name for name in SEQUENCES if isinstance(stated, list) and name in stated)
    if not channels or list(channels) != stated:
        raise CohortError(
            f"{path.name} of the {path.parent.name} cohort does not name its sequences in the order "
            f"{', '.join(SEQUENCES)}: {RERUN}"
        )
    return channels


def digest_of(manifest: Path) -> str:
    """What tells the cohort of a manifest from others: a digest of cases, patients and label maps."""
    return str(_manifest(manifest)["digest"])


def require_files(cases: Iterable[Case]) -> None:
    """Raise ``CohortError`` where a file of a case is not there: a cohort or checkout that was moved."""
    gone = [path for case in cases for path in case.paths if not path.is_file()]
    if gone:
        raise CohortError(
            f"{len(gone)} file(s) of the cohort are no longer where notebook 01 found them, such as {gone[0].name}: "
            "put the cohort back or correct its `folder`, then run notebook 01 again"
        )


def _manifest(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} of the {path.parent.name} cohort is not there: run notebook 01 first")
    content = read_json(path)
    place = _place(path)
    if {"digest", "sequences", "cases", *place} - set(content):
        raise CohortError(f"{path.name} of the {path.parent.name} cohort is none of this version's: {RERUN}")
    if {name: content[name] for name in place} != place:
        raise CohortError(
            f"{path.name} in {'/'.join(place.values())} is of study {content['study']!r}, {content['cohort']} cohort, "
            f"and was copied there: {RERUN}"
        )
    return content


def _place(manifest: Path) -> dict[str, str]:
    return {"study": manifest.absolute().parents[2].name, "cohort": manifest.absolute().parent.name}


def _stored(path: Path, folder: Path) -> str:
    """A file's path as the manifest in ``folder`` holds it."""
    path, folder = path.absolute(), folder.absolute()
    movable = any(
        path.is_relative_to(root) and folder.is_relative_to(root) for root in (folder.parents[1], project_root())
    )
    return os.path.relpath(path, folder) if movable else str(path)


def _found(path: str, folder: Path) -> Path:
    """The path that ``_stored`` stored: ".." is taken back by name, whatever links lie on the way."""
    return Path(os.path.normpath(folder.absolute() / path))
