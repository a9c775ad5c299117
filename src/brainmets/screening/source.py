"""What the INPUTs of ``brainmets screen`` are: prepared cases, or raw scans that must be prepared first.

The rule: where every file that is named as in BraTS (``<case>-t1n.nii.gz``, ``-t1c``, ``-t2w``, ``-t2f``, in the
INPUT or in a folder of it) belongs to a case that has the images which the model needs, on one grid, the INPUT holds
prepared cases; an image that the model does not read is passed over. Otherwise it holds raw scans: DICOM, NIfTI,
MetaImage or NRRD. Files in the INPUT itself are one patient's; else each of its folders is (DICOM says by itself whose
it is). A person who knows better says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from brainmets import nifti
from brainmets.cohorts.cohort import CASE_NAME, Case
from brainmets.preparation import tree, volumes
from brainmets.preparation.slices import NoSliceError, quiet, slices_of
from brainmets.preparation.sorting import own_folder
from brainmets.screening.reads import ALL_FOUR, Reads
from brainmets.vocabulary import SEQUENCES

Said = Literal["prepared", "raw"]
BRATS_FILE = re.compile(rf"(?P<case>.+)-(?P<sequence>{'|'.join(SEQUENCES)})\.nii\.gz")
RESERVED = ("private", "prepared")
"""Names of folders that a case may not have."""
EARLIER = ".earlier"
"""In the folder of links: one link for each folder of volumes that was ever screened, by its name."""
ASKED = 200
"""Files without an ending of an image that are opened to see whether the INPUT holds DICOM."""


class SourceError(ValueError):
    """An INPUT that is neither raw scans nor prepared cases; the message names it and says what to do."""


@dataclass(frozen=True)
class Inputs:
    """``prepared``: cases by name. ``raw``: folders of raw scans by the name that each has as a patient's folder."""

    prepared: dict[str, Case]
    raw: dict[str, Path]


def find(inputs: Sequence[Path], said: Said | None = None, reads: Reads = ALL_FOUR) -> Inputs:
    """What the INPUTs hold, by the rule of this module, or all ``said`` to be prepared or raw; ``reads``: the model's.

    Raises ``SourceError`` for one that is no folder, that holds neither, or prepared cases beside something else, and
    for two cases or two patients' folders of one name.
    """
    prepared: dict[str, Case] = {}
    raw: dict[str, Path] = {}
    for given in dict.fromkeys(path.expanduser().resolve() for path in inputs):
        if not given.is_dir():
            what = "is a file: name the folder that it lies in" if given.exists() else "is not there"
            raise SourceError(f"INPUT {given} {what}")
        cases = [] if said == "raw" else _prepared(given, said == "prepared", reads)
        for case in cases:
            if case.case in prepared:
                raise SourceError(
                    f"INPUT {given}: two prepared cases are called {case.case!r}: rename the files of one"
                )
            prepared[case.case] = case
        for name, folder in ({} if cases else _raw(given)).items():
            place = _free(name, given, raw) if name in raw and not _has_volumes(folder) else name
            if place in raw:
                raise SourceError(
                    f"INPUT {given}: two folders of patients are called {name!r}, and could be one patient or two: "
                    "rename one, or screen them into folders of their own (--out)"
                )
            raw[place] = folder
    return Inputs(prepared, raw)


def link(raw: Mapping[str, Path], folder: Path) -> None:
    """Make ``folder``, the user's own, hold one link for each folder of raw scans, and those of earlier runs aside.

    Raises ``SourceError`` for a folder of volumes, whose name is all that says whose it is, where an earlier run
    screened another folder of that name: its results would be replaced by those of who may be another patient.
    """
    own_folder(folder)
    earlier = folder / EARLIER
    own_folder(earlier)
    volumes_of = {name: target for name, target in raw.items() if _has_volumes(target)}
    for name, target in volumes_of.items():
        if (before := earlier / name).is_symlink() and before.readlink() != target:
            raise SourceError(
                f"INPUT: {target} and {before.readlink()}, which was screened into this folder before, are both "
                f"called {name!r}, and could be one patient or two: screen it into a folder of its own (--out), or "
                f"rename it; where it is the same patient, whose files were moved, delete {before}"
            )
    for name, target in volumes_of.items():
        if not (earlier / name).is_symlink():
            (earlier / name).symlink_to(target, target_is_directory=True)
    for old in folder.iterdir():
        if old.is_symlink():
            old.unlink()
    for name, target in raw.items():
        (folder / name).symlink_to(target, target_is_directory=True)


def state(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Name, size and time of change of each file: what tells whether a scan is still the one that was screened."""
    found = ((path, path.stat()) for path in paths)
    return [(path.name, stat.st_size, stat.st_mtime_ns) for path, stat in found]


# --- prepared ----------------------------------------------------------------------------------------------------


def _prepared(given: Path, said: bool, reads: Reads) -> list[Case]:
    """The prepared cases of an INPUT; none where it holds raw scans. ``said``: that it must hold prepared ones."""
    found: dict[tuple[Path, str], dict[str, Path]] = {}
    for folder in (given, *_folders(given)):
        for path in sorted(folder.iterdir()):
            if (match := BRATS_FILE.fullmatch(path.name)) and path.is_file() and path.name[0] != ".":
                found.setdefault((folder, match["case"]), {})[match["sequence"]] = path
    faults = {case: fault for (_, case), files in found.items() if (fault := _fault(files, reads))}
    if said and (faults or not found):
        what = "; ".join(f"case {case} {fault}" for case, fault in sorted(faults.items())) or (
            "holds no file named as in BraTS (<case>-t1n.nii.gz, -t1c, -t2w, -t2f)"
        )
        needed = [name for name in reads.sequences if name not in reads.may_lack]
        images = "all four images" if len(needed) == len(SEQUENCES) else f"the model's images ({', '.join(needed)})"
        raise SourceError(f"INPUT {given}: {what}; --prepared takes cases with {images} on one grid")
    if len(faults) == len(found):
        return []
    if faults:
        case, fault = min(faults.items())
        raise SourceError(
            f"INPUT {given} holds prepared cases beside what is none: case {case} {fault}. Add what is missing, move "
            "it out, or say --raw where all are raw scans"
        )
    holding = {folder for folder, _ in found}
    if others := [folder.name for folder in _folders(given) if folder not in holding and _has_images(folder)]:
        raise SourceError(
            f"INPUT {given} holds prepared cases and other images (folder {others[0]!r}): give each an INPUT of "
            "its own"
        )
    return [
        _case(given, name, files, reads) for (_, name), files in sorted(found.items(), key=lambda item: item[0][1])
    ]


def _case(given: Path, name: str, files: Mapping[str, Path], reads: Reads) -> Case:
    if not CASE_NAME.fullmatch(name) or name in RESERVED:
        raise SourceError(
            f"INPUT {given}: case {name!r} becomes the name of a folder and may hold letters, digits, '.', '_' and "
            f"'-' alone, a letter or digit first, and not be {' or '.join(RESERVED)}: rename its files"
        )
    return Case(name, name, {sequence: files[sequence] for sequence in reads.sequences if sequence in files}, None)


def _fault(files: Mapping[str, Path], reads: Reads) -> str:
    """Why the files are no prepared case for this model; "" where they are."""
    if missing := reads.needed(files):
        return f"lacks {', '.join(missing)}" + ("" if reads == ALL_FOUR else f" ({reads.why_needed(missing)})")
    there = [sequence for sequence in reads.sequences if sequence in files]
    grids = {sequence: nifti.read_scan_grid(files[sequence]) for sequence in there}
    apart = [sequence for sequence in there if not grids[sequence].same(grids["t1c"])]
    return f"has {', '.join(apart)} on another grid than t1c" if apart else ""


# --- raw ---------------------------------------------------------------------------------------------------------


def _raw(given: Path) -> dict[str, Path]:
    """The folders of an INPUT that hold raw scans, by name; itself where files lie in it directly."""
    own = [path for path in sorted(given.iterdir()) if path.is_file() and path.name[0] != "."]
    within = {folder.name: folder for folder in _folders(given) if _has_images(folder)}
    if any(_is_volume(path) for path in own):
        if mixed := [name for name, folder in within.items() if _has_volumes(folder)]:
            raise SourceError(
                f"INPUT {given} holds volumes itself and in the folder {mixed[0]!r}: put each patient's files into "
                "one folder"
            )
        return {given.name: given}
    if any(map(_is_dicom, own[:ASKED])):
        return {given.name: given}
    if not within:
        raise SourceError(
            f"INPUT {given} holds neither raw scans (DICOM, or {', '.join(volumes.SUFFIXES)}) nor prepared cases "
            "(<case>-t1n.nii.gz, ...)"
        )
    return within


def _free(name: str, given: Path, taken: Mapping[str, Path]) -> str:
    """Another name for a folder of DICOM, which says by itself whose it is."""
    names = (f"{given.name}-{name}{number}" for number in ("", *(f"-{n}" for n in range(2, len(taken) + 3))))
    return next(free for free in names if free not in taken)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def _is_volume(path: Path) -> bool:
    return path.name.lower().endswith(volumes.SUFFIXES)


def _has_volumes(folder: Path) -> bool:
    return any(map(_is_volume, tree.files(folder)[0]))


def _has_images(folder: Path) -> bool:
    files = tree.files(folder)[0]
    return any(map(_is_volume, files)) or any(map(_is_dicom, files[:ASKED]))


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as handle:
            if handle.read(132)[128:] == b"DICM":
                return True
            if handle.seek(0, os.SEEK_END) < 132:
                return False
        with quiet():
            return bool(slices_of(path))
    except (OSError, NoSliceError):
        return False
