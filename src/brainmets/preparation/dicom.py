"""DICOM in: which series lie in a folder tree, what is wrong with them, and one series as a volume.

The tree may be anything that a PACS exports: several patients and studies mixed, names without extensions, a DICOMDIR,
localisers, captures and reports, enhanced multi-frame MR, a copy of itself. Sorting goes by the headers alone, never
by the names or the order of files. Nothing that this module says names a patient or a path.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import SimpleITK as sitk

from brainmets.preparation import converters, tree
from brainmets.preparation.scans import Finding, ScanError, Series
from brainmets.preparation.slices import NoSliceError, Slice, quiet, slices_of
from brainmets.preparation.stacks import FEWEST, Stack, images_of, stack_of

ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar")
OTHERS = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr", ".raw", ".zraw", ".json", ".bval", ".bvec", ".csv")
"""What lies beside volumes that are no DICOM (``volumes`` reads them)."""
SAY_EVERY_S = 1.0

Key = tuple[str, str]
Say = Callable[[str], None]


def find_series(folder: Path, progress: Say | None = None) -> tuple[list[Series], list[Finding]]:
    """Every series below ``folder`` by its headers, and what else there is to say of the folder.

    One patient (PatientID, else PatientName, else the first folder below ``folder``) on one date (StudyDate, else
    StudyInstanceUID) is one scan, whatever the number of its studies. A series that holds several images is taken
    apart: its UID, then "/2", "/3"; of a multi-frame file beside others "/2.1", "/2.2". ``progress`` is told how many
    files are read and how long the rest will take. Files without images are counted in a warning. An empty folder, or
    one without an image, gives no series and an error.
    """
    with quiet():
        paths, findings = tree.files(folder)
        paths = [path for path in paths if not path.name.lower().endswith(OTHERS)]
        slices, reasons = _headers(paths, progress)
        found = [*_series(slices, folder)]
    findings += _remarks(reasons)
    if not found:
        what = "holds no DICOM image" if paths else "is empty"
        findings.append(Finding("error", "", 0, f"the folder {what}: put the export of the scans there"))
    return found, findings


def read(series: Series) -> sitk.Image:
    """One series as a volume: float32 after slope and intercept, axes turned to LPS, position from the headers.

    Raises ``ScanError`` for a series that is no volume, whose files are gone or damaged, or that no converter reads as
    its headers promise (``converters``).
    """
    with quiet():
        stack = _again(series)
    if stack.geometry is None:
        raise ScanError(f"series {series.number}: {'; '.join(stack.problems)}")
    return sitk.DICOMOrient(converters.volume(stack.slices, stack.geometry, series.number), "LPS")


def _again(series: Series) -> Stack:
    """The stack of a series, from its files."""
    try:
        slices = [one for path in series.files for one in slices_of(path)]
    except (NoSliceError, OSError):
        raise ScanError(f"series {series.number}: a file of it can no longer be read; copy it again") from None
    images = images_of(slices)
    last = series.key.rpartition("/")[2].rpartition(".")[2] if "/" in series.key else "1"
    index = int(last) - 1 if len(images) > 1 and last.isdigit() else 0
    if index >= len(images):
        raise ScanError(f"series {series.number}: its files have changed since they were sorted; sort them again")
    return stack_of(images[index], converters.same_pixels)


# --- files -------------------------------------------------------------------------------------------------------


def _headers(paths: Sequence[Path], progress: Say | None) -> tuple[list[Slice], Counter[str]]:
    """The slices of all files, and how many files hold none, by reason."""
    slices: list[Slice] = []
    reasons: Counter[str] = Counter()
    started = said = time.monotonic()
    for done, path in enumerate(paths):
        if progress is not None and done and (now := time.monotonic()) - said > SAY_EVERY_S:
            said = now
            left = (now - started) / done * (len(paths) - done)
            progress(f"reading headers: {done:,} of {len(paths):,} files, about {left:.0f} s left")
        if path.name.lower().endswith(ARCHIVES):
            reasons["archive"] += 1
            continue
        try:
            slices += slices_of(path)
        except NoSliceError as error:
            reasons[str(error)] += 1
    return slices, reasons


REASONS = {
    "empty": "empty (0 bytes): copy them again",
    "unreadable": "damaged or no DICOM despite their names: copy them again",
    "denied": "not to be opened (no permission)",
    "archive": "archives, which are not opened: unpack them",
    "no DICOM": "no DICOM: left out",
}


def _remarks(reasons: Mapping[str, int]) -> list[Finding]:
    """One warning per reason."""
    found = [
        f"{tree.count(reasons[reason], 'file')}: {text}" for reason, text in REASONS.items() if reasons.get(reason)
    ]
    others = {reason.partition(":")[2]: n for reason, n in reasons.items() if reason.startswith("no image")}
    if others:
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(others.items()))
        found.append(f"{tree.count(sum(others.values()), 'file')}: no images ({kinds}): left out")
    return [Finding("warning", "", 0, text) for text in found]


# --- series ------------------------------------------------------------------------------------------------------


def _series(slices: Iterable[Slice], folder: Path) -> Iterator[Series]:
    """The series of all scans, in the order of patient, date and number."""
    scans: dict[Key, dict[str, list[Slice]]] = {}
    for one in slices:
        who = one.patient or _first_folder(one.path, folder)
        scans.setdefault((who, one.date), {}).setdefault(one.series_uid, []).append(one)
    elsewhere = _shared_uids(scans)
    for scan in sorted(scans):
        yield from _of_scan(scan, scans[scan], elsewhere)


def _first_folder(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""


def _shared_uids(scans: Mapping[Key, Mapping[str, object]]) -> dict[str, str]:
    """What to say of each UID that more than one scan uses."""
    users: dict[str, list[Key]] = {}
    for scan, by_uid in scans.items():
        for uid in by_uid:
            users.setdefault(uid, []).append(scan)
    return {
        uid: f"its series UID stands for another {'patient' if len({who for who, _ in keys}) > 1 else 'date'}, too"
        for uid, keys in users.items()
        if len(keys) > 1
    }


def _of_scan(scan: Key, by_uid: Mapping[str, list[Slice]], elsewhere: Mapping[str, str]) -> Iterator[Series]:
    stacks: dict[str, Stack] = {}
    names = {one.name for slices in by_uid.values() for one in slices if one.name}
    persons = (
        [f"{len(names)} different patient names stand under one PatientID in this scan"] if len(names) > 1 else []
    )
    for uid, slices in by_uid.items():
        unique, twice = _each_once(slices)
        images = _images(uid, unique)
        shared = [*persons, *twice, *filter(None, [elsewhere.get(uid), _mixed([*images.values()])])]
        for key, image in images.items():
            stack = stack_of(image, converters.same_pixels, whole=len(images) == 1)
            stacks[key] = replace(stack, problems=(*stack.problems, *shared))
    ordered = sorted(stacks, key=lambda key: (stacks[key].header.time or "~", key))
    numbers = {key: number for number, key in enumerate(ordered, start=1)}
    copies = _copies(ordered, stacks)
    for key, number in numbers.items():
        stack = stacks[key]
        again = [f"is the same image as series {numbers[copies[key]]}"] if key in copies else []
        yield Series(
            patient=scan[0],
            date=scan[1],
            key=key,
            number=number,
            files=tuple(dict.fromkeys(one.path for one in stack.slices)),
            kind="dicom",
            header=stack.header,
            problems=(*stack.problems, *again),
            usable=stack.usable,
        )


def _each_once(slices: Iterable[Slice]) -> tuple[list[Slice], list[str]]:
    """Without the copies of a file that lie elsewhere in the tree: a whole and uncompressed one is kept."""
    by_identifier: dict[tuple[str, int], dict[str, Slice]] = {}
    for one in sorted(slices, key=lambda one: (bool(one.fault), one.syntax, one.path)):
        by_identifier.setdefault((one.sop_uid, one.frame), {}).setdefault(one.content, one)
    clashes = sum(len(known) > 1 for known in by_identifier.values())
    verb = "stands" if clashes == 1 else "stand"
    problem = [f"{tree.count(clashes, 'SOPInstanceUID')} {verb} for several images"] if clashes else []
    return [one for known in by_identifier.values() for one in known.values()], problem


def _images(uid: str, slices: Sequence[Slice]) -> dict[str, list[Slice]]:
    """The images under one series UID by their keys. Those of a multi-frame file are counted by themselves."""
    single = [one for one in slices if one.frames == 1]
    by_file: dict[str, list[Slice]] = {}
    for one in slices:
        if one.frames > 1:
            by_file.setdefault(one.sop_uid, []).append(one)
    groups = [[image] for image in images_of(single)] + [images_of(by_file[file]) for file in sorted(by_file)]
    found = {}
    for number, images in enumerate(groups, start=1):
        for inner, image in enumerate(images, start=1):
            place = number if len(images) == 1 else inner if len(groups) == 1 else f"{number}.{inner}"
            found[uid if place == 1 else f"{uid}/{place}"] = image
    return found


def _mixed(images: Sequence[Sequence[Slice]]) -> str:
    """What to say of a series with stacks that do not lie on one grid."""
    firsts = [image[0] for image in images if image[0].directions and len(image) >= FEWEST]
    directions = {tuple(round(part, 1) for part in one.directions or ()) for one in firsts}
    sizes = {(one.header.rows, one.header.columns) for one in firsts}
    mixed = [
        f"{len(found)} {what}"
        for found, what in ((directions, "orientations"), (sizes, "matrix sizes"))
        if len(found) > 1
    ]
    return f"its series mixes {' and '.join(mixed)}: this is one part of it" if mixed else ""


def _copies(ordered: Sequence[str], stacks: Mapping[str, Stack]) -> dict[str, str]:
    """Each series that repeats an earlier one of the scan under another UID, and that one."""
    known: dict[str, str] = {}
    copies = {}
    for key in ordered:
        slices = stacks[key].slices
        middle = slices[len(slices) // 2]
        what = repr((stacks[key].header, slices[0].position, slices[-1].position))
        first = known.setdefault(what, key)
        if first != key:
            other = stacks[first].slices
            if len(other) == len(slices) and converters.same_pixels(middle, other[len(other) // 2]):
                copies[key] = first
    return copies
